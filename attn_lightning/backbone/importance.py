"""Importance of tokens by gradients: what attention is compared with."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from attn_lightning.backbone.freezing import constant
from attn_lightning.backbone.kernels import recurrent_kernels
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checks import check_choice
from attn_lightning.numerics import at_least_float32, full_precision
from attn_lightning.types import AttentionOutput, Batch

Importance = Literal["gradient", "gradient_full", "hidden"]
"""`gradient` holds attention constant, `gradient_full` does not; both are taken at embeddings, `hidden` at states."""

_CACHED_TOKENS, _FEWEST_ROWS = 2**12, 8
"""Tokens of a pass beyond which a CPU gets slower per token, for its caches are full, and rows of a pass below which
the steps along the texts are too small to be fast (measured on a BiLSTM, forward and backward)."""


def small_passes(batch: Batch) -> Iterator[Batch]:
    """The rows of a batch in as many parts as a CPU reads them fastest; elsewhere the batch itself.

    What is measured of one row does not depend on the others. A pass with gradients keeps 27 KB a token, so that the
    large batches of an evaluation would otherwise need more memory than training does.

    Args:
        batch: of any size.

    Yields:
        Consecutive rows, as wide as the batch.
    """
    rows, width = batch.mask.shape
    size = max(_FEWEST_ROWS, _CACHED_TOKENS // width) if batch.mask.device.type == "cpu" else rows
    for start in range(0, rows, size):
        part = slice(start, start + size)
        yield Batch(*(None if value is None else value[part] for value in batch))  # type: ignore[arg-type]


def importances(
    model: Backbone, batch: Batch, kinds: Collection[Importance] = ("gradient", "hidden")
) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """The model's output and the importance of every token for the predicted class, in as few passes as possible.

        gradient_t = | sum_d e_{t,d} dp_y/de_{t,d} |        hidden_t = | sum_d h_{t,d} dp_y/dh_{t,d} |

    p_y is the probability of the class that the clean pass predicts. For `gradient` attention is a constant (Jain and
    Wallace 2019, https://aclanthology.org/N19-1357, algorithm 1), for `gradient_full` and `hidden` it moves too.

    Works in eval mode whatever mode the model is in, inside `torch.no_grad` and `torch.inference_mode` as well
    (Lightning's validation and test), and leaves modes and every `.grad` as they were.

    Args:
        model: any backbone.
        batch: only `tokens` and `mask` are read.
        kinds: which importances to compute.

    Returns:
        The detached output of `model(batch.tokens, batch.mask)` in eval mode, and per kind (B, T) numbers of at least
        0, detached, exactly 0 at padding.

    Raises:
        ConfigurationError: an unknown kind.

    Cost: one pass through the encoder, and one backward pass through it for each kind of `gradient`; `hidden` alone
    runs only the head backward. No gradient of a parameter is computed.
    """
    for kind in kinds:
        check_choice(choices=get_args(Importance), kind=kind)
    with differentiable(model):
        tokens, mask = batch.tokens.clone(), batch.mask.clone()  # autograd refuses to save inference tensors
        # A leaf: the gradient ends at the embeddings and never reaches the table.
        embeddings = model.embed(tokens).detach().requires_grad_()
        with recurrent_kernels(model, embeddings):
            hidden = at_least_float32(model.encode(embeddings, mask))
            output, gradients = _head_gradients(model, hidden, mask, {_holds_attention(kind) for kind in kinds})
            results: dict[str, Tensor] = {}
            for kind in kinds:
                # The chain rule by hand: the gradient at the states serves as the vector that goes through the encoder.
                gradient, at = gradients[_holds_attention(kind)], hidden
                if kind != "hidden":
                    (gradient,), at = torch.autograd.grad(hidden, embeddings, gradient, retain_graph=True), embeddings
                results[kind] = _product(at, gradient, mask)
    return _detached(replace(output, embeddings=embeddings)), results


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Run the block in eval mode and with autograd on, also inside `torch.no_grad` and `torch.inference_mode`.

    Parameters are constants in the block, so that no gradient of theirs is computed on the way to what is asked for.
    Tensors made in inference mode must still be cloned before they enter a graph. Modes and flags are restored.

    Args:
        model: what the block differentiates.
    """
    # Module by module, as a part may be in eval mode by itself (a frozen encoder) while the rest trains.
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        # Both are needed: leaving inference mode does not turn gradients on inside `no_grad`.
        with constant(model.parameters()), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def confidence(logits: Tensor) -> Tensor:
    """(B,) probability of the predicted class, `1 / (1 + sum_{c != y} exp(z_c - z_y))`.

    Equal to the softmax, but its gradient does not vanish where the model is sure: that of a float32 softmax is
    exactly 0 from a margin of 17 on.

    Args:
        logits: (B, C).
    """
    # Differences to the highest logit are at most 0, so the exponential cannot overflow.
    top, predicted = logits.max(-1, keepdim=True)
    others = torch.ones_like(logits, dtype=torch.bool).scatter(-1, predicted, False)
    return 1 / (1 + (logits - top).exp().masked_fill(~others, 0.0).sum(-1))


def _head_gradients(
    model: Backbone, hidden: Tensor, mask: Tensor, holds: Collection[bool]
) -> tuple[AttentionOutput, dict[bool, Tensor]]:
    """The output, and (B, T, D) `dp_y/dh` by whether attention is held; nothing goes through the encoder."""
    states = hidden.detach().requires_grad_()
    gradients = {}
    # Outside autocast as in `Backbone.forward`: attention in bfloat16 would tie where it is ranked.
    with full_precision(states.device.type):
        output = model.attend(states, model.score(states, mask), mask)
        for hold in holds:
            # Scores are constants as well: a bottleneck compresses the states by them.
            attended = model.attend(states, output.scores.detach(), mask, output.attention.detach()) if hold else output
            (gradients[hold],) = torch.autograd.grad(confidence(attended.logits).sum(), states, retain_graph=True)
    return output, gradients


def _product(values: Tensor, gradient: Tensor, mask: Tensor) -> Tensor:
    """(B, T) `| sum_d values * gradient |`, 0 at padding."""
    products = (values.detach().float() * gradient.float()).sum(-1)
    return products.abs().masked_fill(~mask, 0.0)


def _detached(output: AttentionOutput) -> AttentionOutput:
    tensors = {name: value.detach() for name, value in vars(output).items() if isinstance(value, Tensor)}
    aux = {name: value.detach() if isinstance(value, Tensor) else value for name, value in output.aux.items()}
    return replace(output, **tensors, aux=aux)


def _holds_attention(kind: Importance) -> bool:
    return kind == "gradient"
