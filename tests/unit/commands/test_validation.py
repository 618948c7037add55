"""What `fit` would run, without running it."""

import shutil
from hashlib import sha256

import pytest

from attn_lightning.backbone.published import ENCODER
from attn_lightning.commands.validation import Validator
from attn_lightning.data import Planted
from attn_lightning.data.revision import Version, model_place, revisions
from attn_lightning.errors import ConfigurationError


@pytest.fixture(scope="module")
def validator():
    return Validator()


def test_a_command_becomes_its_whole_configuration(validator):
    config = validator.parse(["fit", "--data.max_length=9", "--data=Planted", "--method=AttentionAT"])
    assert config["data"]["init_args"]["max_length"] == 9
    assert config["method"]["init_args"]["weight"] == 1.0
    assert config["seed_everything"] == 0


def test_callbacks_of_the_package_are_found_by_their_name(validator):
    options = ["--trainer.callbacks+=ProbeSet", "--trainer.callbacks.suite=plausibility"]
    (callback,) = validator.parse(["fit", "--data=Planted", *options])["trainer"]["callbacks"]
    assert callback["init_args"]["suite"] == "plausibility"


def test_what_fit_sets_by_itself_is_part_of_the_configuration(validator):
    """Else a run would never be the one that its study asks for, and be made again with every call."""
    encoder = ["--model.backbone.encoder=Pretrained", "--model.backbone.encoder.name=owner/name"]
    for options, unknown in (([], "token"), (encoder, "keep")):
        config = validator.parse(["fit", "--data=TextFiles", "--data.train=a.csv", *options])
        assert config["data"]["init_args"]["unknown"] == unknown


def test_one_command_leaves_nothing_to_the_next(validator):
    validator.parse(["fit", "--data=Planted", "--method=AttentionAT", "--seed_everything=3"])
    config = validator.parse(["fit", "--data=Planted"])
    assert config["method"] is None
    assert config["seed_everything"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data=Planted", "--trainer.max_epoch=3"], "Did you mean"),
        (["--data=Planted", "--method.epsilonn=3", "--method=AttentionAT"], "Did you mean epsilon"),
        (["--data=Planted", "--trainer.max_epochs=many"], "trainer.max_epochs"),
        ([], "data"),
        (["--config=none_at_all"], "none_at_all"),
    ],
)
def test_what_fit_would_refuse_is_one_message(validator, capsys, options, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        validator.parse(["fit", *options])
    assert "run with --help" not in str(caught.value)
    assert capsys.readouterr().err == ""


def test_nothing_is_left_behind(validator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    validator.parse(["fit", "--data=Planted", "--run.root=here"])
    assert not list(tmp_path.iterdir())


def test_the_revision_of_data_is_that_of_its_own_module(validator, tmp_path):
    config = validator.parse(["fit", "--data=Planted", "--data.embeddings=RandomEmbeddings"])
    assert validator.revisions(config) == revisions(Planted())
    absent = validator.parse(["fit", "--data=TextFiles", f"--data.train={tmp_path / 'none.csv'}"])
    assert validator.revisions(absent) == {}


@pytest.mark.parametrize("slot", ["--method=", "--trainer.callbacks+="])
def test_a_model_that_a_method_begins_from_is_known_by_its_content(validator, tmp_path, slot):
    path = tmp_path / f"{len(slot)}.ckpt"
    data = ["fit", "--data=Planted", "--data.embeddings=RandomEmbeddings"]
    config = validator.parse([*data, f"{slot}L2X", f"{slot.strip('+=')}.teacher_checkpoint={path}"])
    path.write_text("weights")
    place = model_place("teacher_checkpoint")
    assert validator.revisions(config) == {**revisions(Planted()), place: Version(sha256(b"weights").hexdigest())}


def test_a_pretrained_encoder_is_known_by_its_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_text("weights")
    options = ["fit", "--data=Planted", "--data.embeddings=RandomEmbeddings", "--model.backbone.encoder=Pretrained"]

    def version(name):
        # A validator reads files once: what changes meanwhile is for the next command to see.
        fresh = Validator()
        return fresh.revisions(fresh.parse([*options, f"--model.backbone.encoder.name={name}"])).get(
            model_place(ENCODER)
        )

    first = version(tmp_path)
    assert first == version(tmp_path)
    shutil.copytree(tmp_path, copy := tmp_path / "copy")
    assert version(copy) == first
    weights.write_text("other weights")
    assert version(tmp_path) not in (first, None)
    # Its pinned revision says what it is.
    assert version("owner/name") is None
