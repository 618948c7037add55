"""Naming the encoder is enough: data then keeps every word."""

from jsonargparse import Namespace

from attn_lightning.commands.letters import keep_words_for_letters


def options(encoder: str) -> Namespace:
    found = Namespace()
    found["model.backbone.init_args.encoder"] = Namespace(class_path=encoder)
    found["data.init_args.unknown"] = "token"
    return found


def test_only_the_encoder_that_reads_letters_changes_the_data() -> None:
    for encoder, unknown in (("attn_lightning.backbone.Pretrained", "keep"), ("a.BiLSTM", "token")):
        given = options(encoder)
        keep_words_for_letters(given)
        assert given["data.init_args.unknown"] == unknown
    keep_words_for_letters(Namespace())
