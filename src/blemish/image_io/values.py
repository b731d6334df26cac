"""Values of more than 8 bits to 8 bits: one rule for files and arrays, grey and colour, whole and in parts.

The range that becomes 0..255 is, in this order:

1. the one that the caller gives;
2. the one that the file declares, if nearly all values lie in it;
3. for whole numbers from 0: the full range of the smallest bit depth (8, 10, 12, 14, 16) that holds nearly all of them;
4. for other numbers [0, 1], if nearly all lie in it;
5. else the values' own range, without the outermost ones where these would stretch it.

"Nearly all" leaves out one value in a thousand, and for a bit depth one in a hundred if no value lies in the next bit:
hot and dead pixels decide nothing, and a bright spot, which has values of all sizes, does. Notes say what was done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from blemish.errors import ImageError
from blemish.types import ValueRange

_DEPTHS = (8, 10, 12, 14, 16)
#: One value in so many may lie outside of the range; outside of a bit depth, with none in the next bit, one in so many.
_RARE, _RARE_ABOVE = 1000, 100
#: Own range: the outermost values are left out if that makes it shorter than this fraction.
_STRETCHED = 0.8
#: Rounding may exceed the ends of [0, 1].
_ROUNDING = 1e-6
#: Values that are scaled at once.
_BLOCK = 1_000_000


@dataclass(frozen=True)
class Samples:
    """Decoded values of more than 8 bits.

    Attributes:
        values: (H, W) grey, or (H, W, C) with C = 2 (grey, opacity), 3 (RGB) or 4 (RGB, opacity); any real type.
        kind: What to call them in notes: "16-bit", "float", "uint16".
        declared: The range that the file declares.
        inverted: Whether white is the smallest value.
        trusted: Whether the declared range holds even if many values lie outside, as for a chosen window.
    """

    values: npt.NDArray[Any]
    kind: str
    declared: ValueRange | None = None
    inverted: bool = False
    trusted: bool = False

    @property
    def colour(self) -> npt.NDArray[Any]:
        """The values without opacity: (H, W) or (H, W, 3)."""
        if self.values.ndim == 2:
            return self.values
        return self.values[..., 0] if self.values.shape[2] == 2 else self.values[..., :3]

    @property
    def opacity(self) -> npt.NDArray[Any] | None:
        """Opacity (H, W)."""
        return self.values[..., -1] if self.values.ndim == 3 and self.values.shape[2] in (2, 4) else None


class Statistics:
    """Collects what decides the range of a picture's values, all at once or in parts.

    Args:
        total: Number of values of the whole picture.
        what: Name of the picture in errors.
        path: Its file.
    """

    def __init__(self, total: int, what: str, path: str | None = None) -> None:
        self.low: Any = math.inf
        self.high: Any = -math.inf
        self._rare, self._rare_above = max(total // _RARE, int(total >= _RARE_ABOVE)), total // _RARE_ABOVE
        self._what, self._path = what, path
        self._whole = True
        self._counts = np.zeros(65537, np.int64)  # of 0, 1, ... 65535, and of all above
        self._lows: npt.NDArray[Any] | None = None  # the smallest values, one more than may be left out
        self._highs: npt.NDArray[Any] | None = None

    def add(self, values: npt.NDArray[Any]) -> None:
        """Add values of any shape. Raises ImageError for NaN and infinity."""
        flat = values.reshape(-1)
        low, high = flat.min(), flat.max()
        if flat.dtype.kind == "f":
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ImageError(
                    f"{self._what} holds NaN or infinity; replace them before reading it, or leave it out.", self._path
                )
            self._whole = self._whole and bool((np.rint(flat) == flat).all())
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())
        if self._whole and self.low >= 0:
            small = flat if flat.dtype.itemsize <= 2 else np.minimum(flat, 65536)
            self._counts += np.bincount(small.astype(np.int64), minlength=65537)
        if flat.dtype not in (np.uint8, np.uint16):
            lows = flat if self._lows is None else np.concatenate([self._lows, flat])
            highs = flat if self._highs is None else np.concatenate([self._highs, flat])
            k = self._rare
            self._lows = np.partition(lows, k)[: k + 1] if len(lows) > k + 1 else lows.copy()
            self._highs = np.partition(highs, len(highs) - k - 1)[-k - 1 :] if len(highs) > k + 1 else highs.copy()

    def bit_depth(self) -> int | None:
        """Return the smallest depth that holds nearly all values; None for other numbers than whole ones from 0.

        The few above it must be far above, as hot pixels are: a bright spot has values next to the limit, too.
        """
        if not self._whole or self.low < 0:
            return None
        up_to = np.cumsum(self._counts)
        for depth in _DEPTHS:
            above = int(up_to[-1] - up_to[2**depth - 1])
            near = int(up_to[min(2 ** (depth + 1) - 1, 65535)] - up_to[2**depth - 1])
            if above <= self._rare_above and near == 0:
                return depth
        return None

    def trimmed(self) -> tuple[Any, Any]:
        """Return the range without as many values at either end as may be left out; the whole one if it is as good."""
        if self._lows is None or self._highs is None:
            return self.low, self.high
        low, high = self._lows.max().item(), self._highs.min().item()
        if low >= high or (high / 2 - low / 2) > _STRETCHED * (self.high / 2 - self.low / 2):
            return self.low, self.high
        return low, high

    def is_outside(self, low: float, high: float) -> bool:
        """Return whether more values than may be left out lie outside of a range."""
        if self._lows is not None and self._highs is not None:
            return bool(self._lows.max() < low or self._highs.min() > high)
        numbers = np.arange(65537)
        return int(self._counts[(numbers < low) | (numbers > high)].sum()) > self._rare


def range_of(statistics: Statistics, samples: Samples, value_range: ValueRange | None) -> tuple[ValueRange | None, str]:
    """Return the range that becomes 0..255 and a note on it, by the rule of this module.

    Args:
        statistics: Of all values of the picture.
        samples: The picture, or any part of it.
        value_range: The range that the caller gives.

    Returns:
        The range, None for one constant value without any scale; the note may be empty.
    """
    kind, low, high, declared = samples.kind, statistics.low, statistics.high, samples.declared
    is_float = samples.values.dtype.kind == "f"

    def beyond(start: float, end: float) -> str:
        cut = low < start - _ROUNDING or high > end + _ROUNDING
        return f"; values reach {_text(low)}..{_text(high)}" if cut else ""

    def note(how: str, start: float, end: float) -> str:
        return f"{kind} {how} {_text(start)}..{_text(end)}{beyond(start, end)}"

    if value_range is not None:
        return value_range, given_note(kind, value_range) + beyond(*value_range)
    if declared is not None and (samples.trusted or not statistics.is_outside(*declared)):
        return declared, note("scaled by its file's range", *declared)
    if is_float and not statistics.is_outside(-_ROUNDING, 1 + _ROUNDING):
        text = note("read as", 0.0, 1.0)
        return (0.0, 1.0), text if ";" in text else ""
    is_16_bit = kind in ("16-bit", "uint16")
    depth = statistics.bit_depth()
    if depth is not None:
        text = note(f"read as {depth} bits,", 0, 2**depth - 1)
        return (0, 2**depth - 1), text if is_16_bit or depth > 8 or ";" in text else ""
    if low == high:
        return None, f"{kind} with one value only ({_text(low)}), taken as mid-grey"
    start, end = statistics.trimmed()
    how = "scaled by its range" if (start, end) == (low, high) else "scaled by the range of nearly all values"
    return (start, end), note(how, start, end)


def given_note(kind: str, value_range: ValueRange) -> str:
    """Return the note on a range that the caller gave."""
    return f"{kind} scaled by the given range {_text(value_range[0])}..{_text(value_range[1])}"


def _text(number: float) -> str:
    """Return a number without needless digits."""
    return f"{number:.0f}" if abs(number) < 1e15 and float(number).is_integer() else f"{number:.6g}"


def scale(values: npt.NDArray[Any], value_range: ValueRange | None) -> npt.NDArray[np.uint8]:
    """Scale values of any shape to uint8: `value_range` becomes 0..255, and what is outside is cut off.

    None gives mid-grey.
    """
    if value_range is None:
        return np.full(values.shape, 128, np.uint8)
    if values.dtype == np.uint16 and values.size > 65536:
        looked_up: npt.NDArray[np.uint8] = scale(np.arange(65536, dtype=np.uint16), value_range)[values]
        return looked_up
    low, high = float(value_range[0]), float(value_range[1])
    shrink = 0.5 if math.isinf(high - low) else 1.0
    start, span = low * shrink, high * shrink - low * shrink
    result = np.empty(values.shape, np.uint8)
    rows = max(1, _BLOCK // max(1, values[0].size))  # blocks, to save memory
    for top in range(0, values.shape[0], rows):
        block = values[top : top + rows].astype(np.float64)
        result[top : top + rows] = np.clip(np.rint((block * shrink - start) / span * 255.0), 0, 255)
    return result


def to_bytes(samples: Samples, value_range: ValueRange | None) -> npt.NDArray[np.uint8]:
    """Return samples as uint8 of the same shape, by a range from `range_of`."""
    grey = scale(samples.colour, value_range)
    if samples.inverted:
        grey = np.uint8(255) - grey
    opacity = samples.opacity
    if opacity is None:
        return grey
    # Opacity is not scaled by its range: full opacity is the maximum of the type, or of the array.
    kind, largest = opacity.dtype.kind, float(opacity.max())
    full = 65535.0 if opacity.dtype == np.uint16 else max(largest, 1.0) if kind == "f" else max(largest, 255.0)
    return np.dstack([grey, scale(opacity, (0.0, full))])
