"""Any published encoder that `transformers.AutoModel` loads, as an encoder of words."""

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from attn_lightning.backbone import published, states
from attn_lightning.backbone.encoders import Encoder
from attn_lightning.backbone.kernels import plain_attention_pays
from attn_lightning.backbone.layout import Layout, Pooling, layout
from attn_lightning.backbone.pieces import (
    PieceEmbedding,
    WordPieces,
    dropped_pieces,
    held_by_pieces,
    scaled_pieces,
    unpacked,
)
from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32
from attn_lightning.types import DataSpec

logger = logging.getLogger(__name__)

LongTexts = Literal["truncate", "window"]

CONFIG, PIECES = "pretrained_config", "pretrained_pieces"
"""Names of what a checkpoint keeps beside the weights, so that prediction needs the checkpoint alone."""

_WIDTH = 16
"""Passes of a frozen encoder are as wide as a multiple of this: the sums of a text's states are then taken in the same
order in whatever batch it stands, so that stored states are those of any other pass, to the bit, on a CPU."""

_ROUNDING = 0.05
"""How far sums of attention are from 1 at most, in half precision."""


def encoder_origins(backbone: nn.Module) -> dict[str, dict[str, str]]:
    """What `published.origins` says of the encoders of a model."""
    return published.origins(module.name for module in backbone.modules() if isinstance(module, Pretrained))


