"""Hold a training method of one's own to the contract that every method of the package keeps.

    from attn_lightning.testing import check_method

    def test_my_method():
        check_method(MyMethod)

A new method is three files: a class derived from `Method` (one that lies in `attn_lightning/methods` is found without
being registered; from elsewhere name it `--method my_package.MyMethod`), a YAML file with its options, and a test. The
test needs nothing but this function, whatever runs it; what is particular to the method, such as its formula in a plain
loop, stands beside it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.methods.base import Method
from attn_lightning.testing import contract
from attn_lightning.testing.small import SmallModel, settings_of, small_model
from attn_lightning.testing.training import check_training

ALWAYS = (contract.check_card, contract.check_options)
"""Checks that need no model."""

EVERY_METHOD = (contract.check_weight_zero, contract.check_halves)
"""Checks of the whole objective."""

WITH_TERM = (
    contract.check_term,
    contract.check_nothing_is_left,
    contract.check_seed,
    contract.check_half_precision,
    contract.check_padding_and_order,
    contract.check_unlabeled,
    contract.check_descent,
    contract.check_gradient,
)
"""Checks of a method that defines `loss`."""


def check_method(make: Callable[..., Method], options: Mapping[str, Any] | None = None) -> None:
    """Hold a method to the whole contract.

    1. encoder calls per step as declared; 2. a finite float32 scalar with graph, logged values detached; 3. weight 0
    gives the baseline's loss and gradients exactly; 4. values at padding change nothing; 5. the order of the batch
    changes nothing; 6. nothing is left behind before the backward pass; 7. same seed, same value, also when pickled;
    8. twenty gradient steps lower the term; 9. gradcheck in float64, twice where declared; 10. the mean gradient of two
    halves is the gradient of the whole, and no parameter is left out; 11. it trains in float32 and bfloat16; 12. its
    docstring has the fixed headings. Items 1 to 10 hold for `AttentionClassifier` and for a model that shares no part
    with it. Noise must come from `torch.randn_like`, which is how the checks hold it still.

    Args:
        make: the class, or a function that takes a `weight` and makes the method; all arguments have defaults.
        options: with which it is trained in item 11, beside its defaults.

    Raises:
        AssertionError: the first promise that is not kept, with what to do.
        ConfigurationError: the method would train as the baseline, or returns something that a hook may not.
    """
    for check in ALWAYS:
        check(make)
    method = make()
    checks = EVERY_METHOD if type(method).loss is Method.loss else (*WITH_TERM, *EVERY_METHOD)
    for kind in (SmallModel, AttentionClassifier) if settings_of(make).any_model else (AttentionClassifier,):
        for check_model in checks:
            check_model(make, small_model(kind, method.requires_backbone))
    check_training(make, options)
