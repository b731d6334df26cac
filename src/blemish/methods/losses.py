"""The losses that trained methods share: focal and Dice loss of anomaly maps.

With two classes the normal probability is one minus the anomalous probability, before and after bilinear upsampling. So
all losses take the anomalous probability alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blemish.methods.ops import bilinear_matrix


def focal(anomalous: Tensor, masks: Tensor, *, gamma: float = 2.0, smooth: float = 1e-5) -> Tensor:
    """Return the focal loss over two classes, -(1 - p)^gamma log p, as the mean over all pixels.

    q is the probability that a pixel gives to its true class. The code that the zero-shot papers share clamps the
    one-hot target to [smooth, 1 - smooth] and adds `smooth`, so that p = (1 - 2 smooth) q + 2 smooth.

    Args:
        anomalous: (B, H, W) in [0, 1].
        masks: (B, H, W) in {0, 1}; 1 is anomalous.
        gamma: The exponent.
        smooth: See above.

    Returns:
        () float32.
    """
    q = torch.where(masks > 0.5, anomalous, 1 - anomalous)
    p = (1 - 2 * smooth) * q + 2 * smooth
    return (-((1 - p) ** gamma) * p.log()).mean()


def dice(probability: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Return the Dice loss, 1 - (2 sum(p t) + smooth) / (sum p + sum t + smooth), as the mean over the images.

    Args:
        probability: (B, H, W) in [0, 1].
        target: (B, H, W) in {0, 1}.
        smooth: Added to both sides of the fraction.

    Returns:
        () float32 in [0, 1].
    """
    p, t = probability.flatten(1), target.flatten(1)
    return (1 - (2 * (p * t).sum(1) + smooth) / (p.sum(1) + t.sum(1) + smooth)).mean()


def upsample_for_loss(grids: Tensor, size: int, *, align_corners: bool) -> Tensor:
    """Return `ops.upsample(grids, size)` by two matrix products, whose gradient is faster: (B, h, w) -> (B, S, S)."""
    rows, columns = (bilinear_matrix(length, size, align_corners, grids.device) for length in grids.shape[-2:])
    with torch.autocast(grids.device.type, enabled=False):
        return rows @ grids.float() @ columns.mT


def adapter_losses(logits: Sequence[Tensor], masks: Tensor) -> dict[str, Tensor]:
    """Return the losses of linear adapters: the focal loss and the Dice loss of the anomaly, for each layer's map.

    The authors drop axes of length 1. So in a batch of one image the Dice loss takes its rows for images. This counts
    in training (the last batch of an epoch may have one image) and is kept.

    Args:
        logits: (B, h, w) for each layer, anomalous minus normal; upsampled with aligned corners before the sigmoid.
        masks: (B, S, S) in {0, 1}.

    Returns:
        "focal" and "dice", (layers,), and their sum "total", ().
    """
    maps = [upsample_for_loss(grid, masks.shape[-1], align_corners=True).sigmoid() for grid in logits]
    rows = len(masks) == 1
    focals = torch.stack([focal(each, masks) for each in maps])
    dices = torch.stack([dice(each[0], masks[0]) if rows else dice(each, masks) for each in maps])
    return {"focal": focals, "dice": dices, "total": focals.sum() + dices.sum()}
