"""An encoder that reads the letters of words needs data that keeps every word."""

from typing import Any

from jsonargparse import Namespace


def keep_words_for_letters(options: Namespace) -> None:
    """Set `data.unknown` to `keep` where the encoder is `Pretrained`, so that naming the encoder is enough.

    Args:
        options: of `fit`, `validate` or `test`; changed in place, so that the configuration says it.
    """
    encoder: Any = options.get("model.backbone.init_args.encoder")
    path = encoder.get("class_path", "") if isinstance(encoder, Namespace | dict) else ""
    if str(path).rpartition(".")[2] == "Pretrained" and options.get("data.init_args.unknown") is not None:
        options["data.init_args.unknown"] = "keep"
