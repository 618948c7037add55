"""A pretrained encoder against `transformers` itself; caching that changes nothing; texts that do not fit."""

import copy
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.backbone.joint import joint_passes
from attn_lightning.backbone.pieces import unpacked
from attn_lightning.backbone.pretrained import Pretrained
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import AttentionIVAT, Method, Relation, WordAT, WordVAT
from attn_lightning.methods.requirements import check_methods
from attn_lightning.step import TrainStep
from attn_lightning.task_loss import cross_entropy
from attn_lightning.types import Batch, DataSpec
from support.tiny_bert import SIZE, make_tiny_bert

# They need the extra `transformers`, which makes every import of Lightning slower: not for the fast suite.
pytestmark = pytest.mark.slow

VOCABULARY = ("<pad>", "<unk>", "good", "bad", "film", "the", "was", "zebra", "[SEP]", "yak")
SPEC = DataSpec(2, len(VOCABULARY), 5, ("no", "yes"), vocabulary=VOCABULARY)
TOKENS = torch.tensor([[2, 7, 4, 0, 0], [5, 4, 6, 3, 9]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("bert"))


def model(folder: Path, spec: DataSpec = SPEC, reading: str = "shared", **options: object) -> AttentionClassifier:
    torch.manual_seed(0)
    return AttentionClassifier(spec, partial(Pretrained, name=str(folder), **options), reading=reading).eval()  # type: ignore[arg-type]


def reference(folder: Path, words: list[str], second: list[str] | None = None) -> tuple[Tensor, list[int | None]]:
    """The states of all pieces by `transformers` alone, and the word of each."""
    from transformers import AutoModel, AutoTokenizer

    encoded = AutoTokenizer.from_pretrained(folder)(
        [words], None if second is None else [second], is_split_into_words=True, return_tensors="pt"
    )
    with torch.no_grad():
        return AutoModel.from_pretrained(folder).eval()(**encoded).last_hidden_state[0], encoded.word_ids(0)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_states_are_those_of_transformers(folder: Path, pooling: str) -> None:
    hidden = model(folder, pooling=pooling)(TOKENS, TOKENS > 0).hidden
    for row, ids in enumerate(TOKENS.tolist()):
        words = [VOCABULARY[word] for word in ids if word]
        states, owners = reference(folder, words)
        for place in range(len(words)):
            pieces = [number for number, owner in enumerate(owners) if owner == place]
            expected = states[pieces[0]] if pooling == "first" else states[pieces].mean(0)
            torch.testing.assert_close(hidden[row, place], expected, atol=1e-5, rtol=1e-5)
    assert torch.all(hidden[0, 3:] == 0)


def test_dropout_of_embeddings_takes_numbers_and_no_words(folder: Path) -> None:
    found = AttentionClassifier(SPEC, partial(Pretrained, name=str(folder)), embedding_dropout=0.5).train()
    whole, dropped = found.encoder.input(TOKENS), found.embed(TOKENS)
    torch.testing.assert_close(unpacked(dropped, SIZE)[1], unpacked(whole, SIZE)[1])
    assert 0.2 < (dropped[whole != 0] == 0).float().mean() < 0.8
    # No word is lost, and none has a piece that it does not have.
    assert (found(TOKENS, TOKENS > 0).hidden.abs().sum(-1) > 0).equal(TOKENS > 0)
    assert found.eval().embed(TOKENS)[..., -1].equal(whole[..., -1])


def test_a_pool_may_have_longer_words_and_its_states_may_be_stored(folder: Path, tmp_path: Path) -> None:
    found = model(folder, frozen=True)
    labeled, pool = (
        Batch(tokens, tokens > 0, torch.zeros(1).long(), torch.arange(1))
        for tokens in (torch.tensor([[2, 3, 4]]), torch.tensor([[7, 9, 5, 6]]))
    )
    expected = [found(batch.tokens, batch.mask).hidden for batch in (labeled, pool)]
    texts = [(batch.tokens, batch.mask, None) for batch in (labeled, pool)]
    found.encoder.prepare(texts, tmp_path, "texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(found.encoder, "_run", None)
        outputs = joint_passes(found, labeled, pool)
    for output, hidden in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output.hidden, hidden, rtol=0, atol=0)


def test_stored_states_have_the_type_of_the_model(folder: Path, tmp_path: Path) -> None:
    """The head takes no float32 states under `--trainer.precision=64-true`."""
    found = model(folder, frozen=True).double()
    expected = found(TOKENS, TOKENS > 0)
    found.encoder.prepare([(TOKENS, TOKENS > 0, None)], tmp_path, "texts")
    output = found(TOKENS, TOKENS > 0)
    assert output.hidden.dtype == torch.float64
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-5, atol=1e-6)


