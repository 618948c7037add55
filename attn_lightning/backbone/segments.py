"""Parts of the backbone for segments that are not words, such as points or images.

A focus network gives every segment one score. It is cut at the aggregation layer: what lies below is the encoder, of
whose states attention averages the tanh, what lies above is the scorer. Each segment is seen alone.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from attn_lightning.backbone.encoders import Encoder
from attn_lightning.backbone.scorers import Scorer
from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32, full_precision


class FocusEncoder(Encoder):
    """The layers of a focus network up to its aggregation layer, without that layer's activation.

    The states are what the layer computes, `z_t`; the scorer goes on from them with `relu(z_t)`, and attention averages
    `tanh(z_t)`. At layer 0 states and values are the segment itself.

    Args:
        input_shape: shape of a segment.
        output_shape: shape of what the layers make of it.
        layers: none for layer 0.
    """

    def __init__(
        self, input_shape: tuple[int, ...], output_shape: tuple[int, ...], layers: Sequence[nn.Module]
    ) -> None:
        super().__init__(math.prod(input_shape))
        self.layers = nn.Sequential(*layers)
        self.output_size = math.prod(output_shape)
        self._input_shape, self._output_shape = input_shape, output_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """See `Encoder.output_shape`."""
        return self._output_shape

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        states = _each_segment(self.layers, embeddings, self._input_shape) if len(self.layers) else embeddings
        return states.masked_fill(~mask.unsqueeze(-1), 0.0)

    def values(self, hidden: Tensor) -> Tensor:
        """See `Encoder.values`."""
        # As in the published network: cut above its first layer, it averages bounded values.
        return torch.tanh(hidden) if len(self.layers) else hidden


class FocusScorer(Scorer):
    """The layers of a focus network above its aggregation layer, down to one number per segment.

    Args:
        input_shape: shape of a state.
        layers: from the activation of the aggregation layer to the last linear layer.
    """

    def __init__(self, input_shape: tuple[int, ...], layers: Sequence[nn.Module]) -> None:
        super().__init__(math.prod(input_shape))
        self.layers = nn.Sequential(*layers)
        self._input_shape = input_shape

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """See `Scorer.forward`."""
        with full_precision(hidden.device.type):
            return _each_segment(self.layers, at_least_float32(hidden), self._input_shape).squeeze(-1)


class FocusNetwork:
    """Base of every focus network.

    Args:
        segment_shape: shape of a segment; the backbone gives it.

    Attributes:
        encoder: the layers up to the aggregation layer.
        scorer: the layers above it.
    """

    encoder: FocusEncoder
    scorer: FocusScorer

    def __init__(self, segment_shape: tuple[int, ...]) -> None:
        self.segment_shape = segment_shape


class FullyConnectedFocus(FocusNetwork):
    """Linear layers with ReLU, the last of them with one output.

    The values that attention averages are the segment itself at layer 0, and `tanh` of layer l before its ReLU
    otherwise. Weights start from Xavier's normal distribution, biases at 0.

    Source: the focus networks of Pandey et al. 2022, https://arxiv.org/abs/2212.14776, and their released code: 50-50
    for two-dimensional and 6-12 for five-dimensional points, without biases.

    Args:
        segment_shape: shape of a segment, which is flattened; the backbone gives it.
        widths: outputs of the hidden layers; none for a linear focus network.
        layer: aggregation layer l, 0 to the number of hidden layers.
        bias: whether the layers have biases.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def __init__(
        self, segment_shape: tuple[int, ...], widths: tuple[int, ...] = (50, 50), layer: int = 0, bias: bool = False
    ) -> None:
        super().__init__(segment_shape)
        _check_sizes("widths", widths)
        check_numbers(self, at_least=0, at_most=len(widths), layer=layer)
        sizes = [math.prod(segment_shape), *widths]
        hidden = [_initialized(nn.Linear(before, after, bias)) for before, after in pairwise(sizes)]
        lower, upper = _cut(hidden, [[nn.ReLU()] for _ in hidden], layer)
        self.encoder = FocusEncoder((sizes[0],), (sizes[layer],) if layer else segment_shape, lower)
        self.scorer = FocusScorer((sizes[layer],), [*upper, _initialized(nn.Linear(sizes[-1], 1, bias))])


