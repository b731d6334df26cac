"""CLIP-AD: representative texts and a staged dual path (Chen et al., IJCAI 2024 workshops,
https://arxiv.org/abs/2311.00453).

Code: https://github.com/ByChelsea/CLIP-AD. The paper has three variants, which share their text side:

`clip-ad` (RVS, representative vector selection): a prompt ensemble gives hundreds of sentence embeddings per state,
and one vector is selected that represents them (`rep_vec`). The image side is plain CLIP: the class token for the
image score, the patches of the last layer for the map.

`clip-ad-sdp` (SDP, staged dual path): a second path runs beside the vision tower. It is value-value attention that
reads the original path and is summed over the blocks of each quarter of the tower (a stage), which keeps patches
local. Feature surgery removes what a patch shares with all texts: with c_n, c_a the cosines of a patch and p_n, p_a
the probabilities of the whole image, the similarity of the patch is p_a c_a - p_n c_n.

`clip-ad-sdp-plus` (SDP+): the maps of linear layers on the original path, learnt on another data set and compared with
the same texts, are added to the map of SDP without weights.

Weights: the authors publish `train_on_visa.pth` and `train_on_mvtec.pth` of SDP+ for ViT-B/16+ at 240 pixels. They were
trained with texts selected with the settings of the training set, and tested with those of the test set (`dbscan_eps`).

The published numbers and weights depend on these quirks of the code, which are kept. Every representative but the plain
mean is rounded to float16 (`half_text`). The code stores taps by reference and later blocks add in place: so the
original path at a layer already holds the next block's attention (`middle`), and the value path at a layer is the sum
over its whole quarter, also of later blocks. With the usual layers, which end quarters, only the first matters. The
softmax of the surgery has no temperature. The softmax of the adapters comes after upsampling with aligned corners. The
Dice loss takes rows for images in a batch of one.

Deviations: where DBSCAN finds no cluster the code fails, and here the mean of all sentences is taken; the code does not
shuffle the training images, `blemish.training` does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from torch import Tensor

from blemish.clip import Backbone, ImageFeatures, PositionMode, Request, Tap
from blemish.methods import configs
from blemish.methods.base import Method, Prediction, TextFeatureCache, Training
from blemish.methods.clip import Clip, ClipConfig
from blemish.methods.configs import Config, ImageScore, require
from blemish.methods.linear_adapters import LinearAdapters, Start
from blemish.methods.losses import adapter_losses
from blemish.methods.ops import (
    anomalous_probability,
    as_grid,
    cosine_logits,
    encode_sentences,
    min_max,
    probability_map,
    smooth,
    upsample,
)
from blemish.methods.registry import METHODS
from blemish.prompts import CLIP_AD, PromptSet

Selection: TypeAlias = Literal["mean", "pca", "kde", "dbscan", "mean-shift"]
Array: TypeAlias = NDArray[np.floating]

#: Width of the Gaussian kernel in the paper's density estimate.
BANDWIDTH = 0.3


# the text side


@dataclass(frozen=True, kw_only=True)
class RepresentativeConfig(Config):
    """The config of the text side; the defaults are those of the scripts."""

    rep_vec: Selection = "dbscan"
    """How the representative of all sentences of a state is selected."""
    dbscan_eps: float = 0.5
    """Largest distance of neighbours. The code takes 1.5 for VisA, which joins nearly all sentences, and 0.5 else."""
    dbscan_min_samples: int = 15
    """Smallest number of neighbours, itself included, of a core row. The code takes 25 for VisA and 15 else."""
    half_text: bool = True
    """Round the representative to float16, as the code does for every selection but the mean."""

    def check(self) -> None:
        super().check()
        require(self.dbscan_eps > 0, f"dbscan_eps has to be greater than 0, not {self.dbscan_eps}")
        require(self.dbscan_min_samples >= 1, f"dbscan_min_samples has to be at least 1, not {self.dbscan_min_samples}")


class RepresentativeTexts(Method):
    """The text side of all three variants; the config has to be a `RepresentativeConfig`."""

    PROMPTS: ClassVar[PromptSet] = CLIP_AD

    backbone: Backbone

    @property
    def text_key(self) -> Hashable:
        c = self.config
        return self.PROMPTS, c.activation, c.rep_vec, c.dbscan_eps, c.dbscan_min_samples, c.half_text

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """Return the normalised representative of each state's sentences: (C, 2, E) float32, without gradient."""
        with torch.no_grad():
            pairs = [[u.cpu().numpy() for u in encode_sentences(self, self.PROMPTS, name)] for name in object_names]
        vectors = [[represent(units, self.config) for units in pair] for pair in pairs]
        shape = (len(object_names), 2, self.backbone.embed_dim)
        return torch.from_numpy(np.array(vectors, np.float32).reshape(shape)).to(self.device)


