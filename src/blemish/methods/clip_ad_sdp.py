"""CLIP-AD, staged dual path (Chen et al., IJCAI 2024 workshops, https://arxiv.org/abs/2311.00453).

Code: https://github.com/ByChelsea/CLIP-AD. Beside the original path of the vision tower, which is left as it is, runs a
second one: value-value attention read from the original path, summed over the blocks of each quarter of the tower, so
that patches stay local. Feature surgery takes from each patch what it shares with all texts: its cosine with either
text is weighted by that text's probability for the whole picture, and the two are subtracted. No learnt parts.

Quirks that SDP+'s published weights depend on, and are kept. The code stores taps by reference and later blocks add in
place. So the original path at a layer already holds the next block's attention (`middle`), and the value path at a
layer is the sum over its whole quarter, also of blocks after the layer. With the usual layers, which end quarters, only
the first matters. The surgery's softmax has no temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from blemish.clip import Backbone, ImageFeatures, Request, Tap
from blemish.methods import configs
from blemish.methods.base import Prediction
from blemish.methods.catalogue import CATALOGUE
from blemish.methods.configs import ImageScore, require
from blemish.methods.maps import anomalous_probability, as_grid, cosine_logits, min_max, smooth, upsample
from blemish.methods.representatives import RepresentativeConfig, RepresentativeTexts
from blemish.prompts import PromptSet
from blemish.prompts.clip_ad import ENSEMBLE


@dataclass(frozen=True, kw_only=True)
class ClipAdSdpConfig(RepresentativeConfig):
    """What the staged dual path leaves open; the defaults are its scripts' for ViT-B/16+ at 240 pixels.

    `image_score="text+map"` stands for the paper's sum of both, which `set_scores` computes over a test set.
    """

    size: int = 240
    image_score: ImageScore = "text+map"
    layers: tuple[int, ...] = (3, 6, 9, 12)
    """Tapped layers, from 1; -1 is the last."""
    temperature: float = 0.01
    """Of the picture's score; feature surgery has none."""
    sigma: float = 8.0
    """Gaussian smoothing of the map, in pixels; 0 for none. With adapters the scripts take 2 for VisA."""

    @property
    def image_scores(self) -> tuple[ImageScore, ...]:
        return "text+map", "text", "map"

    def check(self) -> None:
        super().check()
        require(self.temperature > 0, f"temperature has to be greater than 0, not {self.temperature}")
        require(self.sigma >= 0, f"sigma must not be negative, not {self.sigma}")


class ClipAdSDP(RepresentativeTexts):
    """Two paths through a frozen tower, and feature surgery."""

    info = CATALOGUE["clip-ad-sdp"]
    Config: ClassVar[type[ClipAdSdpConfig]] = ClipAdSdpConfig
    #: The built-in backbone learnt to read the value path of its last quarter alone.
    BUILTIN: ClassVar[ClipAdSdpConfig] = ClipAdSdpConfig(size=336, layers=(8,), sigma=4.0)
    PROMPTS: ClassVar[PromptSet] = ENSEMBLE

    config: ClipAdSdpConfig

    def __init__(self, backbone: Backbone, config: ClipAdSdpConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.layers = configs.resolve_layers(self.config.layers, backbone.layers)

    # the two paths

    def value_tap(self, layer: int) -> Tap:
        """The value path at a layer: the sum over the quarter of the tower that the layer lies in."""
        start, end = quarter(layer, self.backbone.layers)
        return Tap(end, "value", start=start, seeded=False)

    @property
    def request(self) -> Request:
        paths = [(Tap(layer, "middle"), self.value_tap(layer)) for layer in self.layers]
        return Request(frozenset(tap for pair in paths for tap in pair), class_token=False)

    @property
    def map_range(self) -> tuple[float, float]:
        # probabilities that sum to 1 weigh two cosines: each layer lies between -1 and 1
        return -float(len(self.layers)), float(len(self.layers))

    def original(self, features: ImageFeatures, layer: int) -> Tensor:
        """The original path at a layer: (B, 1 + N, D), raw."""
        return features.taps[Tap(layer, "middle")]

    def surgery(self, features: ImageFeatures, layer: int) -> Tensor:
        """The original path's class token and the value path's patches in the joint space: (B, 1 + N, E)."""
        patches = features.taps[self.value_tap(layer)][:, 1:]
        return self.backbone.project(torch.cat([self.original(features, layer)[:, :1], patches], dim=1))

    # scores

    def text_score(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """The class token of the last tapped layer against the texts: (B,) in [0, 1]."""
        picture = self.surgery(features, self.layers[-1])[:, 0]
        return anomalous_probability(cosine_logits(picture, text, self.config.temperature))

    def similarity(self, features: ImageFeatures, text: Tensor, layer: int) -> Tensor:
        """Feature surgery at a layer, positive where it is anomalous: (B, 1 + N) in [-1, 1]."""
        cosine = cosine_logits(self.surgery(features, layer), text, 1.0)
        weighted = cosine[:, :1].softmax(dim=-1) * cosine
        return weighted[..., 1] - weighted[..., 0]

    def raw_map(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """The layers' similarities, summed and upsampled, before smoothing: (B, S, S)."""
        total = torch.stack([self.similarity(features, text, layer) for layer in self.layers]).sum(dim=0)
        return upsample(as_grid(total[:, 1:], features.grid), self.config.size)

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        """Scores a batch; the picture's score is the mean of its text score and the map's maximum over its range.

        The paper stretches both over a whole test set first: `set_scores`.
        """
        maps = smooth(self.raw_map(features, text), self.config.sigma)
        return self.prediction(self.text_score(features, text), maps)

    def set_scores(self, text_scores: Tensor, peaks: Tensor) -> Tensor:
        """The paper's image scores for all test pictures of one object.

        Args:
            text_scores: (n,), from `text_score`.
            peaks: (n,), the maximum of each picture's map.

        Returns:
            (n,) in [0, 2]: both stretched to [0, 1] over the set, and added; nan where all of one kind are equal.
        """
        return min_max(text_scores) + min_max(peaks)


def quarter(layer: int, total: int) -> tuple[int, int]:
    """The first and the last block of the group that a layer lies in.

    A group begins after every block whose number is a multiple of a quarter of the tower's; if the number of blocks is
    no multiple of 4 there are fewer groups than four.
    """
    # in whole numbers: block - 1 is a multiple of total / 4
    starts = [block for block in range(1, total + 1) if 4 * (block - 1) % total == 0]
    ends = [start - 1 for start in starts[1:]] + [total]
    return next((start, end) for start, end in zip(starts, ends, strict=True) if layer <= end)
