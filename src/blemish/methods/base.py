"""The base classes of methods, their results, and the cache of text features."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from blemish.clip import Computation, ImageBackbone, ImageFeatures, Request, Tap, input_sides, visible_part
from blemish.errors import UsageError
from blemish.methods import builtin
from blemish.methods.configs import Config, Training, to_json
from blemish.methods.ops import require_words, resize
from blemish.methods.registry import MethodInfo

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "WHOLE",
    "Encode",
    "FewShotMethod",
    "MemoryBank",
    "Method",
    "Prediction",
    "ReferenceMethod",
    "TextFeatureCache",
    "Training",
    "TransductiveMethod",
    "class_token",
]


@dataclass(frozen=True)
class Prediction:
    """The result of a batch."""

    score: Tensor
    """Image scores (B,) float32 in [0, 1]; 1 is anomalous."""
    map: Tensor
    """Anomaly maps (B, H, W) float32 within `Method.map_range`; higher is more anomalous. `Method.finish_map` brings
    them to the size of their pictures."""


#: Key of whole images among the windows of a memory bank.
WHOLE = 0


@dataclass(frozen=True)
class MemoryBank:
    """Features of reference images: an immutable value that is passed to `score`.

    Rows are flattened over images and positions; they are float32 and on the method's device.
    """

    images: int
    """Number of encoded images k: the references, or the tiles that they are cut into."""
    taps: Mapping[Tap, Tensor] = field(default_factory=dict)
    """Patch tokens of each tap: (k * N, D), not normalised."""
    windows: Mapping[int, Tensor] = field(default_factory=dict)
    """Window embeddings of each side length: (k * n_windows, E), not normalised; under `WHOLE` what stands for whole
    images: (k, E) or (k, D)."""
    references: int = 0
    """Number of reference pictures; 0 if unknown."""
    fingerprint: str = ""
    """Hash of the pixels of the reference images, 16 hex digits; empty if unknown."""

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Return one bank of several; at least one part, all built by the same method."""
        return dataclasses.replace(
            parts[0],
            images=sum(part.images for part in parts),
            taps={tap: torch.cat([part.taps[tap] for part in parts]) for tap in parts[0].taps},
            windows={side: torch.cat([part.windows[side] for part in parts]) for side in parts[0].windows},
        )

    def select(self, numbers: Sequence[int]) -> Self:
        """Return the bank of some of its images, given by their numbers from 0.

        Raises:
            UsageError: The rows do not belong to single images, as after a coreset.
        """
        index = torch.as_tensor(list(numbers), dtype=torch.int64)

        def rows(values: Tensor) -> Tensor:
            if values.shape[0] % max(self.images, 1):
                raise UsageError("this memory bank cannot be divided into its images: build it again from the pictures")
            blocks = values.reshape(self.images, -1, *values.shape[1:])
            return blocks.index_select(0, index.to(values.device)).flatten(0, 1)

        return dataclasses.replace(
            self,
            images=len(index),
            taps={tap: rows(values) for tap, values in self.taps.items()},
            windows={side: rows(values) for side, values in self.windows.items()},
            references=0,
            fingerprint="",
        )


Encode: TypeAlias = Callable[[Tensor], ImageFeatures]
"""A function that runs the backbone on prepared pixels (B, 3, H, W), with the request `memory_request`."""


