"""Where a run ran: versions and commit."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from attn_lightning.data.embeddings.trained import FASTTEXT_PACKAGE

_PACKAGES = ("torch", "lightning", "torchmetrics", "datasets", "tokenizers", FASTTEXT_PACKAGE, "numpy", "scipy")


def environment() -> dict[str, Any]:
    """Versions of the packages that shape a result, of Python, the commit of the checkout (null outside one), and what
    decides the last digits of sums: threads, family of kernels, kind of machine, build of torch.
    """
    versions = {package: metadata.version(package) for package in _PACKAGES}
    versions["attn-lightning"] = metadata.version("attn-lightning")
    arithmetic = {
        "threads": torch.get_num_threads(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "torch": str(torch.__version__),
    }
    return {
        "python": platform.python_version(),
        "packages": versions,
        "commit": _commit(),
        "arithmetic": arithmetic,
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
