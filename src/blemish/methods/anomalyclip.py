"""AnomalyCLIP: object-agnostic prompt learning (Zhou et al., ICLR 2024, https://arxiv.org/abs/2310.18961).

Code: https://github.com/zqhang/AnomalyCLIP

Method: two learnt prompts, "[V1]..[Vn] object." and "[W1]..[Wn] damaged object.", contain no class names, so they
apply to any object. Learnt tokens also go into the deeper text blocks. The image side is CLIP with value-value
attention in its last blocks (the paper's DPAM), which keeps patches local. g_n and g_a being the texts, f an image or
patch embedding and t the temperature, the anomalous probability is

    P = exp(<g_a, f> / t) / (exp(<g_n, f> / t) + exp(<g_a, f> / t)).

The map is the sum of P over the tapped layers, upsampled and smoothed; the image score is P of the class token.

Weights: the authors publish files for ViT-L/14@336, one per training set.

Deviations from the code: the positional embedding is always resized from the checkpoint's own grid (the code resizes
its last result, which matters only when sizes alternate), and a training batch of one image is treated as a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.clip import Backbone, ImageFeatures, PositionMode, Request, Tap
from blemish.methods import configs
from blemish.methods.base import Method, Prediction, Training, class_token
from blemish.methods.configs import Config, require
from blemish.methods.losses import dice, focal, upsample_for_loss
from blemish.methods.ops import anomalous_probability, as_grid, cosine_logits, normalise, upsample_smoothly
from blemish.methods.registry import METHODS


@dataclass(frozen=True, kw_only=True)
class AnomalyClipConfig(Config):
    """The config of AnomalyCLIP; the defaults are those of its scripts for ViT-L/14@336."""

    position: PositionMode = "bilinear"
    layers: tuple[int, ...] = (-1,)
    """Tapped layers, from 1; -1 is the last. The authors' shell scripts tap the last one, their Python defaults 6, 12,
    18, 24."""
    feature_map_layer: int = 0
    """Index, from 0, of the first tapped layer that enters the map and the loss."""
    dpam_blocks: int = 19
    """Number of last blocks with value-value attention; the code's `DPAM_layer` is one more (20)."""
    n_ctx: int = 12
    """Number of learnt tokens at the start of each prompt."""
    depth: int = 9
    """Number of text blocks with learnt tokens: the prompts enter the first one, `t_n_ctx` tokens each of the
    others."""
    t_n_ctx: int = 4
    half_deep_tokens: bool = True
    """Round the deep tokens to float16, as the code does; the published weights were trained with it."""
    temperature: float = 0.07
    sigma: float = 4.0
    """Gaussian smoothing of the map, in pixels; 0 for none."""
    pixel_weight: float = 4.0
    """The paper's lambda: weight of the pixel losses, where the image loss has 1."""

    def check(self) -> None:
        super().check()
        require(self.n_ctx >= 1, f"n_ctx has to be at least 1, not {self.n_ctx}")
        require(self.t_n_ctx >= 1, f"t_n_ctx has to be at least 1, not {self.t_n_ctx}")
        require(self.depth >= 1, f"depth has to be at least 1, not {self.depth}")
        require(self.dpam_blocks >= 0, f"dpam_blocks must not be negative, not {self.dpam_blocks}")
        require(
            0 <= self.feature_map_layer < len(set(self.layers)),
            f"feature_map_layer {self.feature_map_layer} is not among the {len(set(self.layers))} tapped layers",
        )


