"""Published encoders: from a folder, an installed package or the hub, safetensors only and without foreign code."""

import hashlib
import importlib.util
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attn_lightning.backbone.pieces import WordPieces
from attn_lightning.errors import ConfigurationError, one_line
from attn_lightning.files import file_origin

logger = logging.getLogger(__name__)

ENCODER = "encoder"
"""What a record calls the files of an encoder, among the models that a run begins from."""

HUB_TIMEOUT = 10.0
"""Seconds to find out whether the hub answers; its own client retries for half a minute and more."""

TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
"""Files with the words of a tokenizer, beside those of SentencePiece, which end with `.model`."""

_PADDING = 16
"""Places behind a text by which it is found out whether an encoder ignores padding."""

WAYS = (
    "give the folder of a copy (`config.json`, `tokenizer.json`, `model.safetensors`) with "
    "`--model.backbone.encoder.name`"
)


def transformers() -> Any:
    """The library, imported only where it is used.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import transformers as library
    except ImportError as error:
        raise ConfigurationError(
            f"Expected the package `transformers` for the encoder Pretrained, but got: {one_line(error)}; "
            "install it with `pip install 'attn-lightning[transformers]'`."
        ) from error
    return library


def folder_of(name: str, revision: str | None) -> Path:
    """Where the files of an encoder are; downloads them from the hub at a pinned revision if `name` is no folder.

    Args:
        name: a folder, an installed package that carries a folder `model`, or `owner/name` on the hub.
        revision: the commit on the hub.

    Raises:
        ConfigurationError: there is no such folder and the hub does not answer or has none; names the ways out.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.isidentifier() and (found := _inside_package(name)) is not None:
        return found
    if path.is_absolute() or name.startswith((".", "~")):
        raise ConfigurationError(f"Expected a folder with a pretrained encoder at {name}, but there is none; {WAYS}.")
    if revision is None:
        raise ConfigurationError(
            f"Expected a folder, or a name on the hub with `revision`, but got {name!r}, which is no folder here, and "
            f"no revision; {WAYS}, or pin the commit with `--model.backbone.encoder.revision`."
        )
    return _downloaded(name, revision)


def local_origin(name: str) -> dict[str, str] | None:
    """What a record says of the files of an encoder: location, and their SHA-256 together as `revision`.

    Args:
        name: see `folder_of`.

    Returns:
        None for a name on the hub, whose pinned revision says what it is, and where there are no files.
    """
    path = Path(name).expanduser()
    folder = path if path.is_dir() else _inside_package(name) if name.isidentifier() else None
    if folder is None:
        return None
    read = sorted(each for each in folder.iterdir() if each.suffix in (".json", ".safetensors", ".txt", ".model"))
    digests = [f"{each.name} {file_origin('file', each)['revision']}" for each in read if each.is_file()]
    if not digests:
        return None
    revision = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return {"kind": "folder", "location": str(folder), "revision": revision}


def origins(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """`local_origin` of the encoder of a model, as `ENCODER`; nothing where it has no such files."""
    # A model has one encoder; a list only because its options are searched.
    found = [origin for name in names if (origin := local_origin(name)) is not None]
    return {ENCODER: found[0]} if found else {}


def _inside_package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "config.json").is_file() else None


def _downloaded(name: str, revision: str) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    # No `.bin` or `.py`: what is not here cannot be run by mistake.
    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    offline, silence = constants.HF_HUB_OFFLINE, None
    try:
        if not offline:
            HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
    except Exception as error:
        silence = error
        logger.warning("the hub does not answer (%s); looking for an earlier download", error)
    try:
        only_local = offline or silence is not None
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=only_local))
    except Exception as error:
        reason = silence or error
        raise ConfigurationError(
            f"Expected {name} at revision {revision} on the hub or an earlier download of it, but got neither "
            f"({type(reason).__name__}: {' '.join(str(reason).split()):.200}); {WAYS}."
        ) from error


def load(name: str, revision: str | None, changes: dict[str, Any], num_layers: int | None) -> tuple[Any, WordPieces]:
    """A published encoder with its weights, and how it cuts words.

    Args:
        name: see `folder_of`.
        revision: see `folder_of`.
        changes: values that replace those of its configuration.
        num_layers: how many of its layers are built; None: all.

    Raises:
        ConfigurationError: a part is missing or in another format, or the tokenizer has no offsets.
    """
    library = transformers()
    folder = folder_of(name, revision)
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"Expected `config.json` in {folder}, but there is none; {WAYS}.")
    if not list(folder.glob("*.safetensors")):
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".h5", ".msgpack"))
        raise ConfigurationError(
            f"Expected weights as `*.safetensors` in {folder}, but got {', '.join(others) or 'none'}; other formats "
            "can run code when they are read: convert them, or use a copy in that format."
        )
    if not any(path.name in TOKENIZERS or path.suffix == ".model" for path in folder.iterdir()):
        # The library would make a tokenizer without a single word, and every text would be unknown to its end.
        raise ConfigurationError(
            f"Expected the words of a tokenizer in {folder}, as `tokenizer.json` or `vocab.txt`, but got none; copy "
            "them from where the weights came from."
        )
    # Cutting words needs no network, and neither repository code nor pickled files are ever run.
    safe = {"local_files_only": True, "trust_remote_code": False}
    with _one_line(folder):
        config = library.AutoConfig.from_pretrained(folder, **safe)
        tokenizer = library.AutoTokenizer.from_pretrained(folder, add_prefix_space=True, **safe)
    pieces = word_pieces(tokenizer, config, folder)
    config = _changed(config, changes, num_layers)
    with _one_line(folder), _quiet(library):
        model = library.AutoModel.from_pretrained(folder, config=config, use_safetensors=True, dtype="float32", **safe)
    model = _without_pooler(model)
    pieces = replace(pieces, max_length=min([pieces.max_length, *_positions(model)]))
    _check(model, pieces, folder)
    return model, pieces


