"""The methods: one file per paper, found by name.

Listing (`list_methods`, `info`) imports no PyTorch; the file of a method is imported when the method is created.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from blemish.methods.registry import METHODS, WEIGHTS, MethodInfo, info, list_methods, load_class

if TYPE_CHECKING:
    from blemish.clip import ImageBackbone
    from blemish.methods.base import (
        FewShotMethod,
        MemoryBank,
        Method,
        Prediction,
        ReferenceMethod,
        TextFeatureCache,
        Training,
        TransductiveMethod,
    )
    from blemish.methods.configs import Config

__all__ = [
    "METHODS",
    "WEIGHTS",
    "Config",
    "FewShotMethod",
    "MemoryBank",
    "Method",
    "MethodInfo",
    "Prediction",
    "ReferenceMethod",
    "TextFeatureCache",
    "Training",
    "TransductiveMethod",
    "create",
    "info",
    "list_methods",
    "load_class",
]


def create(
    name: str,
    backbone: ImageBackbone,
    config: Mapping[str, Any] | Any | None = None,
    weights: str | PathLike[str] | None = None,
) -> Method:
    """Return a method on a backbone, ready to score.

    Args:
        name: One of `list_methods()`.
        backbone: The frozen backbone; it is shared, never copied or changed.
        config: An instance of the method's `Config`, or a mapping that changes some fields of the default one. The
            default is the config in the weights file, else the one that suits the backbone.
        weights: A safetensors file written by blemish, or a file that the authors published (`.pth`, `.pt`), which is
            read without running code.

    Raises:
        UsageError: The name is unknown, or the config does not fit the method or the backbone.
        WeightsError: The weights cannot be used.
    """
    from blemish.methods import checkpoints, configs

    cls = load_class(name)
    base = cls.default_config(backbone)
    state: dict[str, Any] | None = None
    if weights is not None and checkpoints.is_official(weights):
        state = checkpoints.read_official(weights)
        base = checkpoints.official_config(name, state, base)
    elif weights is not None:
        base = configs.from_json(cls.Config, checkpoints.read_header(weights, method=name).config)
    if isinstance(config, Mapping):
        base = configs.change(base, config)
    elif config is not None:
        base = config
    method = cls(backbone, base)
    if state is not None:
        checkpoints.load_official(method, state)
    elif weights is not None:
        checkpoints.load(method, weights)
    return method


def __getattr__(name: str) -> Any:
    # These names need PyTorch, which listing the methods does without.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from blemish.methods import base, configs

    return configs.Config if name == "Config" else getattr(base, name)
