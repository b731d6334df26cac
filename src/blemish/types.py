"""Types that several rooms share. Importing this module loads neither PyTorch nor Pillow."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from blemish.errors import ImageError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from PIL import Image

    from blemish.image_io import LoadedImage

PathLike: TypeAlias = str | os.PathLike[str]
"""A path in the file system."""


class ArrayLike(Protocol):
    """A NumPy array, a torch tensor, or anything else that NumPy can convert."""

    def __array__(self) -> npt.NDArray[Any]: ...


ImageSource: TypeAlias = (
    "LoadedImage | str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | ArrayLike"
)
"""Anything that `blemish.read_image` reads."""

ComputePrecision: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""Precision of matrix products, by its name in PyTorch."""

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
"""Precision that a caller may ask for."""

Preset: TypeAlias = Literal["default", "fast"]
"""A choice between accuracy and time that the built-in model offers."""

OnError: TypeAlias = Callable[[str | None, ImageError], object]
"""Receives the path (None for an image from memory) and the error of an image that cannot be read."""


ValueRange: TypeAlias = tuple[float, float]
"""Smallest and largest value of a picture of more than 8 bits: black and white."""


def check_value_range(name: str, value_range: ValueRange | None) -> None:
    """Raise a UsageError unless a range is None or two finite numbers, the smaller one first."""
    if value_range is None:
        return
    pair = isinstance(value_range, (tuple, list)) and len(value_range) == 2
    if not pair or not all(math.isfinite(end) for end in value_range) or value_range[0] >= value_range[1]:
        raise UsageError(f"{name} must be two numbers, the smaller one first, such as 0,4095, not {value_range}.")


def parse_value_range(name: str, text: str) -> ValueRange:
    """Return the range in a text such as `0,4095`. Raises UsageError."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{name} must be two numbers, the smaller one first, such as 0,4095, not {text!r}.") from None
    check_value_range(name, (low, high))
    return low, high


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU if there is one.

    Raises:
        UsageError: This machine has no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # torch has no common base for "no such device", "not built in" and "no driver"
        raise UsageError(f"there is no device {name!r} here; try auto or cpu") from error
    return device


DEFAULT_OVERLAP = 0.25
"""Overlap of neighbouring tiles, as a fraction of their side."""

#: Largest overlap; beyond it tiles multiply without new information.
_MAX_OVERLAP = 0.75
#: Smallest side of a tile, in pixels.
_MIN_SIDE = 16

Span: TypeAlias = tuple[int, int]
"""Start and end of a tile along a side of the image."""


@dataclass(frozen=True)
class Tiling:
    """How large images are cut into tiles: see `blemish.tiling`.

    Attributes:
        side: Side of the square tiles, in pixels of the image.
        overlap: Least overlap of neighbours, as a fraction of the side; tiles are spread evenly.

    Raises:
        UsageError: A value is out of range.
    """

    side: int
    overlap: float = DEFAULT_OVERLAP

    def __post_init__(self) -> None:
        if isinstance(self.side, bool) or not isinstance(self.side, int) or self.side < _MIN_SIDE:
            raise UsageError(f"a tile is at least {_MIN_SIDE} pixels wide, not {self.side}")
        if not 0 <= self.overlap <= _MAX_OVERLAP:
            raise UsageError(
                f"the overlap of tiles is a fraction of their side from 0 to {_MAX_OVERLAP}, not {self.overlap}"
            )

    @property
    def ramp(self) -> int:
        """Pixels over which a tile fades in and out."""
        return round(self.side * self.overlap)

    def spans(self, length: int) -> tuple[Span, ...]:
        """Return where tiles lie along a side of that length: all equally long, spread evenly."""
        if length <= self.side:
            return ((0, length),)
        count = 1 + math.ceil((length - self.side) / (self.side - self.ramp))
        starts = [(length - self.side) * number // (count - 1) for number in range(count)]
        return tuple((start, start + self.side) for start in starts)


def check_threshold(name: str, value: float | None) -> None:
    """Raise a UsageError unless a threshold is None or a number in [0, 1]."""
    if value is not None and not 0.0 <= value <= 1.0:
        meant = f" (did you mean {value / 100:g}, which is {value:g} %?)" if 2.0 <= value <= 100.0 else ""
        raise UsageError(f"{name} must be a number from 0 to 1, not {value}{meant}.")


def parse_threshold(name: str, text: str) -> float:
    """Return the threshold in a text: a number from 0 to 1, or a percentage such as 80%.

    Raises:
        UsageError: It is neither.
    """
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if rest or (math.isnan(value) and number.strip().lower() != "nan"):
        raise UsageError(f"{name} must be a number from 0 to 1 or a percentage such as 80%, not {text!r}.")
    if not percent:
        check_threshold(name, value)
        return value
    if not 0.0 <= value <= 100.0:
        raise UsageError(f"{name} must be a percentage from 0% to 100%, not {text}.")
    return value / 100.0
