"""Which explainers there are, by the names that `--explainers` takes."""

from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.explainers.controls import Inverted, Random, Rationale, Uniform
from attn_lightning.evaluation.explainers.gradients import Attention, Gradient, GradientInput, Hidden
from attn_lightning.evaluation.explainers.integrated import IntegratedGradients
from attn_lightning.evaluation.explainers.loo import LeaveOneOut
from attn_lightning.evaluation.explainers.perturbation import Lime, Shap
from attn_lightning.evaluation.explainers.transformer import Rollout, TransformerAttention


def explainers() -> dict[str, type[Explainer]]:
    """Every explainer class by its name, in the order in which tables show them."""
    classes: tuple[type[Explainer], ...] = (
        Attention,
        Gradient,
        GradientInput,
        Hidden,
        IntegratedGradients,
        LeaveOneOut,
        Lime,
        Shap,
        TransformerAttention,
        Rollout,
        Rationale,
        Random,
        Uniform,
        Inverted,
    )
    return {explainer.name: explainer for explainer in classes}