def test_two_texts_in_one_pass(folder: Path) -> None:
    from dataclasses import replace

    pair = model(folder, replace(SPEC, has_question=True), reading="joint")
    hidden = pair(torch.tensor([[2, 7, 0, 6, 3]]), torch.tensor([[True, True, False, False, False]])).hidden[0]
    states, owners = reference(folder, ["good", "zebra"], ["was", "bad"])
    torch.testing.assert_close(hidden[:2], states[[1, 2]], atol=1e-5, rtol=1e-5)
    assert owners[-4:] == [None, 0, 1, None]
    torch.testing.assert_close(hidden[-1], states[-3:-1].mean(0), atol=1e-5, rtol=1e-5)


def test_texts_beyond_the_maximum_are_cut_with_a_count_or_read_in_windows(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = torch.full((1, 70), 2)
    with caplog.at_level(logging.WARNING):
        hidden = model(folder)(tokens, tokens > 0).hidden[0]
    assert "longer than the 64 pieces" in caplog.text
    assert "8 words" in caplog.text
    assert torch.all(hidden[62:] == 0)
    assert torch.all(hidden[:62].abs().sum(-1) > 0)
    windows = model(folder, long_texts="window")(tokens, tokens > 0).hidden[0]
    torch.testing.assert_close(windows[:62], hidden[:62], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(windows[62:], reference(folder, ["good"] * 8)[0][1:-1], atol=1e-5, rtol=1e-5)


def test_a_text_of_special_pieces_only_is_read_as_unknown(folder: Path) -> None:
    tokens = torch.tensor([[8, 8]])
    hidden = model(folder)(tokens, tokens > 0).hidden[0]
    torch.testing.assert_close(hidden, reference(folder, ["[UNK]", "[UNK]"])[0][1:-1], atol=1e-5, rtol=1e-5)


def test_attention_inside_is_that_of_the_pieces(folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    ours = model(folder)
    found = ours.token_attention(ours.embed(TOKENS[:1]), TOKENS[:1] > 0)
    assert found is not None
    encoded = AutoTokenizer.from_pretrained(folder)(
        [["good", "zebra", "film"]], is_split_into_words=True, return_tensors="pt"
    )
    bert = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    owners = encoded.word_ids(0)
    for layer, heads in zip(found, bert(**encoded, output_attentions=True).attentions, strict=True):
        pieces, words = heads[0].mean(0), torch.zeros(3, 3)
        for query, row in enumerate(owners):
            for key, column in enumerate(owners):
                if row is not None and column is not None:
                    words[row, column] += pieces[query, key].detach()
        torch.testing.assert_close(layer[0, :3, :3], words / words.sum(1, keepdim=True), atol=1e-5, rtol=1e-5)
    ours(TOKENS, TOKENS > 0)
    assert ours.encoder.model.config._attn_implementation == "sdpa", "the next pass is a fast one again"


def test_kernels_follow_the_pass_and_change_no_number(folder: Path) -> None:
    from transformers import AttentionInterface

    ours, mask, taken = model(folder), TOKENS > 0, []
    fused = AttentionInterface._global_mapping["sdpa"]
    AttentionInterface._global_mapping["sdpa"] = lambda *args, **options: (
        taken.append("sdpa") or fused(*args, **options)
    )
    try:
        expected = ours(TOKENS, mask).hidden
        assert taken
        taken.clear()
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(ours(TOKENS, mask).hidden, expected, atol=0.03, rtol=0.03)
        assert not taken
    finally:
        AttentionInterface._global_mapping["sdpa"] = fused


def test_frozen_states_are_computed_once_and_equal(folder: Path, tmp_path: Path) -> None:
    frozen, mask = model(folder, frozen=True).train(), TOKENS > 0
    assert not any(parameter.requires_grad for parameter in frozen.encoder.parameters())
    assert not frozen.encoder.model.training
    expected = frozen(TOKENS, mask)

    def texts() -> Iterator[tuple[Tensor, Tensor, None]]:
        yield TOKENS, mask, None

    frozen.encoder.prepare(texts(), tmp_path, "texts")
    again = model(folder, frozen=True)
    again.encoder.prepare(iter(()), tmp_path, "texts")  # another method, another seed: nothing is read
    calls = []
    again.encoder.model.register_forward_hook(lambda *_: calls.append(1))
    found = again(TOKENS, mask)
    assert torch.equal(found.hidden, expected.hidden)
    assert torch.equal(found.logits, expected.logits)
    assert calls == []
    shorter = again(TOKENS[:, :2], mask[:, :2])
    assert calls == [1], "an erased text runs the encoder"
    torch.testing.assert_close(shorter.hidden, model(folder)(TOKENS[:, :2], mask[:, :2]).hidden, atol=1e-6, rtol=1e-6)
    embeddings = again.embed(TOKENS).detach().requires_grad_()
    again.encode(embeddings, mask).square().sum().backward()
    assert calls == [1, 1], "a perturbed one too"
    assert embeddings.grad is not None


def test_states_of_a_frozen_encoder_are_the_same_to_the_bit_in_any_batch(folder: Path) -> None:
    frozen = model(folder, frozen=True)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (30,), generator=generator)
    rows = [torch.randint(2, len(VOCABULARY), (int(length),), generator=generator) for length in lengths]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    together = frozen(tokens, tokens > 0).hidden
    for row, states in zip(rows, together, strict=True):
        alone = frozen(row[None], row[None] > 0).hidden[0]
        assert torch.equal(alone, states[: len(row)])


def test_a_word_costs_its_pieces_unless_an_epoch_reads_stored_states(folder: Path) -> None:
    costs = model(folder).encoder.word_costs()
    assert costs is not None
    # Words that are no pieces fall into their letters; special ones are the unknown piece; padding is never read.
    assert costs.tolist() == [0, 1, 1, 1, 1, 1, 1, 5, 1, 3]
    assert model(folder, frozen=True, cached=False).encoder.word_costs() is not None
    assert model(folder, frozen=True).encoder.word_costs() is None


def test_rates_fall_from_layer_to_layer(folder: Path) -> None:
    encoder = model(folder, learning_rate=1e-4, layer_decay=0.5).encoder
    rates = {id(p): rate for group, rate in encoder.learning_rates() for p in group}
    named = dict(encoder.model.named_parameters())
    for name, rate in (("encoder.layer.1", 1e-4), ("encoder.layer.0", 5e-5), ("embeddings", 2.5e-5)):
        assert {rates[id(p)] for key, p in named.items() if key.startswith(name)} == {rate}
    assert len(rates) == len(named)


def test_gradient_checkpointing_gives_the_same_gradients(folder: Path) -> None:
    plain, saving = model(folder).train(), model(folder, gradient_checkpointing=True).train()
    for each in (plain, saving):
        each(TOKENS, TOKENS > 0).logits.square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", [WordAT(), WordVAT(), AttentionIVAT(), Relation()], ids=lambda m: type(m).__name__)
def test_gradient_checkpointing_gives_the_same_gradients_under_methods_and_half_precision(
    folder: Path, method: Method, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernels that checkpointing always takes: those of other rounding would hide what is compared.
    monkeypatch.setattr("attn_lightning.backbone.pretrained.plain_attention_pays", lambda _: False)
    batch = Batch(TOKENS, TOKENS > 0, torch.tensor([0, 1]), torch.arange(2))
    found = []
    for checkpointing in (False, True):
        ours = model(folder, gradient_checkpointing=checkpointing).train()
        check_methods([method], ours)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            step = TrainStep(ours, batch, ours(batch.tokens, batch.mask), cross_entropy, progress=0.0)
            term = method.loss(step)
        assert term is not None
        (step.task_loss(step.output.logits, batch.labels).mean() + 10 * term.value).backward()
        found.append({name: parameter.grad for name, parameter in ours.named_parameters()})
    plain, saving = found
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(saving[name], gradient, msg=name)


def test_a_checkpoint_alone_builds_it_again(folder: Path) -> None:
    from dataclasses import replace

    ours = model(folder, layer=1)
    assert not any(name.startswith("embedding.") for name in ours.state_dict()), "nothing stands twice"
    spec = replace(SPEC, resources=ours.resources())
    again = AttentionClassifier(spec, partial(Pretrained, name="/no/such/folder", layer=1)).eval()
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(TOKENS, TOKENS > 0).logits, ours(TOKENS, TOKENS > 0).logits)
    again.know((*VOCABULARY, "moth"))
    assert again(torch.tensor([[10, 2]]), torch.ones(1, 2, dtype=torch.bool)).hidden.shape == (1, 2, SIZE)
    assert copy.deepcopy(again).embedding.table is not again.embedding.table


def test_what_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"`--data\.unknown=keep`"):
        model(folder, DataSpec(2, 10, 5, ("no", "yes")))
    with pytest.raises(ConfigurationError, match=r"`--data\.unknown=token`"):
        AttentionClassifier(SPEC, Average)
    with pytest.raises(ConfigurationError, match="has 2 layers"):
        model(folder, layer=3)
    with pytest.raises(ConfigurationError, match="max_word_pieces"):
        model(folder, max_word_pieces=40)