def represent(units: Array, config: RepresentativeConfig) -> NDArray[np.float32]:
    """Return the unit vector (E,) that represents the unit vectors (n, E)."""
    vector = select(units, config)
    if config.rep_vec == "mean" or not config.half_text:
        return (vector / np.linalg.norm(vector)).astype(np.float32)
    # As in the code, the vector, its norm (summed in float32) and their quotient are rounded to float16.
    half = vector.astype(np.float16).astype(np.float32)
    norm = np.linalg.norm(half).astype(np.float16).astype(np.float32)
    return (half / norm).astype(np.float16).astype(np.float32)


def select(units: Array, config: RepresentativeConfig) -> Array:
    """Return the representative (E,) before rounding and normalisation."""
    if config.rep_vec == "dbscan":
        return dbscan(units, config.dbscan_eps, config.dbscan_min_samples)
    # The code's mean shift has a flat kernel of bandwidth 2. No two unit vectors are further apart, so every window
    # holds all rows, and the centre of the one cluster is the mean.
    selections: dict[str, Callable[[Array], Array]] = {"mean": mean, "mean-shift": mean, "pca": pca, "kde": kde}
    return selections[config.rep_vec](units)


def mean(rows: Array) -> Array:
    """Return the plain mean, in float32 like the code: rounding to float16 shows its last digits."""
    out: Array = rows.mean(axis=0)
    return out


def pca(rows: Array) -> Array:
    """Return the first principal component, with the E entries as samples and the n sentences as variables.

    This is a weighted sum of the embeddings, each minus the mean of its entries, and no direction in their space. The
    sign is the one that points along the mean.
    """
    exact = rows.astype(np.float64)
    centred = exact.T - exact.mean(axis=1)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    vector: Array = centred @ vectors[:, -1]
    return vector if vector @ mean(rows) >= 0 else -vector


def kernel_sums(rows: Array, bandwidth: float = BANDWIDTH) -> Array:
    """Return the sum of the Gaussian kernels of all rows at each row: (n,), a density up to a factor."""
    out: Array = np.exp(-cdist(rows, rows, "sqeuclidean") / (2 * bandwidth**2)).sum(axis=1)
    return out


def kde(rows: Array) -> Array:
    """Return the mean of the rows, weighted by their density."""
    weights = kernel_sums(rows)
    out: Array = weights @ rows / weights.sum()
    return out


def dbscan(rows: Array, eps: float, min_samples: int) -> Array:
    """Return the mean of the largest cluster, of the first one among equals, or of all rows if there is no cluster."""
    labels = clusters(rows, eps, min_samples)
    sizes = np.bincount(labels[labels >= 0])
    return mean(rows[labels == sizes.argmax()] if len(sizes) else rows)


def clusters(rows: Array, eps: float, min_samples: int) -> NDArray[np.int64]:
    """Return the DBSCAN cluster of each row, numbered from 0 by first core rows; -1 for rows without a cluster.

    Core rows have at least `min_samples` rows, themselves included, within `eps`. Core rows within `eps` of each other
    belong to one cluster. Other rows join the first cluster with a core row within `eps`.
    """
    near = cdist(rows, rows) <= eps
    core = near.sum(axis=1) >= min_samples
    if not core.any():
        return np.full(len(rows), -1)
    _, component = connected_components(near[np.ix_(core, core)], directed=False)
    _, first = np.unique(component, return_index=True)
    number = first.argsort().argsort()[component]  # numbered by their first row
    beyond = len(rows)
    reached = np.where(near[:, core], number, beyond).min(axis=1)
    labels = np.where(reached == beyond, -1, reached)
    labels[core] = number
    return labels


