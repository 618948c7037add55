"""What torchmetrics imports under the command line, and that it works as ever for what needs the rest."""

import subprocess
import sys
from typing import Any

import pytest

LEAN = """
import sys
from attn_lightning.startup import lean_torchmetrics
lean_torchmetrics()
lean_torchmetrics()
import torchmetrics
assert not {"matplotlib", "transformers", "scipy.stats", "PIL"} & set(sys.modules), sorted(sys.modules)
from torchmetrics.utilities.imports import _MATPLOTLIB_AVAILABLE
import matplotlib
matplotlib.use("Agg")
metric = torchmetrics.MeanMetric()
metric.update(0.5)
figure, axes = metric.plot()
assert _MATPLOTLIB_AVAILABLE and isinstance(axes, matplotlib.axes.Axes), axes
assert [line.get_ydata().item() for line in axes.lines] == [0.5]
from torchmetrics.functional.audio import permutation_invariant_training, scale_invariant_signal_distortion_ratio
import torch
sounds = torch.arange(8.0).view(1, 4, 2)
found = permutation_invariant_training(sounds, sounds.flip(1), scale_invariant_signal_distortion_ratio)
assert found[1].tolist() == [[3, 2, 1, 0]], found
assert torchmetrics.__spec__.loader is torchmetrics.__loader__ and not sys.meta_path[0].__module__.startswith("attn")
"""


@pytest.mark.slow
def test_torchmetrics_imports_no_package_that_it_may_not_need_and_plots_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_changes_where_torchmetrics_is_imported_already() -> None:
    import torchmetrics

    from attn_lightning.startup import lean_torchmetrics

    before: list[Any] = list(sys.meta_path)
    lean_torchmetrics()
    assert sys.meta_path == before
    assert sys.modules["torchmetrics"] is torchmetrics
