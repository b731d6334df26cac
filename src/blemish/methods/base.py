"""What every method is: a config, learnt parts (or none), a way to score what the backbone hands out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor, nn

from blemish.clip import Backbone, Computation, ImageFeatures, Request, Tap
from blemish.errors import UsageError
from blemish.methods.catalogue import MethodInfo
from blemish.methods.configs import Config


@dataclass(frozen=True)
class Prediction:
    """What a method says about a batch of pictures, raw."""

    score: Tensor
    """(B,) float32 in [0, 1], 1 = anomalous."""
    map: Tensor
    """(B, S, S) float32, higher = more anomalous; `Method.map_range` says between what."""


@dataclass(frozen=True)
class MemoryBank:
    """Reference images as a method keeps them: an immutable value that is passed to `score`.

    Rows are flattened over images and positions; they are float32 and on the method's device.
    """

    images: int
    """Number of encoded images k: the references, or the tiles that they are cut into."""
    taps: Mapping[Tap, Tensor] = field(default_factory=dict)
    """Patch tokens of each tap: (k * N, D), not normalised."""
    windows: Mapping[int, Tensor] = field(default_factory=dict)
    """Window embeddings of each side length: (k * n_windows, E), not normalised."""
    references: int = 0
    """Number of reference pictures; 0 if unknown."""
    fingerprint: str = ""
    """Hash of the pixels of the reference images, 16 hex digits; empty if unknown."""

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Return one bank of several; at least one part, all built by the same method."""
        return replace(
            parts[0],
            images=sum(part.images for part in parts),
            taps={tap: torch.cat([part.taps[tap] for part in parts]) for tap in parts[0].taps},
            windows={side: torch.cat([part.windows[side] for part in parts]) for side in parts[0].windows},
        )


Encode: TypeAlias = Callable[[Tensor], ImageFeatures]
"""Runs the backbone on prepared pixels (B, 3, S, S) and returns what `memory_request` asks for."""


@dataclass(frozen=True)
class Training:
    """How the paper trains a method."""

    epochs: int
    batch_size: int
    lr: float
    betas: tuple[float, float] | None = None
    """Of Adam; None for a method with another optimizer."""
    masks: bool = True
    """Whether it learns from masks; without, labels do."""


