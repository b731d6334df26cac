"""What every method is: a recipe, learnt parts (or none), a way to score what the backbone hands out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from blemish.clip import Backbone, Computation, ImageFeatures, Request
from blemish.errors import UsageError
from blemish.methods.catalogue import MethodInfo
from blemish.methods.recipes import Recipe


@dataclass(frozen=True)
class Prediction:
    """What a method says about a batch of pictures, raw."""

    score: Tensor
    """(B,) float32 in [0, 1], 1 = anomalous."""
    map: Tensor
    """(B, S, S) float32, higher = more anomalous; `Method.map_range` says between what."""


@dataclass(frozen=True)
class Training:
    """How the paper trains a method."""

    epochs: int
    batch_size: int
    lr: float
    betas: tuple[float, float]


class Method(nn.Module):
    """Base of all methods.

    A subclass sets `info`, `Recipe` (a frozen dataclass, defaults of the paper) and `EMBEDDED` (the recipe for the
    embedded backbone), and writes `request`, `map_range`, `text_features` and `score`; a trainable one also `TRAINING`,
    `reset` and `loss`.

    The backbone belongs to the caller: it is neither a submodule nor saved, `method.parameters()` are the learnt ones
    only, and `method.to(device)` moves only these. Learnt parts start from `reset(0)`, which leaves PyTorch's global
    random state alone.

    Args:
        backbone: a frozen CLIP.
        recipe: an instance of `Recipe`; default: the paper's.

    Raises:
        UsageError: the recipe is of another method, or does not fit the backbone.
    """

    info: ClassVar[MethodInfo]
    Recipe: ClassVar[Any]
    EMBEDDED: ClassVar[Any]
    TRAINING: ClassVar[Training | None] = None

    backbone: Backbone
    recipe: Any

    def __init__(self, backbone: Backbone, recipe: Any = None) -> None:
        super().__init__()
        if recipe is None:
            recipe = self.Recipe()
        if type(recipe) is not self.Recipe:
            raise UsageError(f"{self.info.name} takes a {self.Recipe.__name__}, not a {type(recipe).__name__}")
        self.__dict__["backbone"] = backbone  # past nn.Module, which would make it a submodule
        self.recipe = recipe

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return next(self.backbone.parameters()).device

    @property
    def computation(self) -> Computation:
        """How pixels become features; methods share a backbone pass only if these agree."""
        r: Recipe = self.recipe
        return Computation(size=r.size, activation=r.activation, position=r.position)

    @property
    def request(self) -> Request:
        """What is needed of the image."""
        raise NotImplementedError

    @property
    def map_range(self) -> tuple[float, float]:
        """The least and the greatest value a map can hold: the fixed scale that pictures are drawn on."""
        raise NotImplementedError

    def text_features(self, objects: Sequence[str]) -> Tensor:
        """Texts for each object: (C, 2, E), normalised, row 0 normal, row 1 anomalous."""
        raise NotImplementedError

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        """Scores a batch.

        Args:
            features: from `backbone.encode_image(pixels, request, computation)`; more taps than needed do no harm.
            text: (2, E) for all pictures, or (B, 2, E).
        """
        raise NotImplementedError

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, objects: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Losses of a batch; "total" is the one to differentiate.

        Args:
            features: as in `score`, without gradient.
            masks: (B, S, S) in {0, 1}, 1 = anomalous.
            labels: (B,) in {0, 1}, 1 = anomalous.
            objects: the name of each picture's object; methods that are told nothing do without.
        """
        raise UsageError(f"{self.info.name} has nothing to train")

    def reset(self, seed: int = 0) -> None:
        """Draws the learnt parts anew; the same seed gives the same values."""

    def optimizer(self, *, lr: float | None = None, betas: tuple[float, float] | None = None) -> torch.optim.Optimizer:
        """The paper's optimizer over the learnt parts: Adam, without decay."""
        paper = self.TRAINING
        if paper is None:
            raise UsageError(f"{self.info.name} has nothing to train")
        return torch.optim.Adam(self.parameters(), lr=lr or paper.lr, betas=betas or paper.betas, eps=1e-8)

    def learning_rate(self, initial: float, epoch: int, epochs: int) -> float:
        """The learning rate of an epoch (counted from 0) by the paper's schedule; constant if there is none."""
        return initial

    @classmethod
    def official_recipe(cls, state: Mapping[str, Any], recipe: Any) -> Any:
        """The recipe changed so that the authors' published weights fit it. Raises UsageError where there are none."""
        raise UsageError(f"{cls.info.name} has no published weights to read; give a blemish safetensors file")

    def load_official(self, state: Mapping[str, Any]) -> None:
        """Takes over weights in the authors' published layout. Raises WeightsError if they do not fit."""
        raise UsageError(f"{self.info.name} has no published weights to read; give a blemish safetensors file")

    def prediction(self, text_score: Tensor | None, maps: Tensor) -> Prediction:
        """A prediction whose image score is what the recipe's `image_score` says.

        Args:
            text_score: (B,) in [0, 1]; may be None where the recipe says "map".
            maps: (B, S, S), the final maps.
        """
        maps = maps.float()
        if self.recipe.image_score == "text":
            assert text_score is not None
            return Prediction(text_score.float(), maps)
        low, high = self.map_range
        peak = ((maps.amax(dim=(1, 2)) - low) / (high - low)).clamp(0, 1)
        if self.recipe.image_score == "map":
            return Prediction(peak, maps)
        assert text_score is not None
        return Prediction((text_score.float() + peak) / 2, maps)
