"""Which methods ride on which pass of the backbone, and what each is told."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from blemish.clip import Backbone, Computation, Request
from blemish.detector import Detector
from blemish.methods.base import Method
from blemish.outputs.tables import settings_fingerprint

#: What a set-wide rule may be told of each picture, by the names of its arguments.
PARTS = ("scores", "text_scores", "peaks")


@dataclass(frozen=True)
class Pass:
    """One run of the backbone over a batch, and the methods that are read off it."""

    number: int  # from 1
    computation: Computation
    methods: tuple[str, ...]
    requests: Mapping[str, Request]

    def request(self, methods: Iterable[str] | None = None) -> Request:
        """What these methods (default: all) need together."""
        wanted = self.methods if methods is None else tuple(methods)
        union = self.requests[wanted[0]]
        for name in wanted[1:]:
            union = union | self.requests[name]
        return union

    def __str__(self) -> str:
        made, asked = self.computation, self.request()
        needs = [f"{len(asked.taps)} tap{'s' * (len(asked.taps) != 1)}"] * bool(asked.taps)
        needs += ["class token"] * asked.class_token
        needs += [f"windows of {', '.join(map(str, asked.windows))}"] * bool(asked.windows)
        return (
            f"pass {self.number}: {made.size} x {made.size} px, {made.activation} activation, "
            f"positions {made.position}; {', '.join(needs)}: {', '.join(self.methods)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        made, asked = self.computation, self.request()
        return {
            "pass": self.number,
            "size": made.size,
            "activation": made.activation,
            "position": made.position,
            "taps": [
                {"layer": t.layer, "path": t.path, "start": t.start, "seeded": t.seeded} for t in sorted(asked.taps)
            ],
            "class_token": asked.class_token,
            "windows": list(asked.windows),
            "methods": list(self.methods),
        }


def plan(detectors: Mapping[str, Detector]) -> tuple[Pass, ...]:
    """As few passes as there are different computations, in the order in which they are first asked for."""
    riders: dict[Computation, list[str]] = {}
    for name, detector in detectors.items():
        riders.setdefault(effective(detector.method.computation, detector.backbone), []).append(name)
    return tuple(
        Pass(number, computation, tuple(names), {name: detectors[name].method.request for name in names})
        for number, (computation, names) in enumerate(riders.items(), 1)
    )


def effective(computation: Computation, backbone: Backbone) -> Computation:
    """The computation without what makes no difference on this backbone, so that more methods share a pass.

    At the checkpoint's own grid no position is resized; an activation that is the checkpoint's own replaces nothing.
    """
    changes: dict[str, Any] = {}
    if computation.size // backbone.patch == backbone.size // backbone.patch:
        changes["position"] = Computation(computation.size).position
    if computation.activation == backbone.towers.config.vision_config.hidden_act:
        changes["activation"] = "checkpoint"
    return replace(computation, **changes)


class Texts:
    """Text features of every object, made once for all methods that share them.

    Args:
        methods: By name.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        # A key holds for those that inherit the same function: a subclass may write its own.
        self._keys = {name: (type(method).text_features, method.text_key) for name, method in methods.items()}
        self._known: dict[tuple[Hashable, str], Tensor] = {}

    def __call__(self, name: str, object_names: Sequence[str]) -> Tensor:
        """For a method: (2, E) if all pictures of a batch show one object, else (B, 2, E)."""
        method, key = self._methods[name], self._keys[name]
        told = [told_object(method, word) for word in object_names]
        for word in dict.fromkeys(told):
            if (key, word) not in self._known:
                with torch.inference_mode():
                    self._known[key, word] = method.text_features([word])[0]
        rows = [self._known[key, word] for word in told]
        return rows[0] if len(set(told)) == 1 else torch.stack(rows)


def told_object(method: Method, name: str) -> str:
    """What a method is told of a picture: the object's name, or "object" where there is none or it does not ask."""
    return (name or "object") if method.info.needs_object else "object"


def settings_of(detector: Detector) -> str:
    """Fingerprint of everything that bears on a score, but the picture and its object: not file names or devices."""
    made = detector.provenance.to_dict()
    for name in ("backbone", "weights", "device"):
        del made[name]
    return settings_fingerprint(made)


def set_rule(method: Method) -> tuple[str, ...] | None:
    """What the method's set-wide rule wants to know of each picture, of `PARTS`; None for a method without one.

    Some papers score a picture only within its whole test set (min-max over a class). Such methods have
    `set_scores`, whose arguments without default are (n,) tensors by these names.
    """
    rule = getattr(method, "set_scores", None)
    if rule is None:
        return None
    wanted = [p.name for p in inspect.signature(rule).parameters.values() if p.default is p.empty]
    return tuple(wanted) if set(wanted) <= set(PARTS) else None
