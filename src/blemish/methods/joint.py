"""Comparison and words jointly: blemish's own few-shot method, and the default of `blemish fit`.

It has no paper. Two weak witnesses are joined: patches are compared with those of a few normal images, as in PatchCore
(Roth et al., CVPR 2022, https://arxiv.org/abs/2106.08265) and AnomalyDINO (Damm et al., WACV 2025,
https://arxiv.org/abs/2405.14529), and the whole image is compared with the sentences of `clip`. With the unit vector
z_p of patch p, the reference patches r, and the words' score w in [0, 1]:

    d_p = min_r (1 - z_p . r)
    d = mean of the largest `top` of the d_p
    x = d / `distance_scale` + w / `words_scale`
    score = x / (1 + x)

z_p is the mean of the patch's unit vectors at the `compared` layers, scaled to length 1. All scales are constants of
the config, and nothing is fitted to the references. So a further reference can only lower a score, which makes
leave-one-out calibration exact (`monotone`). `docs/joint.md` says how the constants were chosen.

Without references the method is `clip`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from blemish.clip import Backbone, ImageFeatures, Request, Tap
from blemish.errors import UsageError
from blemish.methods import configs
from blemish.methods.base import FewShotMethod, MemoryBank, Prediction
from blemish.methods.clip import Clip, ClipConfig
from blemish.methods.configs import require
from blemish.methods.neighbours import nearest
from blemish.methods.ops import anomalous_probability, as_grid, cosine_logits, normalise, upsample_smoothly
from blemish.methods.registry import METHODS


@dataclass(frozen=True, kw_only=True)
class JointConfig(ClipConfig):
    """The config of the joint method; `image_score` is the rule for the words alone, without references."""

    compared: tuple[int, ...] = (12,)
    """Layers whose patches are compared, from 1; -1 is the last."""
    top: float = 0.01
    """Fraction of the patches, the most distant ones, whose mean is the distance of the image."""
    distance_scale: float = 0.1
    """Distance that counts 1 in the score."""
    words_scale: float = 1.0
    """Score of the words that counts 1 in the score."""

    def check(self) -> None:
        super().check()
        require(0 < self.top <= 1, f"top lies above 0 and is at most 1, not {self.top}")
        for name in ("distance_scale", "words_scale"):
            require(getattr(self, name) > 0, f"{name} has to be greater than 0, not {getattr(self, name)}")


class Joint(Clip, FewShotMethod):
    """Distances to normal references and the words' score, on scales fixed beforehand."""

    info = METHODS["joint"]
    Config: ClassVar[type[JointConfig]] = JointConfig
    monotone: ClassVar[bool] = True

    config: JointConfig

    def __init__(self, backbone: Backbone, config: JointConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.compared = configs.resolve_layers(self.config.compared, backbone.layers)

    @property
    def memory_request(self) -> Request:
        return Request(self.request.taps | {Tap(layer) for layer in self.compared})

    @property
    def memory_map_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def memory_tap(self) -> Tap:
        """Tap under which a memory bank holds the compared patches."""
        return Tap(self.compared[-1])

    def patches(self, features: ImageFeatures) -> Tensor:
        """Return what is compared: (B, N, D) float32, each of length 1."""
        missing = [layer for layer in self.compared if Tap(layer) not in features.taps]
        if missing:
            raise UsageError(f"the features lack layer {missing[0]}: encode the images with the method's memory_request")
        units = [normalise(features.taps[Tap(layer)][:, 1:]) for layer in self.compared]
        return units[0] if len(units) == 1 else normalise(torch.stack(units).sum(0))

    def extract_memory(self, features: ImageFeatures) -> MemoryBank:
        patches = self.patches(features)
        return MemoryBank(len(patches), {self.memory_tap: patches.flatten(0, 1)})

    def distances(self, features: ImageFeatures, memory: MemoryBank) -> Tensor:
        """Return d_p of all patches: (B, N) in [0, 2]. Raises UsageError for the memory bank of another method."""
        rows = memory.taps.get(self.memory_tap)
        if rows is None or rows.shape[1] != self.backbone.width:
            raise UsageError("the memory bank is of another method or layer: build it with this method")
        return nearest(self.patches(features), rows).squared[..., 0] / 2

    def words_score(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Return the score w of the whole image by words: (B,) in [0, 1]."""
        return anomalous_probability(cosine_logits(self.image_embedding(features), text, self.config.temperature))

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Score a batch; without a memory bank as `clip` does."""
        if memory is None:
            return super().score(features, text)
        c, distances = self.config, self.distances(features, memory)
        evidence = mean_of_largest(distances, c.top) / c.distance_scale
        evidence = evidence + self.words_score(features, text) / c.words_scale
        grid = as_grid(saturate(distances / c.distance_scale), features.grid)
        return Prediction(saturate(evidence), upsample_smoothly(grid, c.size, c.sigma))


def mean_of_largest(values: Tensor, fraction: float) -> Tensor:
    """Return the mean of the largest values of each row: (B, N) to (B,). At least one of them counts."""
    return values.topk(max(1, round(fraction * values.shape[1])), dim=1).values.mean(1)


def saturate(evidence: Tensor) -> Tensor:
    """Bring evidence, at least 0, to [0, 1): x / (1 + x)."""
    return evidence / (1 + evidence)