class Method(nn.Module):
    """Base of all methods.

    A subclass sets `info`, `Config` (a frozen dataclass, defaults of the paper) and `BUILTIN` (the config for the
    built-in backbone), and writes `request`, `map_range`, `text_features` and `score`; a trainable one also `TRAINING`
    (the paper's; where the small built-in backbone wants another, `BUILTIN_TRAINING`), `reset` and `loss`.

    The backbone belongs to the caller: it is neither a submodule nor saved, `method.parameters()` are the learnt ones
    only, and `method.to(device)` moves only these. Learnt parts start from `reset(0)`, which leaves PyTorch's global
    random state alone.

    Args:
        backbone: a frozen CLIP.
        config: an instance of `Config`; default: the paper's.

    Raises:
        UsageError: the config is of another method, or does not fit the backbone.
    """

    info: ClassVar[MethodInfo]
    Config: ClassVar[Any]
    BUILTIN: ClassVar[Any]
    TRAINING: ClassVar[Training | None] = None
    BUILTIN_TRAINING: ClassVar[Training | None] = None

    backbone: Backbone
    config: Any

    def __init__(self, backbone: Backbone, config: Any = None) -> None:
        super().__init__()
        if config is None:
            config = self.Config()
        if type(config) is not self.Config:
            raise UsageError(f"{self.info.name} takes a {self.Config.__name__}, not a {type(config).__name__}")
        self.__dict__["backbone"] = backbone  # past nn.Module, which would make it a submodule
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return next(self.backbone.parameters()).device

    @property
    def computation(self) -> Computation:
        """How pixels become features; methods share a backbone pass only if these agree."""
        r: Config = self.config
        return Computation(size=r.size, activation=r.activation, position=r.position)

    @property
    def request(self) -> Request:
        """What is needed of the image."""
        raise NotImplementedError

    @property
    def training_request(self) -> Request:
        """What `loss` needs of the image; where it is less than a score needs, kept features take less room."""
        return self.request

    @property
    def schedule(self) -> Training | None:
        """How it is trained on this backbone, if nothing else is said; None if it has nothing to train."""
        embedded = self.BUILTIN_TRAINING if self.backbone.name == "builtin" else None
        return embedded or self.TRAINING

    @property
    def map_range(self) -> tuple[float, float]:
        """The least and the greatest value a map can hold: the fixed scale that pictures are drawn on."""
        raise NotImplementedError

    @property
    def text_key(self) -> Hashable:
        """What the text features depend on besides the backbone and the object name.

        Methods that inherit the same `text_features` and have equal keys share one entry of a `TextFeatureCache`. By
        default a method shares with nobody.
        """
        return self

    @property
    def reads_pictures(self) -> bool:
        """Whether its sentences are made anew for each picture, so that `score` runs the text tower."""
        return False

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """Texts for each object: (C, 2, E), normalised, row 0 normal, row 1 anomalous."""
        raise NotImplementedError

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        """Scores a batch.

        Args:
            features: from `backbone.encode_image(pixels, request, computation)`; more taps than needed do no harm.
            text: (2, E) for all pictures, or (B, 2, E).
        """
        raise NotImplementedError

    def check_objects(self, object_names: Sequence[str]) -> None:
        """Raises UsageError for the name of an object that the method does not know; most know any."""

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Losses of a batch; "total" is the one to differentiate.

        Args:
            features: as in `score`, without gradient.
            masks: (B, S, S) in {0, 1}, 1 = anomalous.
            labels: (B,) in {0, 1}, 1 = anomalous.
            object_names: the name of each picture's object; methods that are told nothing do without.
        """
        raise UsageError(f"{self.info.name} has nothing to train")

    def reset(self, seed: int = 0) -> None:
        """Draws the learnt parts anew; the same seed gives the same values."""

    def optimizer(self, *, lr: float | None = None, betas: tuple[float, float] | None = None) -> torch.optim.Optimizer:
        """The paper's optimizer over the learnt parts: Adam, without decay."""
        paper = self.schedule
        if paper is None:
            raise UsageError(f"{self.info.name} has nothing to train")
        betas = betas or paper.betas or (0.9, 0.999)
        return torch.optim.Adam(self.parameters(), lr=lr or paper.lr, betas=betas, eps=1e-8)

    def learning_rate(self, initial: float, epoch: int, epochs: int) -> float:
        """The learning rate of an epoch (counted from 0) by the paper's schedule; constant if there is none."""
        return initial

    @classmethod
    def official_config(cls, state: Mapping[str, Any], config: Any) -> Any:
        """The config changed so that the authors' published weights fit it. Raises UsageError where there are none."""
        raise UsageError(f"{cls.info.name} has no published weights to read; give a blemish safetensors file")

    def load_official(self, state: Mapping[str, Any]) -> None:
        """Takes over weights in the authors' published layout. Raises WeightsError if they do not fit."""
        raise UsageError(f"{self.info.name} has no published weights to read; give a blemish safetensors file")

    def prediction(
        self, text_score: Tensor | None, maps: Tensor, map_range: tuple[float, float] | None = None
    ) -> Prediction:
        """A prediction whose image score is what the config's `image_score` says.

        Args:
            text_score: (B,) in [0, 1]; may be None where the config says "map".
            maps: (B, S, S), the final maps.
            map_range: between what these maps lie, if not the method's `map_range`.
        """
        maps = maps.float()
        low, high = map_range or self.map_range
        peak = ((maps.amax(dim=(1, 2)) - low) / (high - low)).clamp(0, 1)
        if self.config.image_score == "map":
            return Prediction(peak, maps)
        if text_score is None:
            raise UsageError(f"the image score {self.config.image_score!r} needs a text score")
        text_score = text_score.float()
        return Prediction(text_score if self.config.image_score == "text" else (text_score + peak) / 2, maps)