# RVS: plain CLIP with representative texts


@dataclass(frozen=True, kw_only=True)
class ClipAdConfig(ClipConfig, RepresentativeConfig):
    """The config of the baseline with CLIP-AD's text side, for ViT-B/16+ at 240 pixels."""

    size: int = 240
    position: PositionMode = "bicubic-antialias"
    temperature: float = 0.01
    sigma: float = 8.0


class ClipAD(RepresentativeTexts, Clip):
    """Plain CLIP with representatives of 198 normal and 220 anomalous sentences."""

    info = METHODS["clip-ad"]
    Config: ClassVar[type[ClipAdConfig]] = ClipAdConfig

    config: ClipAdConfig


# SDP: the staged dual path


@dataclass(frozen=True, kw_only=True)
class ClipAdSdpConfig(RepresentativeConfig):
    """The config of SDP; the defaults are those of the scripts for ViT-B/16+ at 240 pixels.

    The image score "text+map" replaces the paper's sum of both, which `set_scores` computes over a test set.
    """

    size: int = 240
    image_score: ImageScore = "text+map"
    layers: tuple[int, ...] = (3, 6, 9, 12)
    """Tapped layers, from 1; -1 is the last."""
    temperature: float = 0.01
    """Temperature of the image score; feature surgery has none."""
    sigma: float = 8.0
    """Gaussian smoothing of the map, in pixels; 0 for none. With adapters the scripts take 2 for VisA."""

    @property
    def image_scores(self) -> tuple[ImageScore, ...]:
        return "text+map", "text", "map", "text+mean"


