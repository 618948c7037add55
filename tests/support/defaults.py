"""What a class does where nothing is said: experiments and documents rely on it."""

import inspect
from typing import Any


def defaults(cls: Any) -> dict[str, Any]:
    """The defaults of the arguments of a class."""
    return {name: parameter.default for name, parameter in inspect.signature(cls.__init__).parameters.items() if
            parameter.default is not inspect.Parameter.empty}  # fmt: skip
