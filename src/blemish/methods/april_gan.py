"""APRIL-GAN: linear adapters on plain CLIP (Chen et al., CVPR 2023 VAND workshop, https://arxiv.org/abs/2305.17382).

Code: https://github.com/ByChelsea/VAND-APRIL-GAN. Patches of several layers go each through a linear layer of its own,
learnt on another data set, and are compared with the mean of a prompt ensemble; the map is the sum over the layers. The
picture's score is that of its class token. Few-shot, every patch is also matched with those of normal reference
pictures, raw and wherever they lie, and the distances are added to the map.

Weights: the authors publish `mvtec_pretrained.pth` and `visa_pretrained.pth` for ViT-L/14@336 at 518 pixels;
`load_official` takes them.

Quirks that the published weights depend on, and are kept: exact GELU on OpenAI's weights, which were trained with
QuickGELU (at 518 pixels the code rebuilds the towers without it); the softmax after upsampling, with aligned corners;
the Dice loss that takes rows for pictures in a batch of one.

Deviation: a distance that rounding makes negative is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor

from blemish.clip import Activation, Backbone, ImageFeatures, Request, Tap
from blemish.errors import UsageError
from blemish.methods import configs, published
from blemish.methods.adapters import KnownTexts, LinearAdapters, Start
from blemish.methods.base import FewShotMethod, MemoryBank, Prediction, Training, class_token
from blemish.methods.catalogue import CATALOGUE
from blemish.methods.configs import Config, require
from blemish.methods.ensemble import mean_texts
from blemish.methods.losses import adapter_losses
from blemish.methods.maps import (
    anomalous_probability,
    as_grid,
    cosine_logits,
    min_max,
    nearest_distance,
    probability_map,
    smooth,
    upsample,
)
from blemish.prompts import PromptSet
from blemish.prompts.clip_ac import ENSEMBLE

LAYOUT = "trainable_linearlayer"


@dataclass(frozen=True, kw_only=True)
class AprilGanConfig(Config):
    """What APRIL-GAN leaves open; the defaults are its scripts' for ViT-L/14@336.

    `image_score="text"` is the paper's: the class token's score, with references its mean with the map's maximum.
    """

    activation: Activation = "gelu"
    layers: tuple[int, ...] = (6, 12, 18, 24)
    """Tapped layers with an adapter each, from 1; -1 is the last."""
    few_shot_layers: tuple[int, ...] = (6, 12, 18, 24)
    """Layers whose patches are matched with references."""
    temperature: float = 0.01
    sigma: float = 0.0
    """Gaussian smoothing of the map, in pixels; the paper has none."""
    start: Start = "random"
    """Where training starts: the paper's random adapters, or CLIP's own projection, with which few pictures suffice."""

    def check(self) -> None:
        super().check()
        require(self.temperature > 0, f"temperature has to be greater than 0, not {self.temperature}")
        require(self.sigma >= 0, f"sigma must not be negative, not {self.sigma}")


class AprilGAN(FewShotMethod):
    """One learnt linear layer (E, D) per tapped layer: `adapters.fc.{i}.weight` and `.bias`."""

    info = CATALOGUE["april-gan"]
    Config: ClassVar[type[AprilGanConfig]] = AprilGanConfig
    BUILTIN: ClassVar[AprilGanConfig] = AprilGanConfig(
        size=336,
        activation="checkpoint",
        layers=(6, 8),
        few_shot_layers=(2, 4, 6, 8),
        temperature=0.07,
        sigma=4.0,
        start="projection",
    )
    # 15 epochs on VisA; on MVTec AD the scripts train for 3, with mosaics
    TRAINING = Training(epochs=15, batch_size=8, lr=1e-3, betas=(0.5, 0.999))
    BUILTIN_TRAINING = Training(epochs=6, batch_size=8, lr=1e-4, betas=(0.5, 0.999))
    PROMPTS: ClassVar[PromptSet] = ENSEMBLE

    config: AprilGanConfig

    def __init__(self, backbone: Backbone, config: AprilGanConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.layers = configs.resolve_layers(self.config.layers, backbone.layers)
        self.few_shot_layers = configs.resolve_layers(self.config.few_shot_layers, backbone.layers)
        self.adapters = LinearAdapters(len(self.layers), backbone.width, backbone.embed_dim)
        self._known_texts = KnownTexts(self)
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Sets the adapters to the config's start; random ones are drawn as PyTorch draws linear layers."""
        self.adapters.start(self.config.start, self.backbone, seed)

    @property
    def request(self) -> Request:
        return Request(frozenset(Tap(layer) for layer in self.layers))

    @property
    def training_request(self) -> Request:
        return Request(self.request.taps, class_token=False)

    @property
    def memory_request(self) -> Request:
        return self.request | Request(frozenset(Tap(layer) for layer in self.few_shot_layers))

    @property
    def map_range(self) -> tuple[float, float]:
        return 0.0, float(len(self.layers))

    @property
    def memory_map_range(self) -> tuple[float, float]:
        return 0.0, len(self.layers) + 2.0 * len(self.few_shot_layers)

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """Every sentence embedding normalised, their mean per state, normalised again: (C, 2, E), float32."""
        return mean_texts(self, self.PROMPTS, object_names)

    # zero-shot

    def text_score(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """The whole picture against the texts: (B,) in [0, 1]."""
        picture = self.backbone.project(class_token(features))
        return anomalous_probability(cosine_logits(picture, text, self.config.temperature))

    def adapted(self, features: ImageFeatures) -> list[Tensor]:
        """The patches of each layer through its adapter: (B, N, E) each, not normalised."""
        found: list[Tensor] = self.adapters([features.taps[Tap(layer)][:, 1:] for layer in self.layers])
        return found

    def layer_maps(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """The anomalous probability of each layer: (B, S, S) each."""
        logits = (cosine_logits(patches, text, self.config.temperature) for patches in self.adapted(features))
        return [probability_map(layer, features.grid, self.config.size) for layer in logits]

    # few-shot

    def patches(self, features: ImageFeatures, layer: int) -> Tensor:
        """What is matched with references at a layer: (B, N, D), raw."""
        if Tap(layer) not in features.taps:
            raise UsageError("with references APRIL-GAN needs its few-shot layers: encode with its memory_request")
        return features.taps[Tap(layer)][:, 1:]

    def extract_memory(self, features: ImageFeatures) -> MemoryBank:
        kept = {Tap(k): self.patches(features, k).flatten(0, 1).float() for k in self.few_shot_layers}
        return MemoryBank(len(features.taps[Tap(self.few_shot_layers[0])]), kept)

    def distance_maps(self, features: ImageFeatures, memory: MemoryBank) -> list[Tensor]:
        """The cosine distance to the nearest remembered patch, for each few-shot layer: (B, S, S) in [0, 2] each."""
        distances = (nearest_distance(self.patches(features, k), memory.taps[Tap(k)]) for k in self.few_shot_layers)
        return [upsample(as_grid(d, features.grid), self.config.size, align_corners=True) for d in distances]

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Scores a batch; with a memory the picture's score is the mean of its class token's and the map's maximum.

        The paper stretches the maxima over a whole test set, which `set_scores` does; here they are divided by the
        greatest value that a map can have.
        """
        picture, maps = self.text_score(features, text), reduce(torch.add, self.layer_maps(features, text))
        if memory is None:
            return self.prediction(picture, smooth(maps, self.config.sigma))
        maps = smooth(reduce(torch.add, self.distance_maps(features, memory), maps), self.config.sigma)
        peak = maps.amax(dim=(1, 2)) / self.memory_map_range[1]
        return self.prediction((picture + peak) / 2, maps, self.memory_map_range)

    def set_scores(self, text_scores: Tensor, peaks: Tensor, *, few_shot: bool = False) -> Tensor:
        """The paper's image scores for all test pictures of one object.

        Args:
            text_scores: (n,), from `text_score`.
            peaks: (n,), the maximum of each picture's map.
            few_shot: the maps were made with a memory.

        Returns:
            (n,): zero-shot the text scores; few-shot their mean with the maxima stretched to [0, 1] over the set, nan
            where all maxima are equal.
        """
        return (text_scores + min_max(peaks)) / 2 if few_shot else text_scores

    # training and the authors' files

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Focal and Dice loss of every layer's map: "focal" and "dice" are (layers,), "total" is their sum."""
        tokens = [features.taps[Tap(layer)] for layer in self.layers]
        cosines = self.adapters.differences(tokens, self._known_texts(object_names))
        return adapter_losses([as_grid(c / self.config.temperature, features.grid) for c in cosines], masks)

    @classmethod
    def official_config(cls, state: Mapping[str, Any], config: AprilGanConfig) -> AprilGanConfig:
        published.require_method(state, "april-gan")
        return config

    def load_official(self, state: Mapping[str, Any]) -> None:
        published.require_method(state, "april-gan")
        self.adapters.read(state, LAYOUT)
