"""SubspaceAD: few-shot anomaly detection by subspace modelling (Lendering et al., CVPR 2026, https://arxiv.org/abs/2602.23013).

Code: https://github.com/CLendering/SubspaceAD. There are no learnt parts and no words: the method needs pictures.

The patches x of middle layers, averaged over the layers and not normalised, of a few flawless pictures span a subspace.
With their mean mu and the first k eigenvectors C of their covariance, which explain 99 % of the variance, an anomaly is
what the subspace cannot express:

    d(x) = || x - (mu + C C^T (x - mu)) ||^2, the squared norm.

The map is d on the grid, enlarged bilinearly and smoothed; the image score is the mean of the largest 1 % of the map.
Flawless pictures are rotated by random angles. The memory is a mean and a covariance, whatever the number of pictures.

Few-shot (`subspacead`): the pictures are flawless references. Batched zero-shot (`subspacead-batch`): they are the
unlabelled pictures of the set that is scored, each of them included in its own model, and nothing is rotated.

The published numbers depend on these quirks, which are kept:

    Pictures are squashed to a square by PyTorch's resampling, not Pillow's.
    Rotations keep the picture's size, take the nearest pixel and fill corners with black. The angles are drawn twice:
    mean and covariance are of different rotations. The covariance is divided by n - 1.
    The smoothing has a kernel of 3 x 3 pixels and a sigma of 4, so it is nearly a box.
    The map is not brought to the picture's size before the image score is taken.

The positional embedding is that of transformers 5, without the offset of DINOv2's own code.

Deviations: scores have no bound, so d becomes d / (d + s) in the image score and the map, where s is ten times the mean
of d over the pictures in the memory. This keeps the order. `cosine` distances above 1 count as 1. Not implemented:
masks of the background, CLAHE, the filter of highlights, tiles of patches, and kernel PCA, which are off in the
authors' scripts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from blemish.clip import Geometry, ImageBackbone, ImageFeatures, PositionMode, Request, Tap
from blemish.errors import UsageError
from blemish.methods.base import Encode, FewShotMethod, MemoryBank, Prediction, ReferenceMethod, TransductiveMethod
from blemish.methods.configs import Config, ImageScore, require, resolve_layers
from blemish.methods.ops import as_grid, upsample
from blemish.methods.registry import METHODS

#: Angles are drawn between 0 and this, in degrees.
MAX_ANGLE = 345.0
#: Side and standard deviation of the kernel that smooths the map.
KERNEL, SIGMA = 3, 4.0
#: Added to eigenvalues and norms before they divide.
EPSILON = 1e-6
#: An image score of one half is this many times the mean over the pictures in the memory.
HALF = 10.0


class Model(NamedTuple):
    """What scores patches: a subspace of k components, float32 on the method's device."""

    mean: Tensor
    """mu (D,)."""
    basis: Tensor
    """C (D, k)."""
    variances: Tensor
    """Variances along the components (k,)."""
    half: float
    """The score that becomes an image score of one half."""


class Subspace(NamedTuple):
    """Mean and principal components of patches, float64 on the CPU."""

    mean: Tensor
    """mu (D,)."""
    variances: Tensor
    """Eigenvalues of the covariance (D,), descending."""
    components: Tensor
    """Eigenvectors (D, D) in columns, in the same order."""


