"""A method's file is all that its registration takes."""

import os
import subprocess
import sys
from pathlib import Path

SOURCE = """
from attn_lightning.methods.base import Method

class Mine(Method):
    def task_loss(self, step):
        return None

class _Base(Method):
    pass
"""

TRIAL = """
import sys
import importlib.machinery as machinery
# The folder of the package, with one more file in it.
find = machinery.PathFinder.find_spec
def with_one_more(name, path=None, target=None):
    spec = find(name, path, target)
    if name == "attn_lightning.methods":
        spec.submodule_search_locations.append(sys.argv[1])
    return spec
machinery.PathFinder.find_spec = with_one_more
import attn_lightning.methods
from attn_lightning.methods import Mine
from attn_lightning.methods.base import Method
assert Mine in Method.__subclasses__()
assert "Mine" in attn_lightning.methods.__all__
assert not hasattr(attn_lightning.methods, "_Base")
assert len(set(attn_lightning.methods.__all__)) == len(attn_lightning.methods.__all__)
"""


def test_a_new_file_in_the_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SOURCE)
    result = subprocess.run(
        [sys.executable, "-c", TRIAL, str(tmp_path)], capture_output=True, text=True, timeout=300, env=dict(os.environ)
    )
    assert result.returncode == 0, result.stderr
