"""MuSc: the pictures of a set judge each other (Li et al., ICLR 2024, https://arxiv.org/abs/2401.16753).

Code: https://github.com/xrli-U/MuSc. A normal place has a likeness in most other pictures of the same thing, an
anomalous one in few; so nobody has to say which pictures are normal. No learnt parts, no words. What is remembered are
unlabelled pictures, mostly of the same thing, anomalous ones among them; usually the very set that is to be scored. A
picture is never compared with itself, nor with a copy of itself.

    patches of each layer, normalised over the picture, averaged over r x r neighbours, then brought to length 1
    (Local Neighborhood Aggregation with Multiple Degrees, LNAMD);
    a patch's distance to each other picture: to the nearest of its patches;
    its score: the mean over the nearest 30 % of the pictures, then over degrees and layers (Mutual Scoring, MSM).

Two things MuSc does not do. The borders of patches cut the same thing otherwise on every photograph; so the remembered
pictures are looked at on several `grids`, and the nearest patch of any of them counts. And things that lie in any pose
find no likeness in a picture where they lie otherwise; so where turning brings pictures nearer to each other, the
remembered ones are looked at in as many poses as `turns` says (as AnomalyDINO turns its references: Damm et al., WACV
2025, https://arxiv.org/abs/2405.14529), on one grid. The words are not asked then: they take from what comparing knows
of such things (docs/embedded-model.md).

Without a memory there is nobody to ask: then it is `clip`, and its map is that of the words alone. `words` adds that
map to the mutual one, which the paper does not do; the built-in model is asked both.

Deviations: image scores are not smoothed over pictures with similar class tokens (RsCIN), since the score
of one picture would have to wait for all others; of fewer than four pictures the nearest one counts, where 30 % would
be none. Written from the paper; it has not been compared with numbers of the authors' code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from blemish.clip import Backbone, ImageFeatures, PositionMode, Request, Tap
from blemish.concurrency import num_workers, parallel_map
from blemish.errors import UsageError
from blemish.methods import configs
from blemish.methods.base import Encode, MemoryBank, Prediction, TransductiveMethod
from blemish.methods.catalogue import CATALOGUE
from blemish.methods.clip import Clip, ClipConfig
from blemish.methods.configs import ImageScore, require
from blemish.methods.maps import as_grid, normalise, smooth, upsample

#: Images of the memory bank that are compared at once (or turned views): their cosines stay near the processor.
CHUNK = 16
#: Pictures are turned against each other if, by turning, they come nearer to each other by this part of their distance.
#: Far products (pretraining/far.py): things in one pose 0, pieces of surfaces 0 to 0.11, things in any pose 0.04 on.
ROTATION_GAIN_THRESHOLD = 0.05
#: Images that decide whether the set is rotated.
ROTATION_PROBE_IMAGES = 4
#: Images that are drawn from a set whose references are augmented.
MAX_AUGMENTED_IMAGES = 16
#: Where grids of patches lie, by how many there are: down and to the right, in sides of a patch.
GRIDS = {
    1: ((0.0, 0.0),),
    2: ((0.0, 0.0), (0.5, 0.5)),
    4: ((0.0, 0.0), (0.5, 0.5), (0.5, 0.0), (0.0, 0.5)),
}
#: Two pictures of which the patches at all the same places are closer (1 - cosine) are one. On average would not do: of
#: two pictures by a fixed camera, or drawn, a small defect may be all that differs.
DUPLICATE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Augmentation:
    """A rotation about the middle and a shift of reference images."""

    degrees: float = 0.0
    """Counterclockwise."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Down and to the right, in sides of a patch."""

    def __call__(self, pixels: Tensor, patch: int) -> Tensor:
        """Return the augmented images (B, 3, S, S), given the side of a patch in pixels."""
        down, right = (round(part * patch) for part in self.shift)
        return shift(rotate(pixels, self.degrees), down, right)