@dataclass(frozen=True)
class SubspaceBank(MemoryBank):
    """Sums over patches, from which the subspace follows; banks add up. It has no rows."""

    moments: Mapping[str, Tensor] = field(default_factory=dict)
    """float64 on the CPU. `count` (2,): numbers of patches that the mean and the covariance are of; they may be of
    different rotations. `sums` (2, D): their sums. `products` (D (D + 1) / 2,): the upper triangle of the sum of x x^T
    for the covariance."""

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Return one bank of several; at least one part."""
        moments = {
            name: sum((part.moments[name] for part in parts[1:]), value) for name, value in parts[0].moments.items()
        }
        return replace(parts[0], images=sum(part.images for part in parts), moments=moments)

    def without(self, part: Self) -> Self:
        """Return the bank without the images of another bank that went into it."""
        moments = {name: value - part.moments[name] for name, value in self.moments.items()}
        return replace(self, images=self.images - part.images, moments=moments, references=0, fingerprint="")

    def select(self, numbers: Sequence[int]) -> Self:
        """Raise a UsageError: the sums of single images are not kept."""
        raise UsageError("this memory bank cannot be divided into its images: build it again from the pictures")

    @cached_property
    def models(self) -> dict[Hashable, Model]:
        """Models that have been made of the subspace, by what they depend on; filled by `SubspaceMethod.model`."""
        return {}

    @cached_property
    def subspace(self) -> Subspace:
        """Mean and principal components."""
        count, (first, second) = self.moments["count"], self.moments["sums"]
        mean = first / count[0]
        products = unpack(self.moments["products"], len(mean))
        # The sum of (x - mean) (x - mean)^T over the second draw, with the mean of the first.
        cross = torch.outer(second, mean)
        covariance = (products - cross - cross.T + count[1] * torch.outer(mean, mean)) / (count[1] - 1).clamp_min(1)
        variances, components = torch.linalg.eigh(covariance)
        return Subspace(mean, variances.flip(0), components.flip(1))


@dataclass(frozen=True, kw_only=True)
class SubspaceConfig(Config):
    """What the few-shot and the batched mode share; the defaults are those of the script for DINOv2 ViT-S/14."""

    size: int = 448
    geometry: Geometry = "squash-torch"
    position: PositionMode = "dinov2-transformers"
    image_score: ImageScore = "top"
    layers: tuple[tuple[int, ...], ...] = ((-4, -5),)
    """Layers whose patches are averaged, from 1; -1 is the last, before the final layer norm. Several groups are
    concatenated: ((-4, -5),) is "mean" in the authors' code, ((-4,), (-5,)) is "concat"."""
    explained: float = 0.99
    """Fraction of the variance that the subspace explains."""
    components: int = 0
    """Number of components of the subspace, in place of `explained`; 0 for none given."""
    drop: int = 0
    """Number of the first components that the subspace does without."""
    measure: Literal["reconstruction", "mahalanobis", "euclidean", "cosine"] = "reconstruction"
    """What a patch's score is: the squared residual; the squared length of what lies in the subspace, divided by the
    variances or not; or 1 - cos between patch and reconstruction."""
    top: Literal["mtop1p", "mtop5", "p99", "max", "mean"] = "mtop1p"
    """The image score `top` of a map: the mean of the largest 1 % of its pixels or of the largest 5, the 99th
    percentile, the largest, or the mean of all."""

    @property
    def image_scores(self) -> tuple[ImageScore, ...]:
        """The paper's is `top`."""
        return "top", "map"

    def check(self) -> None:
        super().check()
        require(bool(self.layers) and all(self.layers), "layers are groups of at least one layer each, at least one")
        require(0 < self.explained <= 1, f"explained lies above 0 and is at most 1, not {self.explained}")
        require(self.components >= 0, f"components must not be negative, not {self.components}")
        require(self.drop >= 0, f"drop must not be negative, not {self.drop}")


@dataclass(frozen=True, kw_only=True)
class SubspaceAdConfig(SubspaceConfig):
    """The config of SubspaceAD with references."""

    rotations: int = 30
    """Rotated copies of each reference, for the mean and again for the covariance."""
    seed: int = 42
    """Seed of the angles."""

    def check(self) -> None:
        super().check()
        require(self.rotations >= 0, f"rotations must not be negative, not {self.rotations}")


@dataclass(frozen=True, kw_only=True)
class SubspaceAdBatchConfig(SubspaceConfig):
    """The config of the batched mode."""


