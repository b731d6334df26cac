"""Configs of methods: frozen dataclasses that check their values and can be written as JSON."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from blemish.clip import Activation, Geometry, PositionMode
from blemish.errors import UsageError, suggest

ImageScore: TypeAlias = Literal["text", "map", "text+map", "text+mean", "top"]

R = TypeVar("R", bound="Config")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The fields that every config has. A method's config adds its own; the defaults are the paper's."""

    size: int = 518
    """Side of the input in pixels; where the aspect ratio is kept, the shorter side before the cut to whole patches."""
    geometry: Geometry = "squash"
    """How pictures are resized to the input: see `blemish.clip.Geometry`. A method allows some: `geometries`."""
    activation: Activation = "checkpoint"
    """Activation of both towers; `checkpoint` is what the backbone was trained with."""
    position: PositionMode = "bicubic-antialias"
    """How the positional embedding is resized to another grid."""
    image_score: ImageScore = "text"
    """`text` compares the whole image with the prompts; `map` is the map's maximum, scaled by its range; `text+map` is
    the mean of both; `text+mean` is that of the map's mean, scaled likewise, and of the text score, which counts four
    times; `top` is the mean of the most anomalous pixels. A method allows some of them: `image_scores`."""

    @property
    def image_scores(self) -> tuple[ImageScore, ...]:
        """Values of `image_score` that this method allows."""
        return "text", "map", "text+map", "text+mean"

    @property
    def geometries(self) -> tuple[Geometry, ...]:
        """Values of `geometry` that this method allows; most need a square input."""
        return "squash", "squash-bilinear", "squash-torch", "squash-torch-crop"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not _fits(value, hint):
                raise UsageError(f"{name} in a config has to be {_describe(hint)}, not {value!r}")
        self.check()

    def check(self) -> None:
        """Raise a UsageError for values that cannot work; called when a config is made."""
        require(self.size >= 1, f"size in a config has to be at least 1, not {self.size}")
        temperature, sigma = getattr(self, "temperature", None), getattr(self, "sigma", 0)  # of most methods
        require(temperature is None or temperature > 0, f"temperature has to be greater than 0, not {temperature}")
        require(sigma >= 0, f"sigma must not be negative, not {sigma}")
        require(
            self.geometry in self.geometries,
            f"geometry {self.geometry!r} is not one of this method's: {', '.join(self.geometries)}",
        )
        require(
            self.image_score in self.image_scores,
            f"image_score {self.image_score!r} is not one of this method's: {', '.join(self.image_scores)}",
        )


def require(condition: bool, message: str) -> None:
    """Raise a UsageError with the message unless the condition holds."""
    if not condition:
        raise UsageError(message)


def at_most(value: int, limit: int, name: str, what: str) -> None:
    """Raise a UsageError if the config asks for more than the backbone has."""
    require(value <= limit, f"{name} {value} is more than the {limit} {what} of the backbone: make it smaller")


def to_json(config: Config) -> dict[str, Any]:
    """Return a config as plain JSON values: tuples become lists."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(config).items()}


def from_json(cls: type[R], values: Mapping[str, Any]) -> R:
    """Return a config made of JSON values; missing fields have their defaults. Raises UsageError as `change` does."""
    return change(cls(), values)


def change(config: R, values: Mapping[str, Any]) -> R:
    """Return the config with some fields changed. Raises UsageError for unknown fields and values of the wrong kind."""
    hints = get_type_hints(type(config))
    for name in values:
        if name not in hints:
            hint = suggest(name, hints) or f"; it has {', '.join(hints)}"
            raise UsageError(f"the config has no field {name!r}{hint}")
    return dataclasses.replace(config, **{name: _from_json(value, hints[name]) for name, value in values.items()})


def resolve_layers(layers: tuple[int, ...], total: int) -> tuple[int, ...]:
    """Return layers counted from 1, ascending and without duplicates; -1 is the last of `total`. Raises UsageError."""
    resolved = set()
    for layer in layers:
        absolute = total + 1 + layer if layer < 0 else layer
        if not 1 <= absolute <= total:
            raise UsageError(f"layer {layer} does not exist: the backbone has layers 1 to {total} (-1 is the last one)")
        resolved.add(absolute)
    require(bool(resolved), "a config needs at least one layer")
    return tuple(sorted(resolved))


def _from_json(value: Any, hint: Any) -> Any:
    """Convert lists to tuples and, since people write 4 for 4.0, whole numbers to floats where a float is needed."""
    if get_origin(hint) is tuple and isinstance(value, list):
        inner = get_args(hint)[0]
        return tuple(_from_json(v, inner) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if origin is tuple:
        inner = (args[0],) * len(value) if isinstance(value, tuple) and args[-1] is Ellipsis else args
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_fits, value, inner))
    if origin in (Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    if origin is tuple:
        return f"a list of {_describe(args[0]).split(' ', 1)[-1]}s"
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(arg) for arg in args)
    names: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        types.NoneType: "null",
    }
    return names.get(hint, str(hint))


@dataclass(frozen=True)
class Training:
    """How a method is trained."""

    epochs: int
    batch_size: int
    lr: float
    betas: tuple[float, float] | None = None
    """Betas of Adam; None for a method with another optimizer."""
    masks: bool = True
    """Whether the method learns from masks; otherwise it learns from labels."""
