"""Generated texts as a data module: masks, specification, manifest."""

from pathlib import Path

import pytest

from attn_lightning.data.planted import Planted
from attn_lightning.data.planted_documents import PlantedOptions, generate


class TestDataModule:
    @pytest.fixture
    def module(self, tmp_path: Path) -> Planted:
        return ready(
            Planted(train_documents=64, validation_documents=20, test_documents=30, shortcut=0.9, cache=tmp_path)
        )

    def test_batches_carry_exact_masks(self, module: Planted) -> None:
        documents = generate("test", module.options)
        seen = 0
        for batch in module.test_dataloader():
            assert batch.rationale is not None
            assert batch.shortcut is not None
            assert batch.has_rationale is not None
            assert batch.has_rationale.all()
            for index, row in enumerate(batch.rows.tolist()):
                length = int(batch.mask[index].sum())
                document = documents[row]
                assert length == len(document.tokens)
                assert batch.labels[index] == document.label
                assert batch.rationale[index, :length].tolist() == document.rationale
                assert batch.shortcut[index, :length].tolist() == document.shortcut
                word = document.tokens[document.shortcut.index(True)]
                assert word == "qu" + module.label_names[int(batch.shortcut_class[index])]
                assert not batch.rationale[index, length:].any()
                seen += 1
        assert seen == 30

    def test_without_shortcut_there_is_no_mask(self, tmp_path: Path) -> None:
        module = ready(Planted(train_documents=20, validation_documents=4, test_documents=4, cache=tmp_path))
        batch = next(iter(module.test_dataloader()))
        assert batch.shortcut is None
        assert batch.shortcut_class is None
        assert batch.rationale is not None

    def test_specification_and_manifest(self, module: Planted, tmp_path: Path) -> None:
        assert module.label_names == module.options.label_names
        assert module.spec.num_classes == 2
        assert module.spec.embedding_size == 300
        assert module.spec.vocabulary_size == len(module.tokenizer.vocabulary)
        assert {split: entry["rows"] for split, entry in module.manifest["splits"].items()} == {
            "train": 64,
            "validation": 20,
            "test": 30,
        }
        again = ready(
            Planted(train_documents=64, validation_documents=20, test_documents=30, shortcut=0.9, cache=tmp_path / "b")
        )
        assert again.manifest == module.manifest

    def test_other_options_are_other_data(self, tmp_path: Path) -> None:
        folders = [
            Planted(train_documents=20, validation_documents=4, test_documents=4, cache=tmp_path, **options)
            for options in ({}, {"seed": 1}, {"negation": 0.2})
        ]
        assert len({module.source().revision for module in folders}) == 3

    def test_the_defaults_are_those_of_the_options(self) -> None:
        assert Planted().options == PlantedOptions()


def ready(module: Planted) -> Planted:
    module.prepare_data()
    module.setup()
    return module
