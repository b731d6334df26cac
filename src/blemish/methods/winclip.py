"""WinCLIP: zero-/few-shot anomaly classification and segmentation (Jeong et al., CVPR 2023,
https://arxiv.org/abs/2303.14814).

There is no official code. The defaults are those of https://github.com/zqhang/Accurate-WinCLIP-pytorch, whose numbers
come nearest to the paper's; anomalib's WinCLIP is the same zero-shot, and few-shot with `patch_norm=True` and
`few_shot_map="mean"`. No learnt parts.

Zero-shot: windows of several sizes slide over the grid of patches. Of each window only the class token and its own
patches go through CLIP, so that its embedding says what stands there and nowhere else. Every window, and the whole
picture, is compared with the means of a prompt ensemble; a patch gets the harmonic mean of the windows around it, and
the scales are joined by a harmonic mean. The picture's score is that of its class token.

Few-shot (WinCLIP+): windows and patches are also matched with those of normal reference pictures, wherever they lie in
them. The mean of these association maps is added to the map, and its maximum is averaged with the class token's score.

Quirks that are kept, because the published numbers were made with them: a template that stands twice in the ensemble,
sentence embeddings that are averaged before they are normalised, a temperature of 0.07 in place of the checkpoint's.

Deviations: the harmonic means are computed in float32 (the reproduction: float64), and a distance that rounding makes
negative is 0, so that a reference scored against itself has a stable map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.clip import ImageFeatures, Request, Tap
from blemish.errors import UsageError
from blemish.methods.base import FewShotMethod, MemoryBank, Prediction, class_token
from blemish.methods.catalogue import CATALOGUE
from blemish.methods.configs import Config, require
from blemish.methods.maps import (
    anomalous_probability,
    as_grid,
    cosine_logits,
    nearest_distance,
    normalise,
    upsample,
)
from blemish.prompts import PromptSet
from blemish.prompts.winclip import COMPOSITIONAL


@dataclass(frozen=True, kw_only=True)
class WinClipConfig(Config):
    """What WinCLIP leaves open; the defaults are for ViT-B/16+ at 240 pixels.

    `image_score="text"` is the paper's: the class token's score, with references its mean with the greatest distance.
    """

    size: int = 240
    scales: tuple[int, ...] = (2, 3)
    """Side lengths of the windows in patches. The whole picture is one more scale, so that windows wider than the grid
    (at a very small `size`) are left out."""
    temperature: float = 0.07
    patch_norm: bool = False
    """Final layer norm on the patches that are matched with references: anomalib has it."""
    few_shot_map: Literal["sum", "mean"] = "sum"
    """How the zero-shot map and the map of the references are joined; anomalib takes the mean."""

    def check(self) -> None:
        super().check()
        require(self.temperature > 0, f"temperature has to be greater than 0, not {self.temperature}")
        require(
            len(self.scales) > 0 and min(self.scales) >= 1,
            f"scales are side lengths of windows in patches, at least one and each at least 1, not {self.scales}",
        )
        require(len(set(self.scales)) == len(self.scales), f"a scale stands twice in {self.scales}")


class WinCLIP(FewShotMethod):
    """Windows against a prompt ensemble, and against normal references where there are some."""

    info = CATALOGUE["winclip"]
    Config: ClassVar[type[WinClipConfig]] = WinClipConfig
    BUILTIN: ClassVar[WinClipConfig] = WinClipConfig(size=280)
    PROMPTS: ClassVar[PromptSet] = COMPOSITIONAL

    config: WinClipConfig

    @property
    def scales(self) -> tuple[int, ...]:
        """The side lengths of the windows that fit into the grid, in patches."""
        return tuple(side for side in self.config.scales if side <= self.config.size // self.backbone.patch)

    @property
    def request(self) -> Request:
        return Request(windows=self.scales)

    @property
    def memory_request(self) -> Request:
        return self.request | Request(frozenset({self.tap}))

    @property
    def tap(self) -> Tap:
        """The patches that are matched with references: those of the last block."""
        return Tap(self.backbone.layers)

    @property
    def map_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def memory_map_range(self) -> tuple[float, float]:
        return 0.0, 2.0 if self.config.few_shot_map == "sum" else 1.0

    # the text side

    def mean_features(self, name: str) -> Tensor:
        """The mean of the normal and of the anomalous sentence embeddings, neither normalised: (2, E)."""
        groups = self.PROMPTS.sentences(name)
        ids = self.backbone.tokenize([sentence for group in groups for sentence in group]).to(self.device)
        raw = self.backbone.encode_text(ids, activation=self.config.activation).float()
        return torch.stack([part.mean(dim=0) for part in torch.split(raw, [len(group) for group in groups])])

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        return normalise(torch.stack([self.mean_features(name) for name in object_names]))

    # zero-shot

    def probability(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """The anomalous probability of windows (B, n, E) or pictures (B, E): (B, n) or (B,)."""
        return anomalous_probability(cosine_logits(embeddings, text, self.config.temperature))

    def text_score(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """The whole picture: (B,) in (0, 1)."""
        return self.probability(self.backbone.project(class_token(features)), text)

    def window_features(self, features: ImageFeatures, side: int) -> Tensor:
        """The windows of one scale in the joint space: (B, n_windows, E), not normalised."""
        if side not in features.windows:
            raise UsageError(f"the features lack the windows of {side} patches: encode with the method's own request")
        return self.backbone.project(features.windows[side])

    def scale_map(self, features: ImageFeatures, text: Tensor, side: int) -> Tensor:
        """The anomalous probability of one scale's windows on the grid of patches: (B, rows, columns)."""
        return harmonic(self.probability(self.window_features(features, side), text), features.grid, side)

    def zero_shot_map(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """The harmonic mean of all scales, the whole picture being one of them: (B, rows, columns) in (0, 1)."""
        scales = [self.scale_map(features, text, side) for side in self.scales]
        scales.append(self.text_score(features, text)[:, None, None].expand(-1, *features.grid))
        return 1 / torch.stack([1 / scale for scale in scales]).mean(dim=0)

    # few-shot

    def patch_features(self, features: ImageFeatures) -> Tensor:
        """The patches that are matched with references: (B, N, D), raw or after the final layer norm."""
        if self.tap not in features.taps:
            raise UsageError("the features lack the patches to match: encode with the method's memory_request")
        patches = features.taps[self.tap][:, 1:]
        return self.backbone.towers.vision_model.post_layernorm(patches) if self.config.patch_norm else patches

    def extract_memory(self, features: ImageFeatures) -> MemoryBank:
        patches = self.patch_features(features)
        windows = {side: self.window_features(features, side).flatten(0, 1).float() for side in self.scales}
        return MemoryBank(len(patches), {self.tap: patches.flatten(0, 1).float()}, windows)

    def window_distance(self, features: ImageFeatures, memory: MemoryBank, side: int) -> Tensor:
        """Half the cosine distance of each window to the nearest remembered one: (B, n_windows) in [0, 1]."""
        return nearest_distance(self.window_features(features, side), memory.windows[side]) / 2

    def patch_distance(self, features: ImageFeatures, memory: MemoryBank) -> Tensor:
        """The same for patches, on their grid: (B, rows, columns) in [0, 1]."""
        return as_grid(nearest_distance(self.patch_features(features), memory.taps[self.tap]) / 2, features.grid)

    def association_map(self, features: ImageFeatures, memory: MemoryBank) -> Tensor:
        """The mean of the distances of patches and of windows, the latter spread harmonically: (B, rows, columns)."""
        maps = [harmonic(self.window_distance(features, memory, side), features.grid, side) for side in self.scales]
        return torch.stack([self.patch_distance(features, memory), *maps]).mean(dim=0)

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        patches, picture = self.zero_shot_map(features, text), self.text_score(features, text)
        if memory is None:
            return self.prediction(picture, upsample(patches, self.config.size))
        if self.tap not in memory.taps or set(self.scales) - set(memory.windows):
            raise UsageError("the memory is of another config: build it with this method")
        association = self.association_map(features, memory)
        picture = (picture + association.amax(dim=(1, 2))) / 2
        patches = patches + association if self.config.few_shot_map == "sum" else (patches + association) / 2
        return self.prediction(picture, upsample(patches, self.config.size), self.memory_map_range)


def harmonic(scores: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Spreads windows over patches: each patch gets the harmonic mean of the windows that cover it.

    Args:
        scores: (B, n_windows), all windows of the grid row by row, at least 0; one 0 makes the mean 0.
        grid: (rows, columns) of patches.
        side: of the windows in patches.

    Returns:
        (B, rows, columns), float32.
    """
    rows, columns = (length - side + 1 for length in grid)
    reciprocals = 1 / scores.float().reshape(-1, 1, rows, columns)
    return (_covering(torch.ones_like(reciprocals), side) / _covering(reciprocals, side))[:, 0]


def _covering(values: Tensor, side: int) -> Tensor:
    """The sum over the windows that cover a patch (their first patch lies at most side - 1 before it), over side^2."""
    # not a matrix product, where an infinite reciprocal times zero would be no number; undivided sums are none of
    # OpenVINO's operations, and the divisor falls out of the quotient anyway
    return F.avg_pool2d(F.pad(values, (side - 1,) * 4), side, stride=1)