class Method(nn.Module):
    """Base class of all methods.

    A subclass sets `info` and `Config`, and writes `request`, `map_range`, `text_features` and `score`. A trainable one
    also sets `TRAINING` and writes `reset` and `loss`. Everything else has a default.

    The backbone belongs to the caller. It is not a submodule: `method.parameters()` and `method.state_dict()` are the
    learnt parts only, and `method.to(device)` moves only these. Learnt parts start from `reset(0)`, which does not
    touch PyTorch's global random state.

    Args:
        backbone: A frozen backbone; a `Backbone`, which reads words, if the method needs them.
        config: An instance of `Config`; the default is the paper's.

    Raises:
        UsageError: The config belongs to another method or does not fit the backbone, or the method needs words and the
            backbone reads none.
    """

    info: ClassVar[MethodInfo]
    Config: ClassVar[Any]
    """A frozen dataclass whose defaults are the paper's."""
    TRAINING: ClassVar[Training | None] = None
    """How the paper trains the method; None if it has nothing to train."""

    backbone: ImageBackbone
    config: Any

    def __init__(self, backbone: ImageBackbone, config: Any = None) -> None:
        super().__init__()
        if self.info.needs_text:
            require_words(backbone, self.info.name)
        if config is None:
            config = self.Config()
        if type(config) is not self.Config:
            raise UsageError(f"{self.info.name} takes a {self.Config.__name__}, not a {type(config).__name__}")
        # A plain assignment would make the backbone a submodule.
        self.__dict__["backbone"] = backbone
        self.config = config

    @classmethod
    def default_config(cls, backbone: ImageBackbone) -> Any:
        """Return the config for a backbone: the paper's, changed by `builtin.CONFIGS` on the built-in backbone."""
        config = cls.Config()
        if backbone.name != "builtin":
            return config
        return dataclasses.replace(config, **builtin.CONFIGS.get(cls.info.name, {}))

    # what a method writes

    @property
    def request(self) -> Request:
        """What a score needs of the image."""
        raise NotImplementedError

    @property
    def map_range(self) -> tuple[float, float]:
        """The lowest and the highest value that a map can have; maps are drawn on this fixed scale."""
        raise NotImplementedError

    def display_range(self, *, references: bool = False) -> tuple[float, float]:
        """Return the fixed scale that maps are drawn on, inside their range: where values of real pictures lie.

        Args:
            references: Whether the maps are made with a memory bank.
        """
        name = self.info.name
        preset = builtin.preset_of(name, self.backbone.name, to_json(self.config))
        if preset is not None:
            # The shipped weights have a rule for the image score of their own, which no map depends on.
            changes = builtin.PRESETS[preset][name] | {"image_score": self.config.image_score}
            own = dataclasses.replace(type(self).default_config(self.backbone), **changes)
            scale = builtin.DISPLAY.get(name, (None, None))[references]
            if scale is not None and self.config == own:
                return scale
        if references and isinstance(self, ReferenceMethod):
            return self.memory_map_range
        return self.map_range

    def text_features(self, object_names: Sequence[str]) -> Tensor:
        """Return the text features of each object: (C, 2, E), normalised; row 0 is normal, row 1 anomalous.

        A method that does not need words returns none: (C, 2, 0).
        """
        if not self.info.needs_text:
            return torch.empty(len(object_names), 2, 0, device=self.device)
        raise NotImplementedError

    def score(self, features: ImageFeatures, text: Tensor) -> Prediction:
        """Score a batch.

        Args:
            features: From `backbone.encode_image(pixels, request, computation)`; more taps than needed do no harm.
            text: (2, E) for all images, or (B, 2, E).
        """
        raise NotImplementedError

    # what a trainable method writes

    def reset(self, seed: int = 0) -> None:
        """Draw the learnt parts; the same seed gives the same values."""

    def loss(
        self, features: ImageFeatures, masks: Tensor, labels: Tensor, object_names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return the losses of a batch; "total" is the one to differentiate.

        Args:
            features: As in `score`, without gradient; what `training_request` asks for.
            masks: (B, S, S) in {0, 1}; 1 is anomalous.
            labels: (B,) in {0, 1}; 1 is anomalous.
            object_names: The name of each image's object; may be None if the method does not use names.
        """
        raise UsageError(f"{self.info.name} has nothing to train")

    # what a method may change

    @property
    def training_request(self) -> Request:
        """What `loss` needs of the image; asking for less than `request` makes cached features smaller."""
        return self.request

    @property
    def text_key(self) -> Hashable:
        """What the text features depend on besides the backbone and the object name.

        Methods that inherit the same `text_features` and have equal keys share one entry of a `TextFeatureCache`. By
        default a method shares with nobody.
        """
        return self

    @property
    def map_smoothing(self) -> float | None:
        """Standard deviation, in pixels of the picture, of the smoothing in `finish_map`; None if it only enlarges."""
        return None

    @property
    def reads_pictures(self) -> bool:
        """Whether `score` makes the sentences of each image and runs the text tower on them."""
        return False

    def finish_map(self, anomaly_map: Tensor, height: int, width: int) -> Tensor:
        """Bring the map of one picture, or of one tile, to its size; the last step, on the CPU and in any thread.

        Args:
            anomaly_map: (H, W) float32 from `score`.
            height: Height of the picture in pixels.
            width: Width of the picture in pixels.

        Returns:
            (height, width) float32, within `map_range`.
        """
        side, start = visible_part(self.config.size, self.config.geometry)
        if start:  # the input shows the middle of the picture only: beyond it the map goes on with its outermost values
            scale = anomaly_map.shape[-1] / self.config.size
            before, after = round(start * scale), round((side - start - self.config.size) * scale)
            padding = (before, after, before, after)
            anomaly_map = functional.pad(anomaly_map[None, None], padding, mode="replicate")[0, 0]
        return resize(anomaly_map, height, width)

    def check_objects(self, object_names: Sequence[str]) -> None:
        """Raise a UsageError for an object that the method does not know; most know any."""

    def optimizer(self, *, lr: float | None = None, betas: tuple[float, float] | None = None) -> torch.optim.Optimizer:
        """Return the paper's optimizer of the learnt parts: Adam without weight decay."""
        schedule = self.schedule
        if schedule is None:
            raise UsageError(f"{self.info.name} has nothing to train")
        betas = betas or schedule.betas or (0.9, 0.999)
        return torch.optim.Adam(self.parameters(), lr=lr or schedule.lr, betas=betas, eps=1e-8)

    def learning_rate(self, initial: float, epoch: int, epochs: int) -> float:
        """Return the learning rate of an epoch, counted from 0, by the paper's schedule; it is constant by default."""
        return initial

    # what every method has

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the patches of a picture with these sides in pixels."""
        config: Config = self.config
        across, down = input_sides((width, height), config.size, config.geometry, self.backbone.patch)
        return down // self.backbone.patch, across // self.backbone.patch

    @property
    def device(self) -> torch.device:
        """The device of the backbone."""
        return next(self.backbone.parameters()).device

    @property
    def computation(self) -> Computation:
        """How pixels become features; methods share a pass of the backbone only if these agree."""
        c: Config = self.config
        return Computation(size=c.size, activation=c.activation, position=c.position, geometry=c.geometry)

    @property
    def schedule(self) -> Training | None:
        """How the method is trained on this backbone by default; None if it has nothing to train."""
        own = builtin.SCHEDULES.get(self.info.name) if self.backbone.name == "builtin" else None
        return own or self.TRAINING

    def prediction(
        self, text_score: Tensor | None, maps: Tensor, map_range: tuple[float, float] | None = None
    ) -> Prediction:
        """Return a prediction whose image score is the one that the config's `image_score` asks for.

        Args:
            text_score: (B,) in [0, 1]; may be None if the config asks for "map".
            maps: (B, H, W), the final maps.
            map_range: The range of these maps, if it is not the method's `map_range`.
        """
        maps, rule = maps.float(), self.config.image_score
        low, high = map_range or self.map_range
        value = maps.mean(dim=(1, 2)) if rule == "text+mean" else maps.amax(dim=(1, 2))
        value = ((value - low) / (high - low)).clamp(0, 1)
        if rule == "map":
            return Prediction(value, maps)
        if text_score is None:
            raise UsageError(f"the image score {rule!r} needs a text score")
        score = text_score.float()
        if rule == "text+map":
            score = (score + value) / 2
        elif rule == "text+mean":
            score = (4 * score + value) / 5
        return Prediction(score, maps)

    def score_inside(self, maps: Tensor, inside: Tensor, map_range: tuple[float, float]) -> Tensor:
        """Return the image score of a region of interest, in [0, 1].

        Args:
            maps: (B, H, W), as in a prediction.
            inside: (H, W) bool.
            map_range: The range of these maps.

        Returns:
            (B,) float32; 0 if nothing is inside.
        """
        values = maps.float()[:, inside]
        return self.score_part(values, map_range) if values.shape[1] else values.new_zeros(len(values))

    def score_part(self, values: Tensor, map_range: tuple[float, float]) -> Tensor:
        """Return the image score of a part of the map: its highest value, in [0, 1].

        What describes the whole image, such as the class token, would count what lies outside and is left out.

        Args:
            values: (B, n) float32, the values of the maps inside the part; n is at least 1.
            map_range: The range of these maps.

        Returns:
            (B,) float32.
        """
        low, high = map_range
        return ((values.amax(dim=1) - low) / (high - low)).clamp(0, 1)


def class_token(features: ImageFeatures) -> Tensor:
    """Return the class token (B, D). Raises UsageError if it was not requested."""
    if features.class_token is None:
        raise UsageError("the features lack the class token: encode the images with the method's own request")
    return features.class_token


def with_class_token(rows: Tensor, images: int) -> Tensor:
    """Return patches from a memory bank (k * N, D) as a tap (k, 1 + N, D), with 0 for the class tokens."""
    patches = rows.reshape(images, -1, rows.shape[1])
    return torch.cat([torch.zeros_like(patches[:, :1]), patches], dim=1)


class TextFeatureCache:
    """Text features by method and object name; methods that share their text side share an entry.

    All methods have to be on one backbone. Features of learnt prompts are valid as long as the prompts do not change.
    Several threads can use the cache.

    Args:
        max_entries: Number of entries that are kept; the oldest one is dropped first.
    """

    def __init__(self, max_entries: int = 256) -> None:
        self.max_entries = max_entries
        self._entries: dict[Hashable, Tensor] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[TextFeatureCache], tuple[int]]:
        """Copy and pickle as an empty cache: a lock can be neither, and entries are made again when they are needed."""
        return TextFeatureCache, (self.max_entries,)

    def get(self, method: Method, object_name: str) -> Tensor:
        """Return the text features of one object name: (2, E), without gradient."""
        # The function is part of the key, since a subclass may write its own.
        key = (type(method).text_features, method.text_key, object_name)
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            with torch.inference_mode():
                entry = method.text_features([object_name])[0]
            with torch.inference_mode(False):
                entry = entry.clone()  # a tensor that is made in inference mode cannot take part in training
            with self._lock:
                if len(self._entries) >= self.max_entries:
                    del self._entries[next(iter(self._entries))]
                self._entries[key] = entry
        return entry.to(method.device)

    def batch(self, method: Method, object_names: Sequence[str] | None) -> Tensor:
        """Return the text features of a batch: (2, E) if all its images show one object, else (B, 2, E).

        Raises:
            UsageError: `object_names` is None.
        """
        if object_names is None:
            raise UsageError(f"{method.info.name} is trained with the names of the objects: give object_names")
        entries = {name: self.get(method, name) for name in dict.fromkeys(object_names)}
        if len(entries) == 1:
            return next(iter(entries.values()))
        return torch.stack([entries[name] for name in object_names])


class ReferenceMethod(Method):
    """A method that compares images with a memory bank of reference images.

    Without a bank it scores zero-shot, unless its `info` says `needs_references`.

        bank = method.build_memory_bank(batches, encode, num_images=k)
        method.score(features, text, bank)

    The bank belongs to the caller, so one method serves many objects, each with its own bank, also at the same time. A
    subclass of `FewShotMethod` or `TransductiveMethod` writes `extract_memory`, a `score` with `memory`, and the two
    properties where they differ from the zero-shot ones.
    """

    Memory: ClassVar[type[MemoryBank]] = MemoryBank
    """The class of its memory banks."""

    @property
    def monotone(self) -> bool:
        """Whether more references never raise a score, and `MemoryBank.select` takes single images out of a bank.

        Then leave-one-out calibration keeps its promise exactly (`blemish.calibration`).
        """
        return False

    @property
    def memory_request(self) -> Request:
        """What is needed of the reference images, and of the images that are scored with a memory bank."""
        return self.request

    @property
    def memory_map_range(self) -> tuple[float, float]:
        """The range of maps that are made with a memory bank, as `map_range`."""
        return self.map_range

    def extract_memory(self, features: ImageFeatures) -> MemoryBank:
        """Return the memory bank of one batch of reference images, encoded with `memory_request`."""
        raise NotImplementedError

    def condensed(self, memory: MemoryBank, text: Tensor) -> MemoryBank:
        """Return a memory bank with no more than `score` needs for one text (2, E), for a file that holds both.

        Scores and maps stay the same. The bank may not fit for anything else.
        """
        return memory

    def require_memory(self, memory: MemoryBank | None) -> MemoryBank:
        """Return a memory bank that is needed. Raises UsageError if there is none."""
        if memory is None:
            self.info.require_references(False)
            raise UsageError(f"{self.info.name} needs a memory bank")
        return memory

    def reference_copies(self, image: Image.Image, number: int, count: int) -> Iterable[Image.Image]:
        """Return what is encoded for one reference image, in order: the image alone, or with changed copies of it.

        The copies are made at the image's own size, before it is resized for the backbone.

        Args:
            image: The reference, or a tile of it.
            number: Its number among the references, from 0.
            count: Number of references.
        """
        return (image,)

    def build_memory_bank(
        self, batches: Iterable[Tensor], encode: Encode, *, num_images: int, sampled: bool = False
    ) -> MemoryBank:
        """Return the memory bank of all reference images.

        Args:
            batches: Prepared pixels (B, 3, H, W), at least one batch; read lazily. All images of a batch have the same
                shape, and `reference_copies` of each image follow each other, maybe over several batches.
            encode: Runs the backbone.
            num_images: Number of reference images that `batches` has at most, without their copies.
            sampled: The references are a random sample of the set that is going to be scored.
        """
        parts = [self.extract_memory(encode(batch)) for batch in batches]
        return type(parts[0]).concat(parts)

    def keeps_entries(self, memory: MemoryBank) -> bool:
        """Whether a memory bank keeps all that a score of its own images needs: see `score_entry`."""
        return False

    def score_entry(self, entry: MemoryBank, text: Tensor, memory: MemoryBank, grid: tuple[int, int]) -> Prediction:
        """Score images from what a memory bank keeps of them; only if `keeps_entries`.

        Args:
            entry: The bank of these images alone, from `MemoryBank.select`.
            text: (2, E).
            memory: What they are compared with.
            grid: Rows and columns of their patches: see `Method.grid_of`.
        """
        raise NotImplementedError

    def score(self, features: ImageFeatures, text: Tensor, memory: MemoryBank | None = None) -> Prediction:
        """Score a batch.

        Args:
            features: From `backbone.encode_image`; with a memory bank, of `memory_request`.
            text: (2, E) for all images, or (B, 2, E).
            memory: References of the object that the whole batch shows; None scores zero-shot.

        Raises:
            UsageError: There is no memory bank, and the method has no score without (`require_memory`).
        """
        raise NotImplementedError


class FewShotMethod(ReferenceMethod):
    """A method whose references are a few normal images of the object."""


class TransductiveMethod(ReferenceMethod):
    """A method whose references are unlabelled images, usually the very set that is scored."""

    max_sampled_images: ClassVar[int] = 32
    """Images that are drawn from the set; time and memory grow with them."""

    def sample_size(self, count: int) -> int:
        """Return how many images are drawn from a set of `count`."""
        return min(count, self.max_sampled_images)
