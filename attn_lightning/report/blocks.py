"""Arrays and texts as a page carries them: compressed, in Base64, each stored once however many runs share it."""

import base64
import hashlib
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEVEL = 3
"""Of compression: the default takes three times as long for a tenth less."""

_INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4")
LEVELS = 127
"""Steps between zero and the largest weight of an example: an eighth bit is the sign."""


class Blocks:
    """The blocks of one page; equal contents have one block.

    A block is referred to as `{"block": key, "type": "u1" | ... | "f4" | "json"}`; the page inflates it when it is
    needed for the first time.
    """

    def __init__(self) -> None:
        self.contents: dict[str, str] = {}

    def integers(self, values: NDArray[Any]) -> dict[str, str]:
        """Whole numbers in the smallest type that holds them all, little-endian.

        Raises:
            ValueError: a number is beyond 32 bits.
        """
        low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
        for kind in _INTEGERS:
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return self._add(values.astype(f"<{kind}").tobytes(), kind)
        raise ValueError(f"a number between {low} and {high} does not fit into 32 bits")

    def floats(self, values: NDArray[Any]) -> dict[str, str]:
        """Numbers in single precision."""
        # Little-endian, as typed arrays are on every machine that browsers run on.
        return self._add(values.astype("<f4").tobytes(), "f4")

    def json(self, contents: Any) -> dict[str, str]:
        """Lists, texts and whatever else JSON can say; every number must be finite."""
        text = json.dumps(contents, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return self._add(text.encode("utf-8", "replace"), "json")

    def weights(self, values: NDArray[np.float32], lengths: NDArray[np.int64]) -> dict[str, Any]:
        """A number per token in 8 bits: `scale * step / 127`, the scale being the largest magnitude of the example.

        Args:
            values: (T,) flat, NaN anywhere in an example where it was not explained.
            lengths: (N,) tokens of every example.

        Returns:
            `steps`, a block of (T,) from -127 to 127, and `scales`, one of (N,), NaN where there is no explanation.
        """
        scales = np.zeros(len(lengths), np.float64)
        if values.size:
            # A NaN anywhere in an example makes its maximum NaN, and that is what marks it.
            scales[lengths > 0] = np.maximum.reduceat(np.abs(values), _firsts(lengths))
        scales[np.isinf(scales)] = np.nan
        # A scale of 0, all weights equal to 0, would divide 0 by 0; its steps are 0 as well.
        per_token = np.repeat(np.where(scales > 0, scales, np.nan), lengths)
        steps = np.nan_to_num(np.rint(values / per_token * LEVELS), nan=0.0)
        return {"steps": self._add(steps.astype("<i1").tobytes(), "i1"), "scales": self.floats(scales)}

    def _add(self, raw: bytes, kind: str) -> dict[str, str]:
        # By content: runs on the same data share their texts and offsets, and the page holds them once.
        key = hashlib.sha256(raw).hexdigest()[:16]
        if key not in self.contents:
            self.contents[key] = base64.b64encode(zlib.compress(raw, _LEVEL)).decode("ascii")
        return {"block": key, "type": kind}


def gaps_and_widths(
    starts: NDArray[np.int64], ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of tokens as small numbers, which compress well: distance to the token before, and width.

    Args:
        starts: (T,) of every token in its text.
        ends: (T,) of every token.
        lengths: (N,) tokens of every example.

    Returns:
        (T,) gaps, the first of an example counted from the beginning of its text, negative where tokens overlap; and
        (T,) widths.
    """
    # The end of the token before, also of another text; the first of each text is set to 0 in the next line.
    before = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    before[_firsts(lengths)] = 0
    return starts - before, ends - starts


def _firsts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of the first token of every example that has any."""
    return (np.cumsum(lengths) - lengths)[lengths > 0]
