"""Study files: what they mean, and one clear error for every mistake."""

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.configuration import DEFAULT_METRICS
from attn_lightning.study.expansion import expand


def test_names_and_a_number_of_seeds(study):
    found = study("methods: [vanilla, iat]\ndata: [planted]\nseeds: 3\n")
    assert found.seeds == (0, 1, 2)
    assert found.metrics == DEFAULT_METRICS
    assert found.baseline == "vanilla"
    assert [str(cell) for cell in expand(found)] == [
        f"{method}_planted/seed_{seed}" for seed in range(3) for method in ("vanilla", "iat")
    ]


def test_lists_are_crossed_and_labeled(study):
    found = study(
        """
        methods:
          vanilla:
          relation: {method.output: [logit, loss], method.target: [joint, attention], method.weight: 0.1}
        data: [planted, sst]
        seeds: 1
        options: {data.split_seed: [0, 1]}
        """,
    )
    assert [variant.label for variant in found.methods] == [
        "vanilla",
        "relation,output=logit,target=joint",
        "relation,output=logit,target=attention",
        "relation,output=loss,target=joint",
        "relation,output=loss,target=attention",
    ]
    cells = expand(found)
    assert len(cells) == 5 * 2 * 2
    assert cells[1].name == "relation,output=logit,target=joint_planted_split_seed=0"
    assert ("method.weight", "0.1") in cells[1].overrides
    assert cells == expand(found)


def test_what_is_required_of_a_run(study):
    text = "methods: [vanilla]\ndata: [planted]\nseeds: 2\n"
    found = study(text + "require: {accuracy: 0.9, val/f1: 1}\n")
    assert found.require == {"test/accuracy": 0.9, "val/f1": 1.0}
    assert found.condition == "test/accuracy >= 0.9 and val/f1 >= 1"
    assert study(text).require == {}
    with pytest.raises(ConfigurationError, match=r"least value.*test/accuracy: 0\.9"):
        study(text + "require: {accuracy: high}\n")
    with pytest.raises(ConfigurationError, match=r"`test/\.\.\.`"):
        study(text + "require: {train/accuracy: 0.9}\n")


VALID = "methods: [vanilla]\ndata: [planted]\nseeds: 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [vanilla]\ndata: [planted]\n", "no `seeds`"),
        (VALID + "sedes: 2\n", "'sedes'; rename it. Did you mean seeds"),
        ("methods: []\ndata: [planted]\nseeds: 1\n", "`methods` to be a list of names"),
        ("methods: [3]\ndata: [planted]\nseeds: 1\n", "`methods` to be a list of names"),
        ("methods: [vanilla, vanilla]\ndata: [planted]\nseeds: 1\n", "'vanilla' twice"),
        ("methods: {vanilla: 3}\ndata: [planted]\nseeds: 1\n", "`methods.vanilla` to be a mapping"),
        ("methods: {vanilla: {method.epsilon: []}}\ndata: [planted]\nseeds: 1\n", "not empty"),
        ("methods: {vanilla: {method: {}}}\ndata: [planted]\nseeds: 1\n", "an empty mapping"),
        ("methods: [vanilla]\ndata: [planted]\nseeds: 0\n", "`seeds`"),
        ("methods: [vanilla]\ndata: [planted]\nseeds: -1\n", "`seeds`"),
        ("methods: [vanilla]\ndata: [planted]\nseeds: [1, 1]\n", "1 twice"),
        ("methods: [vanilla]\ndata: [planted]\nseeds: [1.5]\n", "`seeds`"),
        ("methods: [vanilla]\ndata: [planted]\nseeds: true\n", "`seeds`"),
        (VALID + "metrics: []\n", "`metrics`"),
        (VALID + "metrics: [train/loss]\n", "'train/loss'"),
        (VALID + "baseline: vanila\n", "'vanila'; choose of vanilla. Did you mean vanilla"),
        (VALID + "options: [a]\n", "`options` to be a mapping"),
        (VALID + "options: {run.root: x}\n", "'run.root', which a study sets"),
        (VALID + "options: {seed_everything: [1, 2]}\n", "'seed_everything', which a study sets"),
        (VALID + "experiments: nowhere\n", "`experiments` to be a folder"),
        ("methods: [vanilla\n", "readable YAML"),
        ("seeds: 1\nseeds: 2\n", "readable YAML"),
        ("data: ${nothing}\n", "readable YAML"),
        ("", "a mapping with"),
        ("- vanilla\n", "a mapping with"),
    ],
)
def test_a_mistake_is_one_error_that_names_the_file(study, text, message):
    with pytest.raises(ConfigurationError) as caught:
        study(text)
    assert message in str(caught.value)
    assert "tried.yaml" in str(caught.value)


@pytest.mark.parametrize(
    "pattern", ["sdc_{data}", "{method}", "{data}{data}_{method}", "{method}_{data}_{seed}", "../{method}_{data}", "3"]
)
def test_other_patterns_are_refused(study, pattern):
    with pytest.raises(ConfigurationError, match="experiment_name"):
        study(f"experiment_name: '{pattern}'\nmethods: [vanilla]\ndata: [sst]\nseeds: 1\n")
