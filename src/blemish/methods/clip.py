"""CLIP, asked directly: "a photo of a normal X." against "a photo of an anomalous X.".

The baseline of AnomalyCLIP (Zhou et al., ICLR 2024, https://arxiv.org/abs/2310.18961). Its repository has no script for
it; the formulas are that repository's for its own method, with plain CLIP blocks in place of its value-value attention.
No learnt parts.

Deviation: none known. The standard CLIP image embedding (with the final layer norm) is the default; the repository's
own class leaves the norm out, which `class_token="no_ln_post"` reproduces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from blemish.clip import ImageFeatures, PositionMode, Request, Tap
from blemish.methods import configs
from blemish.methods.base import Method, Prediction, class_token
from blemish.methods.catalogue import CATALOGUE
from blemish.methods.configs import Config, require
from blemish.methods.ensemble import mean_texts
from blemish.methods.maps import anomalous_probability, as_grid, cosine_logits, upsample_smoothly
from blemish.prompts import PromptSet
from blemish.prompts.clip import TWO_PROMPTS


@dataclass(frozen=True, kw_only=True)
class ClipConfig(Config):
    """What the plain baselines leave open."""

    position: PositionMode = "bilinear"
    layers: tuple[int, ...] = (-1,)
    """Layers whose patch tokens make the map, from 1; -1 is the last."""
    class_token: Literal["ln_post", "no_ln_post"] = "ln_post"
    """The image embedding with CLIP's final layer norm, or without it as in AnomalyCLIP's code."""
    temperature: float = 0.07
    """0.07 as in AnomalyCLIP's code; CLIP's own is 0.01."""
    sigma: float = 4.0
    """Gaussian smoothing of the map, in pixels; 0 for none."""

    def check(self) -> None:
        super().check()
        require(self.temperature > 0, f"temperature has to be greater than 0, not {self.temperature}")
        require(self.sigma >= 0, f"sigma must not be negative, not {self.sigma}")
        require(len(self.layers) > 0, "a config needs at least one layer")


class Clip(Method):
    """Zero-shot CLIP with one normal and one anomalous sentence."""

    info = CATALOGUE["clip"]
    Config: ClassVar[type[ClipConfig]] = ClipConfig
    BUILTIN: ClassVar[ClipConfig] = ClipConfig(size=336)
    PROMPTS: ClassVar[PromptSet] = TWO_PROMPTS

    config: ClipConfig

    @property
    def layers(self) -> tuple[int, ...]:
        """The tapped layers, ascending."""
        return configs.resolve_layers(self.config.layers, self.backbone.layers)

    @property
    def request(self) -> Request:
        return Request(
            taps=frozenset(Tap(layer) for layer in self.layers), class_token=self.config.image_score != "map"
        )

    @property
    def map_range(self) -> tuple[float, float]:
        return 0.0, float(len(self.layers))

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """Every sentence embedding normalised, their mean per state, normalised again: (C, 2, E), float32."""
        return mean_texts(self, self.PROMPTS, object_names)

    def image_embedding(self, features: ImageFeatures) -> Tensor:
        """The picture in CLIP's joint space: (B, E), not normalised."""
        return self.backbone.project(class_token(features), norm=self.config.class_token == "ln_post")

    def patch_logits(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Cosines of each layer's patches with both texts, divided by the temperature: (layers, B, N, 2)."""
        patches = (self.backbone.project(features.taps[Tap(layer)][:, 1:]) for layer in self.layers)
        return torch.stack([cosine_logits(p, text, self.config.temperature) for p in patches])

    def patch_map(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """The layers' anomalous probabilities, summed: (B, rows, columns)."""
        # softmax comes before upsampling; the sum may come before it, because upsampling is linear
        return as_grid(anomalous_probability(self.patch_logits(features, text)).sum(dim=0), features.grid)

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        maps = upsample_smoothly(self.patch_map(features, text), self.config.size, self.config.sigma)
        return self.judged(features, text, maps)

    def judged(
        self, features: ImageFeatures, text: Tensor, maps: Tensor, map_range: tuple[float, float] | None = None
    ) -> Prediction:
        """Maps with the image score that the config asks for; arguments as in `score` and `prediction`."""
        if self.config.image_score == "map":
            return self.prediction(None, maps, map_range)
        logits = cosine_logits(self.image_embedding(features), text, self.config.temperature)
        return self.prediction(anomalous_probability(logits), maps, map_range)
