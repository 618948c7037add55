"""The relation loss: attention that goes where the gradient says the prediction comes from."""

from collections.abc import Callable
from typing import ClassVar, Literal, TypeGuard, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.normalizers import Softmax, sparsemax
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.backbone.scorers import AdditiveScorer, ScaledDotScorer, Scorer
from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.methods.base import Differentiates, Method
from attn_lightning.numerics import (
    at_least_float32,
    entropy_nats,
    full_precision,
    kl_divergence,
    log_attention,
    masked_log_softmax,
)
from attn_lightning.step import TrainStep
from attn_lightning.types import AttentionOutput, LossTerm

Output = Literal["logit", "probability", "loss"]
GradientPath = Literal["full", "context"]
Target = Literal["joint", "attention"]
Sigma = Literal["softmax", "l1", "sparsemax"]


def measured_output(
    output: Output, task_loss: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    """The number `y` whose gradient is compared with attention.

    Args:
        output: `logit` z_y, `probability` softmax(z)_y or `loss` L(z, y).
        task_loss: `(logits, labels) -> (B,)`, used for `loss`.

    Returns:
        `(logits (B, C), labels (B,)) -> (B,)`.
    """
    if output == "loss":
        return task_loss
    if output == "probability":
        return lambda logits, labels: logits.softmax(-1).gather(1, labels.unsqueeze(1)).squeeze(1)
    return lambda logits, labels: logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def log_gradient_distribution(gradient: Tensor, mask: Tensor, sigma: Sigma, temperature: float) -> Tensor:
    """Logarithm of `sigma(g)`, the distribution over tokens that stands for a gradient.

    `softmax`: `exp(|g_t| / temperature) / sum_u exp(|g_u| / temperature)`; nearly uniform where all |g| are far below
    the temperature. `l1`: `|g_t|^(1 / temperature) / sum_u |g_u|^(1 / temperature)`, which for a temperature of 1 is
    the share `|g_t| / sum_u |g_u|` and does not depend on the scale of g. `sparsemax`: the distribution nearest to
    `|g| / temperature` in the Euclidean sense, with exact zeros where g is small beside its largest entry.

    Args:
        gradient: (B, T) any real numbers.
        mask: (B, T) bool, at least one True per row.
        sigma: which of the three.
        temperature: above 0; below 1 sharpens, above 1 flattens.

    Returns:
        (B, T) at most 0, zeros of sigma(g) as the smallest float; values at padding have no meaning. A row of zeros
        gives the uniform distribution.
    """
    # The sign says for or against the class; how much a token matters is its size.
    size = gradient.abs()
    if sigma == "softmax":
        return masked_log_softmax(size / temperature, mask)
    if sigma == "sparsemax":
        return log_attention(sparsemax(size / temperature, mask))
    # Shares do not change with the scale, so the largest entry may become 1: gradients of 1e-30 keep their digits.
    largest = size.detach().masked_fill(~mask, 0.0).amax(-1, keepdim=True)
    shares = size / torch.where(largest > 0, largest, torch.ones_like(largest))
    return masked_log_softmax(log_attention(shares) / temperature, mask)


def gradient_times_state(
    model: Backbone,
    output: AttentionOutput,
    measured: Callable[[Tensor], Tensor],
    path: GradientPath,
    create_graph: bool,
) -> Tensor:
    """`g_t = sum_j (dy / dh_{t,j}) h_{t,j}` of the head, by autograd; the encoder is not run and not differentiated.

    Args:
        model: the backbone; `attend` and, for `full`, `score` run once more.
        output: its clean pass.
        measured: `logits (B, C) -> y (B,)`.
        path: `full` also differentiates through the scores and the normalizer, `context` holds attention constant.
        create_graph: whether g itself is to be differentiated (by the states, the scores and all parameters above).

    Returns:
        (B, T), at least float32; 0 at padding.
    """
    # A node of its own, so that `context` can hold attention constant although attention comes from the same states.
    hidden, mask = at_least_float32(output.hidden).view_as(output.hidden), output.mask
    if not hidden.requires_grad:
        hidden.requires_grad_()  # states that nothing below has learned, such as segments themselves
    if path == "full":
        again = model.attend(hidden, model.score(hidden, mask), mask)
    else:
        again = model.attend(hidden, output.scores, mask, output.attention)
    (gradient,) = torch.autograd.grad(measured(again.logits).sum(), hidden, create_graph=create_graph)
    return (gradient * hidden).sum(-1).masked_fill(~mask, 0.0)


def attention_times_value(
    output: AttentionOutput, weight: Tensor, measured: Callable[[Tensor], Tensor], create_graph: bool
) -> Tensor:
    """The same for path `context` and a linear classifier, in closed form: `g_t = a_t (sum_c (dy/dz_c) w_c) . h_t`.

    For `y = z_y` this is `a_t (w_y . h_t)`. Nothing but the last step, `dy/dz`, is left to autograd.

    Args:
        output: the clean pass, with `logits = weight context + bias`.
        weight: (C, D) of the classifier.
        measured: `logits (B, C) -> y (B,)`.
        create_graph: whether g itself is to be differentiated.

    Returns:
        (B, T), at least float32; 0 at padding.
    """
    (by_logit,) = torch.autograd.grad(measured(output.logits).sum(), output.logits, create_graph=create_graph)
    value = torch.bmm(output.hidden, (by_logit @ weight).unsqueeze(-1)).squeeze(-1)
    return (output.attention * value).masked_fill(~output.mask, 0.0)


def attention_times_both(
    output: AttentionOutput, weight: Tensor, along: Tensor, measured: Callable[[Tensor], Tensor], create_graph: bool
) -> Tensor:
    """The same for path `full`, a linear classifier, softmax and a scorer that sees each token alone.

    `g_t = a_t (v_t + (v_t - sum_u a_u v_u) r_t)` with the value `v_t = (sum_c (dy/dz_c) w_c) . h_t`, as
    `dy/ds_t = a_t (v_t - sum_u a_u v_u)`; `r_t = ds_t/dh_t . h_t` is how a score grows with its state. Half the work of
    two derivatives of the scorer.

    Args:
        output: a pass of the head, with `attention = softmax(scores)` and `logits = weight context + bias`.
        weight: (C, D) of the classifier.
        along: (B, T) r, see `score_along_state`.
        measured: `logits (B, C) -> y (B,)`.
        create_graph: whether g itself is to be differentiated.

    Returns:
        (B, T), at least float32; 0 at padding.
    """
    direct = attention_times_value(output, weight, measured, create_graph)
    through_scores = direct - output.attention * direct.sum(1, keepdim=True)
    return (direct + through_scores * along).masked_fill(~output.mask, 0.0)


def score_along_state(scorer: Scorer, hidden: Tensor, mask: Tensor) -> Tensor | None:
    """`r_t = ds_t/dh_t . h_t`, the derivative of a score by the length of its state.

    Args:
        scorer: of the backbone.
        hidden: (B, T, D), at least float32.
        mask: (B, T) bool.

    Returns:
        (B, T), or None for a scorer without a known formula: `s_t` for scaled dot products, which are linear,
        `v^T ((1 - tanh(W h_t + b)^2) * W h_t)` for additive ones.
    """
    if type(scorer) is ScaledDotScorer:
        return cast(Tensor, scorer(hidden, mask))
    if type(scorer) is AdditiveScorer:
        projected = F.linear(hidden, scorer.projection.weight)
        slope = 1 - torch.tanh(projected + scorer.projection.bias).square()
        return cast(Tensor, scorer.vector(slope * projected)).squeeze(-1)
    return None


class Relation(Method):
    """The relation loss: the distribution of gradients teaches attention, or both teach each other.

    Objective:
        `L = L_task + weight * mean_i KL(sigma(g) || a)`, `g_t = sum_j (dy / dh_{t,j}) h_{t,j}`,
        `sigma(g) = softmax(|g| / temperature)` over the real tokens, or another `sigma`; `y` is the logit, the
        probability or the loss of the gold class.

    Source:
        Kitada and Iyatomi 2019, a poster with one formula and no code: the direction of the divergence (gradients
        first) is as printed, lambda = 0.1 is what its table fits.

    Own choices:
        What the poster leaves open is an option each: `output`, `path`, `target`, `sigma`. `y` belongs to the gold
        class, not to the predicted one. The defaults are the formula read literally: gradient of the logit, through
        everything, with nothing held constant. `temperature` is an extension: `|g|` is often far below 1, where
        `softmax(|g|)` is almost uniform and the term flattens attention; watch `entropy_gradient` beside
        `entropy_attention` in the logs (both in nats, log n is uniform) and lower the temperature, or take
        `sigma: l1`, the share of each token in the sum of |g|, which no scale of g can flatten. A linear classifier has
        a closed form of g for `context`, and for `full` where softmax follows an additive or scaled dot scorer; it is
        used there, autograd
        elsewhere. Zeros of sparse attention are taken as the smallest float, so that the term stays finite.

    Cost:
        0 more passes of the encoder. In closed form one product with the states for `context`, and 1 more pass of
        scorer and head for `full`; otherwise 1 more pass of them and a second derivative.

    Interactions:
        The encoder learns from the term like from the task (unless `target: attention`, where sigma(g) is a constant),
        but the derivative dy/dh ends at the states. Needs a normalizer that can be differentiated twice for `full` with
        `joint`, once for `target: attention`, not at all otherwise. Compares with the attention of the step, so where
        another method replaces that by constants only sigma(g) can move; `full` goes through the model's own attention
        in any case. Unlabelled examples are ignored. Draws no random numbers.

    Args:
        weight: lambda, factor of the divergence, 0 or more.
        output: what is differentiated: logit, probability or loss (as the task has it) of the gold class.
        path: full, through the attention too; or context, with attention held constant.
        target: joint, both distributions move; or attention, sigma(g) is a constant target of attention.
        temperature: of sigma, above 0; below 1 it sharpens the distribution of gradients.
        sigma: what makes a distribution of |g|: softmax, as printed; l1, shares of the sum; or sparsemax.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.SCORES_TWICE

    def __init__(
        self,
        weight: float = 0.1,
        output: Output = "logit",
        path: GradientPath = "full",
        target: Target = "joint",
        temperature: float = 1.0,
        sigma: Sigma = "softmax",
    ) -> None:
        super().__init__(weight)
        check_choice(self, choices=get_args(Output), output=output)
        check_choice(self, choices=get_args(GradientPath), path=path)
        check_choice(self, choices=get_args(Target), target=target)
        check_choice(self, choices=get_args(Sigma), sigma=sigma)
        check_numbers(self, above=0, advice="1 is the plain sigma", temperature=temperature)
        self.output: Output = output
        self.path: GradientPath = path
        self.target: Target = target
        self.temperature = temperature
        self.sigma: Sigma = sigma
        # The class states its most demanding form, which is its default; an instance may need less.
        self.differentiates = _needs(path, target)  # type: ignore[misc]

    def loss(self, step: TrainStep) -> LossTerm:
        """Divergence of attention from the distribution of the gradients, mean over the labelled examples."""
        output = step.output
        with full_precision(output.scores.device.type):
            log_p = log_gradient_distribution(self._gradient(step), output.mask, self.sigma, self.temperature)
            log_q = log_attention(at_least_float32(output.attention))
            value = kl_divergence(log_p=log_p, log_q=log_q, mask=output.mask).mean()
        logs = {
            "entropy_gradient": entropy_nats(log_p.detach(), output.mask).mean(),
            "entropy_attention": entropy_nats(log_q.detach(), output.mask).mean(),
        }
        return LossTerm("relation", value, self.weight, logs)

    def _gradient(self, step: TrainStep) -> Tensor:
        """(B, T) g, with a graph unless it is a constant target."""
        joint, model = self.target == "joint", step.model
        of_class = measured_output(self.output, step.task_loss)

        def measured(logits: Tensor) -> Tensor:
            return of_class(logits, step.batch.labels)

        gradient = self._closed_form(model, step.output, measured) if _has_linear_head(model) else None
        if gradient is None:
            gradient = gradient_times_state(model, step.output, measured, self.path, joint)
        return gradient if joint else gradient.detach()

    def _closed_form(
        self, model: AttentionClassifier, output: AttentionOutput, measured: Callable[[Tensor], Tensor]
    ) -> Tensor | None:
        joint, weight = self.target == "joint", cast(nn.Linear, model.classifier).weight
        if self.path == "context":
            return attention_times_value(output, weight, measured, joint)
        along = None
        if type(model.normalizer) is Softmax:
            along = score_along_state(model.scorer, output.hidden, output.mask)
        if along is None:
            return None
        again = model.attend(output.hidden, output.scores, output.mask)
        return attention_times_both(again, weight, along, measured, joint)


def _has_linear_head(model: Backbone) -> TypeGuard[AttentionClassifier]:
    """Whether `logits = W sum_t a_t h_t + b`; a subclass with an `attend` or a classifier of its own may differ."""
    own = isinstance(model, AttentionClassifier) and type(model).attend is AttentionClassifier.attend
    return own and cast(AttentionClassifier, model).has_linear_head


def _needs(path: GradientPath, target: Target) -> Differentiates:
    if target == "attention":
        return Differentiates.SCORES
    return Differentiates.SCORES_TWICE if path == "full" else Differentiates.NOTHING
