"""Published numbers beside ours, where what ran is what they were measured with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attn_lightning.report.run_data import Run, mapping

_JAIN_WALLACE = "Jain and Wallace 2019, committed outputs, one run"
_MOHANKUMAR = "Mohankumar et al. 2020"
_RELATION = "relation loss (weight 0.1), poster, one run on another test split"
_ACCURACY, _F1, _AUROC = "test/accuracy", "test/f1", "test/auroc"
_GRADIENT = ("test/gradient_kendall_mean", "evaluation/agreement/gradient/kendall")
_LEFT_OUT = ("evaluation/agreement/loo/kendall",)

_DIVERSITY = {"Diversity": {"weight": 0.5}}
# The poster does not say which output is differentiated, through what, and which side moves: any of these may be its.
_POSTER = {"Relation": {"weight": 0.1, "sigma": "softmax", "temperature": 1.0}}

_HIDDEN_SIZES = {"BiLSTM": 128, "OrthogonalLSTM": 128, "Average": 256}
_MODEL: Mapping[str, tuple[object, ...]] = {
    "freeze_embeddings": (False,),
    "freeze_scorer": (False,),
    "embedding_dropout": (0.0,),
    "encoder_dropout": (0.0,),
    "focus": (None,),
    "classifier": (None,),
    "prediction": ("averaged_input",),
}
_DATA: Mapping[str, tuple[object, ...]] = {
    # None is what the protocol of the data set says.
    **dict.fromkeys(("min_length", "max_length", "min_count", "digits", "tokenizer"), (None,)),
    **dict.fromkeys(("validation_fraction", "split_seed", "max_examples", "max_test_examples"), (None,)),
    **dict.fromkeys(("labeled_fraction", "labels_per_class", "unlabeled"), (None,)),
    "lowercase": (True,),
    "unknown": ("token",),
    "default_tokens": (0,),
    "num_classes": (2,),
}
_TRAINER: Mapping[str, tuple[object, ...]] = {
    "fast_dev_run": (False,),
    "limit_train_batches": (None, 1.0),
    "limit_test_batches": (None, 1.0),
    "overfit_batches": (0.0,),
}
"""Options that make another model, other texts or other labels than the sources had, and the values that do not.

How long and how fast one trains is not among them: every source did that in its own way.
"""


@dataclass(frozen=True)
class Published:
    """Numbers of one source for one model on one data set.

    Attributes:
        data: name of the data as manifests give it.
        encoder: class of the encoder.
        scorer: class of the scorer; empty where the source's is not among ours.
        methods: by class the options that the source gives, those that it leaves open left out; empty for training
            without a method.
        source: who measured it, and how often.
        values: by the key under which runs record the metric.
    """

    data: str
    encoder: str
    scorer: str
    methods: Mapping[str, Mapping[str, object]]
    source: str
    values: Mapping[str, float]


def _outputs(accuracy: float, f1: float, auroc: float, gradient: float, left_out: float) -> dict[str, float]:
    agreements = {**dict.fromkeys(_GRADIENT, gradient), **dict.fromkeys(_LEFT_OUT, left_out)}
    return {_ACCURACY: accuracy, _F1: f1, _AUROC: auroc, **agreements}


def _vanilla(data: str, encoder: str, *numbers: float) -> Published:
    return Published(data, encoder, "AdditiveScorer", {}, _JAIN_WALLACE, _outputs(*numbers))


PUBLISHED = (
    _vanilla("sst2", "BiLSTM", 0.808, 0.784, 0.902, 0.351, 0.291),
    _vanilla("imdb", "BiLSTM", 0.898, 0.896, 0.960, 0.437, 0.341),
    _vanilla("20news_sports", "BiLSTM", 0.922, 0.917, 0.978, 0.130, 0.123),
    _vanilla("ag_news", "BiLSTM", 0.958, 0.958, 0.990, 0.389, 0.367),
    _vanilla("sst2", "Average", 0.807, 0.800, 0.895, 0.606, 0.623),
    _vanilla("imdb", "Average", 0.883, 0.882, 0.945, 0.675, 0.576),
    _vanilla("20news_sports", "Average", 0.913, 0.909, 0.969, 0.772, 0.721),
    _vanilla("ag_news", "Average", 0.954, 0.955, 0.988, 0.770, 0.507),
    Published("sst2", "BiLSTM", "AdditiveScorer", _DIVERSITY, _MOHANKUMAR, {_ACCURACY: 0.800}),
    Published("imdb", "BiLSTM", "AdditiveScorer", _DIVERSITY, _MOHANKUMAR, {_ACCURACY: 0.885}),
    Published("20news_sports", "BiLSTM", "AdditiveScorer", _DIVERSITY, _MOHANKUMAR, {_ACCURACY: 0.910}),
    Published("sst2", "OrthogonalLSTM", "AdditiveScorer", {}, _MOHANKUMAR, {_ACCURACY: 0.801}),
    Published("imdb", "OrthogonalLSTM", "AdditiveScorer", {}, _MOHANKUMAR, {_ACCURACY: 0.887}),
    Published("20news_sports", "OrthogonalLSTM", "AdditiveScorer", {}, _MOHANKUMAR, {_ACCURACY: 0.922}),
    Published("sst2", "BiLSTM", "AdditiveScorer", _POSTER, _RELATION, {_ACCURACY: 0.7913, _F1: 0.7875}),
    Published("imdb", "BiLSTM", "AdditiveScorer", _POSTER, _RELATION, {_ACCURACY: 0.8719, _F1: 0.8695}),
    Published("20news_sports", "BiLSTM", "AdditiveScorer", _POSTER, _RELATION, {_ACCURACY: 0.9457, _F1: 0.9468}),
)
"""Numbers printed in a paper, on a poster or in committed outputs, of methods that the package has.

