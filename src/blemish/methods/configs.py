"""Configs: what a method leaves open, as a frozen dataclass that can be written as JSON and is checked when made."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from blemish.clip import Activation, PositionMode
from blemish.errors import UsageError

ImageScore: TypeAlias = Literal["text", "map", "text+map", "top"]

R = TypeVar("R", bound="Config")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every method leaves open. A method's config inherits it and adds its fields; defaults are the paper's."""

    size: int = 518
    """Side of the square input in pixels."""
    activation: Activation = "checkpoint"
    """Activation of both towers; `checkpoint` is what the backbone was trained with."""
    position: PositionMode = "bicubic-antialias"
    """How the positional embedding is resized to another grid."""
    image_score: ImageScore = "text"
    """`text`: whole picture against the prompts; `map`: the map's maximum over its range; `text+map`: mean of both;
    `top`: the mean of the most anomalous pixels. A method has some of them: `image_scores`."""

    @property
    def image_scores(self) -> tuple[ImageScore, ...]:
        """What `image_score` can be for this method."""
        return "text", "map", "text+map"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not _fits(value, hint):
                raise UsageError(f"{name} in a config has to be {_words(hint)}, not {value!r}")
        self.check()

    def check(self) -> None:
        """Checks values against each other; called when a config is made. Raises UsageError."""
        require(self.size >= 1, f"size in a config has to be at least 1, not {self.size}")
        require(
            self.image_score in self.image_scores,
            f"image_score {self.image_score!r} is not one of this method's: {', '.join(self.image_scores)}",
        )


def require(condition: bool, message: str) -> None:
    """Raises UsageError with the message unless the condition holds."""
    if not condition:
        raise UsageError(message)


def at_most(value: int, limit: int, name: str, what: str) -> None:
    """Raises UsageError if the config asks for more than the backbone has."""
    require(value <= limit, f"{name} {value} is more than the {limit} {what} of the backbone: make it smaller")


def to_json(config: Config) -> dict[str, Any]:
    """A config as plain JSON values: tuples become lists."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(config).items()}


def from_json(cls: type[R], values: Mapping[str, Any]) -> R:
    """A config from JSON values; missing fields keep their defaults. Raises UsageError for unknown or unfit ones."""
    return change(cls(), values)


def change(config: R, values: Mapping[str, Any]) -> R:
    """The config with some fields changed. Raises UsageError for unknown fields and values of the wrong kind."""
    hints = get_type_hints(type(config))
    for name in values:
        if name not in hints:
            close = difflib.get_close_matches(name, hints, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(hints)}"
            raise UsageError(f"the config has no field {name!r}; {hint}")
    return dataclasses.replace(config, **{name: _from_json(value, hints[name]) for name, value in values.items()})


def resolve_layers(layers: tuple[int, ...], total: int) -> tuple[int, ...]:
    """Layers counted from 1, ascending and without duplicates; -1 is the last of `total`. Raises UsageError."""
    found = set()
    for layer in layers:
        absolute = total + 1 + layer if layer < 0 else layer
        if not 1 <= absolute <= total:
            raise UsageError(f"layer {layer} does not exist: the backbone has layers 1 to {total} (-1 is the last one)")
        found.add(absolute)
    require(bool(found), "a config needs at least one layer")
    return tuple(sorted(found))


def _from_json(value: Any, hint: Any) -> Any:
    """JSON knows neither tuples nor, when written by hand, the point in 4.0."""
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


def _words(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    if origin is tuple:
        return f"a list of {_words(args[0]).split(' ', 1)[-1]}s"
    if origin in (Union, types.UnionType):
        return " or ".join(_words(arg) for arg in args)
    names: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        types.NoneType: "null",
    }
    return names.get(hint, str(hint))