def class_token(features: ImageFeatures) -> Tensor:
    """The class token (B, D). Raises UsageError if it was not asked for."""
    if features.class_token is None:
        raise UsageError("the features lack the class token: encode the images with the method's own request")
    return features.class_token


class TextFeatureCache:
    """Text features by method and object name; methods that share their text side share an entry.

    All methods have to be on one backbone. Features of learnt prompts are valid as long as the prompts do not change. The
    cache can be used from several threads.

    Args:
        max_entries: Number of entries that are kept; the oldest one is dropped first.
    """

    def __init__(self, max_entries: int = 256) -> None:
        self.max_entries = max_entries
        self._entries: dict[Hashable, Tensor] = {}
        self._lock = threading.Lock()

    def get(self, method: Method, object_name: str) -> Tensor:
        """Return the text features of one object name: (2, E), without gradient."""
        # The function is part of the key, since a subclass may write its own.
        key = (type(method).text_features, method.text_key, object_name)
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            # A tensor that is made in inference mode cannot take part in training.
            with torch.inference_mode(False), torch.no_grad():
                entry = method.text_features([object_name])[0]
            with self._lock:
                if len(self._entries) >= self.max_entries:
                    del self._entries[next(iter(self._entries))]
                self._entries[key] = entry
        return entry.to(method.device)

    def batch(self, method: Method, object_names: Sequence[str]) -> Tensor:
        """Return the text features of a batch: (2, E) if all its images show one object, else (B, 2, E)."""
        entries = {name: self.get(method, name) for name in dict.fromkeys(object_names)}
        if len(entries) == 1:
            return next(iter(entries.values()))
        return torch.stack([entries[name] for name in object_names])


class ReferenceMethod(Method):
    """A method that compares images with a memory bank of reference images. Without a bank it scores zero-shot.

        bank = method.build_memory_bank(batches, encode, num_images=k)
        method.score(features, text, bank)

    The bank belongs to the caller, so one method serves many objects, each with its own bank, also at the same time. A
    subclass of `FewShotMethod` or `TransductiveMethod` writes `extract_memory`, a `score` with `memory`, and the two
    properties where they differ from the zero-shot ones.
    """

    @property
    def memory_request(self) -> Request:
        """What is needed of reference images, and of images that are scored with a memory bank."""
        return self.request

    @property
    def memory_map_range(self) -> tuple[float, float]:
        """The range of maps that are made with a memory bank, as `map_range`."""
        return self.map_range

    def extract_memory(self, features: ImageFeatures) -> MemoryBank:
        """Return the memory bank of one batch of reference images, encoded with `memory_request`."""
        raise NotImplementedError

    def build_memory_bank(
        self, batches: Iterable[Tensor], encode: Encode, *, num_images: int, sampled: bool = False
    ) -> MemoryBank:
        """Return the memory bank of all reference images.

        Args:
            batches: Prepared pixels (B, 3, S, S), at least one batch; read lazily.
            encode: Runs the backbone.
            num_images: Number of reference images that `batches` has at most.
            sampled: The references are a random sample of the set that is going to be scored.
        """
        return MemoryBank.concat([self.extract_memory(encode(batch)) for batch in batches])

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Score a batch.

        Args:
            features: From `backbone.encode_image`; with a memory bank, of `memory_request`.
            text: (2, E) for all images, or (B, 2, E).
            memory: References of the object that the whole batch shows; None scores zero-shot.
        """
        raise NotImplementedError


class FewShotMethod(ReferenceMethod):
    """A method whose references are a few normal images of the object."""


class TransductiveMethod(ReferenceMethod):
    """A method whose references are unlabelled images, usually the very set that is scored."""

    max_sampled_images: ClassVar[int] = 32
    """Images that are drawn from the set; time and memory grow with them."""
