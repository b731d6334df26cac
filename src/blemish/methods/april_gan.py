"""APRIL-GAN: linear adapters on plain CLIP (Chen et al., CVPR 2023 VAND workshop, https://arxiv.org/abs/2305.17382).

Code: https://github.com/ByChelsea/VAND-APRIL-GAN

Zero-shot: the patches of several layers each go through a linear layer of their own, learnt on another data set, and
are compared with the mean of a prompt ensemble. The map is the sum over the layers; the image score is that of the
class token. Few-shot: every patch is also matched with the patches of normal reference images, without the adapter and
regardless of position, and the cosine distances are added to the map.

Weights: the authors publish `mvtec_pretrained.pth` and `visa_pretrained.pth` for ViT-L/14@336 at 518 pixels.

The published weights depend on these quirks of the code, which are kept: exact GELU on OpenAI's weights, which were
trained with QuickGELU (at 518 pixels the code rebuilds the towers without it); the softmax after upsampling, with
aligned corners; the Dice loss that takes rows for images in a batch of one.

Deviation: a distance that rounding makes negative is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from blemish.clip import Activation, Backbone, ImageFeatures, Request, Tap
from blemish.errors import UsageError
from blemish.methods import configs
from blemish.methods.base import (
    WHOLE,
    FewShotMethod,
    MemoryBank,
    Prediction,
    TextFeatureCache,
    Training,
    class_token,
    with_class_token,
)
from blemish.methods.configs import Config
from blemish.methods.linear_adapters import LinearAdapters, Start
from blemish.methods.losses import adapter_losses
from blemish.methods.ops import (
    anomalous_probability,
    as_grid,
    cosine_logits,
    ensemble_texts,
    min_max,
    nearest_distance,
    probability_map,
    smooth,
    upsample,
)
from blemish.methods.registry import METHODS
from blemish.prompts import CLIP_AC, PromptSet


@dataclass(frozen=True, kw_only=True)
class AprilGanConfig(Config):
    """The config of APRIL-GAN; the defaults are those of its scripts for ViT-L/14@336.

    The paper's image score is "text": the score of the class token; with references, its mean with the map's maximum.
    """

    activation: Activation = "gelu"
    layers: tuple[int, ...] = (6, 12, 18, 24)
    """Tapped layers with an adapter each, from 1; -1 is the last."""
    few_shot_layers: tuple[int, ...] = (6, 12, 18, 24)
    """Layers whose patches are matched with those of the references."""
    temperature: float = 0.01
    sigma: float = 0.0
    """Gaussian smoothing of the map, in pixels; the paper has none."""
    start: Start = "random"
    """Where training starts: the paper's random adapters, or CLIP's own projection, which needs fewer images."""


class AprilGAN(FewShotMethod):
    """One learnt linear layer (E, D) per tapped layer: `adapters.fc.{i}.weight` and `.bias`."""

    info = METHODS["april-gan"]
    Config: ClassVar[type[AprilGanConfig]] = AprilGanConfig
    # 15 epochs on VisA; on MVTec AD the scripts train for 3, with mosaics.
    TRAINING = Training(epochs=15, batch_size=8, lr=1e-3, betas=(0.5, 0.999))
    PROMPTS: ClassVar[PromptSet] = CLIP_AC

    backbone: Backbone
    config: AprilGanConfig

    def __init__(self, backbone: Backbone, config: AprilGanConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.layers = configs.resolve_layers(self.config.layers, backbone.layers)
        self.few_shot_layers = configs.resolve_layers(self.config.few_shot_layers, backbone.layers)
        self.adapters = LinearAdapters(len(self.layers), backbone.width, backbone.embed_dim)
        self._texts = TextFeatureCache()
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Set the adapters to the config's start; random ones are drawn as PyTorch draws linear layers."""
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
    def monotone(self) -> bool:
        """Distances to the nearest reference are added with positive weights."""
        return True

    @property
    def memory_map_range(self) -> tuple[float, float]:
        return 0.0, len(self.layers) + 2.0 * len(self.few_shot_layers)

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """Return the normalised mean of the unit vectors of each state's sentences: (C, 2, E) float32."""
        return ensemble_texts(self, self.PROMPTS, object_names)

    # zero-shot

    def text_score(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Compare the whole image with the texts: (B,) in [0, 1]."""
        embedding = self.backbone.project(class_token(features))
        return anomalous_probability(cosine_logits(embedding, text, self.config.temperature))

    def adapted(self, features: ImageFeatures) -> list[Tensor]:
        """Return the adapted patches of each layer: (B, N, E) each, not normalised."""
        patches: list[Tensor] = self.adapters([features.taps[Tap(layer)][:, 1:] for layer in self.layers])
        return patches

    def patch_logits(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """Compare the adapted patches of each layer with the texts: (B, N, 2) each."""
        return [cosine_logits(patches, text, self.config.temperature) for patches in self.adapted(features)]

    def layer_maps(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """Return the anomalous probability of each layer: (B, S, S) each."""
        return [probability_map(p, features.grid, self.config.size) for p in self.patch_logits(features, text)]

    # few-shot

    def patches(self, features: ImageFeatures, layer: int) -> Tensor:
        """Return what is matched with references at a layer: (B, N, D), raw."""
        if Tap(layer) not in features.taps:
            raise UsageError("with references APRIL-GAN needs its few-shot layers: encode with its memory_request")
        return features.taps[Tap(layer)][:, 1:]

    def extract_memory(self, features: ImageFeatures) -> MemoryBank:
        taps = {Tap(k): self.patches(features, k).flatten(0, 1).float() for k in self.few_shot_layers}
        token = class_token(features).float()
        return MemoryBank(len(token), taps, {WHOLE: token})

    def keeps_entries(self, memory: MemoryBank) -> bool:
        """A bank keeps whole images, and all patches if the adapted layers are among the few-shot layers."""
        return WHOLE in memory.windows and set(self.layers) <= set(self.few_shot_layers)

    def score_entry(self, entry: MemoryBank, text: Tensor, memory: MemoryBank, grid: tuple[int, int]) -> Prediction:
        taps = {tap: with_class_token(rows, entry.images) for tap, rows in entry.taps.items()}
        return self.score(ImageFeatures(taps, entry.windows[WHOLE], {}, grid), text, memory)

    def distance_maps(self, features: ImageFeatures, memory: MemoryBank) -> list[Tensor]:
        """Return each few-shot layer's cosine distance to the nearest reference patch: (B, S, S) in [0, 2] each."""
        distances = (nearest_distance(self.patches(features, k), memory.taps[Tap(k)]) for k in self.few_shot_layers)
        return [upsample(as_grid(d, features.grid), self.config.size, align_corners=True) for d in distances]

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Score a batch. With references the image score is the mean of the class token's and of the map's maximum.

        The paper stretches the maxima over a whole test set, as `set_scores` does. A single image knows no set, so here
        they are divided by the upper end of `memory_map_range`.
        """
        text_score, maps = self.text_score(features, text), reduce(torch.add, self.layer_maps(features, text))
        if memory is None:
            return self.prediction(text_score, smooth(maps, self.config.sigma))
        maps = smooth(reduce(torch.add, self.distance_maps(features, memory), maps), self.config.sigma)
        peak = maps.amax(dim=(1, 2)) / self.memory_map_range[1]
        return self.prediction((text_score + peak) / 2, maps, self.memory_map_range)

    def set_scores(self, text_scores: Tensor, peaks: Tensor, *, few_shot: bool = False) -> Tensor:
        """Return the paper's image scores of all test images of one object.

        Args:
            text_scores: (n,), from `text_score`.
            peaks: (n,), the maximum of each image's map.
            few_shot: Whether the maps were made with references.

        Returns:
            (n,): the text scores; few-shot, their mean with the maxima, which are stretched to [0, 1] over the set (nan
            where all are equal).
        """
        return (text_scores + min_max(peaks)) / 2 if few_shot else text_scores

    # training

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return "focal" and "dice" of every layer's map, (layers,) each, and their sum "total"."""
        logits = self.patch_logits(features, self._texts.batch(self, object_names))
        return adapter_losses([as_grid(p[..., 1] - p[..., 0], features.grid) for p in logits], masks)
