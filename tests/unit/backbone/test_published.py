"""Families of encoders against `transformers`; what cannot be had gives one clear error, and nothing unsafe is read."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.pretrained import Pretrained
from attn_lightning.backbone.published import folder_of, load, rebuild, transformers
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import DataSpec
from support.tiny_bert import make_tiny_bert

# They need the extra `transformers`, which makes every import of Lightning slower: not for the fast suite.
pytestmark = pytest.mark.slow


def load_from(folder: Path) -> None:
    load(str(folder), None, {"dropout": 0.0}, None)


def test_a_folder_without_weights_or_with_others_than_safetensors(tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match=r"`\*\.safetensors` .* but got pytorch_model\.bin"):
        load_from(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ConfigurationError, match="but got none"):
        load_from(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        load_from(folder)


def test_weights_that_are_damaged(tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "bert")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigurationError, match="AutoModel"):
        load_from(folder)


def test_a_tokenizer_without_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_tiny_bert(tmp_path / "bert")
    library = transformers()
    slow = library.CanineTokenizer()
    monkeypatch.setattr(library.AutoTokenizer, "from_pretrained", lambda *_, **__: slow)
    with pytest.raises(ConfigurationError, match=r"offsets .* CanineTokenizer"):
        load_from(folder)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "bert")
    for path in [path for path in folder.iterdir() if path.name.startswith(("tokenizer", "vocab", "special"))]:
        path.unlink()
    with pytest.raises(ConfigurationError, match=r"words of a tokenizer.*`tokenizer\.json`"):
        load_from(folder)


def test_names_that_are_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no folder here.*revision"):
        folder_of("nobody/nothing", None)
    with pytest.raises(ConfigurationError, match="Expected a folder"):
        folder_of("/no/such/folder", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"on the hub or an earlier download.*but got neither"):
        folder_of("nobody/nothing", "0" * 40)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigurationError, match=r"attn-lightning\[transformers\]"):
        transformers()


def test_a_shape_can_be_built_again_with_fewer_layers(tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "bert")
    model, pieces = load(str(folder), None, {"dropout": 0.25}, 1)
    assert pieces.max_length == 64
    assert {module.p for module in model.modules() if type(module).__name__ == "Dropout"} == {0.25}
    again = rebuild(model.config.to_json_string(use_diff=False), {"dropout": 0.0}, None)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes
    assert not any("layer.1" in name or "pooler" in name for name in shapes)


WORDS = ("<pad>", "<unk>", "good", "film", "was", "zebra")
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


def make_family(folder: Path, family: str, **options: Any) -> Path:
    """A tiny model of another family with random weights, and the tokenizer of the tiny BERT."""
    make_tiny_bert(folder)
    library = transformers()
    torch.manual_seed(0)
    size = json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"]
    config = library.AutoConfig.for_model(family, **{"vocab_size": size, **SMALL, **options})
    library.AutoModel.from_config(config).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = {**json.loads(path.read_text("utf-8")), "tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(settings), "utf-8")
    return folder


def reading(folder: Path) -> AttentionClassifier:
    torch.manual_seed(0)
    spec = DataSpec(2, len(WORDS), 5, ("no", "yes"), vocabulary=WORDS)
    return AttentionClassifier(spec, partial(Pretrained, name=str(folder))).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("roberta", {}),
        ("distilbert", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
        ("albert", {"embedding_size": 8}),
        ("electra", {"embedding_size": 8}),
        ("deberta", {}),
        ("deberta-v2", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
        ("mpnet", {}),
        ("modernbert", {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}),
        ("squeezebert", {"embedding_size": 16, **dict.fromkeys(("q_groups", "k_groups", "v_groups"), 1)}),
        ("xlm", {"emb_dim": 16, "n_layers": 2, "n_heads": 2}),
    ],
)
def test_states_of_other_families_are_those_of_transformers(
    tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    if family == "squeezebert":
        options |= dict.fromkeys(("post_attention_groups", "intermediate_groups", "output_groups"), 1)
    folder = make_family(tmp_path / "model", family, **options)
    library, ours = transformers(), reading(folder)
    tokens = torch.tensor([[2, 3, 0, 0], [4, 5, 3, 2]])
    found = ours(tokens, tokens > 0).hidden
    for row, ids in enumerate(tokens.tolist()):
        words = [WORDS[word] for word in ids if word]
        encoded = library.AutoTokenizer.from_pretrained(folder)([words], is_split_into_words=True, return_tensors="pt")
        encoded.pop("token_type_ids", None)
        with torch.no_grad():
            states = library.AutoModel.from_pretrained(folder).eval()(**encoded).last_hidden_state[0]
        for place in range(len(words)):
            first = encoded.word_ids(0).index(place)
            torch.testing.assert_close(found[row, place], states[first], atol=1e-5, rtol=1e-5)
    found.square().sum().backward()
    attention = ours.token_attention(ours.embed(tokens), tokens > 0)
    if family == "squeezebert":
        assert attention is None, "it gives scores away, which are no attention"
        return
    assert attention is not None
    torch.testing.assert_close(attention.sum(-1), (tokens > 0).float().expand(len(attention), -1, -1))


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("fnet", {}, r"ignores padding, but what FNetModel"),
        ("convbert", {"embedding_size": 16}, r"ignores padding, but what ConvBertModel"),
        ("t5", {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 32, "d_kv": 8}, r"T5Model gave .*a decoder"),
    ],
)
def test_families_whose_states_would_be_others_in_each_batch_and_decoders_are_refused(
    tmp_path: Path, family: str, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        load_from(make_family(tmp_path / "model", family, **options))


def test_attention_within_a_window_is_no_attention_between_words(tmp_path: Path) -> None:
    # A text of 9 places, as many as a window of 8 has: its attention looks like a square.
    ours = reading(make_family(tmp_path / "model", "longformer", attention_window=8))
    tokens = torch.tensor([[2, 5, 3]])
    assert ours.token_attention(ours.embed(tokens), tokens > 0) is None


@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_positions_that_are_counted_from_the_id_of_padding_on_leave_room_for_fewer_pieces(
    tmp_path: Path, family: str
) -> None:
    ours = reading(make_family(tmp_path / "model", family, pad_token_id=1))
    assert ours.encoder.cutting.max_length == 62
    # Letters of "zebra" are its pieces: 2 special ones and 5 for each word do not fit into 62.
    tokens = torch.full((1, 14), 5)
    hidden = ours(tokens, tokens > 0).hidden
    assert hidden[0, :12].any(-1).all()
    assert not hidden[0, 12:].any()


CORPUS = ["the good film was bad", "a zebra went to the cinema", "naïve café über 2023"] * 20


def with_bytes(folder: Path) -> Path:
    """A tiny GPT-2: pieces of bytes, nothing around a text and nothing between two."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=320, special_tokens=["<end>"], initial_alphabet=alphabet)
    )
    transformers().PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>").save_pretrained(folder)
    return save(folder, "gpt2", vocab_size=made.get_vocab_size(), n_embd=16, n_layer=2, n_head=2)


