"""What the server of the local engine imports."""

import importlib

from attn_lightning.commands.validation import shared_validator
from attn_lightning.study.engines.local import WARM


def test_the_parser_is_built_before_the_first_job_begins():
    for name in WARM:
        importlib.import_module(name)
    assert shared_validator.cache_info().currsize == 1
