"""Types that several rooms share. Importing this module loads neither PyTorch nor Pillow."""

from __future__ import annotations

import os
from collections.abc import Callable
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

OnError: TypeAlias = Callable[[str | None, ImageError], object]
"""Receives the path (None for an image from memory) and the error of an image that cannot be read."""


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
