"""`load`: a detector from the name of a method, from a profile, or from an exported file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch

from blemish.clip import ImageBackbone, load_backbone
from blemish.clip.load import resolve_name
from blemish.detector import Detector, check_object_name
from blemish.engine import TorchEngine
from blemish.errors import UsageError
from blemish.few_shot import References, build_memory_bank, require_reference_method
from blemish.hub import locate
from blemish.image_io import MAX_PIXELS
from blemish.methods import builtin, checkpoints, configs, create, load_class
from blemish.methods.ops import has_bfloat16_units, require_words
from blemish.methods.registry import WEIGHTS
from blemish.profile import Profile, is_profile, read_profile
from blemish.types import (
    DEFAULT_OVERLAP,
    ComputePrecision,
    PathLike,
    Precision,
    Preset,
    Tiling,
    ValueRange,
    check_threshold,
    check_value_range,
    resolve_device,
)

DEFAULT_METHOD, DEFAULT_BACKBONE, DEFAULT_OBJECT = "anomalyclip", "builtin", "object"
FIT_METHOD = "joint"
"""Method of `blemish fit`, unless another is given."""
EXPORTED_SUFFIXES = (".onnx", ".xml")
"""Suffixes of exported files."""

#: Parameters of a large vision tower, for which half the time matters more than the last digits. The built-in one has
#: 14.6 million.
_LARGE = 5_000_000


def load(
    method: PathLike = DEFAULT_METHOD,
    *,
    backbone: PathLike | ImageBackbone = DEFAULT_BACKBONE,
    weights: PathLike | None = None,
    preset: Preset | None = None,
    config: Mapping[str, Any] | None = None,
    object_name: str = DEFAULT_OBJECT,
    threshold: float | None = None,
    mask_threshold: float | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    references: References | None = None,
    tile: int | None = None,
    overlap: float = DEFAULT_OVERLAP,
    backend: str | None = None,
    profile: PathLike | Profile | None = None,
) -> Detector:
    """Load a detector.

    Args:
        method: Name of a method (`blemish.list_methods()`), a profile (.profile), or an exported file (.onnx, .xml),
            whose backbone, weights, object name and references are fixed.
        backbone: "builtin", a hub id, a folder or file that `load_backbone` reads, or a loaded backbone to share: a
            CLIP or, for methods without words, a DINOv2.
        weights: Weights of the method: a file (safetensors, or an authors' checkpoint), or the name of published
            weights that `blemish weights pull` has downloaded. None takes those that ship for method and backbone.
        preset: "fast" takes the built-in model at a smaller input: at most half the time per picture, and a little
            less accurate. None is "default". Other backbones have no presets.
        config: Fields of the method's config to change, such as {"size": 448}, whatever the preset says; None for the
            method's own.
        object_name: What the pictures show ("metal nut"); some methods do not use it.
        threshold: A picture with score >= threshold is anomalous, in [0, 1]. None gives no label; an exported file may
            have its own.
        mask_threshold: The same for pixels, as a fraction of the method's fixed scale; None = `threshold`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...; for an exported file see `load_exported`.
        precision: Precision of the vision tower. "auto" is bfloat16, on hardware faster with it, for all but toy
            backbones, and for the windows of `winclip` on any; else float32. Text features and scores are always
            float32, except `musc`'s comparisons, which use the precision of the tower.
        max_pixels: Larger pictures are refused. With `tile` this limits what is decoded at once: some rows of a TIFF
            that can be read so, else the whole picture.
        value_range: (low, high), the values that become black and white in pictures of 10 to 16 bits and in floating
            point, such as (0, 4095). None takes what the file says, or a rule that a few hot pixels do not change: see
            `read_image`.
        references: Normal pictures of the object for few-shot methods, unlabelled ones for a transductive method
            (`musc`): a list of pictures, or one file, folder or pattern. None scores zero-shot.
        tile: Side in pixels of the tiles that larger pictures are cut into, each scored like a picture: for details
            that are lost when the whole is reduced to the model's input, and for pictures that do not fit into memory.
            None scores pictures whole. See `blemish.tiling`.
        overlap: Overlap of neighbouring tiles, as a fraction of their side.
        backend: "onnx" or "openvino", for an exported file; None chooses by its suffix.
        profile: A profile that `Detector.fit` made, or its file: the same as a profile in place of `method`. Method,
            object name, references, tiles and thresholds are the profile's; backbone, weights and precision are its
            own unless you give them, and have to be the same. `backbone=detector.backbone` shares one backbone between
            products.

    Raises:
        ProfileError: The profile is damaged, or was made with another backbone, other weights or another precision.
        UsageError: An unknown method, device or precision, a trainable method on a foreign backbone without weights,
            references for a method that takes none, words of a backbone that reads none, a field of the config that
            does not exist or does not fit, a preset that there is not, a threshold out of range, an empty object name.
        WeightsError: A checkpoint cannot be used.
        ImageError: A reference cannot be read.
    """
    check_threshold("threshold", threshold)
    check_threshold("mask_threshold", mask_threshold)
    check_value_range("value_range", value_range)
    check_object_name(object_name)
    tiling = None if tile is None else Tiling(tile, overlap)
    if profile is None and is_profile(method):
        profile, method = method, DEFAULT_METHOD
    if profile is not None:
        fixed = {
            "method": method != DEFAULT_METHOD,
            "object_name": object_name != DEFAULT_OBJECT,
            "references": references is not None,
            "preset": preset is not None,
            "config": config is not None,
            "tile": tile is not None,
            "value_range": value_range is not None,
            "backend": backend is not None,
        }
        if names := [name for name, given in fixed.items() if given]:
            raise UsageError(f"{' and '.join(names)} cannot be set beside a profile; leave out or fit again")
        return _load_with_profile(
            profile if isinstance(profile, Profile) else read_profile(profile),
            backbone=backbone,
            weights=weights,
            thresholds=(threshold, mask_threshold),
            device=device,
            precision=precision,
            max_pixels=max_pixels,
        )
    if Path(method).suffix.lower() in EXPORTED_SUFFIXES:
        fixed = {
            "backbone": backbone != DEFAULT_BACKBONE,
            "weights": weights is not None,
            "preset": preset is not None,
            "config": config is not None,
            "object_name": object_name != DEFAULT_OBJECT,
            "references": references is not None,
        }
        if names := [name for name, given in fixed.items() if given]:
            raise UsageError(f"{' and '.join(names)} cannot be set for an exported file; leave out or export again")
        from blemish.exporting import load_exported  # only here: it needs packages of its own

        return load_exported(
            method,
            backend=backend,
            threshold=threshold,
            mask_threshold=mask_threshold,
            device=device,
            precision=precision,
            max_pixels=max_pixels,
            value_range=value_range,
            tile=tile,
            overlap=overlap,
        )
    if backend is not None:
        raise UsageError(f"backend {backend!r} runs exported files; give one (.onnx or .xml) in place of the method")
    method = os.fspath(method)
    # What needs no backbone comes first: a misspelt name should not cost a download.
    cls = load_class(method)
    if references is not None:
        require_reference_method(cls.info)
    if precision not in get_args(Precision):
        raise UsageError(f"precision must be one of {', '.join(get_args(Precision))}, not {precision!r}")
    torch_device = resolve_device(device)
    engine = _engine(method, backbone, weights, torch_device, precision, preset=preset, config=config)
    memory = None
    if references is not None:
        memory = build_memory_bank(engine, references, max_pixels=max_pixels, tiling=tiling, value_range=value_range)
    return Detector(
        engine,
        memory=memory,
        object_name=object_name,
        threshold=threshold,
        mask_threshold=mask_threshold,
        max_pixels=max_pixels,
        tiling=tiling,
        value_range=value_range,
    )


def _load_with_profile(
    profile: Profile,
    *,
    backbone: PathLike | ImageBackbone,
    weights: PathLike | None,
    thresholds: tuple[float | None, float | None],
    device: str,
    precision: Precision,
    max_pixels: int,
) -> Detector:
    """Return the detector of a profile: see `load`."""
    if not isinstance(backbone, ImageBackbone) and backbone == DEFAULT_BACKBONE:
        backbone = profile.backbone
    if precision == "auto":
        # The precision of the profile, whatever this hardware is faster with: other digits would be other scores.
        tower, _, windows = profile.precision.partition(", windows ")
        own = (cast("ComputePrecision", tower), cast("ComputePrecision", windows or tower))
    else:
        own = (precision, precision)
    # Fields that an older version did not have get the defaults that change nothing, not those of the backbone.
    config = configs.to_json(load_class(profile.method).Config()) | dict(profile.config)
    engine = _engine(profile.method, backbone, weights, resolve_device(device), own, config=config)
    threshold, mask_threshold = thresholds
    return Detector(engine, max_pixels=max_pixels).with_profile(
        profile, threshold=threshold, mask_threshold=mask_threshold
    )


def _engine(
    method: str,
    backbone: PathLike | ImageBackbone,
    weights: PathLike | None,
    device: torch.device,
    precision: Precision | tuple[ComputePrecision, ComputePrecision],
    *,
    preset: Preset | None = None,
    config: Mapping[str, Any] | None = None,
) -> TorchEngine:
    """Return the engine of a method on a backbone.

    Args:
        method: Name of the method.
        backbone: As in `load`.
        weights: As in `load`.
        device: Where it computes.
        precision: As in `load`, or the precisions of the tower and of windows.
        preset: As in `load`.
        config: Fields of the config; None for the method's own.
    """
    cls = load_class(method)
    backbone_name = backbone.name if isinstance(backbone, ImageBackbone) else os.fspath(backbone)
    if preset is not None:  # before a backbone is downloaded that has none
        config = {**builtin.preset_changes(preset, method, resolve_name(backbone_name)), **(config or {})}
    file = None if weights is None else locate(weights, method, backbone_name)
    loaded = backbone if isinstance(backbone, ImageBackbone) else load_backbone(backbone_name)
    if cls.info.needs_text:
        require_words(loaded, method)
    if file is None and cls.info.trainable:
        file = shipped(method, loaded.fingerprint)
        if file is None:
            raise UsageError(
                f"{method} has learnt parts, and none ship for the backbone {loaded.name}: give its weights (a "
                "safetensors file or a published checkpoint), or choose a method without learnt parts"
            )
    if isinstance(precision, str):
        precision = _precisions(precision, loaded, device)
    tower_precision, window_precision = precision
    return TorchEngine(
        create(method, loaded, config, file),
        weights=None if file is None else file.name,
        device=device,
        precision=tower_precision,
        windows=window_precision,
    )


def shipped(method: str, fingerprint: str) -> Path | None:
    """Return the weights that ship for this method on the backbone with this fingerprint; None if there are none."""
    for path in sorted(WEIGHTS.glob("*.safetensors")):
        header = checkpoints.read_header(path)
        if (header.method, header.backbone_fingerprint) == (method, fingerprint):
            return path
    return None


def _precisions(
    precision: Precision, backbone: ImageBackbone, device: torch.device
) -> tuple[ComputePrecision, ComputePrecision]:
    """Return the precision of the vision tower, and of windows, which are a dozen times the work of their image."""
    if precision != "auto":
        return precision, precision
    if not has_bfloat16_units(device):
        return "float32", "float32"
    size = sum(parameter.numel() for parameter in backbone.vision.parameters())
    return "bfloat16" if size >= _LARGE else "float32", "bfloat16"