Of adversarial training of attention, combinatorial shortcuts and the bottleneck no number could be found. Those of the
segments of images were measured on training data and are in `experiments/README.md` alone.
"""


@dataclass(frozen=True)
class Known:
    """A published number.

    Attributes:
        value: as printed.
        source: who measured it, on which test split.
    """

    value: float
    source: str


def published(run: Run, metric: str) -> Known | None:
    """The published number for a metric of a run, by data, model and methods, with their options, as they ran.

    Args:
        run: whose record and configuration say what it was; names of runs and files say nothing.
        metric: key under which runs record it.

    Returns:
        None where there is none, or where the run says too little.
    """
    model = mapping(mapping(run.config.get("model")).get("backbone"))
    options = mapping(model.get("init_args"))
    encoder, scorer, normalizer = (_class_name(options.get(part)) for part in ("encoder", "scorer", "normalizer"))
    # A backbone around the classifier, such as one with default tokens, may have options of the same names.
    # Everybody compared with a softmax over all tokens.
    if _class_name(model) != "AttentionClassifier" or normalizer != "Softmax":
        return None
    if not _as_published(run, options, encoder) or not isinstance(methods := run.record.get("methods"), list):
        return None
    # Mohankumar et al. took the splits of Jain and Wallace.
    elsewhere = "" if run.data.get("protocol") == "jain_wallace" else ", on another test split"
    for known in PUBLISHED:
        same_model = (known.data, known.encoder, known.scorer) == (run.data_name, encoder, scorer)
        if same_model and _same_methods(known.methods, methods) and metric in known.values:
            return Known(known.values[metric], known.source + ("" if known.source == _RELATION else elsewhere))
    return None


def _as_published(run: Run, backbone: Mapping[str, object], encoder: str) -> bool:
    size = (_HIDDEN_SIZES.get(encoder),)
    return (
        _within(backbone, _MODEL)
        and _within(_options(backbone.get("encoder")), {"hidden_size": size, "num_layers": (1,)})
        and _within(_options(backbone.get("scorer")), {"attention_size": (None, 128)})
        and _within(_options(run.config.get("data")), _DATA)
        and _within(mapping(run.config.get("trainer")), _TRAINER)
    )


def _within(options: Mapping[str, object], allowed: Mapping[str, tuple[object, ...]]) -> bool:
    # A configuration without an option is from a version that did not have it, and did what its default says now.
    return all(options[name] in values for name, values in allowed.items() if name in options)


def _same_methods(known: Mapping[str, Mapping[str, object]], ran: Sequence[object]) -> bool:
    found = {str(mapping(method).get("class")): mapping(method) for method in ran}
    # A method that does not say its options is not guessed at.
    return len(ran) == len(known) == len(found) and all(
        name in found and all(found[name].get(option) == value for option, value in options.items())
        for name, options in known.items()
    )


def _options(value: object) -> Mapping[str, object]:
    return mapping(mapping(value).get("init_args"))


def _class_name(value: object) -> str:
    return str(mapping(value).get("class_path") or value).rpartition(".")[2]