class Pretrained(Encoder):
    """A pretrained transformer encoder (BERT, RoBERTa, DeBERTa, XLNet, ModernBERT, ...), one state per word.

    Words are the units of the data, and this encoder cuts each of them into its own pieces (`is_pretokenized`), runs on
    the pieces and gives every word one state again. So attention, rationales, erasing and explanations are per word as
    with any other encoder, and nothing else knows of pieces. The data must keep every word
    (`--data.unknown=keep`, which the command line sets by itself): an encoder that reads letters needs no `<unk>`.

    The input embeddings are those of the pieces; methods that perturb words perturb them. Nothing that comes with the
    files is ever run: weights are read as safetensors only, and repository code is refused. So are models with a
    decoder, and those in which padding takes part (FNet, ConvBERT), which a pass over one text finds out.

    Frozen and cached (`frozen: true`): states of every text are computed once, stored in Arrow and mapped into memory;
    every epoch, method and seed on the same data reuses them. A text that is not among them, or whose embeddings were
    perturbed, runs through the encoder, so results are those of running it always: to the bit on a CPU in float32, up
    to the rounding of `half_states` otherwise.

    Cost: one pass of the published model over the pieces; the square of the length per layer.

    Source: Devlin et al. 2019, https://aclanthology.org/N19-1423; learning rates by layer: Howard and Ruder 2018,
    https://aclanthology.org/P18-1031.

    Args:
        input_size: E of word vectors, which it does not use.
        name: a folder, an installed package with a folder `model`, or a name on the hub together with `revision`.
        revision: the commit on the hub.
        layer: take the states of this layer, from 1 (or -1 for the last one); those above are not built. Where a
            family normalizes behind its last layer, this one takes that place.
        frozen: train the head alone; dropout is off then.
        cached: with `frozen`, keep the states on disk.
        half_states: keep them as float16.
        pooling: the state of a word is that of its `first` piece, or the `mean` over its pieces.
        learning_rate: of the encoder's own parameters; the head has that of the model.
        warmup: share of the training in which that rate rises from 0; it falls to 0 in the rest, both linearly.
        layer_decay: factor on the rate from each layer to the one below, in (0, 1]; 1 gives all layers the same.
        dropout: inside the encoder while it is trained, in [0, 1). It is drawn once per step, for `attend` never runs
            the encoder; a method that does run it again sees another draw, so the default drops nothing.
        gradient_checkpointing: compute activations again in the backward pass; less memory, a third more time.
        long_texts: `truncate` gives words beyond the encoder's maximum a state of zeros, and counts them in the log;
            `window` reads them in further passes.
        max_word_pieces: pieces beyond this number of a word are left out.

    Raises:
        ConfigurationError: an argument is out of its range, the encoder cannot be had (see
            `attn_lightning.backbone.published`), or the data does not keep every word.
    """

    reads_pairs = True

    def __init__(
        self,
        input_size: int,
        name: str,
        revision: str | None = None,
        layer: int = -1,
        frozen: bool = False,
        cached: bool = True,
        half_states: bool = False,
        pooling: Pooling = "first",
        learning_rate: float = 2e-5,
        warmup: float = 0.1,
        layer_decay: float = 1.0,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        long_texts: LongTexts = "truncate",
        max_word_pieces: int = 8,
    ) -> None:
        super().__init__(input_size)
        check_numbers(self, above=0, learning_rate=learning_rate)
        check_numbers(self, above=0, at_most=1, layer_decay=layer_decay, advice="1 gives all layers the same rate")
        check_numbers(self, at_least=0, below=1, dropout=dropout, warmup=warmup)
        check_numbers(self, at_least=1, at_most=64, max_word_pieces=max_word_pieces)
        check_choice(self, choices=get_args(Pooling), pooling=pooling)
        check_choice(self, choices=get_args(LongTexts), long_texts=long_texts)
        self.name, self.revision, self.layer = name, revision, layer
        self.frozen, self.cached, self.half_states = frozen, cached, half_states
        self.pooling, self.long_texts, self.max_word_pieces = pooling, long_texts, max_word_pieces
        self.learning_rate, self.warmup, self.layer_decay = learning_rate, warmup, layer_decay
        self.dropout, self.gradient_checkpointing = dropout, gradient_checkpointing
        self.draws_nothing = frozen or dropout == 0
        self._store: states.StateStore | None = None
        self._warned: set[str] = set()

    def bind(self, spec: DataSpec) -> nn.Module:
        """Load the encoder, or build it for the weights of a checkpoint; see `Encoder.bind`."""
        if not spec.vocabulary:
            raise ConfigurationError(
                "Expected data that keeps every word for the encoder Pretrained, which reads their letters, but got a "
                "vocabulary with unknown words; use `--data.unknown=keep`."
            )
        changes = {"dropout": 0.0 if self.frozen else self.dropout}
        if CONFIG in spec.resources:
            self.cutting = WordPieces.from_str(spec.resources[PIECES])
            self.model = published.rebuild(spec.resources[CONFIG], changes, None)
        else:
            self.model, self.cutting = published.load(self.name, self.revision, changes, None)
            if (count := self._num_layers()) < self.model.config.num_hidden_layers:
                self.model, self.cutting = published.load(self.name, self.revision, changes, count)
        if self.frozen:
            self.model.requires_grad_(False)
        elif self.gradient_checkpointing:
            if not getattr(self.model, "supports_gradient_checkpointing", False):
                raise ConfigurationError(
                    f"Expected an encoder that can compute activations again, but got {type(self.model).__name__}; "
                    "leave `gradient_checkpointing` out."
                )
            self.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            self.model.config.use_cache = False
        # What the library takes by itself where the family has them.
        self._has_fused = self.model.config._attn_implementation == "sdpa"
        self.output_size = int(self.model.config.hidden_size)
        if self.max_word_pieces > self.cutting.max_length // 2 - 4:
            raise ConfigurationError(
                f"Expected an encoder that reads {2 * self.max_word_pieces + 8} pieces at once, but {self.name} reads "
                f"{self.cutting.max_length}; lower `max_word_pieces`."
            )
        parts = ("prefix", "separator", "suffix")  # any of them may be empty
        self._special = {part: torch.tensor(getattr(self.cutting, part), dtype=torch.int64) for part in parts}
        table = self.model.get_input_embeddings()
        self.input = PieceEmbedding(table, self.cutting, spec.vocabulary, self.max_word_pieces)
        self.train(self.training)
        return self.input

    def _num_layers(self) -> int:
        most = int(self.model.config.num_hidden_layers)
        count = self.layer if self.layer > 0 else most + 1 + self.layer
        check_numbers(self, at_least=1, at_most=most, layer=count, advice=f"{self.name} has {most} layers")
        return count

    @property
    def can_share(self) -> bool:
        """See `Encoder.can_share`; stored states cost less than a look for equal texts."""
        return self._store is None and super().can_share

    def resources(self) -> Mapping[str, str]:
        """What a checkpoint needs to build the encoder again without its folder."""
        return {CONFIG: self.model.config.to_json_string(use_diff=False), PIECES: self.cutting.to_str()}

    def train(self, mode: bool = True) -> "Pretrained":
        """A frozen encoder stays in eval mode: its states are the same in training."""
        super().train(mode)
        if self.frozen and hasattr(self, "model"):
            self.model.eval()
        return self

    # --- states ---------------------------------------------------------------------------------------------------

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`; stored states stand in for the encoder where they are known to be the same."""
        return self._states(embeddings, mask, None)

    def read_pair(self, embeddings: Tensor, mask: Tensor, second: Tensor) -> Tensor:
        """Two texts through one pass, each reading the other.

        Args:
            embeddings: (B, T, P * E + 1) of both.
            mask: (B, T) bool, the words of the first text.
            second: (B, T) bool, the words of the second text, behind them.

        Returns:
            (B, T, D) states of the words of both, 0 elsewhere.
        """
        return self._states(embeddings, mask, second)

    def _states(self, embeddings: Tensor, mask: Tensor, second: Tensor | None) -> Tensor:
        """(B, T, D) of the words of one text, or of both."""
        words = mask if second is None else mask | second
        tokens = self.input.tokens_of(embeddings) if self._store is not None else None
        if tokens is None or tokens.shape != mask.shape:
            return self._run(embeddings, words, second)
        assert self._store is not None
        keys = states.keys_of(tokens, mask, second)
        # A batch with a single new text runs as a whole: two sources of states in one batch would gain little.
        if all(key in self._store for key in keys):
            return self._store.fetch(keys, words).to(embeddings)
        return self._run(embeddings, words, second)

    def token_attention(self, embeddings: Tensor, mask: Tensor) -> Tensor | None:
        """See `Encoder.token_attention`: a word looks as its pieces do together, and is looked at as much as they are.

        Attention that goes to special pieces is left out, and what remains is scaled to 1.
        """
        return self._attention(embeddings, mask, None)

    def pair_attention(self, embeddings: Tensor, mask: Tensor, second: Tensor) -> Tensor | None:
        """See `Encoder.pair_attention`."""
        return self._attention(embeddings, mask | second, second)

    def _attention(self, embeddings: Tensor, mask: Tensor, second: Tensor | None) -> Tensor | None:
        placed, inputs = self._placed(embeddings, mask, second)
        layers = getattr(self._model(placed, inputs, output_attentions=True), "attentions", None)
        if not layers or not self._is_attention(layers, inputs.shape[1]):
            return None
        count, width = mask.shape
        member = inputs.new_zeros(len(placed.rows), inputs.shape[1], width)
        member[placed.passes, placed.places, placed.words % width] = 1.0
        found = []
        for layer in layers:
            between = member.mT @ layer.mean(1).to(member.dtype) @ member
            words = between.new_zeros(count, width, width).index_add(0, placed.rows, between)
            total = words.sum(-1, keepdim=True)
            found.append(torch.where(total > 0, words / total.where(total > 0, 1.0), 0.0))
        return torch.stack(found)

    def _is_attention(self, layers: Sequence[Tensor], width: int) -> bool:
        """Whether they are shares of attention between all places."""
        # Longformer keeps what each place sees of its window, which may look like a square.
        square = all(layer.shape[-2:] == (width, width) for layer in layers)
        # SqueezeBERT gives scores away.
        shares = square and all(bool(((layer.float().sum(-1) - 1).abs() < _ROUNDING).all()) for layer in layers)
        return shares and not getattr(self.model.config, "attention_window", None)

    def scaled(self, embeddings: Tensor, factors: Tensor) -> Tensor:
        """See `Encoder.scaled`."""
        return scaled_pieces(embeddings, factors)

    def perturbable(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.perturbable`: the embeddings of the pieces that a word has."""
        return held_by_pieces(embeddings, self.input.size, mask)

    def dropped(self, embeddings: Tensor, dropout: nn.Module) -> Tensor:
        """See `Encoder.dropped`."""
        return dropped_pieces(embeddings, dropout)

    def _run(self, embeddings: Tensor, mask: Tensor, second: Tensor | None) -> Tensor:
        placed, inputs = self._placed(embeddings, mask, second)
        self._warn(
            "texts longer than the %d pieces that %s reads are cut off, %d words in the first such batch; cut them "
            "with `--data.max_length`, or read all with `--model.backbone.encoder.long_texts=window`",
            placed.cut,
        )
        self._warn(
            "second texts longer than half of the %d pieces that %s reads together are cut off, %d words in the first "
            "such batch; shorten them, or read them apart with `--model.backbone.reading=shared`",
            placed.cut_second,
        )
        hidden = at_least_float32(self._model(placed, inputs).last_hidden_state)
        return placed.word_states(hidden, mask.shape, self.pooling)

    def _warn(self, message: str, words: int) -> None:
        """Say that words are cut off, with the first of them and not with every batch."""
        if words and message not in self._warned:
            self._warned.add(message)
            logger.warning(message, self.cutting.max_length, self.name, words)

    def _placed(self, embeddings: Tensor, mask: Tensor, second: Tensor | None) -> tuple[Layout, Tensor]:
        """Where the pieces go, and the (N, L, E) input of the passes."""
        size = self.input.size
        vectors, counts = unpacked(embeddings, size)
        counts = torch.where(mask, counts.clamp_max(vectors.shape[2]), 0)
        # Kept outside the module: a buffer would stand in every checkpoint, which has them as `resources` already.
        special = {part: ids.to(embeddings.device) for part, ids in self._special.items()}
        sizes = {part: len(ids) for part, ids in special.items()}
        windows = self.long_texts == "window"
        multiple = _WIDTH if self.frozen else 1
        placed = layout(counts, second, **sizes, max_length=self.cutting.max_length, windows=windows, multiple=multiple)
        kept = vectors.flatten(0, 1)[placed.words, placed.numbers()]
        width = placed.is_second.shape[1]
        flat, values = [placed.passes * width + placed.places], [kept]
        each = torch.arange(len(placed.rows), device=embeddings.device)
        # Special pieces get their vectors here, since perturbed words come as vectors and never as ids.
        begins = {"prefix": torch.zeros_like(placed.lengths), "suffix": placed.lengths - sizes["suffix"]}
        if second is not None:
            begins["separator"] = placed.first_length + sizes["prefix"]
        for part, begin in begins.items():
            vector = self.input.table(special[part]).to(embeddings.dtype)
            for place in range(sizes[part]):
                flat.append(each * width + begin + place)
                values.append(vector[place].expand(len(each), -1))
        inputs = embeddings.new_zeros(len(each) * width, size).index_copy(0, torch.cat(flat), torch.cat(values))
        return placed, inputs.unflatten(0, (len(each), width))

    def _model(self, placed: Layout, inputs: Tensor, **options: Any) -> Any:
        width = torch.arange(inputs.shape[1], device=inputs.device)
        # By length and not by content: a word that was scaled to zero is still there and is looked at.
        options["attention_mask"] = (width < placed.lengths.unsqueeze(1)).long()
        if placed.second.any() and (getattr(self.model.config, "type_vocab_size", None) or 0) > 1:
            options["token_type_ids"] = placed.is_second.long()
        # The fused kernels have no second derivative, do not say where they look, and are not always the faster ones.
        # With checkpointing the choice never changes: what is computed again must be what was computed first.
        plain = self.double_backward or "output_attentions" in options
        plain = plain or (plain_attention_pays(inputs) and not self.gradient_checkpointing)
        kernel = "eager" if plain else "sdpa"
        if self._has_fused and self.model.config._attn_implementation != kernel:
            self.model.set_attn_implementation(kernel)
        if self.gradient_checkpointing:
            # A pass under constant parameters would be computed again when they no longer are: another graph.
            learns = any(parameter.requires_grad for parameter in self.model.parameters())
            for module in self.model.modules():
                if hasattr(module, "gradient_checkpointing"):
                    module.gradient_checkpointing = learns
        return self.model(inputs_embeds=inputs, **options)

    # --- training -------------------------------------------------------------------------------------------------

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """See `Encoder.learning_rates`: one group per layer, the embeddings below the first."""
        most = int(self.model.config.num_hidden_layers)
        groups: dict[int, list[nn.Parameter]] = {}
        tables = [module for module in self.model.modules() if isinstance(module, nn.Embedding)]
        below = {id(parameter) for table in tables for parameter in table.parameters()}
        # By name, which all families number alike ("encoder.layer.3.", "transformer.layer.3.", "layers.3.").
        for name, parameter in self.model.named_parameters():
            number = re.search(r"\.(\d+)\.", name)
            depth = int(number[1]) + 1 if number else (0 if "embed" in name or id(parameter) in below else most)
            groups.setdefault(min(depth, most), []).append(parameter)
        return [(group, self.learning_rate * self.layer_decay ** (most - depth)) for depth, group in groups.items()]

    def word_costs(self) -> Tensor | None:
        """See `Encoder.word_costs`: the pieces of each word, unless an epoch reads stored states."""
        return None if self.frozen and self.cached else self.input.counts

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor, Tensor | None]], folder: Path, texts: str) -> None:
        """Store the states of texts on disk, unless they are there; see `Encoder.prepare`."""
        if not (self.frozen and self.cached):
            return
        path = folder / f"{self._fingerprint(texts)}.arrow"
        if not path.is_file():
            logger.info("states of the frozen encoder %s are computed once, into %s", self.name, path)
            device = next(self.model.parameters()).device

            # Outside autocast, for the file serves runs of any precision: states that are read back are never coarser
            # than those of a pass in this run.
            def encode(tokens: Tensor, mask: Tensor, second: Tensor | None) -> Tensor:
                words = (mask if second is None else mask | second).to(device)
                with torch.inference_mode():
                    return self._run(
                        self.input(tokens.to(device)), words, None if second is None else second.to(device)
                    )

            states.write(path, batches, encode, self.half_states)
        self._store = states.StateStore(path, self.output_size)

    def _fingerprint(self, texts: str) -> str:
        """What decides the states: weights, configuration, options and the texts."""
        content = hashlib.sha256(self.model.config.to_json_string(use_diff=False).encode())
        for parameter in self.model.parameters():
            content.update(parameter.detach().cpu().float().numpy().tobytes())
        options = (self.pooling, self.long_texts, self.max_word_pieces, self.half_states, texts)
        content.update(repr(options).encode() + self.cutting.to_str().encode())
        return content.hexdigest()[:32]