@dataclass(frozen=True)
class MuScMemoryBank(MemoryBank):
    """Patches of the set; of each image all augmented copies, one after the other."""

    rotated: bool = False
    """The copies are rotations of the images."""


@dataclass(frozen=True, kw_only=True)
class MuScConfig(ClipConfig):
    """What MuSc leaves open; the defaults are its scripts' for ViT-L/14@336."""

    position: PositionMode = "bicubic-antialias"
    image_score: ImageScore = "map"
    sigma: float = 0.0
    mutual_layers: tuple[int, ...] = (6, 12, 18, 24)
    """Layers whose patches are compared, from 1; -1 is the last."""
    degrees: tuple[int, ...] = (1, 3, 5)
    """Sides of the neighbourhoods that patches are averaged over, odd."""
    nearest: float = 0.3
    """The part of the other pictures, the nearest ones, that a patch's score is the mean over."""
    words: float = 0.0
    """How much of the words' map (`clip`'s, each layer in [0, 1]) is added to the mutual one (in [0, 2]) of a set whose
    pictures are not turned."""
    grids: Literal[1, 2, 4] = 1
    """On how many grids of patches the remembered pictures are looked at: 2 half a patch apart, along the diagonal."""
    turns: int = 1
    """Of a set whose pictures are turned against each other, in how many poses the remembered ones are looked at."""

    def check(self) -> None:
        super().check()
        require(0 < self.nearest <= 1, f"nearest lies above 0 and is at most 1, not {self.nearest}")
        require(self.words >= 0, f"words must not be negative, not {self.words}")
        odd = all(degree > 0 and degree % 2 for degree in self.degrees)
        require(self.grids in GRIDS, f"grids are 1, 2 or 4, not {self.grids}")
        enough = self.turns == 1 or self.turns > self.grids
        require(enough, f"turns are 1 or more than the grids, {self.grids}, not {self.turns}")
        require(bool(self.degrees) and odd, f"degrees are odd numbers, at least one, not {self.degrees}")


