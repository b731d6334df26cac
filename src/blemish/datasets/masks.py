"""Read mask files: any positive value is anomalous, and several files of one picture are merged."""

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


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of a picture as `read_image` returns it (upright), from its header. Raises ImageError."""
    try:
        with Image.open(path) as image:
            swapped = _orientation(image) in (5, 6, 7, 8)
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"the picture {path} cannot be read ({_reason(error)}); copy it again.", path) from error
    return (height, width) if swapped else (width, height)


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read one mask file.

    Args:
        path: A picture of any mode (opacity is ignored), or a JSON file of polygons as labelme writes it.
        size: (width, height) of its picture in pixels.

    Returns:
        (height, width) bool, True where any channel is above 0.

    Raises:
        ImageError: The file cannot be read or differs from its picture in size.
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
        # Decoders raise all kinds of exceptions for damaged files; the cause stays attached.
        raise ImageError(f"the mask {path} cannot be read ({_reason(error)}); copy it again.", path) from error


def merge_masks(paths: Sequence[Path], picture: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the union of all masks of a picture, (height, width) bool. Raises ImageError like `read_mask`."""
    merged = np.zeros((size[1], size[0]), bool)
    for path in paths:
        try:
            merged |= read_mask(path, size)
        except _WrongSize as error:
            raise ImageError(
                f"{error} as its picture {picture} has; one of the two is not the other's.", path
            ) from None
    return merged


def resize_mask(mask: Image.Image | NDArray[np.generic] | None, size: int) -> NDArray[np.bool_]:
    """Return a mask at the size of the model's input, as the papers' code prepares it.

    Every value above 0 is anomalous. The mask is resized like its picture (bilinear, without keeping the aspect ratio)
    and thresholded at one half.

    Args:
        mask: Picture of any mode, array (H, W), or None for a normal picture.
        size: Side in pixels.

    Returns:
        (size, size) bool.
    """
    if mask is None:
        return np.zeros((size, size), bool)
    pixels = np.asarray(mask.convert("L") if isinstance(mask, Image.Image) else mask)
    binary = Image.fromarray((pixels > 0).astype(np.uint8) * 255)
    return np.asarray(binary.resize((size, size), Image.Resampling.BILINEAR)) > 127.5


def is_marked(path: Path) -> bool:
    """Return whether a mask marks any pixel as anomalous. Raises ImageError."""
    return path.suffix.lower() == ".json" or bool(read_mask(path, mask_size(path) or (1, 1)).any())


def mask_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) of a mask from its header; None for polygons, which have no size. Raises ImageError."""
    if path.suffix.lower() == ".json":
        return None
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"the mask {path} cannot be read ({_reason(error)}); copy it again.", path) from error


def _orientation(image: Image.Image) -> int:
    # For PNG, `getexif` decodes the whole picture in case the tag follows the pixels, where it is not used in practice.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return int(image.getexif().get(_ORIENTATION, 1))


class _WrongSize(ImageError):
    """A mask and its picture differ in size."""


def _check_size(size: tuple[int, int], expected: tuple[int, int], path: Path) -> None:
    if size != expected:
        raise _WrongSize(f"the mask {path} has {size[0]} x {size[1]} pixels, not {expected[0]} x {expected[1]}", path)


def _positive(image: Image.Image) -> NDArray[np.bool_]:
    # Palette indices are arbitrary, so the colours decide; opacity is no label.
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
        return "it does not exist"
    return str(getattr(error, "strerror", None) or error).splitlines()[0][:120] if str(error) else type(error).__name__