class ClipAdSDP(RepresentativeTexts):
    """Two paths through a frozen tower, and feature surgery."""

    info = METHODS["clip-ad-sdp"]
    Config: ClassVar[type[ClipAdSdpConfig]] = ClipAdSdpConfig

    config: ClipAdSdpConfig

    def __init__(self, backbone: Backbone, config: ClipAdSdpConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.layers = configs.resolve_layers(self.config.layers, backbone.layers)

    # the two paths

    def value_tap(self, layer: int) -> Tap:
        """Return the tap of the value path at a layer: the sum over the quarter of the tower that the layer lies in."""
        start, end = quarter(layer, self.backbone.layers)
        return Tap(end, "value", start=start, seeded=False)

    @property
    def request(self) -> Request:
        paths = [(Tap(layer, "middle"), self.value_tap(layer)) for layer in self.layers]
        return Request(frozenset(tap for pair in paths for tap in pair), class_token=False)

    @property
    def map_range(self) -> tuple[float, float]:
        # Each layer is a difference of two cosines, weighted by probabilities that sum to 1.
        return -float(len(self.layers)), float(len(self.layers))

    def original(self, features: ImageFeatures, layer: int) -> Tensor:
        """Return the original path at a layer: (B, 1 + N, D), raw."""
        return features.taps[Tap(layer, "middle")]

    def surgery(self, features: ImageFeatures, layer: int) -> Tensor:
        """Project the original path's class token and the value path's patches: (B, 1 + N, E)."""
        patches = features.taps[self.value_tap(layer)][:, 1:]
        return self.backbone.project(torch.cat([self.original(features, layer)[:, :1], patches], dim=1))

    # scores

    def text_score(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Compare the class token of the last tapped layer with the texts: (B,) in [0, 1]."""
        embedding = self.surgery(features, self.layers[-1])[:, 0]
        return anomalous_probability(cosine_logits(embedding, text, self.config.temperature))

    def similarity(self, features: ImageFeatures, text: Tensor, layer: int) -> Tensor:
        """Apply feature surgery at a layer: (B, 1 + N) in [-1, 1], positive where the image is anomalous."""
        cosine = cosine_logits(self.surgery(features, layer), text, 1.0)
        weighted = cosine[:, :1].softmax(dim=-1) * cosine
        return weighted[..., 1] - weighted[..., 0]

    def raw_map(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Return the sum of the layers' similarities before smoothing: (B, S, S)."""
        total = torch.stack([self.similarity(features, text, layer) for layer in self.layers]).sum(dim=0)
        return upsample(as_grid(total[:, 1:], features.grid), self.config.size)

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        """Score a batch. The image score is the mean of the text score and of the map's maximum, scaled by its range.

        The paper stretches both over a whole test set first, as `set_scores` does.
        """
        maps = smooth(self.raw_map(features, text), self.config.sigma)
        return self.prediction(self.text_score(features, text), maps)

    def set_scores(self, text_scores: Tensor, peaks: Tensor) -> Tensor:
        """Return the paper's image scores of all test images of one object.

        Args:
            text_scores: (n,), from `text_score`.
            peaks: (n,), the maximum of each image's map.

        Returns:
            (n,) in [0, 2]: the sum of both, stretched to [0, 1] over the set; nan where all of one kind are equal.
        """
        return min_max(text_scores) + min_max(peaks)


def quarter(layer: int, total: int) -> tuple[int, int]:
    """Return the first and the last block of the quarter of the tower that a layer lies in.

    A quarter begins after each block whose number is a multiple of `total / 4`. If `total` is no multiple of 4, there
    are fewer than four.
    """
    starts = [block for block in range(1, total + 1) if 4 * (block - 1) % total == 0]
    ends = [start - 1 for start in starts[1:]] + [total]
    return next((start, end) for start, end in zip(starts, ends, strict=True) if layer <= end)


# SDP+: linear adapters


@dataclass(frozen=True, kw_only=True)
class ClipAdSdpPlusConfig(ClipAdSdpConfig):
    """The config of SDP+."""

    start: Start = "random"
    """Where training starts: the paper's random adapters, or CLIP's own projection, which needs fewer images."""


class ClipAdSDPPlus(ClipAdSDP):
    """SDP and one learnt linear layer (E, D) per tapped layer: `adapters.fc.{i}.weight` and `.bias`."""

    info = METHODS["clip-ad-sdp-plus"]
    Config: ClassVar[type[ClipAdSdpPlusConfig]] = ClipAdSdpPlusConfig
    TRAINING = Training(epochs=5, batch_size=8, lr=1e-4, betas=(0.9, 0.999))

    config: ClipAdSdpPlusConfig

    def __init__(self, backbone: Backbone, config: ClipAdSdpPlusConfig | None = None) -> None:
        super().__init__(backbone, config)
        self.adapters = LinearAdapters(len(self.layers), backbone.width, backbone.embed_dim)
        self._texts = TextFeatureCache()
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Set the adapters to the config's start; random ones are drawn as PyTorch draws linear layers."""
        self.adapters.start(self.config.start, self.backbone, seed)

    @property
    def training_request(self) -> Request:
        return Request(frozenset(Tap(layer, "middle") for layer in self.layers), class_token=False)

    @property
    def map_range(self) -> tuple[float, float]:
        return -float(len(self.layers)), 2.0 * len(self.layers)

    def adapted(self, features: ImageFeatures) -> list[Tensor]:
        """Return the adapted patches of the original path: (B, N, E) for each layer, not normalised."""
        patches: list[Tensor] = self.adapters([self.original(features, layer)[:, 1:] for layer in self.layers])
        return patches

    def patch_logits(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """Compare the adapted patches of each layer with the texts: (B, N, 2) each."""
        return [cosine_logits(patches, text, self.config.temperature) for patches in self.adapted(features)]

    def layer_maps(self, features: ImageFeatures, text: Tensor) -> list[Tensor]:
        """Return the anomalous probability of each layer's adapted patches: (B, S, S) each."""
        return [probability_map(p, features.grid, self.config.size) for p in self.patch_logits(features, text)]

    def raw_map(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Return the sum of SDP's map and of all adapters' maps before smoothing: (B, S, S)."""
        return reduce(torch.add, self.layer_maps(features, text), super().raw_map(features, text))

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return "focal" and "dice" of every adapter's map, (layers,) each, and their sum "total"."""
        logits = self.patch_logits(features, self._texts.batch(self, object_names))
        return adapter_losses([as_grid(p[..., 1] - p[..., 0], features.grid) for p in logits], masks)
