"""Which explainers there are, by the names that `--explainers` takes."""

from functools import cache

from attn_lightning.discovery import public_classes
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.explainers import controls


@cache
def explainers() -> dict[str, type[Explainer]]:
    """Every explainer class of this folder by its name, in the order in which tables show them.

    A new one is a class in a module here, and its test: nothing lists it.
    """
    found = public_classes(controls.__name__.rpartition(".")[0], Explainer).values()
    # What explanations are compared with stands below them: the controls, and the rationale that is their goal.
    ordered = sorted(found, key=lambda explainer: explainer.__module__ == controls.__name__)
    return {explainer.name: explainer for explainer in ordered}