def with_specials_at_the_end(folder: Path) -> Path:
    """A tiny XLNet: SentencePiece, and two special pieces behind a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    special = ["<unk>", "<sep>", "<cls>"]
    made.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>"))
    made.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="$A <sep> <cls>", pair="$A <sep> $B <sep> <cls>", special_tokens=[("<sep>", 1), ("<cls>", 2)]
    )
    names = {"unk_token": "<unk>", "sep_token": "<sep>", "cls_token": "<cls>"}
    transformers().PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)
    return save(folder, "xlnet", vocab_size=made.get_vocab_size(), d_model=16, n_layer=2, n_head=2, d_inner=32)


def save(folder: Path, family: str, **options: Any) -> Path:
    torch.manual_seed(0)
    library = transformers()
    config = library.AutoConfig.for_model(family, initializer_range=0.3, **options)
    library.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "prefix", "separator", "suffix"),
    [(with_bytes, (), (0,), ()), (with_specials_at_the_end, (), (1,), (1, 2))],
)
def test_tokenizers_of_other_kinds(
    tmp_path: Path, make: Callable[[Path], Path], prefix: tuple[int], separator: tuple[int], suffix: tuple[int]
) -> None:
    folder, words = make(tmp_path / "model"), ["naïve", "zebra", "filmed", "🙂"]
    library = transformers()
    spec = DataSpec(2, 6, 5, ("no", "yes"), vocabulary=("<pad>", "<unk>", *words))
    ours = AttentionClassifier(spec, partial(Pretrained, name=str(folder), max_word_pieces=16)).eval()  # type: ignore[arg-type]
    pieces = ours.encoder.cutting
    assert (pieces.prefix, pieces.separator, pieces.suffix) == (prefix, separator, suffix)
    tokens = torch.arange(2, 6).unsqueeze(0)
    encoded = library.AutoTokenizer.from_pretrained(folder, add_prefix_space=True)(
        [words], is_split_into_words=True, return_tensors="pt"
    )
    encoded.pop("token_type_ids", None)
    with torch.no_grad():
        states = library.AutoModel.from_pretrained(folder).eval()(**encoded).last_hidden_state[0]
        found = ours(tokens, tokens > 0).hidden[0]
    for place in range(len(words)):
        torch.testing.assert_close(found[place], states[encoded.word_ids(0).index(place)], atol=1e-5, rtol=1e-5)


def test_an_encoder_that_cannot_compute_activations_again(tmp_path: Path) -> None:
    folder = with_specials_at_the_end(tmp_path / "model")
    spec = DataSpec(2, len(WORDS), 5, ("no", "yes"), vocabulary=WORDS)
    with pytest.raises(ConfigurationError, match=r"XLNetModel; leave `gradient_checkpointing` out"):
        AttentionClassifier(spec, partial(Pretrained, name=str(folder), gradient_checkpointing=True))  # type: ignore[arg-type]


def test_tables_of_embeddings_have_the_lowest_rate_whatever_they_are_called(tmp_path: Path) -> None:
    folder = with_bytes(tmp_path / "model")
    spec = DataSpec(2, len(WORDS), 5, ("no", "yes"), vocabulary=WORDS)
    ours = AttentionClassifier(spec, partial(Pretrained, name=str(folder), learning_rate=1.0, layer_decay=0.5))  # type: ignore[arg-type]
    rates = {id(parameter): rate for group, rate in ours.encoder.learning_rates() for parameter in group}
    named = {name: rates[id(parameter)] for name, parameter in ours.encoder.model.named_parameters()}
    assert (named["wte.weight"], named["wpe.weight"], named["ln_f.weight"]) == (0.25, 0.25, 1.0)
    assert (named["h.0.ln_1.weight"], named["h.1.ln_1.weight"]) == (0.5, 1.0)
