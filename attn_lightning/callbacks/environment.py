"""Where a run ran: versions and commit."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from attn_lightning.data.embeddings.trained import FASTTEXT_PACKAGE

_PACKAGES = ("torch", "lightning", "torchmetrics", "datasets", "tokenizers", FASTTEXT_PACKAGE, "numpy", "scipy")


def environment() -> dict[str, Any]:
    """Versions of the packages that shape a result, of Python, and the commit of the checkout (null outside one)."""
    versions = {package: metadata.version(package) for package in _PACKAGES}
    versions["attn-lightning"] = metadata.version("attn-lightning")
    return {"python": platform.python_version(), "packages": versions, "commit": _commit()}


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
