"""WinCLIP: zero-/few-shot anomaly classification and segmentation (Jeong et al., CVPR 2023,
https://arxiv.org/abs/2303.14814).

Code: the authors published none. The defaults are those of https://github.com/zqhang/Accurate-WinCLIP-pytorch, whose
numbers come nearest to the paper's. anomalib's WinCLIP is the same zero-shot, and few-shot with `patch_norm=True` and
`few_shot_map="mean"`. There are no learnt parts.

Zero-shot: windows of several sizes slide over the grid of patches. Only the class token and the patches of a window go
through CLIP, so its embedding describes this place alone. Every window, and the whole image, is compared with the
means of a prompt ensemble. A patch gets the harmonic mean of the windows that cover it, and the scales are combined by
a harmonic mean. The image score is that of the class token.

Few-shot (WinCLIP+): windows and patches are also matched with those of normal reference images, regardless of
position. The mean of these association maps is added to the map, and its maximum is averaged with the class token's
score.

The published numbers depend on these quirks, which are kept: a template that occurs twice in the ensemble, sentence
embeddings that are averaged before they are normalised, a temperature of 0.07 in place of the checkpoint's.

Deviations: the harmonic means are computed in float32 (the reproduction: float64); a distance that rounding makes
negative is 0, so that a reference scored against itself has a stable map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.clip import Backbone, ImageFeatures, Request, Tap
from blemish.errors import UsageError
from blemish.methods.base import WHOLE, FewShotMethod, MemoryBank, Prediction, class_token, with_class_token
from blemish.methods.configs import Config, require
from blemish.methods.ops import (
    anomalous_probability,
    as_grid,
    cosine_logits,
    nearest_distance,
    normalise,
    upsample,
)
from blemish.methods.registry import METHODS
from blemish.prompts import WINCLIP, PromptSet


@dataclass(frozen=True, kw_only=True)
class WinClipConfig(Config):
    """The config of WinCLIP; the defaults are for ViT-B/16+ at 240 pixels.

    The paper's image score is "text": the class token's; with references, its mean with the greatest distance.
    """

    size: int = 240
    scales: tuple[int, ...] = (2, 3)
    """Side lengths of the windows in patches. The whole image is one more scale; windows wider than the grid are left
    out."""
    temperature: float = 0.07
    patch_norm: bool = False
    """Apply the final layer norm to the patches that are matched with references, as anomalib does."""
    few_shot_map: Literal["sum", "mean"] = "sum"
    """How the zero-shot map and the association map are combined; anomalib takes the mean."""

    def check(self) -> None:
        super().check()
        require(
            len(self.scales) > 0 and min(self.scales) >= 1,
            f"scales are side lengths of windows in patches, at least one and each at least 1, not {self.scales}",
        )
        require(len(set(self.scales)) == len(self.scales), f"a scale stands twice in {self.scales}")


class WinCLIP(FewShotMethod):
    """Windows against a prompt ensemble, and against normal references where there are some."""

    info = METHODS["winclip"]
    Config: ClassVar[type[WinClipConfig]] = WinClipConfig
    PROMPTS: ClassVar[PromptSet] = WINCLIP

    backbone: Backbone
    config: WinClipConfig

    @property
    def scales(self) -> tuple[int, ...]:
        """Side lengths of the windows that fit into the grid, in patches."""
        return tuple(side for side in self.config.scales if side <= self.config.size // self.backbone.patch)

    @property
    def request(self) -> Request:
        return Request(windows=self.scales)

    @property
    def memory_request(self) -> Request:
        return self.request | Request(frozenset({self.tap}))

    @property
    def tap(self) -> Tap:
        """Tap of the patches that are matched with references, those of the last block."""
        return Tap(self.backbone.layers)

    @property
    def map_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def monotone(self) -> bool:
        """Distances to the nearest reference are added with positive weights."""
        return True

    @property
    def memory_map_range(self) -> tuple[float, float]:
        return 0.0, 2.0 if self.config.few_shot_map == "sum" else 1.0

    # the text side

    def mean_features(self, name: str) -> Tensor:
        """Return the mean of the normal and of the anomalous sentence embeddings: (2, E). Nothing is normalised."""
        groups = self.PROMPTS.sentences(name)
        ids = self.backbone.tokenize([sentence for group in groups for sentence in group]).to(self.device)
        raw = self.backbone.encode_text(ids, activation=self.config.activation).float()
        return torch.stack([part.mean(dim=0) for part in torch.split(raw, [len(group) for group in groups])])

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        return normalise(torch.stack([self.mean_features(name) for name in object_names]))

    # zero-shot

    def probability(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """Return the anomalous probability of windows (B, n, E) or images (B, E): (B, n) or (B,)."""
        return anomalous_probability(cosine_logits(embeddings, text, self.config.temperature))

    def text_score(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Compare the whole image with the texts: (B,) in (0, 1)."""
        token = class_token(features)
        return self.probability(token if isinstance(features, _KeptFeatures) else self.backbone.project(token), text)

    def window_features(self, features: ImageFeatures, side: int) -> Tensor:
        """Project the windows of one scale: (B, n_windows, E), not normalised."""
        if side not in features.windows:
            raise UsageError(f"the features lack the windows of {side} patches: encode with the method's own request")
        windows = features.windows[side]
        return windows if isinstance(features, _KeptFeatures) else self.backbone.project(windows)

    def scale_map(self, features: ImageFeatures, text: Tensor, side: int) -> Tensor:
        """Return the anomalous probability of one scale on the grid of patches: (B, rows, columns)."""
        return harmonic(self.probability(self.window_features(features, side), text), features.grid, side)

    def zero_shot_map(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Return the harmonic mean of all scales, including the whole image: (B, rows, columns) in (0, 1)."""
        scales = [self.scale_map(features, text, side) for side in self.scales]
        scales.append(self.text_score(features, text)[:, None, None].expand(-1, *features.grid))
        return 1 / torch.stack([1 / scale for scale in scales]).mean(dim=0)

    # few-shot

    def patch_features(self, features: ImageFeatures) -> Tensor:
        """Return the patches that are matched with references: (B, N, D), raw or after the final layer norm."""
        if self.tap not in features.taps:
            raise UsageError("the features lack the patches to match: encode with the method's memory_request")
        patches = features.taps[self.tap][:, 1:]
        is_normed = not self.config.patch_norm or isinstance(features, _KeptFeatures)
        return patches if is_normed else self.backbone.final_norm(patches)

    def extract_memory(self, features: ImageFeatures) -> MemoryBank:
        patches = self.patch_features(features)
        windows = {side: self.window_features(features, side).flatten(0, 1).float() for side in self.scales}
        windows[WHOLE] = self.backbone.project(class_token(features)).float()
        return MemoryBank(len(patches), {self.tap: patches.flatten(0, 1).float()}, windows)

    def keeps_entries(self, memory: MemoryBank) -> bool:
        """A bank keeps patches, windows and, since profiles can lose pictures, whole images."""
        return WHOLE in memory.windows

    def score_entry(self, entry: MemoryBank, text: Tensor, memory: MemoryBank, grid: tuple[int, int]) -> Prediction:
        taps = {self.tap: with_class_token(entry.taps[self.tap], entry.images)}
        windows = {side: rows.reshape(entry.images, -1, rows.shape[1]) for side, rows in entry.windows.items()}
        return self.score(_KeptFeatures(taps, windows[WHOLE][:, 0], windows, grid), text, memory)

    def window_distance(self, features: ImageFeatures, memory: MemoryBank, side: int) -> Tensor:
        """Return half the cosine distance of each window to the nearest reference window: (B, n_windows) in [0, 1]."""
        return nearest_distance(self.window_features(features, side), memory.windows[side]) / 2

    def patch_distance(self, features: ImageFeatures, memory: MemoryBank) -> Tensor:
        """Return half the cosine distance of each patch to the nearest reference: (B, rows, columns) in [0, 1]."""
        return as_grid(nearest_distance(self.patch_features(features), memory.taps[self.tap]) / 2, features.grid)

    def association_map(self, features: ImageFeatures, memory: MemoryBank) -> Tensor:
        """Return the mean of the distance maps of the patches and of every scale: (B, rows, columns)."""
        maps = [harmonic(self.window_distance(features, memory, side), features.grid, side) for side in self.scales]
        return torch.stack([self.patch_distance(features, memory), *maps]).mean(dim=0)

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        grid, image_score = self.zero_shot_map(features, text), self.text_score(features, text)
        if memory is None:
            return self.prediction(image_score, upsample(grid, self.config.size))
        if self.tap not in memory.taps or set(self.scales) - set(memory.windows):
            raise UsageError("the memory bank is of another config: build it with this method")
        association = self.association_map(features, memory)
        image_score = (image_score + association.amax(dim=(1, 2))) / 2
        grid = grid + association if self.config.few_shot_map == "sum" else (grid + association) / 2
        return self.prediction(image_score, upsample(grid, self.config.size), self.memory_map_range)


@dataclass(frozen=True)
class _KeptFeatures(ImageFeatures):
    """Features from a memory bank: class tokens and windows are projected, and patches are as they are matched."""


def harmonic(scores: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Return the harmonic mean of the windows that cover each patch.

    Args:
        scores: (B, n_windows), at least 0, all windows of the grid row by row. One 0 makes the mean 0.
        grid: Rows and columns of patches.
        side: Side of the windows in patches.

    Returns:
        (B, rows, columns), float32.
    """
    rows, columns = (length - side + 1 for length in grid)
    reciprocals = 1 / scores.float().reshape(-1, 1, rows, columns)
    return (_average_of_covering(torch.ones_like(reciprocals), side) / _average_of_covering(reciprocals, side))[:, 0]


def _average_of_covering(values: Tensor, side: int) -> Tensor:
    """Return the sum over the windows that cover each patch, divided by side^2 also where fewer windows cover it.

    The divisor cancels in the harmonic mean. Pooling can be exported, which a sum over windows cannot; in a matrix
    product an infinite reciprocal times zero would not be a number.
    """
    return F.avg_pool2d(F.pad(values, (side - 1,) * 4), side, stride=1)
