"""Augmentation of the pictures of a batch: rotation, mirroring, zoom, light, colour, sharpness and grain.

Drawing a picture costs more than training on it, so each is used several times, every time augmented anew. Two copies
of one picture in a batch should get the same answer: `consistency_loss`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretraining.training.batches import Batch
from synthesis.samples import LOST, Caption, place_at

#: Smallest side of the visible part, as a fraction of the picture's. Half of the copies show the whole picture.
MIN_ZOOM_SIDE = 0.6


@dataclass(frozen=True)
class Frames:
    """Coordinates of augmented pictures: u in [-1, 1]^2 (x, y) shows the place `turn @ u + shift` of the original."""

    turn: Tensor
    """Linear part (B, 2, 2)."""
    shift: Tensor
    """Translation (B, 2)."""

    def between(self, first: slice, second: slice) -> Tensor:
        """Return (V, 2, 3) for `affine_grid`, from the rows `second` to the rows `first` of the same pictures."""
        back = torch.linalg.inv(self.turn[first])
        turn = back @ self.turn[second]
        shift = back @ (self.shift[second] - self.shift[first])[..., None]
        return torch.cat([turn, shift], 2)


def augment(batch: Batch, rng: np.random.Generator) -> tuple[Batch, Frames]:
    """Augment every picture, with its mask and the words for the place of its defect.

    Where too little of a defect stays visible, the picture's kind becomes `LOST`.
    """
    count, size, device = len(batch.captions), batch.images.shape[1], batch.images.device

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, "f4")).to(device)

    zoomed = rng.random(count) < 0.5
    side = np.where(zoomed, rng.uniform(MIN_ZOOM_SIDE, 1, count), 1.0)[:, None]
    shift = tensor(rng.uniform(-1, 1, (count, 2)) * (1 - side))
    defective = np.array([bool(caption.kind) for caption in batch.captions])
    aimed = tensor(defective & zoomed & (rng.random(count) < 0.85))[:, None] > 0
    area, middle = _area_and_centre(batch.masks)
    aim = middle + tensor(rng.uniform(-0.7, 0.7, (count, 2)) * side)
    margin = tensor(1 - side)
    shift = torch.where(aimed & (area[:, None] > 0), aim.clamp(-margin, margin), shift)
    quarter, mirror = rng.integers(4, size=count), 1 - 2 * rng.integers(2, size=count)
    c, s = np.array([1, 0, -1, 0])[quarter], np.array([0, 1, 0, -1])[quarter]
    turn = tensor(side[..., None] * np.array([[c * mirror, -s], [s * mirror, c]]).transpose(2, 0, 1))

    grid = F.affine_grid(torch.cat([turn, shift[..., None]], 2), [count, 1, size, size], align_corners=False)
    options = {"padding_mode": "border", "align_corners": False}
    images = F.grid_sample(batch.images.permute(0, 3, 1, 2).float(), grid, **options)
    masks = F.grid_sample(batch.masks[:, None].float(), grid, mode="nearest", **options)[:, 0] > 0.5
    images = photometric(images, rng).permute(0, 2, 3, 1)

    visible, centres = (values.cpu().numpy() for values in _area_and_centre(masks))
    whole = area.cpu().numpy()
    captions = []
    for i, caption in enumerate(batch.captions):
        if caption.kind and caption.kind != LOST:
            if visible[i] * side[i, 0] ** 2 >= max(6, 0.3 * whole[i]):
                caption = caption._replace(place=place_at(*(centres[i] / 2 + 0.5)))
            else:
                caption = caption._replace(kind=LOST, place="")
        captions.append(Caption(*caption))
    return replace(batch, images=images, masks=masks, captions=captions), Frames(turn.cpu(), shift.cpu())


def _area_and_centre(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels (B,) of masks (B, S, S) and their centres (B, 2), x and y in [-1, 1]; 0 where one is empty."""
    size = masks.shape[1]
    line = (torch.arange(size, device=masks.device) + 0.5) / size * 2 - 1
    profiles = [masks.sum(d, dtype=torch.float32) for d in (1, 2)]  # over columns, over rows
    area = profiles[0].sum(1)
    return area, torch.stack([(profile * line).sum(1) / area.clamp_min(1) for profile in profiles], 1)


