"""MuSc: mutual scoring of the unlabelled images of a set (Li et al., ICLR 2024, https://arxiv.org/abs/2401.16753).

Code: https://github.com/xrli-U/MuSc

The paper: a normal patch resembles some patch in most other images of the same object, an anomalous one in few. So the
images of a set are compared with each other, and nobody has to know which of them are normal. There are no learnt
parts and no prompts. With image i, patch m, layer l and neighbourhood degree r:

    LNAMD: the patches of a layer, normalised over the image, are averaged over r x r neighbours and scaled to length 1.
    MSM: the distance of patch m to image j is the one to its nearest patch, a_ij(m) = min_n ||f_i(m) - f_j(n)||_2. The
    score of a patch is the mean of a_ij(m) over the nearest 30 % of the images j != i, then over degrees and layers.

    RsCIN: the image score s, the maximum of the map stretched to [0, 1] over the set, is smoothed over images with
    similar class tokens c. For each k of `similar_images`, s_i becomes the mean of s over the k images with the largest
    c_i . c_j, weighted by c_i . c_j; then comes the mean over all k.

With the paper's config the numbers are those of the authors' code, on CLIP and on DINOv2 (tests/data/parity/musc). On
DINOv2 pictures are resized bilinearly, and every tap and the class token c go through the final layer norm; on CLIP
taps are raw, and c is the normalised image embedding.

The authors compare all images of a set with each other, which takes memory and time for each of them. So a sample is
drawn from a set unless `whole_set` is true. RsCIN is off unless `similar_images` are given. The scores that it smooths
are those of the images of the memory bank among each other: the whole set, or references.

Deviations: of fewer than four images the nearest one counts, where 30 % would be none; copies of an image are not
compared with it, since a set may contain it twice; the activation is the checkpoint's own, while the scripts rebuild
OpenAI's towers without QuickGELU at any size but the checkpoint's own, as for the published numbers at 518 pixels
(`activation="gelu"` does so).

What blemish adds, all off in the paper's config and on for the built-in backbone:

    `grids`: the borders of patches cut an object differently in each image. So the references are encoded on several
    shifted grids, and the nearest patch of any of them counts.
    `turns`: objects in arbitrary poses match nothing in an image where they lie otherwise. If rotations bring the first
    images closer to each other, the references are encoded in several rotations, as AnomalyDINO does with its
    references (Damm et al., WACV 2025, https://arxiv.org/abs/2405.14529), and on one grid.
    `words`: the text-based map of `clip` is added to the mutual map, unless the set is rotated.

Without a memory bank the method is `clip`, and its map is the text-based one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from blemish.clip import ImageBackbone, ImageFeatures, PositionMode, Request, Tap
from blemish.concurrency import num_workers, parallel_map
from blemish.errors import UsageError
from blemish.methods import configs
from blemish.methods.base import Encode, MemoryBank, Prediction, TransductiveMethod, class_token
from blemish.methods.clip import Clip, ClipConfig
from blemish.methods.configs import ImageScore, require
from blemish.methods.ops import as_grid, normalise, smooth, upsample
from blemish.methods.registry import METHODS

#: Images of the memory bank that are compared at once, so that their cosines fit into the processor's cache.
CHUNK = 16
#: A set is rotated if rotations reduce the distance between its images by more than this fraction. On products outside
#: the training domains the fraction is 0 for objects in one pose, 0 to 0.11 for surfaces, and 0.04 or more in
#: arbitrary poses.
ROTATION_GAIN_THRESHOLD = 0.05
#: Images that decide whether the set is rotated.
ROTATION_PROBE_IMAGES = 4
#: Images that are drawn from a set whose references are augmented.
MAX_AUGMENTED_IMAGES = 16
#: Shifts of the grids by their number: down and to the right, in sides of a patch.
GRIDS = {
    1: ((0.0, 0.0),),
    2: ((0.0, 0.0), (0.5, 0.5)),
    4: ((0.0, 0.0), (0.5, 0.5), (0.5, 0.0), (0.0, 0.5)),
}
#: Two images are copies if all patches at the same position are closer (1 - cosine). A mean would not do, since a small
#: defect may be all that differs between two images of a fixed camera.
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
    """Patches of the set; the augmented copies of an image follow each other."""

    rotated: bool = False
    """Whether the copies are rotations of the images."""
    class_features: Tensor | None = None
    """Class tokens of the images as RsCIN compares them, (k, C); None without it."""
    peaks: Tensor | None = None
    """Maximum of each image's map among the others, (k,); None without RsCIN."""

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Return one bank of several, whose peaks are still to be computed."""
        bank = super().concat(parts)
        if bank.class_features is None:
            return bank
        features = [part.class_features for part in parts if part.class_features is not None]
        return dataclasses.replace(bank, class_features=torch.cat(features), peaks=None)


@dataclass(frozen=True, kw_only=True)
class MuScConfig(ClipConfig):
    """The config of MuSc; the defaults are those of its scripts for ViT-L/14@336."""

    position: PositionMode = "bicubic"
    image_score: ImageScore = "map"
    sigma: float = 0.0
    mutual_layers: tuple[int, ...] = (6, 12, 18, 24)
    """Layers whose patches are compared, from 1; -1 is the last."""
    degrees: tuple[int, ...] = (1, 3, 5)
    """Sides of the neighbourhoods that patches are averaged over; odd numbers."""
    nearest: float = 0.3
    """Fraction of the other images, the nearest ones, over which the score of a patch is the mean."""
    words: float = 0.0
    """Weight of the text-based map (each layer in [0, 1]) beside the mutual map (in [0, 2]) of a set that is not
    rotated."""
    grids: Literal[1, 2, 4] = 1
    """Number of grids of patches on which references are encoded; 2 are half a patch apart along the diagonal."""
    turns: int = 1
    """Number of rotations in which the references of a rotated set are encoded; 1 for none."""
    final_norm: bool = False
    """Whether the final layer norm is applied to the compared layers, as the authors do on DINOv2."""
    similar_images: tuple[int, ...] = ()
    """Numbers k of similar images, the image itself included, over which image scores are smoothed (RsCIN); empty for
    no smoothing. The scripts take 1, 2, 3 for MVTec AD and 1, 8, 9 for VisA."""
    whole_set: bool = False
    """Whether all images of a set are compared with each other, as the authors do, and not with a sample of it."""

    def check(self) -> None:
        super().check()
        require(0 < self.nearest <= 1, f"nearest lies above 0 and is at most 1, not {self.nearest}")
        require(self.words >= 0, f"words must not be negative, not {self.words}")
        counts = all(count > 0 for count in self.similar_images)
        require(counts, f"similar_images are numbers from 1 on, not {self.similar_images}")
        mutual = self.words == 0 and self.image_score == "map"
        require(mutual or not self.similar_images, "similar_images need the image score 'map' and words of 0")
        odd = all(degree > 0 and degree % 2 for degree in self.degrees)
        require(self.grids in GRIDS, f"grids are 1, 2 or 4, not {self.grids}")
        enough = self.turns == 1 or self.turns > self.grids
        require(enough, f"turns are 1 or more than the grids, {self.grids}, not {self.turns}")
        require(bool(self.degrees) and odd, f"degrees are odd numbers, at least one, not {self.degrees}")


class MuSc(Clip, TransductiveMethod):
    """Mutual scoring; its references are unlabelled images."""

    info = METHODS["musc"]
    Memory = MuScMemoryBank
    Config: ClassVar[type[MuScConfig]] = MuScConfig

    config: MuScConfig

    @classmethod
    def default_config(cls, backbone: ImageBackbone) -> MuScConfig:
        """Return the config for a backbone; on a DINOv2 that of the authors' script, on any number of blocks."""
        config: MuScConfig = super().default_config(backbone)
        if backbone.reads_words:
            return config
        quarters = tuple(backbone.layers * part // 4 for part in (1, 2, 3, 4))
        layers = tuple(layer for layer in quarters if layer > 0)
        return dataclasses.replace(
            config,
            geometry="squash-bilinear",
            position="dinov2-hub",
            final_norm=True,
            mutual_layers=layers,
        )

    def __init__(self, backbone: ImageBackbone, config: MuScConfig | None = None) -> None:
        super().__init__(backbone, config)
        require(backbone.reads_words or not self.config.words, f"{backbone.name} reads no words, so words have to be 0")
        self.mutual_layers = configs.resolve_layers(self.config.mutual_layers, backbone.layers)

    @property
    def request(self) -> Request:
        """The same with and without a memory bank."""
        compared = Request(frozenset(Tap(k) for k in self.mutual_layers), class_token=bool(self.config.similar_images))
        return super().request | compared if self.backbone.reads_words else compared

    @property
    def memory_map_range(self) -> tuple[float, float]:
        return 0.0, 2.0 + self.config.words * len(self.layers)

    def sample_size(self, count: int) -> int:
        return count if self.config.whole_set else super().sample_size(count)

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """Return the text features of `clip`; none, (C, 2, 0), on a backbone that reads no words."""
        if self.backbone.reads_words:
            return super().text_features(object_names)
        return torch.empty(len(object_names), 2, 0, device=self.device)

    def patches(self, features: ImageFeatures, layer: int) -> Tensor:
        """Return what is compared at a layer (LNAMD): (B, N, degrees, D), each of length 1."""
        if Tap(layer) not in features.taps:
            raise UsageError("the features lack a layer that is compared: encode the images with the method's request")
        tokens = features.taps[Tap(layer)][:, 1:]
        x = (self.backbone.final_norm(tokens) if self.config.final_norm else tokens).float()
        x = functional.layer_norm(x, x.shape[1:])  # over all patches of the image together
        x = x.mT.reshape(*x.mT.shape[:2], *features.grid)  # (B, D, rows, columns)
        means = [functional.avg_pool2d(x, r, stride=1, padding=r // 2).flatten(2).mT for r in self.config.degrees]
        return normalise(torch.stack(means, dim=2))

    def class_features(self, features: ImageFeatures) -> Tensor:
        """Return the class tokens as RsCIN compares them: (B, E), normalised, with words, else (B, D)."""
        token = class_token(features)
        return (
            normalise(self.image_embedding(features)) if self.backbone.reads_words else self.backbone.final_norm(token)
        )

    @property
    def grid_augmentations(self) -> tuple[Augmentation, ...]:
        """Shifted grids of the references; the first is the image as it is."""
        return tuple(Augmentation(shift=shift) for shift in GRIDS[self.config.grids])

    @property
    def rotation_augmentations(self) -> tuple[Augmentation, ...]:
        """Rotations of the references of a rotated set; empty if the config has none."""
        turns = self.config.turns
        return tuple(Augmentation(360 * k / turns) for k in range(turns)) if turns > 1 else ()

    def is_rotated_set(self, rotations: Sequence[ImageFeatures]) -> bool:
        """Return whether rotations bring at least two images closer to each other (`ROTATION_GAIN_THRESHOLD`)."""
        own, *rotated = (self.patches(features, self.mutual_layers[-1])[:, :, 0] for features in rotations)
        probes = own.reshape(len(own), *rotations[0].grid, -1)[:, ::3, ::3].flatten(1, 2)
        cosines = [torch.einsum("and,bmd->abnm", probes, other).amax(3) for other in (own, *rotated)]
        distances = torch.stack(cosines).mul(-2).add(2).clamp_min(0).sqrt().mean(3)  # (rotations, images, images)
        others = ~torch.eye(len(own), dtype=torch.bool, device=own.device)
        gain = ((distances[0] - distances.amin(0)) / distances[0].clamp_min(DUPLICATE_TOLERANCE))[others]
        return float(gain.mean()) > ROTATION_GAIN_THRESHOLD

    def extract_memory(self, features: ImageFeatures, *augmented: ImageFeatures) -> MuScMemoryBank:
        """Return the patches of reference images, with those of their augmented copies beside them."""
        copies = (features, *augmented)
        taps = {
            Tap(k): torch.cat([self.patches(copy, k).flatten(2) for copy in copies], dim=1).flatten(0, 1)
            for k in self.mutual_layers
        }
        images = len(features.taps[Tap(self.mutual_layers[0])])
        class_features = self.class_features(features) if self.config.similar_images else None
        rotated = len(copies) > len(self.grid_augmentations)
        return MuScMemoryBank(images, taps, rotated=rotated, class_features=class_features)

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
        is_limited = sampled and len(augmentations) > 1 and not self.config.whole_set
        limit = MAX_AUGMENTED_IMAGES if is_limited else math.inf
        parts: list[MuScMemoryBank] = []
        patch = self.backbone.patch
        for batch in itertools.chain([first], iterator):
            copies = [encode(augmentation(batch, patch)) for augmentation in augmentations]
            parts.append(self.extract_memory(*copies))
            if sum(part.images for part in parts) >= limit:
                break
        bank = MuScMemoryBank.concat(parts)
        if not self.config.similar_images:
            return bank
        if bank.images < max(self.config.similar_images):
            raise UsageError(
                f"similar_images ask for {max(self.config.similar_images)} pictures, and the set has {bank.images}: "
                "give more, or smaller numbers"
            )
        return dataclasses.replace(bank, peaks=self.peaks(bank, copies[0].grid, copies[0].precision))

    def peaks(self, memory: MuScMemoryBank, grid: tuple[int, int], precision: torch.dtype) -> Tensor:
        """Return the maximum of the map of each image of a memory bank among the others: (k,)."""
        maps = []
        for number in range(memory.images):  # one at a time, as the bank may fill the memory
            own = {k: self._images(memory, k)[number : number + 1, : math.prod(grid)] for k in self.mutual_layers}
            maps.append(self._upsample(self._compare(own, memory, grid, precision)).amax((1, 2)))
        return torch.cat(maps)

    def augmentations(self, pixels: Tensor, encode: Encode) -> tuple[Augmentation, ...]:
        """Return the augmentations for a set, of which a few images (B, 3, S, S) are given."""
        rotations = self.rotation_augmentations
        if len(rotations) == 0 or len(pixels) < 2:
            return self.grid_augmentations
        rotated = [encode(rotation(pixels, self.backbone.patch)) for rotation in rotations]
        return rotations if self.is_rotated_set(rotated) else self.grid_augmentations

    def mutual_map(self, features: ImageFeatures, memory: MuScMemoryBank) -> Tensor:
        """Return the mean distance to the nearest other images (MSM): (B, rows, columns) in [0, 2], 0 without any."""
        own = {layer: self.patches(features, layer) for layer in self.mutual_layers}
        return self._compare(own, memory, features.grid, features.precision)

    def _images(self, memory: MuScMemoryBank, layer: int) -> Tensor:
        """Return the patches of a memory bank by image, (K, copies * N, degrees, D); the unchanged copy comes first."""
        rows, degrees = memory.taps[Tap(layer)], len(self.config.degrees)
        return rows.reshape(memory.images, -1, degrees, rows.shape[1] // degrees)

    def _compare(
        self, patches: Mapping[int, Tensor], memory: MuScMemoryBank, grid: tuple[int, int], precision: torch.dtype
    ) -> Tensor:
        """Return `mutual_map` of the patches of each layer, (B, N, degrees, D), with products of that precision."""
        scores = []
        for layer, own in patches.items():
            others = self._images(memory, layer)
            rounded = others.to(precision)
            # While a graph is traced, the batch size is not a number yet and the batch cannot be split.
            parts = torch.split(own, 1) if isinstance(own.shape[0], int) else (own,)
            compare = partial(self._mutual_scores, others=others, rounded=rounded)
            scores.append(torch.cat(parallel_map(compare, parts, num_workers(len(parts), own.device))))
        return as_grid(torch.stack(scores).mean(0), grid)

    def _mutual_scores(self, own: Tensor, others: Tensor, rounded: Tensor) -> Tensor:
        """Score patches against the images of the memory bank, as the mean over the degrees.

        Args:
            own: (B, N, degrees, D), each of length 1.
            others: (K, copies * N, degrees, D), the patches of K images; the unchanged copy comes first.
            rounded: `others` in the precision of the products.

        Returns:
            (B, N) float32.
        """
        num_images, copies = len(others), _is_copy(own, others)
        # The number of nearest images by the number of images that are no copies.
        counts = [max(1, int(self.config.nearest * n)) for n in range(num_images + 1)]
        count = torch.tensor(counts, device=own.device)[(~copies).sum(1)]  # (B,)
        is_near = torch.arange(num_images, device=own.device) < count[:, None, None]  # (B, 1, K)
        chunk, scores = max(1, CHUNK * own.shape[1] // others.shape[1]), []
        for mine, theirs in zip(own.to(rounded.dtype).unbind(2), rounded.unbind(2), strict=True):
            distances = nearest_patch_distances(mine, theirs, chunk)  # (B, N, K)
            ranked = distances.masked_fill(copies[:, None], torch.inf).sort(dim=2).values
            scores.append(torch.where(is_near & ranked.isfinite(), ranked, 0).sum(2) / count[:, None])
        return torch.stack(scores).mean(0)

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Score a batch; without a memory bank as `clip` does."""
        if memory is None:
            if not self.backbone.reads_words:
                raise UsageError(
                    f"without words musc only compares pictures with each other, and {self.backbone.name} reads none: "
                    "give a set of at least two pictures, or references"
                )
            return super().score(features, text)
        if not isinstance(memory, MuScMemoryBank):
            raise UsageError("the memory bank is of another method: build it with this one")
        grid = self.mutual_map(features, memory)
        if self.config.words and not memory.rotated:
            grid = grid + self.config.words * self.patch_map(features, text)
        maps = self._upsample(grid)
        if memory.peaks is None:
            return self.predict(features, text, maps, self.memory_map_range)
        return Prediction(self.smoothed_scores(features, memory, maps.amax((1, 2))), maps)

    def _upsample(self, grid: Tensor) -> Tensor:
        return smooth(upsample(grid, self.config.size, align_corners=True), self.config.sigma)

    def smoothed_scores(self, features: ImageFeatures, memory: MuScMemoryBank, peaks: Tensor) -> Tensor:
        """Return the scores of images by RsCIN, among those of a memory bank with peaks.

        Args:
            features: Features of B images, with their class tokens.
            memory: A memory bank with class features and peaks.
            peaks: (B,), the maximum of each image's map.

        Returns:
            (B,) in [0, 1].
        """
        assert memory.class_features is not None
        assert memory.peaks is not None
        layer = self.mutual_layers[0]
        copies = _is_copy(self.patches(features, layer), self._images(memory, layer))
        scores = []
        for own, peak, is_copy in zip(self.class_features(features), peaks, copies, strict=True):
            others, theirs = memory.class_features, memory.peaks
            if not is_copy.any():  # a stranger counts among its own similar images, too
                others, theirs = torch.cat([own[None], others]), torch.cat([peak[None], theirs])
            number = int(is_copy.float().argmax())
            scores.append(smooth_scores(theirs, others, self.config.similar_images)[number])
        return torch.stack(scores).clamp(0, 1)


def smooth_scores(scores: Tensor, class_features: Tensor, similar_images: Sequence[int]) -> Tensor:
    """Smooth the scores of a whole set over images with similar class tokens (RsCIN).

    Args:
        scores: (n,), of any range.
        class_features: (n, C), the class tokens.
        similar_images: Numbers k of similar images, the image itself included, from 1 to n; at least one.

    Returns:
        (n,) float32: of the scores, stretched to [0, 1] over the set (0 where all are equal), the mean over the k
        images with the largest products of class tokens, weighted by these; then the mean over all k.
    """
    low, high = scores.aminmax()
    stretched = ((scores - low) / (high - low) if high > low else torch.zeros_like(scores)).float()
    products = class_features.float() @ class_features.float().mT
    smoothed = []
    for count in similar_images:
        weights, nearest = products.topk(count, dim=1)
        smoothed.append((weights * stretched[nearest]).sum(1) / weights.sum(1))
    return torch.stack(smoothed).mean(0)


def _is_copy(own: Tensor, others: Tensor) -> Tensor:
    """Return which images are copies of each other, by all their patches: (B, K) bool.

    Args:
        own: (B, N, degrees, D), each of length 1.
        others: (K, copies * N, degrees, D); the unchanged copy comes first.
    """
    here, there = (
        x.flatten(1, 2).transpose(0, 1) for x in (own, others[:, : own.shape[1]])
    )  # (N * degrees, B or K, D)
    return (here @ there.mT).amin(0) > 1 - DUPLICATE_TOLERANCE


def nearest_patch_distances(own: Tensor, others: Tensor, chunk: int) -> Tensor:
    """Return the distance of each patch to the nearest patch of each other image.

    For unit vectors ||x - y||^2 = 2 (1 - x . y). The bias of the linear layer subtracts 1 from the cosine before it is
    rounded to the precision of the product. So a distance has a relative error of about a thousandth in bfloat16;
    subtracting afterwards would leave the rounding error of a number near 1.

    Args:
        own: (B, N, D), each of length 1.
        others: (K, M, D), each of length 1, in the same precision.
        chunk: Number of images that are compared at once.

    Returns:
        (B, N, K) float32 in [0, 2].
    """
    minus_one, nearest = others.new_full((others.shape[1],), -1.0), []
    for part in torch.split(others, chunk):
        minus_distance = functional.linear(own, part.flatten(0, 1), minus_one.repeat(len(part)))  # cosine - 1
        nearest.append(minus_distance.reshape(*own.shape[:2], len(part), -1).amax(3))
    return torch.cat(nearest, dim=2).float().mul(-2).clamp_min(0).sqrt()


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
