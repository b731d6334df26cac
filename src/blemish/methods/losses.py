"""The losses that trained methods share. All work on the anomalous probability alone: with two classes the normal
probability is what is missing to one, before and after bilinear upsampling.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def focal(anomalous: Tensor, masks: Tensor, *, gamma: float = 2.0, smooth: float = 1e-5) -> Tensor:
    """Focal loss over two classes, mean over all pixels: -(1 - p)^gamma log p.

    p is the probability given to the true class; the one-hot target is clamped to [smooth, 1 - smooth] and p raised by
    `smooth`, as in the code that the zero-shot papers share.

    Args:
        anomalous: (B, H, W) in [0, 1].
        masks: (B, H, W) in {0, 1}, 1 = anomalous.

    Returns:
        () float32.
    """
    target = masks.clamp(smooth, 1 - smooth)
    # one-hot of the other class is clamped by itself, so the two weights sum to 1 only up to rounding
    other = (1 - masks).clamp(smooth, 1 - smooth)
    p = target * anomalous + other * (1 - anomalous) + smooth
    return (-((1 - p) ** gamma) * p.log()).mean()


def dice(probability: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Dice loss: 1 - mean over pictures of (2 sum(p t) + smooth) / (sum p + sum t + smooth).

    Args:
        probability: (B, H, W) in [0, 1].
        target: (B, H, W) in {0, 1}.

    Returns:
        () float32, in [0, 1].
    """
    p, t = probability.flatten(1), target.flatten(1)
    overlap = (p * t).sum(1)
    return 1 - ((2 * overlap + smooth) / (p.sum(1) + t.sum(1) + smooth)).mean()


def adapter_losses(maps: Iterable[Tensor], masks: Tensor) -> dict[str, Tensor]:
    """What linear adapters are trained with: for each layer's map the focal loss, and the Dice loss of the anomaly.

    The authors drop axes of length 1. So in a batch of one picture the Dice loss takes its rows for pictures, which
    counts in training (the last batch of an epoch) and is kept.

    Args:
        maps: each (B, S, S) in [0, 1], one per layer.
        masks: (B, S, S) in {0, 1}.

    Returns:
        "focal" and "dice", (layers,), and their sum "total", ().
    """
    alone = len(masks) == 1
    pairs = [(m[0], masks[0]) if alone else (m, masks) for m in maps]
    parts = {
        "focal": torch.stack([focal(m, target) for m, target in pairs]),
        "dice": torch.stack([dice(m, target) for m, target in pairs]),
    }
    return {**parts, "total": parts["focal"].sum() + parts["dice"].sum()}