class AnomalyCLIP(Method):
    """Learnt object-agnostic prompts: `context` (2, n_ctx, Wt) and `deep` (depth - 1, t_n_ctx, Wt)."""

    info = METHODS["anomalyclip"]
    Config: ClassVar[type[AnomalyClipConfig]] = AnomalyClipConfig
    TRAINING = Training(epochs=15, batch_size=8, lr=1e-3, betas=(0.5, 0.999))
    WORDS: ClassVar[tuple[str, str]] = ("object.", "damaged object.")

    backbone: Backbone
    config: AnomalyClipConfig

    def __init__(self, backbone: Backbone, config: AnomalyClipConfig | None = None) -> None:
        super().__init__(backbone, config)
        c = self.config
        configs.at_most(c.dpam_blocks, backbone.layers, "dpam_blocks", "image blocks")
        configs.at_most(c.depth, backbone.text_layers, "depth", "text blocks")
        self.layers = configs.resolve_layers(c.layers, backbone.layers)
        require(bool(self.map_layers), f"feature_map_layer {c.feature_map_layer} leaves no layer for the map")
        self._words = backbone.tokenize(self.WORDS)
        longest = int(backbone.end_of_text(self._words).max()) + 1
        configs.at_most(c.n_ctx + longest, backbone.context, f"n_ctx {c.n_ctx}: a prompt of", "text positions")
        configs.at_most(c.t_n_ctx + 1, backbone.context, f"t_n_ctx {c.t_n_ctx}: a length of", "text positions")
        self.context = nn.Parameter(torch.empty(2, c.n_ctx, backbone.text_width))
        self.deep = nn.Parameter(torch.empty(c.depth - 1, c.t_n_ctx, backbone.text_width))
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Draw the learnt tokens from N(0, 0.02^2)."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))

    # the image side

    def tap(self, layer: int) -> Tap:
        """Return the tap of a layer: the value-value stream where there is one, else the plain stream."""
        start = self.backbone.layers - self.config.dpam_blocks + 1
        return Tap(layer, "value", start=start) if layer >= start else Tap(layer)

    @property
    def request(self) -> Request:
        return Request(frozenset(self.tap(layer) for layer in self.layers))

    @property
    def map_layers(self) -> tuple[int, ...]:
        """Layers that enter the map and the loss."""
        return self.layers[self.config.feature_map_layer :]

    @property
    def map_range(self) -> tuple[float, float]:
        return 0.0, float(len(self.map_layers))

    def image_embedding(self, features: ImageFeatures) -> Tensor:
        """Project the class token without the final layer norm, as the code does: (B, E), not normalised."""
        return self.backbone.project(class_token(features), norm=False)

    def image_logits(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Return the logits of the whole image: (B, 2)."""
        return cosine_logits(self.image_embedding(features), text, self.config.temperature)

    def patch_probability(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Return the anomalous probability of every patch at every map layer: (layers, B, N) in [0, 1]."""
        patches = (self.backbone.project(features.taps[self.tap(layer)][:, 1:]) for layer in self.map_layers)
        return torch.stack([anomalous_probability(cosine_logits(p, text, self.config.temperature)) for p in patches])

    # the text side

    def prompts(self) -> tuple[Tensor, Tensor]:
        """Return both prompts as token embeddings without positions, (2, context, Wt), and their end positions, (2,).

        A prompt is: start of text | learnt tokens | "object." or "damaged object." | end of text | padding.
        """
        words = self.backbone.embed(self._words.to(self.device))
        start, rest = words[:, :1], words[:, 1 : words.shape[1] - self.config.n_ctx]
        end = self.backbone.end_of_text(self._words) + self.config.n_ctx
        return torch.cat([start, self.context.to(words.dtype), rest], dim=1), end.to(words.device)

    def deep_tokens(self) -> list[Tensor]:
        """Return the tokens that replace the states after start-of-text before text blocks 2, 3, ...

        Returns:
            `depth - 1` tensors (2, t_n_ctx, Wt).
        """
        # The code casts the tokens to float16 and joins them with float32 states. So the values are rounded, and so is
        # the gradient of each prompt before the two are added. Copying before casting does the same.
        copies = [tokens.expand(2, -1, -1) for tokens in self.deep]
        return [c.half().to(self.deep.dtype) for c in copies] if self.config.half_deep_tokens else copies

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """Return the two prompts, which are the same for every object: (C, 2, E)."""
        embeddings, end = self.prompts()
        raw = self.backbone.encode_text(
            embeddings=embeddings, end=end, deep=self.deep_tokens(), activation=self.config.activation
        )
        return normalise(raw).expand(len(object_names), -1, -1)

    # scores and losses

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        patches = self.patch_probability(features, text).sum(dim=0)
        maps = upsample_smoothly(as_grid(patches, features.grid), self.config.size, self.config.sigma)
        return self.prediction(anomalous_probability(self.image_logits(features, text)), maps)

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return cross-entropy of the image, and focal loss and both Dice losses of every map layer.

            pixel = lambda * sum over layers of (focal + dice_anomalous + dice_normal);  total = pixel + image

        "focal", "dice_anomalous" and "dice_normal" are (layers,), the others ().
        """
        text = self.text_features([""])[0]
        patches = self.patch_probability(features, text)
        maps = [upsample_for_loss(as_grid(p, features.grid), masks.shape[-1], align_corners=False) for p in patches]
        losses = {
            "focal": torch.stack([focal(each, masks) for each in maps]),
            "dice_anomalous": torch.stack([dice(each, masks) for each in maps]),
            "dice_normal": torch.stack([dice(1 - each, 1 - masks) for each in maps]),
        }
        pixel = self.config.pixel_weight * torch.stack([part.sum() for part in losses.values()]).sum()
        image = F.cross_entropy(self.image_logits(features, text), labels.long())
        return {**losses, "pixel": pixel, "image": image, "total": pixel + image}
