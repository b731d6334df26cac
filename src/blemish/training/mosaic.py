"""Mosaics of four pictures, with which APRIL-GAN and VCP-CLIP vary MVTec AD in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Tile: TypeAlias = "tuple[Image.Image, Image.Image | NDArray[Any] | None]"


def mosaic(tiles: Sequence[Tile]) -> tuple[Image.Image, Image.Image]:
    """Four pictures in two rows on a black canvas of twice the first one's sides.

    Nothing is resized: of pictures of other sizes a part is cut off or covered by the next, or black shows.

    Args:
        tiles: four times a picture and its mask: above 0 = anomalous, a picture or an array (H, W); None: nothing is.

    Returns:
        The picture (RGB) and its mask (L, 0 or 255).
    """
    width, height = tiles[0][0].size
    canvas, mask = Image.new("RGB", (2 * width, 2 * height)), Image.new("L", (2 * width, 2 * height))
    for number, (picture, target) in enumerate(tiles):
        row, column = divmod(number, 2)
        corner = (column * width, row * height)
        canvas.paste(picture.convert("RGB"), corner)
        mask.paste(Image.new("L", picture.size) if target is None else _binary(target), corner)
    return canvas, mask


def _binary(mask: Image.Image | NDArray[Any]) -> Image.Image:
    pixels = np.asarray(mask.convert("L") if isinstance(mask, Image.Image) else mask)
    return Image.fromarray((pixels > 0).astype(np.uint8) * 255)
