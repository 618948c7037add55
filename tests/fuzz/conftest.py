"""Seeded fuzzing: a few inputs in every run of the tests, as many as fit into FUZZ_MINUTES with `make fuzz`.

A target gets a random generator, makes an input of it and gives that to the package. It may work or be refused with an
`AttnLightningError`; any other exception is a fault, and the seed in the message makes the same input again.
"""

import itertools
import os
import random
import time
from collections import Counter

import pytest

from attn_lightning.errors import AttnLightningError


@pytest.fixture
def fuzz(capsys):
    """Calls a target with one seed after the other; `count` of them, or until the time is over."""

    def run(target, count):
        minutes = float(os.environ.get("FUZZ_MINUTES") or 0)
        first = int(os.environ.get("FUZZ_SEED") or 0)
        deadline, seen = time.monotonic() + 60 * minutes, Counter()
        for seed in itertools.count(first):
            if time.monotonic() >= deadline if minutes else seed == first + count:
                break
            try:
                target(random.Random(seed))
                seen["worked"] += 1
            except AttnLightningError as error:
                one_line = str(error).startswith("Expected") and "\n" not in str(error)
                seen["refused" if one_line else f"seed {seed}: {error}"] += 1
            except Exception as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert set(seen) <= {"worked", "refused"}, "messages say what was expected, in one line"
        assert seen["worked"], "no input worked, so nothing behind the first check was reached"
        assert seen["refused"], "no input was refused, so the inputs are too tame"
        with capsys.disabled():
            if minutes:
                print(f"\n{target.__name__}: {seen.total():,} inputs, {seen['worked']:,} read, no foreign exception")

    return run
