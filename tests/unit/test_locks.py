"""A lock excludes others, says whose it is, and is given back."""

import os

import pytest

from attn_lightning.locks import Claim, owner


def test_a_claim_is_exclusive_says_whose_it_is_and_can_be_taken_again(tmp_path):
    path = tmp_path / "claims" / "a.lock"
    claim = Claim(path)
    with pytest.raises(BlockingIOError):
        Claim(path)
    assert f"process {os.getpid()} on " in owner(path)
    claim.release()
    Claim(path).release()


@pytest.mark.parametrize("contents", [None, "", "{}", "not json"])
def test_an_owner_that_left_no_word_is_another_process(tmp_path, contents):
    path = tmp_path / "a.lock"
    if contents is not None:
        path.write_text(contents)
    assert owner(path) == "another process"
