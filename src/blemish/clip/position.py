"""Positional embeddings for a grid other than the checkpoint's."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.clip.request import PositionMode
from blemish.errors import UsageError, WeightsError

_MODES: dict[str, tuple[str, bool]] = {
    "bilinear": ("bilinear", False),
    "bicubic": ("bicubic", False),
    "bicubic-antialias": ("bicubic", True),
}


def resize_positions(weight: Tensor, grid: tuple[int, int], mode: PositionMode) -> Tensor:
    """Resize positional embeddings from the checkpoint's grid, always from the stored ones.

    Nothing is cached: the resize takes a few milliseconds even for ViT-L at 518 pixels, far below the forward,
    and so there is nothing that could go stale.

    Args:
        weight: (1 + n * n, D), the class token's position first.
        grid: (rows, columns) wanted.
        mode: interpolation; align_corners is False. `bicubic-antialias` differs from `bicubic` even when enlarging,
            because PyTorch then uses another cubic kernel.

    Returns:
        (1 + rows * columns, D), `weight` itself if the grid is the stored one. Differentiable.

    Raises:
        UsageError: for an unknown mode.
        WeightsError: if the stored grid is not square.
    """
    if mode not in _MODES:
        raise UsageError(f"there is no positional interpolation {mode!r}: choose one of {', '.join(_MODES)}")
    stored = math.isqrt(weight.shape[0] - 1)
    if stored * stored != weight.shape[0] - 1:
        raise WeightsError(f"the positional embeddings ({weight.shape[0] - 1} patches) are not those of a square grid")
    if grid == (stored, stored):
        return weight
    name, antialias = _MODES[mode]
    # Autocast would not touch interpolation, but a half-precision backbone would: interpolate in float32.
    patches = weight[1:].float().T.reshape(1, -1, stored, stored)
    resized = F.interpolate(patches, size=grid, mode=name, align_corners=False, antialias=antialias)
    return torch.cat([weight[:1], resized.flatten(2)[0].T.to(weight.dtype)])
