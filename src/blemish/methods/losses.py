"""The losses that trained methods share. All work on the anomalous probability alone: with two classes the normal
probability is what is missing to one, before and after bilinear upsampling.

`focal` and `dice` say what is computed, on whole maps. `grid_losses` computes the same from the patches' values, map by
map with its gradient at once: a map at the pictures' size is used while it is in the processor's cache, and gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

#: How far the focal loss keeps its target from 0 and 1, and its probability from 0.
_FOCAL_SMOOTH = 1e-5
_SHARE = 1 - 2 * _FOCAL_SMOOTH
#: What the Dice loss adds to both sides of its fraction.
_DICE_SMOOTH = 1.0


def focal(anomalous: Tensor, masks: Tensor, *, gamma: float = 2.0, smooth: float = _FOCAL_SMOOTH) -> Tensor:
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


def dice(probability: Tensor, target: Tensor, *, smooth: float = _DICE_SMOOTH) -> Tensor:
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


class PixelLosses(NamedTuple):
    """For each layer, (layers,) float32 each."""

    focal: Tensor
    dice: Tensor
    """Dice loss of the anomalous pixels."""
    dice_normal: Tensor
    """Dice loss of the normal pixels."""


def grid_losses(
    grids: Tensor,
    masks: Tensor,
    *,
    kind: Literal["logits", "probabilities"],
    align_corners: bool,
    rows: bool = False,
) -> PixelLosses:
    """`focal` and `dice` of patches upsampled to the size of the masks, for every layer.

    Args:
        grids: (layers, B, h, w), of the patches: anomalous probabilities in [0, 1], or logits (anomalous less normal),
            which become probabilities after upsampling.
        masks: (B, S, S) in {0, 1}, 1 = anomalous.
        kind: of the grids.
        align_corners: of the bilinear upsampling.
        rows: the Dice loss takes the rows of each picture for pictures.
    """
    side = masks.shape[-1]
    matrices = tuple(bilinear_matrix(length, side, align_corners, masks.device) for length in grids.shape[-2:])
    found: Tensor = _GridLosses.apply(grids.float(), masks.float(), matrices, kind == "logits", rows)  # type: ignore[no-untyped-call]
    return PixelLosses(*found)


def adapter_losses(logits: Sequence[Tensor], masks: Tensor) -> dict[str, Tensor]:
    """What linear adapters are trained with: for each layer's map the focal loss, and the Dice loss of the anomaly.

    The authors drop axes of length 1. So in a batch of one picture the Dice loss takes its rows for pictures, which
    counts in training (the last batch of an epoch) and is kept.

    Args:
        logits: each (B, h, w) for one layer, anomalous less normal, of the patches; upsampled with aligned corners.
        masks: (B, S, S) in {0, 1}.

    Returns:
        "focal" and "dice", (layers,), and their sum "total", ().
    """
    found = grid_losses(torch.stack(list(logits)), masks, kind="logits", align_corners=True, rows=len(masks) == 1)
    return {"focal": found.focal, "dice": found.dice, "total": found.focal.sum() + found.dice.sum()}


@lru_cache(maxsize=16)
def bilinear_matrix(length: int, size: int, align_corners: bool, device: torch.device) -> Tensor:
    """Bilinear upsampling of one axis as a matrix, (size, length) float32: what `maps.upsample` does is U g U^T."""
    unit = torch.eye(length, device=device).unsqueeze(0)
    with torch.no_grad():
        return F.interpolate(unit, size, mode="linear", align_corners=align_corners)[0].T.contiguous()


class _GridLosses(Function):
    """See `grid_losses`. The gradient with respect to the grids is computed with the losses, where it is wanted.

    All follows from the probability q that each pixel gives to its true class, and e = 1 - q; the Dice losses from the
    sums of e over each class, `missed` (anomalous) and `wrong` (normal). Sums are kept by rows and gradients at the
    width of the grid, so that what a Dice loss is taken over is decided at the end, on little.
    """

    @staticmethod
    def forward(
        ctx: Any, grids: Tensor, masks: Tensor, matrices: tuple[Tensor, Tensor], logits: bool, rows: bool
    ) -> Tensor:
        down, across = matrices
        (layers, count), (side, width) = grids.shape[:2], (masks.shape[-1], across.shape[1])
        focal_sums = grids.new_zeros(layers, count)
        # rows of e, and of e where the mask is
        sums = grids.new_zeros(2, layers, count, side)
        # what moves the focal loss, e, and e where the mask is: by the grid's columns
        slopes = grids.new_zeros(3, layers, count, side, width) if ctx.needs_input_grad[0] else None
        room = grids.new_empty(4, side, side)
        with torch.autocast(grids.device.type, enabled=False):
            for picture, mask in enumerate(masks):
                target = _Target(mask, 2 * mask - 1, bool(mask.any()))
                for layer in range(layers):
                    torch.mm(down @ grids[layer, picture], across.T, out=room[0])
                    at = (slice(None), layer, picture)
                    into = None if slopes is None else slopes[at]
                    focal_sums[layer, picture] = _one_map(room, target, across, logits, sums[at], into)
            return _gathered(ctx, focal_sums, sums, slopes, masks, down, rows)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        return torch.einsum("kl,klbhw->lbhw", outer[0], gradients), None, None, None, None


class _Target(NamedTuple):
    """What is known of one mask (S, S) beforehand."""

    mask: Tensor
    sign: Tensor
    """1 where it is anomalous, else -1."""
    any: bool


def _one_map(
    room: Tensor, target: _Target, across: Tensor, logits: bool, sums: Tensor, slopes: Tensor | None
) -> Tensor:
    """The sum of the focal loss of one map, (). Fills in sums (2, S), and slopes (3, S, w) if they are wanted.

    `room` is (4, S, S): the upsampled map, and space. As few and as simple steps as will do, and no new memory: this is
    run for every pixel of every layer.
    """
    (q, e, p, x), mask, sign = room, target.mask, target.sign
    one, least = q.new_tensor(1.0), q.new_tensor(2 * _FOCAL_SMOOTH)
    q.mul_(sign)
    if logits:
        q.sigmoid_()
    else:
        q.add_(1).sub_(mask)
    torch.add(one, q, alpha=-1, out=e)
    torch.sum(e, 1, out=sums[0])
    if target.any:
        torch.sum(torch.mul(e, mask, out=x), 1, out=sums[1])
    torch.add(least, q, alpha=_SHARE, out=p)
    torch.log(p, out=x).mul_(e)
    found = torch.dot(e.flatten(), x.flatten()) * -(_SHARE**2)
    if slopes is None:
        return found
    # -(share e)^2 log p by e, where p = 1 - share e; still to be multiplied by share^3
    by_e = torch.div(e, p, out=p).mul_(e).add_(x, alpha=-2 / _SHARE)
    # e by the upsampled value, with the other sign
    moved = q.mul_(e).mul_(sign) if logits else q.copy_(sign)
    torch.mm(by_e.mul_(moved), across, out=slopes[0]).mul_(-(_SHARE**3))
    torch.mm(moved, across, out=slopes[1]).neg_()
    if target.any:
        torch.mm(moved.mul_(mask), across, out=slopes[2]).neg_()
    return found


def _gathered(
    ctx: Any, focal_sums: Tensor, sums: Tensor, slopes: Tensor | None, masks: Tensor, down: Tensor, rows: bool
) -> Tensor:
    """The three losses (3, layers), with their gradients (3, layers, B, h, w) kept in `ctx` if they are wanted."""
    kept = masks.sum(-1)
    everywhere, missed, pixels, anomalous = (
        x if rows else x.sum(-1, keepdim=True)
        for x in (*sums, kept.new_full(kept.shape, masks.shape[-1]), kept)
    )  # fmt: skip
    wrong, normal, terms = everywhere - missed, pixels - anomalous, anomalous.numel()
    losses, falls, rises = [focal_sums.sum(1) / masks.numel()], [], []
    for total, lost, found in ((anomalous, missed, wrong), (normal, wrong, missed)):
        numerator = 2 * (total - lost) + _DICE_SMOOTH
        denominator = 2 * total - lost + found + _DICE_SMOOTH
        losses.append(((1 - numerator / denominator) / terms).sum((1, 2)))
        # of 1 - n / d each pixel lost takes 2 from n and 1 from d, and each one found adds 1 to d
        rises.append((numerator / denominator**2 / terms).unsqueeze(-1))
        falls.append((2 / denominator / terms).unsqueeze(-1) - rises[-1])
    if slopes is not None:
        # the sums over pictures commute with what comes after: then the little is done on the least
        slopes = slopes if rows else down.T @ slopes
        of_focal, of_e, of_missed = slopes
        of_wrong = of_e - of_missed
        combined = torch.stack(
            [
                of_focal / masks.numel(),
                falls[0] * of_missed + rises[0] * of_wrong,
                falls[1] * of_wrong + rises[1] * of_missed,
            ]
        )
        ctx.save_for_backward(down.T @ combined if rows else combined)
    return torch.stack(losses)