def photometric(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Change exposure, contrast, colour, sharpness and grain of each image.

    Args:
        images: (B, 3, S, S) float32 in 0..255.
        rng: Source of all draws.

    Returns:
        (B, 3, S, S) uint8.
    """
    count, device = len(images), images.device

    def draws(values: np.ndarray, chosen: np.ndarray | bool = True) -> Tensor:
        values = np.where(chosen, values.reshape(count, -1).T, 0).T
        return torch.from_numpy(np.asarray(values, "f4")).to(device).view(count, -1, 1, 1)

    def some(part: float) -> np.ndarray:
        return rng.random(count) < part

    x = images / 255
    x = x.clamp(0, 1) ** draws(np.exp(rng.normal(0, 0.15, count)))
    x = 0.5 + (x - 0.5) * draws(np.exp(rng.normal(0, 0.12, count))) + draws(rng.normal(0, 0.03, count))
    x = x * draws(np.exp(rng.normal(0, 0.04, (count, 3))))
    # Saturation falls to grey or changes, and channels mix a little.
    grey = np.where(some(0.1), 0.0, np.where(some(0.3), rng.uniform(0.2, 1.6, count), 1.0))
    mix = grey[:, None, None] * np.eye(3) + (1 - grey[:, None, None]) * np.array([0.299, 0.587, 0.114])
    mix += np.where(some(0.15), 0.12, 0)[:, None, None] * rng.normal(0, 1, (count, 3, 3))
    x = torch.einsum("bij,bjhw->bihw", torch.from_numpy(mix.astype("f4")).to(device), x)
    rows = torch.from_numpy(np.flatnonzero(some(0.3))).to(device)
    if len(rows):
        x[rows] = frequency_gain(x[rows], rng)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, draws(rng.uniform(-1, 1, count), some(0.3)))
    strength = draws(np.exp(rng.uniform(np.log(0.004), np.log(0.05), count)), some(0.2))
    seed = int(rng.integers(2**62))
    grain = torch.randn(x.shape, device=device, generator=torch.Generator(device).manual_seed(seed))
    return (255 * (x + strength * grain)).round().clamp(0, 255).to(torch.uint8)


def frequency_gain(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Multiply the spectrum of each image (B, 3, S, S) by a smooth random gain over frequency.

    Photographs and drawn pictures differ in how their detail falls off with frequency, and a model should not rely on
    that. Structure coarser than 64 pixels stays as it is.
    """
    count, size = images.shape[0], images.shape[-1]
    fy, fx = (f(size, device=images.device) for f in (torch.fft.fftfreq, torch.fft.rfftfreq))
    octave = (64 * torch.hypot(fy[:, None], fx[None])).clamp_min(1).log2() / 5.5  # from coarse 0 to fine 1
    waves = torch.stack([torch.sin(k * torch.pi / 2 * octave) for k in (1, 2, 3)])
    strength = torch.from_numpy(rng.normal(0, 0.25, (count, 3)).astype("f4")).to(images.device)
    gain = torch.einsum("bk,kyx->byx", strength, waves).exp()
    return torch.fft.irfft2(torch.fft.rfft2(images) * gain[:, None], s=(size, size))


def repeat_first(batch: Batch, count: int) -> Batch:
    """Replace the last `count` pictures of a batch by copies of the first ones."""
    rows = torch.cat([torch.arange(len(batch.captions) - count), torch.arange(count)])
    return Batch(batch.images[rows], batch.masks[rows], [batch.captions[row] for row in rows])


def consistency_loss(logits: Tensor, frames: Frames, count: int) -> Tensor:
    """Return the mean squared difference of the probabilities that two copies of one picture give to the same place.

    Args:
        logits: Patch logits (B, G*G); the first and the last `count` rows are copies of the same pictures.
        frames: Coordinates of the copies.
        count: Number of pictures that are in the batch twice.
    """
    grid = round(logits.shape[1] ** 0.5)
    first, second = slice(None, count), slice(-count, None)
    maps = logits.sigmoid().unflatten(1, (1, grid, grid))
    transform = frames.between(first, second).to(maps.device)
    coordinates = F.affine_grid(transform, [count, 1, grid, grid], align_corners=False)
    aligned = F.grid_sample(maps[first], coordinates, align_corners=False)
    inside = (coordinates.abs().amax(-1, keepdim=True) <= 1 - 1 / grid).permute(0, 3, 1, 2)
    return ((aligned - maps[second]).square() * inside).sum() / inside.sum().clamp_min(1)
