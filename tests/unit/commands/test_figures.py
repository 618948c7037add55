"""The command `figures`: of a checkpoint or of a study, and every mistake as one message."""

import pytest


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ([], ["--ckpt_path", "--study"]),
        (["--study=no_such_study"], ["no_such_study", "All: "]),
        (["--ckpt_path=missing.ckpt"], ["missing.ckpt", "does not exist"]),
        (["--study=sdc_blobs", "--split=validation"], ["--study", "--split=validation"]),
        (["--study=sdc_blobs", "--data.batch_size=3"], ["--data.batch_size"]),
    ],
)
def test_bad_input_is_one_message(cli, options, texts):
    outcome = cli("figures", *options)
    assert outcome.code in (1, 2)
    assert "Traceback" not in outcome.err
    for text in texts:
        assert text in outcome.err, outcome.err


def test_metrics_belong_to_studies(cli, finished):
    outcome = cli("figures", "--ckpt_path", finished / "checkpoints" / "best.ckpt", "--metrics=[test/accuracy]")
    assert outcome.code == 1
    assert "go with `--ckpt_path`, but got `--metrics" in outcome.err