class ConvolutionalFocus(FocusNetwork):
    """Six 3 x 3 convolutions with ReLU, two by two between max pools, then linear layers down to one number.

    The first, third and fifth convolution are normalized before their ReLU; the sixth alone is padded. At 32 x 32
    pixels the linear layers get one pixel. The values that attention averages are the image itself at layer 0, and
    `tanh` of convolution l before its ReLU otherwise. Nothing has a bias but the normalization.

    Source: the focus network of Pandey et al. 2022, https://arxiv.org/abs/2212.14776. Own choices: normalization
    within each image where theirs takes the statistics of the batch, also in testing, so that attention would depend on
    the other images of the batch; no dropout, so that scores are the same when they are computed again.

    Args:
        segment_shape: (channels, height, width) of an image; the backbone gives it.
        channels: of the six convolutions.
        widths: outputs of the linear layers before the last one.
        layer: aggregation layer l, 0 to 6.

    Raises:
        ConfigurationError: segments are no images or too small ones, or an argument is out of its range.
    """

    def __init__(
        self,
        segment_shape: tuple[int, ...],
        channels: tuple[int, ...] = (32, 64, 64, 128, 256, 256),
        widths: tuple[int, ...] = (64, 32, 10),
        layer: int = 0,
    ) -> None:
        super().__init__(segment_shape)
        _check_image(segment_shape)
        _check_sizes("channels", channels, number=6)
        _check_sizes("widths", widths)
        check_numbers(self, at_least=0, at_most=len(channels), layer=layer)
        stages, activations, shape = [], [], segment_shape
        shapes = [segment_shape]
        for index, size in enumerate(channels):
            # Without it the last layer makes 1 x 1 of a map of 3 x 3, and the pooling behind it nothing of that.
            padding = int(index == 5)
            convolution = _initialized(nn.Conv2d(shape[0], size, 3, padding=padding, bias=False))
            stages.append(nn.Sequential(convolution, _normalization(size)) if index % 2 == 0 else convolution)
            shape = (size, shape[1] - 2 + 2 * padding, shape[2] - 2 + 2 * padding)
            shapes.append(shape)
            activations.append([nn.ReLU()] if index % 2 == 0 else [nn.ReLU(), nn.MaxPool2d(2)])
            shape = shape if index % 2 == 0 else (size, shape[1] // 2, shape[2] // 2)
        if min(shape) < 1:
            raise ConfigurationError(
                f"Expected images of at least 28 x 28 pixels for ConvolutionalFocus, but got {segment_shape}; use "
                "FullyConnectedFocus."
            )
        lower, upper = _cut(stages, activations, layer)
        self.encoder = FocusEncoder(segment_shape, shapes[layer], lower)
        self.scorer = FocusScorer(
            shapes[layer], [*upper, nn.Flatten(), *_linear_layers([math.prod(shape), *widths, 1])]
        )


class SegmentClassifier(nn.Module):
    """Base of the classifiers of an averaged segment.

    Args:
        shape: shape of a state before it was flattened; the backbone gives it.
        num_classes: C; the backbone gives it.
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.shape, self.num_classes = shape, num_classes

    def forward(self, states: Tensor) -> Tensor:
        """(N, D) states to (N, C) logits; each row alone."""
        raise NotImplementedError


class FullyConnectedClassifier(SegmentClassifier):
    """Linear layers with ReLU; weights start from Xavier's normal distribution, biases at 0.

    Source: the classifiers of Pandey et al. 2022, https://arxiv.org/abs/2212.14776: 50 for two-dimensional and 6-12 for
    five-dimensional points.

    Args:
        shape: shape of a state, which is flattened; the backbone gives it.
        num_classes: C; the backbone gives it.
        widths: outputs of the hidden layers.

    Raises:
        ConfigurationError: a width is below 1.
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int, widths: tuple[int, ...] = (50,)) -> None:
        super().__init__(shape, num_classes)
        _check_sizes("widths", widths)
        self.layers = nn.Sequential(*_linear_layers([math.prod(shape), *widths, num_classes], bias=True))

    def forward(self, states: Tensor) -> Tensor:
        """See `SegmentClassifier.forward`."""
        logits: Tensor = self.layers(states)
        return logits


