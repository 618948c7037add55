"""Files of checkpoints: whole or not there, and refused when anything in them has changed."""

import errno
import random
import subprocess
import sys

import pytest
import torch

from attn_lightning.checkpoint import add_checkpoint_contents, read_checkpoint, write_checkpoint
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import DataSpec


@pytest.fixture
def contents() -> dict:
    checkpoint = {"state_dict": {"weight": torch.arange(600.0)}, "epoch": 3}
    add_checkpoint_contents(checkpoint, DataSpec(3, 11, 4, ("a", "b", "c")), None, None)
    return checkpoint


@pytest.mark.parametrize("mmap", [True, False])
def test_what_is_written_is_read(tmp_path, contents, mmap):
    write_checkpoint(contents, tmp_path / "a.ckpt")
    read = read_checkpoint(tmp_path / "a.ckpt", mmap)
    assert torch.equal(read["state_dict"]["weight"], torch.arange(600.0))
    assert read["attn_lightning"]["label_names"] == ["a", "b", "c"]
    assert read["epoch"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_every_other_program_still_reads_it(tmp_path, contents):
    write_checkpoint(contents, tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["epoch"] == 3


def test_the_same_contents_are_the_same_file(tmp_path, contents):
    for name in ("a.ckpt", "b.ckpt"):
        write_checkpoint(contents, tmp_path / name)
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path, contents):
    write_checkpoint(contents, tmp_path / "a.ckpt")
    whole, path = (tmp_path / "a.ckpt").read_bytes(), tmp_path / "flipped.ckpt"
    random.seed(0)
    last = len(whole) - 1
    for place in [*random.sample(range(len(whole)), 200), 0, last, *range(last - 120, last - 60)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ConfigurationError, match=r"flipped\.ckpt"):
            read_checkpoint(path)


def test_a_checksum_that_was_cut_off_is_missed(tmp_path, contents):
    """Older checkpoints have none, so a new one says that it has one."""
    write_checkpoint(contents, tmp_path / "a.ckpt")
    torch.save(torch.load(tmp_path / "a.ckpt", weights_only=True), tmp_path / "b.ckpt")
    with pytest.raises(ConfigurationError, match="checksum differs"):
        read_checkpoint(tmp_path / "b.ckpt")


def test_an_older_checkpoint_without_a_checksum_is_read(tmp_path, contents):
    torch.save(contents, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt")["epoch"] == 3


def test_a_full_disk_leaves_the_previous_file_and_says_what_happened(tmp_path, contents):
    """The limit of a process on the size of its files stands for the disk: the system refuses the same call."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(contents, path)
    before = path.read_bytes()
    program = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from attn_lightning.checkpoint import write_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n    write_checkpoint({'a': torch.arange(100_000)}, Path(sys.argv[1]))\n"
        "except OSError as error:\n    sys.exit(f'{error.errno} {error.filename}')"
    )
    result = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=120)
    assert result.stderr.strip().endswith(f"{errno.EFBIG} {path}")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_code_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"x": Payload()}, tmp_path / "a.ckpt")
    with pytest.raises(ConfigurationError, match="damaged or of another program"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:100], lambda data: b"text" * 50])
def test_damaged_files(tmp_path, contents, spoil):
    path = tmp_path / "a.ckpt"
    torch.save(contents, path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ConfigurationError, match=r"a\.ckpt"):
        read_checkpoint(path)


def test_bytes_changed_in_the_middle(tmp_path, contents):
    path = tmp_path / "a.ckpt"
    torch.save(contents, path)
    data = bytearray(path.read_bytes())
    place = data.index(b"state_dict") - 20
    data[place : place + 60] = b"\xff" * 60
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match="readable checkpoint"):
        read_checkpoint(path)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_checkpoint(tmp_path / "none.ckpt")
