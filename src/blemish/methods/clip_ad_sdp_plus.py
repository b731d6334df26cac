"""CLIP-AD, staged dual path with linear adapters: SDP+ (Chen et al., IJCAI 2024 workshops,
https://arxiv.org/abs/2311.00453).

Code: https://github.com/ByChelsea/CLIP-AD. To the map of `clip-ad-sdp` comes that of linear layers on the original
path, learnt on another data set, compared with the same texts. Both are added without weights.

Weights: the authors publish `train_on_visa.pth` and `train_on_mvtec.pth` for ViT-B/16+ at 240 pixels; `load_official`
takes them. They were trained with texts selected with the settings of the data set they were trained on, and tested
with those of the one they were tested on (see `dbscan_eps`).

Quirks that these weights depend on, and are kept: those of `clip-ad-sdp`; the softmax after upsampling, here with
aligned corners; the Dice loss that takes rows for pictures in a batch of one.

Deviation: the code does not shuffle; `blemish.training` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor

from blemish.clip import Backbone, ImageFeatures, Request, Tap
from blemish.methods import published
from blemish.methods.adapters import KnownTexts, LinearAdapters, Start
from blemish.methods.base import Training
from blemish.methods.catalogue import CATALOGUE
from blemish.methods.clip_ad_sdp import ClipAdSDP, ClipAdSdpConfig
from blemish.methods.losses import adapter_losses
from blemish.methods.maps import as_grid, cosine_logits, probability_map

LAYOUT = "linear_layers"


@dataclass(frozen=True, kw_only=True)
class ClipAdSdpPlusConfig(ClipAdSdpConfig):
    """What SDP+ leaves open: what SDP does, and where training starts."""

    start: Start = "random"
    """The paper's random adapters, or CLIP's own projection, with which few pictures suffice."""


class ClipAdSDPPlus(ClipAdSDP):
    """SDP and one learnt linear layer (E, D) per tapped layer: `adapters.fc.{i}.weight` and `.bias`."""

    info = CATALOGUE["clip-ad-sdp-plus"]
    Config: ClassVar[type[ClipAdSdpPlusConfig]] = ClipAdSdpPlusConfig
    BUILTIN: ClassVar[ClipAdSdpPlusConfig] = ClipAdSdpPlusConfig(
        size=336, layers=(8,), temperature=0.07, sigma=4.0, start="projection"
    )
    TRAINING = Training(epochs=5, batch_size=8, lr=1e-4, betas=(0.9, 0.999))

    config: ClipAdSdpPlusConfig

    def __init__(self, backbone: Backbone, config: ClipAdSdpPlusConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.adapters = LinearAdapters(len(self.layers), backbone.width, backbone.embed_dim)
        self._known_texts = KnownTexts(self)
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Sets the adapters to the config's start; random ones are drawn as PyTorch draws linear layers."""
        self.adapters.start(self.config.start, self.backbone, seed)

    @property
    def training_request(self) -> Request:
        return Request(frozenset(Tap(layer, "middle") for layer in self.layers), class_token=False)

    @property
    def map_range(self) -> tuple[float, float]:
        return -float(len(self.layers)), 2.0 * len(self.layers)

    def adapted(self, features: ImageFeatures) -> list[Tensor]:
        """The original path's patches of each layer through its adapter: (B, N, E) each, not normalised."""
        found: list[Tensor] = self.adapters([self.original(features, layer)[:, 1:] for layer in self.layers])
        return found

    def layer_maps(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """The anomalous probability of each layer's adapted patches: (B, S, S) each."""
        logits = (cosine_logits(patches, text, self.config.temperature) for patches in self.adapted(features))
        return [probability_map(layer, features.grid, self.config.size) for layer in logits]

    def raw_map(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """The map of SDP and those of all adapters, summed, before smoothing: (B, S, S)."""
        return reduce(torch.add, self.layer_maps(features, text), super().raw_map(features, text))

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Focal and Dice loss of every adapter's map: "focal" and "dice" are (layers,), "total" is their sum."""
        tokens = [self.original(features, layer) for layer in self.layers]
        cosines = self.adapters.differences(tokens, self._known_texts(object_names))
        return adapter_losses([as_grid(c / self.config.temperature, features.grid) for c in cosines], masks)

    # the authors' files

    @classmethod
    def official_config(cls, state: Mapping[str, Any], config: ClipAdSdpPlusConfig) -> ClipAdSdpPlusConfig:
        published.require_method(state, "clip-ad-sdp-plus")
        return config

    def load_official(self, state: Mapping[str, Any]) -> None:
        published.require_method(state, "clip-ad-sdp-plus")
        self.adapters.read(state, LAYOUT)
