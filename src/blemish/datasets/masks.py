"""Mask files: any positive value marks an anomaly, several files of one picture are merged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from blemish.errors import ImageError

_ORIENTATION = 0x0112


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture as `read_image` gives it (upright), from its header. Raises ImageError."""
    try:
        with Image.open(path) as image:
            turned = _orientation(image) in (5, 6, 7, 8)
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"the picture {path} cannot be read ({_reason(error)}); copy it again.", path) from error
    return (height, width) if turned else (width, height)


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """One mask file.

    Args:
        path: A picture of any mode (opacity is not looked at), or the JSON file of polygons that labelme writes.
        size: (width, height) of its picture in pixels.

    Returns:
        (height, width) bool, True where any channel is above 0.

    Raises:
        ImageError: it cannot be read, or has another size than its picture.
    """
    try:
        if path.suffix.lower() == ".json":
            return _polygons(path, size)
        with Image.open(path) as image:
            _check_size(image.size, size, path)
            return _positive(image)
    except ImageError:
        raise
    except Exception as error:
        # Decoders meet broken bytes with whatever they stumble over; the cause stays attached.
        raise ImageError(f"the mask {path} cannot be read ({_reason(error)}); copy it again.", path) from error


def merge_masks(paths: Sequence[Path], picture: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """All masks of a picture as one, (height, width) bool. Raises ImageError as `read_mask` does."""
    merged = np.zeros((size[1], size[0]), bool)
    for path in paths:
        try:
            merged |= read_mask(path, size)
        except _WrongSize as error:
            raise ImageError(
                f"{error} as its picture {picture} has; one of the two is not the other's.", path
            ) from None
    return merged


def read_any(path: Path) -> bool:
    """Whether a mask marks anything at all. Raises ImageError."""
    return path.suffix.lower() == ".json" or bool(read_mask(path, mask_size(path) or (1, 1)).any())


def mask_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of a mask from its header; None for polygons, which have none. Raises ImageError."""
    if path.suffix.lower() == ".json":
        return None
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"the mask {path} cannot be read ({_reason(error)}); copy it again.", path) from error


def _orientation(image: Image.Image) -> int:
    # For PNG `getexif` decodes the whole picture, in case the tag comes after the pixels; nobody writes it there.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return int(image.getexif().get(_ORIENTATION, 1))


class _WrongSize(ImageError):
    """A mask that does not fit its picture."""


def _check_size(found: tuple[int, int], wanted: tuple[int, int], path: Path) -> None:
    if found != wanted:
        raise _WrongSize(f"the mask {path} has {found[0]} x {found[1]} pixels, not {wanted[0]} x {wanted[1]}", path)


def _positive(image: Image.Image) -> NDArray[np.bool_]:
    # A palette's numbers are names of colours, so its colours decide; opacity says nothing about defects.
    if image.mode in ("P", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    elif image.mode in ("LA", "La"):
        image = image.getchannel(0)
    values = np.asarray(image)
    marked: NDArray[np.bool_] = values > 0
    return np.asarray(marked.any(axis=2), bool) if values.ndim == 3 else marked


def _polygons(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    stated = (content.get("imageWidth"), content.get("imageHeight"))
    if all(isinstance(side, int) for side in stated):
        _check_size(stated, size, path)
    canvas = Image.new("1", size)
    pen = ImageDraw.Draw(canvas)
    for shape in content["shapes"]:
        points = [(float(x), float(y)) for x, y in shape["points"]]
        kind = shape.get("shape_type") or "polygon"
        if kind == "rectangle" and len(points) == 2:
            (left, top), (right, bottom) = points
            pen.rectangle((min(left, right), min(top, bottom), max(left, right), max(top, bottom)), fill=1)
        elif kind == "polygon" and len(points) >= 3:
            pen.polygon(points, fill=1, outline=1)
        else:
            raise ValueError(f"a {kind} of {len(points)} points")
    return np.asarray(canvas).astype(bool)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    return str(getattr(error, "strerror", None) or error).splitlines()[0][:120] if str(error) else type(error).__name__