class MuSc(Clip, TransductiveMethod):
    """Mutual scoring; its references are unlabelled images."""

    info = CATALOGUE["musc"]
    Config: ClassVar[type[MuScConfig]] = MuScConfig
    # chosen on synthetic products (pretraining/train_methods.py, judged stream) and far ones (pretraining/far.py)
    BUILTIN: ClassVar[MuScConfig] = MuScConfig(
        size=336, mutual_layers=(7, 8), degrees=(1,), words=0.25, sigma=4.0, grids=2, turns=8
    )

    config: MuScConfig

    def __init__(self, backbone: Backbone, config: MuScConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.mutual_layers = configs.resolve_layers(self.config.mutual_layers, backbone.layers)

    @property
    def request(self) -> Request:
        """The same with and without a memory, so that a set can be met in any pass."""
        return super().request | Request(frozenset(Tap(k) for k in self.mutual_layers), class_token=False)

    @property
    def memory_map_range(self) -> tuple[float, float]:
        return 0.0, 2.0 + self.config.words * len(self.layers)

    def patches(self, features: ImageFeatures, layer: int) -> Tensor:
        """What is compared at a layer, all degrees one after the other: (B, N, degrees, D), each of length 1."""
        if Tap(layer) not in features.taps:
            raise UsageError("the features lack a layer that is compared: encode the images with the method's request")
        x = features.taps[Tap(layer)][:, 1:].float()
        x = functional.layer_norm(x, x.shape[1:])  # over all patches of the picture together, as the code has it
        x = x.mT.reshape(*x.mT.shape[:2], *features.grid)  # (B, D, rows, columns)
        around = [functional.avg_pool2d(x, r, stride=1, padding=r // 2).flatten(2).mT for r in self.config.degrees]
        return normalise(torch.stack(around, dim=2))

    @property
    def grid_augmentations(self) -> tuple[Augmentation, ...]:
        """The shifted grids that reference images are seen on; the first is the image as it is."""
        return tuple(Augmentation(shift=shift) for shift in GRIDS[self.config.grids])

    @property
    def rotation_augmentations(self) -> tuple[Augmentation, ...]:
        """The rotations of reference images of a rotated set; empty if the config turns none."""
        turns = self.config.turns
        return tuple(Augmentation(360 * k / turns) for k in range(turns)) if turns > 1 else ()

    def is_rotated_set(self, rotations: Sequence[ImageFeatures]) -> bool:
        """Return whether rotation brings the images, at least two, closer to each other: see `ROTATION_GAIN_THRESHOLD`."""
        own, *turned = (self.patches(view, self.mutual_layers[-1])[:, :, 0] for view in rotations)
        some = own.reshape(len(own), *rotations[0].grid, -1)[:, ::3, ::3].flatten(1, 2)
        cosines = [torch.einsum("and,bmd->abnm", some, other).amax(3) for other in (own, *turned)]
        apart = torch.stack(cosines).mul(-2).add(2).clamp_min(0).sqrt().mean(3)  # (views, pictures, pictures)
        others = ~torch.eye(len(own), dtype=torch.bool, device=own.device)
        gain = ((apart[0] - apart.amin(0)) / apart[0].clamp_min(DUPLICATE_TOLERANCE))[others]
        return float(gain.mean()) > ROTATION_GAIN_THRESHOLD

    def extract_memory(self, features: ImageFeatures, *augmented: ImageFeatures) -> MuScMemoryBank:
        """Return the patches of reference images, with those of their augmented copies beside them."""
        copies = (features, *augmented)
        taps = {
            Tap(k): torch.cat([self.patches(copy, k).flatten(2) for copy in copies], dim=1).flatten(0, 1)
            for k in self.mutual_layers
        }
        images = len(features.taps[Tap(self.mutual_layers[0])])
        return MuScMemoryBank(images, taps, rotated=len(copies) > len(self.grid_augmentations))

    def build_memory_bank(
        self, batches: Iterable[Tensor], encode: Encode, *, num_images: int, sampled: bool = False
    ) -> MemoryBank:
        """Return the memory bank of the set, on several grids or in several rotations.

        More than `max_sampled_images` named references show the object in many poses already, so they are taken as they
        are. Of a sampled set with augmentations, the first `MAX_AUGMENTED_IMAGES` images are enough.
        """
        iterator = iter(batches)
        first = next(iterator)
        augmentations: tuple[Augmentation, ...] = (Augmentation(),)
        if sampled or num_images <= self.max_sampled_images:
            augmentations = self.augmentations(first[:ROTATION_PROBE_IMAGES], encode)
        limit = MAX_AUGMENTED_IMAGES if sampled and len(augmentations) > 1 else math.inf
        parts: list[MuScMemoryBank] = []
        patch = self.backbone.patch
        for batch in itertools.chain([first], iterator):
            parts.append(self.extract_memory(*(encode(augmentation(batch, patch)) for augmentation in augmentations)))
            if sum(part.images for part in parts) >= limit:
                break
        return MuScMemoryBank.concat(parts)

    def augmentations(self, pixels: Tensor, encode: Encode) -> tuple[Augmentation, ...]:
        """Return the augmentations for a set, of which a few images (B, 3, S, S) are given."""
        rotations = self.rotation_augmentations
        if len(rotations) == 0 or len(pixels) < 2:
            return self.grid_augmentations
        rotated = [encode(rotation(pixels, self.backbone.patch)) for rotation in rotations]
        return rotations if self.is_rotated_set(rotated) else self.grid_augmentations

    def mutual_map(self, features: ImageFeatures, memory: MuScMemoryBank) -> Tensor:
        """Mean distance to the nearest of the other pictures: (B, rows, columns) in [0, 2], 0 where there is none."""
        degrees, scores = len(self.config.degrees), []
        for layer in self.mutual_layers:
            own, rows = self.patches(features, layer), memory.taps[Tap(layer)]
            others = rows.reshape(memory.images, -1, degrees, rows.shape[1] // degrees)
            rounded = others.to(features.precision)
            # While a graph is made (`blemish.exporting`), the batch is no number yet and cannot be parted.
            parts = torch.split(own, 1) if isinstance(own.shape[0], int) else (own,)
            compare = partial(self._compared, others=others, rounded=rounded)
            scores.append(torch.cat(parallel_map(compare, parts, num_workers(len(parts), own.device))))
        return as_grid(torch.stack(scores).mean(0), features.grid)

    def _compared(self, own: Tensor, others: Tensor, rounded: Tensor) -> Tensor:
        """Patches (B, N, degrees, D) against those of K pictures (K, views * N, degrees, D): (B, N), the degrees' mean.

        `rounded` are these in the precision of the products. Of a cosine 1 is taken off before it is rounded: then a
        distance is off by a thousandth of itself, and not by what a number near 1 is rounded by.
        """
        known, upright = len(others), others[:, : own.shape[1]]
        here, there = (tokens.flatten(1, 2).transpose(0, 1) for tokens in (own, upright))  # (N * degrees, B or K, D)
        same = (here @ there.mT).amin(0) > 1 - DUPLICATE_TOLERANCE  # (B, K)
        counts = [max(1, int(self.config.nearest * n)) for n in range(known + 1)]
        count = torch.tensor(counts, device=own.device)[(~same).sum(1)]  # (B,) of the pictures that are others
        among = torch.arange(known, device=own.device) < count[:, None, None]  # (B, 1, K)
        minus, scores = rounded.new_full((rounded.shape[1],), -1.0), []
        together = max(1, CHUNK * own.shape[1] // others.shape[1])
        for mine, theirs in zip(own.to(rounded.dtype).unbind(2), rounded.unbind(2), strict=True):
            nearest = [
                functional.linear(mine, part.flatten(0, 1), minus.repeat(len(part)))
                .reshape(*mine.shape[:2], len(part), -1)
                .amax(3)
                for part in torch.split(theirs, together)
            ]
            distances = torch.cat(nearest, dim=2).float().mul(-2).clamp_min(0).sqrt()  # of unit vectors; (B, N, K)
            ranked = distances.masked_fill(same[:, None], torch.inf).sort(dim=2).values
            scores.append(torch.where(among & ranked.isfinite(), ranked, 0).sum(2) / count[:, None])
        return torch.stack(scores).mean(0)

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Scores a batch; without a memory as `clip`, by the words alone."""
        if memory is None:
            return super().score(features, text)
        if not isinstance(memory, MuScMemoryBank):
            raise UsageError("the memory bank is of another method: build it with this one")
        grid = self.mutual_map(features, memory)
        if self.config.words and not memory.rotated:
            grid = grid + self.config.words * self.patch_map(features, text)
        maps = smooth(upsample(grid, self.config.size, align_corners=True), self.config.sigma)
        return self.judged(features, text, maps, self.memory_map_range)


def rotate(pixels: Tensor, degrees: float) -> Tensor:
    """Return images (B, 3, S, S) rotated counterclockwise about their middle; corners are filled by reflection."""
    if degrees % 90 == 0:
        return pixels.rot90(int(degrees // 90), (2, 3))
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = pixels.new_tensor([[c, -s, 0], [s, c, 0]]).expand(len(pixels), 2, 3)
    grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def shift(pixels: Tensor, down: int, right: int) -> Tensor:
    """Return images (B, 3, S, S) shifted by pixels, at least 0; edges are filled by reflection."""
    height, width = pixels.shape[2:]
    return functional.pad(pixels, (right, 0, down, 0), mode="reflect")[:, :, :height, :width]
