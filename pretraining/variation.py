"""Views of the pictures of a batch: turned, mirrored, closer, in other light; and where two views show the same.

A picture takes longer to make than to look at, so each is shown several times, every time as another view. Two views of
one picture in the same batch should get the same answer: `disagreement`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pool import Batch
from torch import Tensor
from words import place

#: Side of the part that is shown, of the picture's; half of the views show all of it.
CLOSEST = 0.6


@dataclass(frozen=True)
class Frames:
    """Where views look: a place u in [-1, 1]^2 of a view (x, y) is the place `turn @ u + shift` of its picture."""

    turn: Tensor  # (B, 2, 2)
    shift: Tensor  # (B, 2)

    def between(self, first: slice, second: slice) -> Tensor:
        """(V, 2, 3) for `affine_grid`: from places of the views `second` to those of `first`, of the same pictures."""
        back = torch.linalg.inv(self.turn[first])
        turn = back @ self.turn[second]
        shift = back @ (self.shift[second] - self.shift[first])[..., None]
        return torch.cat([turn, shift], 2)


def light(rng: np.random.Generator) -> np.ndarray:
    """(256, 3) uint8 table: another exposure, contrast and white balance."""
    x = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.15))
    x = 0.5 + (x - 0.5) * np.exp(rng.normal(0, 0.12)) + rng.normal(0, 0.03)
    return (255 * np.clip(x * np.exp(rng.normal(0, 0.04, 3)), 0, 1)).round().astype("u1")


def vary(batch: Batch, rng: np.random.Generator) -> tuple[Batch, Frames]:
    """One view of each picture, its mask and the words for its place with it.

    What a view leaves of a defect may be too little to see: such pictures become "lost", neither normal nor damaged.
    """
    size = batch.images.shape[1]
    images, masks = np.empty_like(batch.images), np.empty_like(batch.masks)
    turns, shifts, words = [], [], []
    for i, (name, material, kind, where) in enumerate(batch.words):
        side = rng.uniform(CLOSEST, 1) if rng.random() < 0.5 else 1.0
        shift = rng.uniform(-(1 - side), 1 - side, 2)
        if side < 1 and kind and rng.random() < 0.85:  # look at the defect
            y, x = np.nonzero(batch.masks[i])
            at = (np.array([x.mean(), y.mean()]) + 0.5) / size * 2 - 1 if len(x) else shift
            shift = np.clip(at + rng.uniform(-0.7, 0.7, 2) * side, side - 1, 1 - side)
        quarter, mirror = rng.integers(4), 1 - 2 * rng.integers(2)
        c, s = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter]
        turn = side * np.array([[c * mirror, -s], [s * mirror, c]], float)
        middle = (size - 1) / 2
        # Pixel p of the view is u = (p - middle) / (size / 2).
        pixel = np.hstack([turn, (middle + shift * size / 2 - turn @ [middle, middle])[:, None]])
        how = {"dsize": (size, size), "borderMode": cv2.BORDER_REPLICATE}
        exact = cv2.INTER_NEAREST if side == 1 else cv2.INTER_LINEAR
        image = cv2.warpAffine(batch.images[i], pixel, flags=exact | cv2.WARP_INVERSE_MAP, **how)
        images[i] = np.take_along_axis(light(rng), image.reshape(-1, 3), 0).reshape(image.shape)
        whole = batch.masks[i]
        masks[i] = cv2.warpAffine(whole.astype("u1"), pixel, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, **how)
        if kind and kind != "lost":
            left = masks[i].sum() * side**2
            seen = left >= max(6, 0.3 * whole.sum())
            kind, where = (kind, place(masks[i])) if seen else ("lost", "")
        words.append((name, material, kind, where))
        turns.append(turn)
        shifts.append(shift)
    frames = Frames(torch.tensor(np.array(turns)).float(), torch.tensor(np.array(shifts)).float())
    return replace(batch, images=images, masks=masks, words=words), frames


def twice(batch: Batch, count: int) -> Batch:
    """The last `count` pictures are the first ones again."""
    again = np.r_[: len(batch.words) - count, :count]
    return Batch(batch.images[again], batch.masks[again], [batch.words[i] for i in again])


def disagreement(logits: Tensor, frames: Frames, count: int) -> Tensor:
    """Mean squared difference of the probabilities that the two views of one picture give to the same place.

    Args:
        logits: (B, G*G) of patches; rows [0, count) and [B - count, B) show the same pictures.
    """
    grid = round(logits.shape[1] ** 0.5)
    first, second = slice(None, count), slice(-count, None)
    maps = logits.sigmoid().unflatten(1, (1, grid, grid))
    at = F.affine_grid(frames.between(first, second).to(maps.device), [count, 1, grid, grid], align_corners=False)
    same = F.grid_sample(maps[first], at, align_corners=False)
    inside = (at.abs().amax(-1, keepdim=True) <= 1 - 1 / grid).permute(0, 3, 1, 2)
    return ((same - maps[second]).square() * inside).sum() / inside.sum().clamp_min(1)
