"""Whose classes may be imported because a file names them."""

import pytest

from attn_lightning.checkpoint.trust import check_checkpoint, check_configuration, classes_of, trusted_classes
from attn_lightning.errors import ConfigurationError

OURS = "attn_lightning.backbone.classifier.AttentionClassifier"
FOREIGN = "my_model.MyModel"


@pytest.mark.parametrize(
    "values", [["a.B", "c.D"], ["a.B,c.D"], ["[a.B, c.D]"], ["['a.B', \"c.D\"]"], ["a.B,", " c.D "]], ids=str
)
def test_every_way_to_write_several(values):
    assert trusted_classes(values) == {"a.B", "c.D"}


@pytest.mark.parametrize(
    "parameters",
    [
        {"backbone": {"class_path": OURS, "init_args": {"encoder_dropout": 0.5}}},
        {"backbone": OURS, "learning_rate": 0.5, "class_weights": "none", "_class_path": None},
        {"_instantiator": "lightning.pytorch.cli.instantiate_module"},
        "no mapping at all",
    ],
)
def test_our_own_classes_need_no_asking(parameters):
    check_checkpoint({"hyper_parameters": parameters})


@pytest.mark.parametrize(
    "name",
    [
        FOREIGN,
        "subprocess.Popen",
        "attn_lightning_evil.Model",
        "attn_lightning.cli.main",  # not a class
        "attn_lightning.files.Path",  # a class, but another's
        "attn_lightning.__main__.Anything",  # to import it is to run the program
        "attn_lightning.nowhere.Model",
    ],
)
@pytest.mark.parametrize("key", ["hyper_parameters", "hparams", "module_arguments"])
def test_any_other_is_refused_wherever_it_stands(name, key):
    for where in (name, {"class_path": name}, {"class_path": OURS, "init_args": {"encoder": [{"class_path": name}]}}):
        checkpoint = {key: {"backbone": where}}
        with pytest.raises(ConfigurationError, match=f"--trust {name}"):
            check_checkpoint(checkpoint)
        check_checkpoint(checkpoint, {name})


def test_a_foreign_maker_of_modules_is_refused():
    with pytest.raises(ConfigurationError, match=r"os\.system"):
        check_checkpoint({"hyper_parameters": {"_instantiator": "os.system"}})


def test_a_program_knows_what_it_has_imported_itself():
    import fractions

    named = {"hyper_parameters": {"backbone": f"{fractions.__name__}.Fraction"}}
    check_checkpoint(named, None)
    with pytest.raises(ConfigurationError):
        check_checkpoint({"hyper_parameters": {"backbone": FOREIGN}}, None)
    with pytest.raises(ConfigurationError):
        check_checkpoint(named, ())


def test_a_configuration_names_classes_and_files():
    config = {
        "model": {"backbone": {"class_path": FOREIGN}},
        "method": {
            "class_path": "ModelConsistentAdversary",
            "init_args": {"base_checkpoint": "best.ckpt", "teacher_checkpoint": "b.ckpt"},
        },
        "data": {
            "class_path": "CSV",
            "init_args": {"train": "train.csv", "embeddings": "my.Vectors", "unlabeled": None},
        },
        "trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}]},
    }
    assert set(classes_of(config)) == {FOREIGN, "my.Vectors", "lightning.pytorch.callbacks.EarlyStopping"}
    with pytest.raises(ConfigurationError, match=r"names my\.Vectors, my_model\.MyModel"):
        check_configuration(config)
    check_configuration(config, {FOREIGN, "my.Vectors"})
    for nothing in (None, "text", []):
        check_configuration(nothing)


def test_a_data_set_of_another_is_refused_and_so_is_its_pool():
    for data in ("my_data.Mine", {"class_path": "CSV", "init_args": {"unlabeled": {"class_path": "my_data.Mine"}}}):
        with pytest.raises(ConfigurationError, match=r"my_data\.Mine"):
            check_configuration({"data": data})