class ConvolutionalClassifier(SegmentClassifier):
    """Six padded 3 x 3 convolutions with ReLU, two by two before max pools, then the mean over pixels and two layers.

    The first, third and fifth convolution are normalized before their ReLU.

    Source: the classifier of Pandey et al. 2022, https://arxiv.org/abs/2212.14776. Own choices: normalization
    within each image and no dropout, see `ConvolutionalFocus`; the mean over all pixels at the end, where theirs leaves
    some out.

    Args:
        shape: (channels, height, width) of a state; the backbone gives it.
        num_classes: C; the backbone gives it.
        channels: of the six convolutions.
        width: outputs of the linear layer before the last one.

    Raises:
        ConfigurationError: states are no images, or an argument is out of its range.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        channels: tuple[int, ...] = (128, 128, 256, 256, 512, 512),
        width: int = 128,
    ) -> None:
        super().__init__(shape, num_classes)
        _check_image(shape)
        _check_sizes("channels", channels, number=6)
        _check_sizes("width", [width])
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise([shape[0], *channels])):
            layers.append(_initialized(nn.Conv2d(before, after, 3, padding=1)))
            layers.extend([_normalization(after), nn.ReLU()] if index % 2 == 0 else [nn.ReLU(), _ceil_pool()])
        self.convolutions = nn.Sequential(*layers)
        self.layers = nn.Sequential(*_linear_layers([channels[-1], width, num_classes], bias=True))

    def forward(self, states: Tensor) -> Tensor:
        """See `SegmentClassifier.forward`."""
        logits: Tensor = self.layers(self.convolutions(_image_layout(states.unflatten(-1, self.shape))).mean((-2, -1)))
        return logits


def _each_segment(layers: nn.Sequential, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, T, ...) numbers through layers that know only single segments, to (B, T, D)."""
    # All segments of all mosaics as one batch: the network reads each by itself.
    results: Tensor = layers(_image_layout(values.reshape(-1, *shape)))
    return results.reshape(*values.shape[:2], -1)


def _image_layout(values: Tensor) -> Tensor:
    """Images with their channels last in memory on a CPU, whose convolutions and pools are faster so; others as is."""
    if values.dim() != 4 or values.device.type != "cpu":
        return values
    # The layout in which convolutions on a CPU are fastest.
    return values.contiguous(memory_format=torch.channels_last)


def _cut(
    stages: Sequence[nn.Module], activations: Sequence[Sequence[nn.Module]], layer: int
) -> tuple[list[nn.Module], list[nn.Module]]:
    """What is below and above the output of a stage; its activation is above."""
    parts = [part for stage, after in zip(stages, activations, strict=True) for part in (stage, *after)]
    # Behind the stage and before its activation, so that the states are not cut off at 0.
    index = parts.index(stages[layer - 1]) + 1 if layer else 0
    return parts[:index], parts[index:]


def _linear_layers(sizes: Sequence[int], bias: bool = False) -> list[nn.Module]:
    """Linear layers of these sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers.extend([_initialized(nn.Linear(before, after, bias)), nn.ReLU()])
    return layers[:-1]


def _initialized(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    nn.init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _normalization(channels: int) -> nn.GroupNorm:
    """Over all channels and pixels of an image, so that images of one pixel can be normalized too."""
    return nn.GroupNorm(1, channels)


def _ceil_pool() -> nn.MaxPool2d:
    """Halves an image, a last odd row or column by itself, so that one pixel stays one pixel."""
    return nn.MaxPool2d(2, ceil_mode=True)


def _check_sizes(name: str, sizes: Sequence[int], number: int | None = None) -> None:
    if number not in (None, len(sizes)):
        raise ConfigurationError(f"Expected `{name}` to be {number} numbers, but got {list(sizes)}.")
    for size in sizes:
        check_numbers(at_least=1, advice="every layer needs a unit", **{name: size})


def _check_image(shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise ConfigurationError(
            f"Expected segments of shape (channels, height, width) for convolutions, but got {shape}; use "
            "FullyConnectedFocus and FullyConnectedClassifier."
        )
