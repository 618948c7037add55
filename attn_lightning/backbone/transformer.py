"""A small transformer from scratch, and the way from the attention of its layers to one number per word."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attn_lightning.backbone.encoders import Encoder
from attn_lightning.backbone.kernels import plain_attention_pays
from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError


class Transformer(Encoder):
    """Transformer encoder of torch's own layers, trained from scratch: no weights are loaded.

        x_t = W e_t + p_t,   x <- x + MultiHead(norm(x)),   x <- x + FeedForward(norm(x)),   h = norm(x)

    `p_t` are the sines and cosines of Vaswani et al., so a text may have any length. Layers normalize first, which
    trains without a warm-up. Cost: the square of the length, per layer.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; normalization first as Xiong et al. 2020,
    https://arxiv.org/abs/2002.04745.

    Args:
        input_size: E, size of an embedding; the backbone gives it.
        hidden_size: D, a multiple of `num_heads`.
        num_layers: layers on top of each other, at least 1.
        num_heads: attention heads of a layer.
        feedforward_size: width of the feed-forward part; null takes twice D.
        dropout: share of entries dropped inside the layers while training, in [0, 1). A method that runs the encoder
            again sees other draws, so the default drops nothing.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        feedforward_size: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_size)
        width = 2 * hidden_size if feedforward_size is None else feedforward_size
        check_numbers(self, at_least=1, hidden_size=hidden_size, num_layers=num_layers, num_heads=num_heads)
        check_numbers(self, at_least=1, feedforward_size=width)
        check_numbers(self, at_least=0, below=1, dropout=dropout, advice="0 drops nothing")
        # An odd size would have a sine without its cosine.
        if hidden_size % num_heads or hidden_size % 2:
            raise ConfigurationError(
                "Expected `hidden_size` of Transformer to be even and a multiple of `num_heads`, but got "
                f"{hidden_size} and {num_heads}; use for example 128 and 4."
            )
        self.output_size = hidden_size
        self.draws_nothing = dropout == 0
        self.projection = nn.Linear(input_size, hidden_size)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(hidden_size, num_heads, width, dropout, batch_first=True, norm_first=True)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        states = self._inputs(embeddings, mask)
        with self._kernels(states):
            for layer in self.layers:
                states = layer(states, src_key_padding_mask=~mask)
        hidden: Tensor = self.norm(states)
        return hidden.masked_fill(~mask.unsqueeze(-1), 0.0)

    def token_attention(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.token_attention`."""
        # Layer by layer a second time: the fused kernels of the usual pass do not give their weights away.
        states, found = self._inputs(embeddings, mask), []
        for layer in self.layers:
            assert isinstance(layer, nn.TransformerEncoderLayer)
            normed = layer.norm1(states)
            weights = layer.self_attn(normed, normed, normed, key_padding_mask=~mask, need_weights=True)[1]
            found.append(weights.masked_fill(~mask.unsqueeze(-1), 0.0))
            states = layer(states, src_key_padding_mask=~mask)
        return torch.stack(found)

    def _inputs(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        # Whatever stands at padding would be normalized with the rest, and NaN there would spread.
        inputs: Tensor = self.projection(embeddings.masked_fill(~mask.unsqueeze(-1), 0.0))
        return inputs + positions(mask.shape[1], self.output_size).to(inputs)

    def _kernels(self, states: Tensor) -> AbstractContextManager[None]:
        """The fused kernels have no second derivative, and are not always the faster ones."""
        plain = self.double_backward or plain_attention_pays(states)
        return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


def positions(length: int, size: int) -> Tensor:
    """`p_{t,2i} = sin(t / 10000^(2i / D))`, `p_{t,2i+1} = cos(t / 10000^(2i / D))`.

    Args:
        length: T.
        size: D, even.

    Returns:
        (T, D) float32 in [-1, 1].
    """
    rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def last_layer_mean(attention: Tensor, mask: Tensor) -> Tensor:
    """How much attention every word gets in the last layer, `a_k = 1/n sum_q A_{q,k}` over the n real words.

    Args:
        attention: (L, B, T, T) attention of every layer, heads averaged; row q says where word q looks. It may hold
            more words, those of a second text; they are looked through, and get no number.
        mask: (B, T) bool, the words that get one.

    Returns:
        (B, T) at least 0; rows sum to 1, exactly 0 at padding.
    """
    return _received(attention[-1], mask)


def rollout(attention: Tensor, mask: Tensor) -> Tensor:
    """Attention that is followed through all layers to the input words: `R = prod_l (A_l + I) / 2`, then its mean.

    The identity stands for the residual connection. Source: Abnar and Zuidema 2020, https://aclanthology.org/2020.acl-
    main.385, eq. 1, read off at all words instead of one classification token, for our head pools all of them.

    Args:
        attention: (L, B, T, T), see `last_layer_mean`.
        mask: (B, T) bool.

    Returns:
        (B, T) at least 0; rows sum to 1, exactly 0 at padding.
    """
    # Row-stochastic times row-stochastic: every product still says where each word's input comes from.
    identity = torch.eye(mask.shape[1], dtype=attention.dtype, device=attention.device)
    flow = identity.expand_as(attention[0])
    for layer in attention:
        flow = (layer + identity) / 2 @ flow
    return _received(flow, mask)


def _received(attention: Tensor, mask: Tensor) -> Tensor:
    real = mask.to(attention.dtype)
    received = (attention * real.unsqueeze(-1)).sum(1) * real
    return received / received.sum(1, keepdim=True)
