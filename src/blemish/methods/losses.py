"""The losses that trained methods share. All work on the anomalous probability alone: with two classes the normal
probability is what is missing to one, before and after bilinear upsampling.
"""

from __future__ import annotations

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
