"""Which changes of a formula do the tests of its own module notice? See `make mutate`.

Every mutant is judged by the test file that mirrors its module (`tests/unit/metrics/test_kendall.py`); those of methods
also by `tests/contract/test_formulas.py`, where their formulas are written down. Results are kept in `.mutation/`, so a
run that was stopped goes on where it was, and a module whose tests changed is judged anew.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from mutants import REPOSITORY, Mutant, apply, module_of, mutants_of

ROOMS = ("methods", "perturbation", "metrics", "numerics.py")
RESULTS = REPOSITORY / ".mutation" / "results.jsonl"
EQUAL = Path(__file__).with_name("equal_programs.tsv")
SURVIVED, KILLED, UNTRIED = "survived", "killed", "not tried"
FORMULAS = "tests/contract/test_formulas.py"
PERTURBED = "tests/unit/methods/test_perturbed.py"


def judges(path: str) -> list[str]:
    """The test files of a module."""
    inner = Path(path).relative_to("attn_lightning")
    files = [f"tests/unit/{inner.parent}/test_{inner.name}".replace("/./", "/")]
    if inner.parts[0] == "methods":
        # First, because they take a second and notice most.
        files.insert(0, PERTURBED if inner.stem in ("attention_perturbation", "word_perturbation") else FORMULAS)
    return [file for file in files if (REPOSITORY / file).exists()]


def modules(wanted: str) -> list[str]:
    """A module, or all modules of a room; everything for nothing."""
    found = []
    for name in [wanted] if wanted else [f"attn_lightning/{room}" for room in ROOMS]:
        path = REPOSITORY / name
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return [path.relative_to(REPOSITORY).as_posix() for path in found if not path.name.startswith("__")]


def in_a_fork(files: list[str], mutant: Mutant | None, limit: float) -> str:
    """What the tests say of a mutant, or of the package as it is."""
    child = os.fork()
    if child == 0:
        folder = tempfile.mkdtemp()
        try:
            os.setpgrp()
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            if mutant is not None:
                apply(mutant)
            options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow", f"--basetemp={folder}/t"]
            code = int(pytest.main([*options, *files]))
        except LookupError:
            code = 99
        except BaseException:
            code = 1
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(code)
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {0: SURVIVED, 99: UNTRIED}.get(code, KILLED)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return KILLED  # a test that never ends fails


def digest(files: list[str]) -> str:
    return hashlib.sha256(b"".join((REPOSITORY / file).read_bytes() for file in files)).hexdigest()[:16]


def judge(path: str, chosen: list[Mutant], known: dict[str, str], deadline: float) -> dict[str, str]:
    """What became of the mutants of a module, by their keys; those that there was no time for are left out."""
    files = judges(path)
    marks = {mutant.key: f"{mutant.key} {digest(files)}" for mutant in chosen}
    found = {key: known[mark] for key, mark in marks.items() if mark in known}
    rest = [mutant for mutant in chosen if mutant.key not in found]
    if not rest or time.monotonic() > deadline:
        return found
    start = time.monotonic()
    if files and in_a_fork(files, None, 600) != SURVIVED:
        raise SystemExit(f"Expected {' and '.join(files)} to pass before anything is changed, but they fail.")
    limit = 20 + 10 * (time.monotonic() - start)
    with RESULTS.open("a") as results:
        for mutant in rest:
            if time.monotonic() > deadline:
                break
            found[mutant.key] = in_a_fork(files, mutant, limit) if files else SURVIVED
            print(json.dumps([marks[mutant.key], found[mutant.key]]), file=results, flush=True)
    return found


def equal_programs() -> dict[tuple[str, str], str]:
    """Mutants that do the same as the original, with the reason."""
    rows = [line.split("\t") for line in EQUAL.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return {(path, after): reason for path, after, reason in rows}


def warm(paths: list[str]) -> None:
    """Import all that a test needs, so that a fork has it at once."""
    torch.set_num_threads(1)
    for path in paths:
        module_of(path)
    files = sorted({file for path in paths for file in judges(path)})
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *files])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", nargs="?", default="", help="a file or a folder of the package; all formulas without")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn at random, in the place of all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long; a next run goes on")
    options = parser.parse_args()
    os.chdir(REPOSITORY)
    deadline = time.monotonic() + 60 * options.minutes
    paths = modules(options.module)
    equal = equal_programs()
    makers = [make for path in paths for make in mutants_of(path)]
    if options.sample and options.sample < len(makers):
        makers = random.Random(options.seed).sample(makers, options.sample)
    every = [mutant for make in makers if (mutant := make()) is not None]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.touch()
    known = dict(json.loads(line) for line in RESULTS.read_text().splitlines())
    warm(paths)
    counts: dict[str, Counter[str]] = {}
    survivors = []
    for path in paths:
        chosen = [mutant for mutant in every if mutant.path == path]
        if not chosen:
            continue
        found = judge(path, chosen, known, deadline)
        room = counts.setdefault(Path(path).parts[1], Counter())
        for mutant in chosen:
            same = (mutant.path, mutant.after) in equal
            became = "equal" if same else found.get(mutant.key, "no time")
            room[became] += 1
            if became == SURVIVED:
                survivors.append(mutant)
        now = Counter(found.values())
        print(f"{path}: {now[KILLED]} of {len(found)} killed", flush=True)
    print_table(survivors, counts)


def print_table(survivors: list[Mutant], counts: dict[str, Counter[str]]) -> None:
    if survivors:
        print("\nSurvivors: line, before, after")
    for mutant in survivors:
        print(f"{mutant.path}:{mutant.line} {mutant.function}\n  - {mutant.before}\n  + {mutant.after}")
    print(f"\n{'room':16}{'killed':>8}{'survived':>10}{'equal':>7}{'not tried':>11}{'no time':>9}{'share killed':>14}")
    for room, count in counts.items():
        judged = count[KILLED] + count[SURVIVED]
        share = f"{100 * count[KILLED] / judged:.1f} %" if judged else "-"
        row = [count[name] for name in (KILLED, SURVIVED, "equal", UNTRIED, "no time")]
        print("{:16}{:>8}{:>10}{:>7}{:>11}{:>9}{:>14}".format(room, *row, share))


if __name__ == "__main__":
    sys.exit(main())
