"""Views of the pictures of a batch: turned, mirrored, closer, in other light; and where two views show the same.

A picture takes longer to make than to look at, so each is shown several times, every time as another view. Two views of
one picture in the same batch should get the same answer: `disagreement`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from pool import Batch
from torch import Tensor
from words import place_at

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


def vary(batch: Batch, rng: np.random.Generator) -> tuple[Batch, Frames]:
    """One view of each picture, its mask and the words for its place with it.

    What a view leaves of a defect may be too little to see: such pictures become "lost", neither normal nor damaged.
    All draws are made here, from `rng`; what they do to the pictures is done where these lie, on a GPU for instance.
    """
    count, size, device = len(batch.words), batch.images.shape[1], batch.images.device

    def there(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, "f4")).to(device)

    closer = rng.random(count) < 0.5
    side = np.where(closer, rng.uniform(CLOSEST, 1, count), 1.0)[:, None]
    shift = there(rng.uniform(-1, 1, (count, 2)) * (1 - side))
    bad = np.array([bool(w[2]) for w in batch.words])
    looks = there(bad & closer & (rng.random(count) < 0.85))[:, None] > 0  # at the defect
    area, middle = _centres(batch.masks)
    aimed = middle + there(rng.uniform(-0.7, 0.7, (count, 2)) * side)
    room = there(1 - side)
    shift = torch.where(looks & (area[:, None] > 0), aimed.clamp(-room, room), shift)
    quarter, mirror = rng.integers(4, size=count), 1 - 2 * rng.integers(2, size=count)
    c, s = np.array([1, 0, -1, 0])[quarter], np.array([0, 1, 0, -1])[quarter]
    turn = there(side[..., None] * np.array([[c * mirror, -s], [s * mirror, c]]).transpose(2, 0, 1))

    at = F.affine_grid(torch.cat([turn, shift[..., None]], 2), [count, 1, size, size], align_corners=False)
    how = {"padding_mode": "border", "align_corners": False}
    images = F.grid_sample(batch.images.permute(0, 3, 1, 2).float(), at, **how)
    masks = F.grid_sample(batch.masks[:, None].float(), at, mode="nearest", **how)[:, 0] > 0.5
    images = film(images, rng).permute(0, 2, 3, 1)

    seen, where = (x.cpu().numpy() for x in _centres(masks))
    whole = area.cpu().numpy()
    words = []
    for i, (name, material, kind, spot) in enumerate(batch.words):
        if kind and kind != "lost":
            enough = seen[i] * side[i, 0] ** 2 >= max(6, 0.3 * whole[i])
            kind, spot = (kind, place_at(*(where[i] / 2 + 0.5))) if enough else ("lost", "")
        words.append((name, material, kind, spot))
    return replace(batch, images=images, masks=masks, words=words), Frames(turn.cpu(), shift.cpu())


def _centres(masks: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) pixels of each mask (B, S, S), and (B, 2) the x and y of its middle in [-1, 1]; 0 where it is empty."""
    size = masks.shape[1]
    line = (torch.arange(size, device=masks.device) + 0.5) / size * 2 - 1
    along = [masks.sum(d, dtype=torch.float32) for d in (1, 2)]  # columns, rows
    area = along[0].sum(1)
    return area, torch.stack([(one * line).sum(1) / area.clamp_min(1) for one in along], 1)


def film(images: Tensor, rng: np.random.Generator) -> Tensor:
    """(B, 3, S, S) float in 0..255 -> uint8: another exposure, contrast, colour, sharpness and grain for each one."""
    count, device = len(images), images.device

    def draws(values: np.ndarray, given: np.ndarray | bool = True) -> Tensor:
        values = np.where(given, values.reshape(count, -1).T, 0).T
        return torch.from_numpy(np.asarray(values, "f4")).to(device).view(count, -1, 1, 1)

    def some(part: float) -> np.ndarray:
        return rng.random(count) < part

    x = images / 255
    x = x.clamp(0, 1) ** draws(np.exp(rng.normal(0, 0.15, count)))
    x = 0.5 + (x - 0.5) * draws(np.exp(rng.normal(0, 0.12, count))) + draws(rng.normal(0, 0.03, count))
    x = x * draws(np.exp(rng.normal(0, 0.04, (count, 3))))
    # Colours go to grey, or further from it, or turn a little into one another.
    grey = np.where(some(0.1), 0.0, np.where(some(0.3), rng.uniform(0.2, 1.6, count), 1.0))
    mix = grey[:, None, None] * np.eye(3) + (1 - grey[:, None, None]) * np.array([0.299, 0.587, 0.114])
    mix += np.where(some(0.15), 0.12, 0)[:, None, None] * rng.normal(0, 1, (count, 3, 3))
    x = torch.einsum("bij,bjhw->bihw", torch.from_numpy(mix.astype("f4")).to(device), x)
    bent = torch.from_numpy(np.flatnonzero(some(0.3))).to(device)
    if len(bent):
        x[bent] = optics(x[bent], rng)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, draws(rng.uniform(-1, 1, count), some(0.3)))
    strength = draws(np.exp(rng.uniform(np.log(0.004), np.log(0.05), count)), some(0.2))
    seed = int(rng.integers(2**62))
    grain = torch.randn(x.shape, device=device, generator=torch.Generator(device).manual_seed(seed))
    return (255 * (x + strength * grain)).round().clamp(0, 255).to(torch.uint8)


def optics(images: Tensor, rng: np.random.Generator) -> Tensor:
    """(B, 3, S, S), seen through other optics: fine and coarse detail get stronger or weaker, a smooth gain each.

    A model that has only seen drawn pictures must not rely on how their detail falls off with frequency; that is
    different in photographs. What is coarser than 64 pixels stays.
    """
    count, size = images.shape[0], images.shape[-1]
    fy, fx = (f(size, device=images.device) for f in (torch.fft.fftfreq, torch.fft.rfftfreq))
    octave = (64 * torch.hypot(fy[:, None], fx[None])).clamp_min(1).log2() / 5.5  # 0 for what is coarser, 1 at the end
    waves = torch.stack([torch.sin(k * torch.pi / 2 * octave) for k in (1, 2, 3)])
    strength = torch.from_numpy(rng.normal(0, 0.25, (count, 3)).astype("f4")).to(images.device)
    gain = torch.einsum("bk,kyx->byx", strength, waves).exp()
    return torch.fft.irfft2(torch.fft.rfft2(images) * gain[:, None], s=(size, size))


def twice(batch: Batch, count: int) -> Batch:
    """The last `count` pictures are the first ones again."""
    again = torch.cat([torch.arange(len(batch.words) - count), torch.arange(count)])
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