class SubspaceMethod(ReferenceMethod):
    """What the few-shot and the batched mode share: patches, the subspace, scores and maps."""

    Memory = SubspaceBank

    def __init__(self, backbone: ImageBackbone, config: SubspaceConfig | None = None) -> None:
        super().__init__(backbone, config)
        groups = self.config.layers
        self.groups = tuple(tuple(resolve_layers((layer,), backbone.layers)[0] for layer in group) for group in groups)

    @property
    def request(self) -> Request:
        return Request(frozenset(Tap(layer) for group in self.groups for layer in group), class_token=False)

    @property
    def map_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def patches(self, features: ImageFeatures) -> Tensor:
        """Return the patches (B, N, D) float32: means over the layers of each group, concatenated."""
        if any(tap not in features.taps for tap in self.request.taps):
            raise UsageError("the features lack a layer of the subspace: encode the images with the method's request")
        means = [torch.stack([features.taps[Tap(layer)][:, 1:].float() for layer in g]).mean(0) for g in self.groups]
        return torch.cat(means, dim=-1)

    def extract_memory(self, features: ImageFeatures) -> SubspaceBank:
        return self.moments(features)

    def moments(
        self, features: ImageFeatures, first: Sequence[bool] | None = None, second: Sequence[bool] | None = None
    ) -> SubspaceBank:
        """Return the memory bank of a batch.

        Args:
            features: Of B images.
            first: Which images the mean is of; all if not given.
            second: Which images the covariance is of; all if not given.
        """
        patches = self.patches(features).double().cpu()
        everything = [True] * len(patches)
        for_mean, for_covariance = (patches[torch.tensor(x or everything)].flatten(0, 1) for x in (first, second))
        moments = {
            "count": torch.tensor([len(for_mean), len(for_covariance)], dtype=torch.float64),
            "sums": torch.stack([for_mean.sum(0), for_covariance.sum(0)]),
            "products": pack(for_covariance.T @ for_covariance),
        }
        return SubspaceBank(len(patches), moments=moments)

    @property
    def rotations(self) -> int:
        """Number of rotated copies of each image, for the mean and again for the covariance."""
        return 0

    def build_memory_bank(
        self, batches: Iterable[Tensor], encode: Encode, *, num_images: int, sampled: bool = False
    ) -> MemoryBank:
        """Return the memory bank of references whose copies follow each other, as `reference_copies` returns them.

        The sums are all that is kept of a batch.
        """
        n, bank = self.rotations, None
        copies = itertools.cycle(range(1 + 2 * n))
        for batch in batches:
            copy = list(itertools.islice(copies, len(batch)))
            part = self.moments(encode(batch), [c <= n for c in copy], [c == 0 or c > n for c in copy])
            bank = part if bank is None else SubspaceBank.concat([bank, part])
        if bank is None:
            raise UsageError("there are no reference pictures")
        return bank

    # the subspace

    def components(self, subspace: Subspace) -> int:
        """Return k, the number of components: the fewest that explain enough of the variance."""
        total = len(subspace.variances)
        if self.config.components:
            return min(int(self.config.components), total)
        share = subspace.variances.cumsum(0) / subspace.variances.sum()
        return min(1 + int((share < self.config.explained).sum()), total)

    def model(self, memory: SubspaceBank) -> Model:
        """Return the model of a memory bank; it is made once."""
        config = self.config
        key = config.explained, config.components, config.drop, config.measure, self.device
        if key not in memory.models:
            subspace = memory.subspace
            k = self.components(subspace)
            values = subspace.mean, subspace.components[:, :k], subspace.variances[:k]
            mean, basis, variances = (value.to(self.device, torch.float32) for value in values)
            memory.models[key] = Model(mean, basis, variances, HALF * self.mean_score(subspace))
        return memory.models[key]

    def mean_score(self, subspace: Subspace) -> float:
        """Return the mean of the scores over the patches that the subspace was fitted to; 1 if it is 0."""
        k, drop, variances = self.components(subspace), self.config.drop, subspace.variances.clamp_min(0)
        mean = {
            "reconstruction": variances[k:].sum() + variances[: min(drop, k)].sum(),
            "mahalanobis": (variances[drop:k] / (variances[drop:k] + EPSILON)).sum(),
            "euclidean": variances[drop:k].sum(),
            "cosine": torch.ones(()),
        }[self.config.measure]
        return float(mean) or 1.0

    def scores(self, patches: Tensor, model: Model) -> Tensor:
        """Return d of patches (..., D): (...) float32, at least 0."""
        measure = self.config.measure
        with torch.autocast(patches.device.type, enabled=False):
            coordinates = (patches - model.mean) @ model.basis
            if self.config.drop:
                coordinates[..., : self.config.drop] = 0
            if measure == "euclidean":
                return coordinates.square().sum(-1)
            if measure == "mahalanobis":
                return (coordinates.square() / (model.variances + EPSILON)).sum(-1)
            reconstruction = coordinates @ model.basis.T + model.mean
            if measure == "reconstruction":
                return (patches - reconstruction).square().sum(-1)
            return 1 - (_unit(patches) * _unit(reconstruction)).sum(-1).clamp(-1, 1)

    def patch_scores(self, features: ImageFeatures, memory: SubspaceBank) -> Tensor:
        """Return d on the grid (B, rows, columns)."""
        return as_grid(self.scores(self.patches(features), self.model(memory)), features.grid)

    def raw_map(self, scores: Tensor) -> Tensor:
        """Return the authors' map of scores on the grid: (B, rows, columns) -> (B, S, S), at least 0."""
        return blur(upsample(scores, self.config.size))

    def raw_score(self, maps: Tensor) -> Tensor:
        """Return the authors' image score of their maps: (B, S, S) -> (B,)."""
        return IMAGE_SCORES[self.config.top](maps.flatten(1))

    def bounded(self, values: Tensor, model: Model) -> Tensor:
        """Return scores, which have no upper bound, in [0, 1] and in the same order."""
        return values.clamp(0, 1) if self.config.measure == "cosine" else values / (values + model.half)

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Score a batch; the texts are not read. Raises UsageError without a memory bank."""
        memory = self.require_memory(memory)
        if not isinstance(memory, SubspaceBank):
            raise UsageError("the memory bank is of another method: build it with this one")
        model = self.model(memory)
        maps = self.raw_map(self.patch_scores(features, memory))
        bounded = self.bounded(maps, model)
        if self.config.image_score == "map":
            return self.prediction(None, bounded)
        return Prediction(self.bounded(self.raw_score(maps), model), bounded)


class SubspaceAD(SubspaceMethod, FewShotMethod):
    """The subspace of a few normal images, in random rotations."""

    info = METHODS["subspacead"]
    Config: ClassVar[type[SubspaceAdConfig]] = SubspaceAdConfig

    config: SubspaceAdConfig

    @property
    def rotations(self) -> int:
        return self.config.rotations

    def reference_copies(self, image: Image.Image, number: int, count: int) -> Iterable[Image.Image]:
        """Return a reference, its rotations for the mean, and its rotations for the covariance."""
        n = self.rotations
        angles = rotation_angles(self.config.seed, 2 * count * n)
        starts = (number * n, (count + number) * n)  # all angles for the mean are drawn before those for the covariance
        return (image, *(image.rotate(angle) for start in starts for angle in angles[start : start + n]))


class SubspaceADBatch(SubspaceMethod, TransductiveMethod):
    """The subspace of the images of a set."""

    info = METHODS["subspacead-batch"]
    Config: ClassVar[type[SubspaceAdBatchConfig]] = SubspaceAdBatchConfig
    max_sampled_images = 1000

    config: SubspaceAdBatchConfig


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = rows / (torch.linalg.vector_norm(rows, dim=-1, keepdim=True) + EPSILON)
    return unit


#: How a map, flattened to (B, S * S), becomes an image score (B,).
IMAGE_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "mtop1p": lambda values: values.topk(max(1, int(0.01 * values.shape[1])), dim=1).values.mean(1),
    "mtop5": lambda values: values.topk(min(5, values.shape[1]), dim=1).values.mean(1),
    "p99": lambda values: torch.stack([torch.quantile(row, 0.99) for row in values]),
    "max": lambda values: values.amax(1),
    "mean": lambda values: values.mean(1),
}


@lru_cache(maxsize=8)
def rotation_angles(seed: int, count: int) -> tuple[float, ...]:
    """Return angles in degrees, as the authors' code draws them after it was seeded."""
    generator = torch.Generator().manual_seed(seed)
    # One at a time: PyTorch draws other numbers for 16 and more at once.
    return tuple(float(torch.empty(1).uniform_(0, MAX_ANGLE, generator=generator)) for _ in range(count))


def blur(maps: Tensor) -> Tensor:
    """Smooth as OpenCV's `GaussianBlur(map, (3, 3), 4)` does, with borders reflected (b | a b c): (B, H, W)."""
    offsets = torch.arange(KERNEL, dtype=torch.float64) - KERNEL // 2
    weights = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    row = (weights / weights.sum()).float().to(maps.device).view(1, 1, 1, KERNEL)
    with torch.autocast(maps.device.type, enabled=False):
        padded = functional.pad(maps[:, None], (KERNEL // 2,) * 4, mode="reflect")
        return functional.conv2d(functional.conv2d(padded, row), row.mT)[:, 0]


def pack(matrix: Tensor) -> Tensor:
    """Return the upper triangle of a symmetric matrix (D, D) as a vector (D (D + 1) / 2,)."""
    row, column = torch.triu_indices(*matrix.shape)
    return matrix[row, column]


def unpack(triangle: Tensor, size: int) -> Tensor:
    """Return the symmetric matrix (D, D) whose upper triangle is a vector."""
    row, column = torch.triu_indices(size, size)
    matrix = triangle.new_zeros(size, size)
    matrix[row, column] = triangle
    matrix[column, row] = triangle
    return matrix
