"""Bars of `datasets` are drawn on terminals alone."""

import io
import os
import sys

import pytest

from attn_lightning.commands.bars import no_bars_in_logs

NAME = "HF_DATASETS_DISABLE_PROGRESS_BARS"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "switched"), [(io.StringIO(), "1"), (Terminal(), None)])
def test_bars_are_switched_off_where_nobody_watches(monkeypatch, stream, switched):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(os, "environ", {})
    no_bars_in_logs()
    assert os.environ.get(NAME) == switched
