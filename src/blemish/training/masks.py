"""Masks as the training code of the methods prepares them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def mask_tensor(mask: Image.Image | NDArray[np.generic] | None, size: int) -> Tensor:
    """Return a ground-truth mask at the size of the model's input.

    Everything above 0 is anomalous. The mask is resized like its image (bilinear, aspect ratio not kept) and cut at
    one half.

    Args:
        mask: An image of any mode, an array (H, W), or None for a normal image.
        size: Side in pixels.

    Returns:
        (size, size) float32 in {0, 1}.
    """
    if mask is None:
        return torch.zeros(size, size)
    pixels = np.asarray(mask.convert("L") if isinstance(mask, Image.Image) else mask)
    binary = Image.fromarray((pixels > 0).astype(np.uint8) * 255)
    resized = np.asarray(binary.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy((resized > 127.5).astype(np.float32))