def rebuild(config: str, changes: dict[str, Any], num_layers: int | None) -> Any:
    """An encoder of the same shape with random weights, from its configuration alone."""
    library = transformers()
    content = json.loads(config)
    kind = content.pop("model_type")
    restored = _changed(library.AutoConfig.for_model(kind, **content), changes, num_layers)
    return _without_pooler(library.AutoModel.from_config(restored))


def word_pieces(tokenizer: Any, config: Any, folder: Path) -> WordPieces:
    """What is kept of a tokenizer of `transformers`.

    Raises:
        ConfigurationError: it is not a fast one, which alone knows which piece belongs to which word.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigurationError(
            f"Expected a tokenizer with offsets (a fast one, `tokenizer.json`) in {folder}, but got "
            f"{type(tokenizer).__name__}; without them no piece can be traced to its word: convert it, or use another."
        )
    # Asked of the tokenizer by example: families differ in what they put around a text, and no attribute says it.
    alone = _specials(tokenizer([["a"]], is_split_into_words=True))
    if len(alone) != 2:
        raise ConfigurationError(f"Expected a tokenizer in {folder} that reads 'a' as one word, but it does not.")
    pair = _specials(tokenizer([["a"]], [["a"]], is_split_into_words=True))
    unknown = tokenizer.unk_token_id
    # Families that never read two texts put nothing between them, and could not tell where the second one begins.
    ends = [(piece,) for piece in (tokenizer.sep_token_id, tokenizer.eos_token_id) if piece is not None]
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    # XLNet writes -1 for "any length".
    known = [limit for limit in limits if 0 < (limit or 0) < 10**9]
    return WordPieces(
        tokenizer=tokenizer.backend_tokenizer.to_str(),
        prefix=tuple(alone[0]),
        suffix=tuple(alone[1]),
        separator=tuple(pair[1] if len(pair) == 3 else alone[1]) or next(iter(ends), ()),
        unknown=int(unknown if unknown is not None else tokenizer.mask_token_id or 0),
        special=tuple(int(piece) for piece in tokenizer.all_special_ids),
        max_length=min(known, default=512),
    )


def _specials(encoded: Any) -> list[list[int]]:
    """The ids between the words of an encoding: before the first, between any two, after the last."""
    runs: list[list[int]] = [[]]
    previous: int | None = None
    for piece, word in zip(encoded["input_ids"][0], encoded.word_ids(0), strict=True):
        if word is None:
            runs[-1].append(piece)
        elif previous is None or runs[-1]:
            runs.append([])
        previous = word
    return runs


def _changed(config: Any, changes: dict[str, Any], num_layers: int | None) -> Any:
    for name, value in config.to_dict().items():
        # Every family names its dropout as it likes.
        if "dropout" in name and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, changes["dropout"])
    if num_layers is not None:
        config.num_hidden_layers = num_layers
    return config


def _without_pooler(model: Any) -> Any:
    """Parameters that nothing uses would make DDP wait for them."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = nn.Identity()  # not None, which some families call too
    return model


def _positions(model: Any) -> list[int]:
    """How many pieces have a position where it is counted from behind the id of padding, as in RoBERTa's family."""
    named = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    tables = [table for table in named if isinstance(table, nn.Embedding) and table.padding_idx is not None]
    return [table.num_embeddings - 1 - (table.padding_idx or 0) for table in tables]


def _check(model: Any, pieces: WordPieces, folder: Path) -> None:
    """Raise unless the model reads vectors of pieces, each text the same however much padding stands behind it."""
    kind = type(model).__name__
    ids = torch.tensor([*pieces.prefix, *[pieces.unknown] * 3, *pieces.suffix])
    try:
        with torch.no_grad():
            alone = model.get_input_embeddings()(ids).unsqueeze(0)
            room = min(_PADDING, pieces.max_length - len(ids))
            padded = nn.functional.pad(alone, (0, 0, 0, room))
            states, behind = (
                model.eval()(
                    inputs_embeds=inputs, attention_mask=(torch.arange(inputs.shape[1]) < len(ids)).long()[None]
                ).last_hidden_state[0, : len(ids)]
                for inputs in (alone, padded)
            )
        size = (len(ids), model.config.hidden_size)
    except Exception as error:
        raise ConfigurationError(
            f"Expected an encoder of texts in {folder}, which reads vectors of pieces (`inputs_embeds`), but {kind} "
            f"gave {type(error).__name__}: {' '.join(str(error).split()):.200}; use an encoder such as BERT, without "
            "a decoder."
        ) from error
    if states.shape != size:
        raise ConfigurationError(
            f"Expected an encoder in {folder} with one state of {size[1]} numbers for each of {size[0]} pieces, but "
            f"{kind} gave {tuple(states.shape)}; use another one."
        )
    if not torch.allclose(states, behind, rtol=1e-3, atol=1e-4 * float(states.abs().max())):
        raise ConfigurationError(
            f"Expected an encoder in {folder} that ignores padding, but what {kind} makes of a text changes with the "
            "padding behind it, and so with the other texts of a batch; use another one."
        )


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"Expected an encoder that `transformers.AutoModel` loads in {folder}, but got {type(error).__name__}: "
            f"{' '.join(str(error).split()):.300}; check the folder."
        ) from error


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Weights of heads and poolers that are not built are reported at length otherwise."""
    level = library.logging.get_verbosity()
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    try:
        yield
    finally:
        library.logging.set_verbosity(level)
        library.logging.enable_progress_bar()
