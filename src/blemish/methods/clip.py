"""CLIP and CLIP-AC: the two baselines of AnomalyCLIP (Zhou et al., ICLR 2024, https://arxiv.org/abs/2310.18961).

`clip` compares an image with "a photo of a normal X." and "a photo of an anomalous X."; `clip-ac` with the means of a
prompt ensemble: seven normal and five anomalous states in 35 templates. The image score is the softmax of the class
token's cosines over the temperature; the map is the same of the patch tokens, summed over layers, upsampled and
smoothed.

Code: the paper's repository (https://github.com/zqhang/AnomalyCLIP) has no script for the baselines. The formulas are
those of its own method, with plain CLIP blocks in place of its value-value attention. There are no learnt parts.

Deviation: the image embedding has CLIP's final layer norm. The repository's class leaves it out, which
`class_token="no_ln_post"` reproduces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from blemish.clip import Backbone, ImageFeatures, PositionMode, Request, Tap
from blemish.methods import configs
from blemish.methods.base import Method, Prediction, class_token
from blemish.methods.configs import Config, require
from blemish.methods.ops import anomalous_probability, as_grid, cosine_logits, ensemble_texts, upsample_smoothly
from blemish.methods.registry import METHODS
from blemish.prompts import CLIP, CLIP_AC, PromptSet


@dataclass(frozen=True, kw_only=True)
class ClipConfig(Config):
    """The config of both baselines."""

    position: PositionMode = "bilinear"
    layers: tuple[int, ...] = (-1,)
    """Layers whose patch tokens make the map, from 1; -1 is the last."""
    class_token: Literal["ln_post", "no_ln_post"] = "ln_post"
    """The image embedding with CLIP's final layer norm, or without it as in AnomalyCLIP's code."""
    temperature: float = 0.07
    """0.07 is from AnomalyCLIP's code; CLIP's own is 0.01."""
    sigma: float = 4.0
    """Gaussian smoothing of the map, in pixels; 0 for none."""

    def check(self) -> None:
        super().check()
        require(len(self.layers) > 0, "a config needs at least one layer")


class Clip(Method):
    """Zero-shot CLIP with one normal and one anomalous sentence."""

    info = METHODS["clip"]
    Config: ClassVar[type[ClipConfig]] = ClipConfig
    PROMPTS: ClassVar[PromptSet] = CLIP

    backbone: Backbone
    config: ClipConfig

    @property
    def layers(self) -> tuple[int, ...]:
        """Tapped layers, ascending."""
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
        """Return the normalised mean of the unit vectors of each state's sentences: (C, 2, E) float32."""
        return ensemble_texts(self, self.PROMPTS, object_names)

    def image_embedding(self, features: ImageFeatures) -> Tensor:
        """Project the class token into CLIP's joint space: (B, E), not normalised."""
        return self.backbone.project(class_token(features), norm=self.config.class_token == "ln_post")

    def patch_logits(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Return the cosines of each layer's patches with both texts over the temperature: (layers, B, N, 2)."""
        patches = (self.backbone.project(features.taps[Tap(layer)][:, 1:]) for layer in self.layers)
        return torch.stack([cosine_logits(p, text, self.config.temperature) for p in patches])

    def patch_map(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Return the sum of the layers' anomalous probabilities: (B, rows, columns)."""
        # The softmax has to come before upsampling; the sum may, because upsampling is linear.
        return as_grid(anomalous_probability(self.patch_logits(features, text)).sum(dim=0), features.grid)

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        maps = upsample_smoothly(self.patch_map(features, text), self.config.size, self.config.sigma)
        return self.predict(features, text, maps)

    def predict(
        self, features: ImageFeatures, text: Tensor, maps: Tensor, map_range: tuple[float, float] | None = None
    ) -> Prediction:
        """Return the prediction of final maps. Arguments as in `score` and `prediction`."""
        if self.config.image_score == "map":
            return self.prediction(None, maps, map_range)
        logits = cosine_logits(self.image_embedding(features), text, self.config.temperature)
        return self.prediction(anomalous_probability(logits), maps, map_range)


class ClipAC(Clip):
    """Zero-shot CLIP with 245 normal and 175 anomalous sentences."""

    info = METHODS["clip-ac"]
    PROMPTS: ClassVar[PromptSet] = CLIP_AC
