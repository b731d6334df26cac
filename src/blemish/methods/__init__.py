"""The methods: one file per published method, found by name.

Listing (`names`, `info`) imports no PyTorch; a method's file is imported when the method is created.
A package of your own adds methods through the entry point group `blemish.methods`
(`my-method = "my_package.my_method:MyMethod"`), a subclass of `blemish.methods.base.Method` with its own `info`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from blemish.errors import UsageError, suggest
from blemish.methods.catalogue import CATALOGUE, MethodInfo

if TYPE_CHECKING:
    from blemish.clip import Backbone
    from blemish.methods.base import Method

__all__ = ["METHODS", "MethodInfo", "create", "info", "list_methods", "load_class"]

METHODS: dict[str, str] = {
    "anomalyclip": "blemish.methods.anomalyclip:AnomalyCLIP",
    "april-gan": "blemish.methods.april_gan:AprilGAN",
    "clip": "blemish.methods.clip:Clip",
    "clip-ac": "blemish.methods.clip_ac:ClipAC",
    "clip-ad": "blemish.methods.clip_ad:ClipAD",
    "clip-ad-sdp": "blemish.methods.clip_ad_sdp:ClipAdSDP",
    "clip-ad-sdp-plus": "blemish.methods.clip_ad_sdp_plus:ClipAdSDPPlus",
    "coop": "blemish.methods.coop:CoOp",
    "musc": "blemish.methods.musc:MuSc",
    "vcp-clip": "blemish.methods.vcp_clip:VCPCLIP",
    "winclip": "blemish.methods.winclip:WinCLIP",
}

_GROUP = "blemish.methods"


def list_methods() -> list[str]:
    """The names of all methods, plug-ins included, sorted."""
    return sorted({*METHODS, *_plugins()})


def info(name: str) -> MethodInfo:
    """What is known of a method. Raises UsageError for an unknown name."""
    return CATALOGUE[name] if name in METHODS else load_class(name).info


def load_class(name: str) -> type[Method]:
    """The class of a method, imported now. Raises UsageError for an unknown name."""
    if name in METHODS:
        module, _, attribute = METHODS[name].partition(":")
        found: type[Method] = getattr(importlib.import_module(module), attribute)
        return found
    plugins = _plugins()
    if name not in plugins:
        raise UsageError(_unknown(name))
    try:
        found = plugins[name].load()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the plug-in {name} ({plugins[name].value}) cannot be loaded: {error}") from error
    return found


def create(
    name: str,
    backbone: Backbone,
    config: Mapping[str, Any] | Any | None = None,
    weights: str | PathLike[str] | None = None,
) -> Method:
    """A method on a backbone, ready to score.

    Args:
        name: one of `list_methods()`.
        backbone: the frozen CLIP; it is shared, never copied or changed.
        config: an instance of the method's `Config`, or a mapping of some of its fields. Without one: the config in the
            weights file, else `BUILTIN` on the built-in backbone, else the paper's. A mapping changes fields of that.
        weights: a safetensors file written by `blemish.methods.weights.save`, or a file the authors published
            (`.pth`, `.pt`), which is read without running code.

    Raises:
        UsageError: unknown name, or a config that does not fit the method or the backbone.
        WeightsError: weights that cannot be used.
    """
    from blemish.methods import configs
    from blemish.methods import weights as files

    cls = load_class(name)
    base = cls.BUILTIN if backbone.name == "builtin" else cls.Config()
    official = None
    if weights is not None and files.is_official(weights):
        official = files.read_official(weights)
        base = cls.official_config(official, base)
    elif weights is not None:
        base = configs.from_json(cls.Config, files.read_header(weights, method=name).config)
    if isinstance(config, Mapping):
        base = configs.change(base, config)
    elif config is not None:
        base = config
    method = cls(backbone, base)
    if official is not None:
        method.load_official(official)
    elif weights is not None:
        files.load(method, weights)
    return method


def _plugins() -> dict[str, importlib.metadata.EntryPoint]:
    """Plug-ins by name; a name of blemish's own cannot be taken."""
    return {point.name: point for point in importlib.metadata.entry_points(group=_GROUP) if point.name not in METHODS}


def _unknown(name: str) -> str:
    known = list_methods()
    return f"there is no method called {name!r}{suggest(name, known)}; the methods are {', '.join(known)}"
