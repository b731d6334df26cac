"""Pictures to pixels: how a picture is resized for a backbone, before its levels are normalised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from blemish.clip.request import Geometry
from blemish.errors import ImageError, UsageError

#: Fraction of the side that the crop of `squash-torch-crop` keeps.
CROP = 0.875
#: Longest side of a picture by its shortest one, where the aspect ratio is kept: beyond it the grid gets so large that
#: attention takes minutes.
MAX_ASPECT = 10


def to_levels(image: Image.Image, size: int, geometry: Geometry, patch: int) -> NDArray[np.uint8]:
    """Return the RGB levels that a backbone sees, (3, H, W) uint8; see `Geometry`.

    Args:
        image: An image of 8 bits per channel.
        size: S, the side of the input in pixels; of a kept aspect ratio the shorter side.
        geometry: How the image is resized.
        patch: Side of a patch in pixels.

    Raises:
        UsageError: The geometry is unknown, or S is smaller than a patch where the aspect ratio is kept.
        ImageError: The image is too long and narrow to keep its aspect ratio.
    """
    if geometry not in _GEOMETRIES:
        raise UsageError(f"there is no geometry {geometry!r}: choose one of {', '.join(_GEOMETRIES)}")
    return _GEOMETRIES[geometry](image, size, patch)


def visible_part(size: int, geometry: Geometry) -> tuple[int, int]:
    """Return the side of the resized square picture, and where the input of side `size` begins in it."""
    side = int(size / CROP) if geometry == "squash-torch-crop" else size
    return side, (side - size) // 2


def input_sides(image_size: tuple[int, int], size: int, geometry: Geometry, patch: int) -> tuple[int, int]:
    """Return (width, height) of the input that `to_levels` makes of an image of this (width, height)."""
    if geometry != "keep-aspect":
        return size, size
    width, height = _kept_sides(image_size, size)
    return width // patch * patch, height // patch * patch


def _kept_sides(image_size: tuple[int, int], size: int) -> tuple[int, int]:
    """Return (width, height) of an image whose aspect ratio is kept, before the crop."""
    short, long = sorted(image_size)
    width, height = (size if side == short else int(size * long / short) for side in image_size)
    return width, height


def _to_levels(image: Image.Image, sides: tuple[int, int], resampling: Image.Resampling) -> NDArray[np.uint8]:
    """Resize to (width, height) in the image's own mode, then convert to RGB: (3, height, width)."""
    return np.array(image.resize(sides, resampling).convert("RGB")).transpose(2, 0, 1)


def _squash(image: Image.Image, size: int, patch: int) -> NDArray[np.uint8]:
    return _to_levels(image, (size, size), Image.Resampling.BICUBIC)


def _squash_bilinear(image: Image.Image, size: int, patch: int) -> NDArray[np.uint8]:
    return _to_levels(image, (size, size), Image.Resampling.BILINEAR)


def _squash_torch(image: Image.Image, size: int, patch: int) -> NDArray[np.uint8]:
    levels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    # On uint8 the horizontal pass comes first, and each pass is rounded to a level.
    resized = functional.interpolate(levels, (size, size), mode="bicubic", align_corners=False, antialias=True)
    squashed: NDArray[np.uint8] = resized[0].numpy()
    return squashed


def _squash_torch_crop(image: Image.Image, size: int, patch: int) -> NDArray[np.uint8]:
    side, start = visible_part(size, "squash-torch-crop")
    return _squash_torch(image, side, patch)[:, start : start + size, start : start + size]


def _keep_aspect(image: Image.Image, size: int, patch: int) -> NDArray[np.uint8]:
    short, long = sorted(image.size)
    if size < patch:
        raise UsageError(f"a picture whose aspect ratio is kept is at least a patch wide, {patch} pixels, not {size}")
    if long > MAX_ASPECT * short:
        raise ImageError(
            f"a picture of {image.width} x {image.height} pixels is too narrow to keep its aspect ratio, which may be "
            f"1 to {MAX_ASPECT} at most: cut it, score it in tiles, or choose another geometry"
        )
    levels = _to_levels(image, _kept_sides(image.size, size), Image.Resampling.BICUBIC)
    width, height = input_sides(image.size, size, "keep-aspect", patch)
    return levels[:, :height, :width]


_GEOMETRIES: dict[str, Callable[[Image.Image, int, int], NDArray[np.uint8]]] = {
    "squash": _squash,
    "squash-bilinear": _squash_bilinear,
    "squash-torch": _squash_torch,
    "squash-torch-crop": _squash_torch_crop,
    "keep-aspect": _keep_aspect,
}


def normalise_levels(levels: NDArray[np.uint8], table: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write the value of each level into `out`, (3, H, W).

    NumPy, because this runs in threads: each thread that used PyTorch would start a thread pool of its own.

    Args:
        levels: (3, H, W).
        table: (3, 256), the value of each level of each channel.
        out: (3, H, W).
    """
    for channel, values in enumerate(levels):
        np.take(table[channel], values, out=out[channel], mode="clip")
