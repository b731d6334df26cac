"""`blemish info`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blemish.cli.console import print_json
from blemish.errors import UsageError

_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_EXPORTED = (".onnx", ".xml")


def info(path_or_id: str, *, revision: str | None = None, json: bool = False) -> int:
    """Describe a picture, a folder, a backbone, a weights file or an exported detector.

    Args:
        path_or_id: A picture, a folder of pictures, a backbone (`builtin`, a hub id, a folder, a checkpoint file), a
            method's weights or a file from `blemish export`.
        revision: Revision of a backbone on the hub.
        json: Print one JSON object instead of lines.
    """
    facts = describe(path_or_id, revision)
    if json:
        print_json(facts)
        return 0
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key.replace('_', ' '):<{width}}  {_words(value)}")
    return 0


def describe(path_or_id: str, revision: str | None = None) -> dict[str, Any]:
    """Return the facts as JSON values; `kind` names the kind of thing.

    Raises:
        UsageError: There is no such file, and the word cannot be a hub id.
        ImageError, WeightsError: The file cannot be used.
    """
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return _backbone(path_or_id, revision) if (path / "config.json").is_file() else _folder(path)
    if path.is_file():
        kinds = {**dict.fromkeys(_CHECKPOINTS, _checkpoint), **dict.fromkeys(_EXPORTED, _exported)}
        return kinds.get(path.suffix.lower(), _picture)(path)
    looks_local = (
        path_or_id.startswith((".", "/", "~", "\\")) or path_or_id.count("/") > 1 or path.suffix in _CHECKPOINTS
    )
    if path_or_id != "builtin" and (looks_local or "/" not in path_or_id):
        raise UsageError(f"there is no file or folder {path_or_id}, and it is not a hub id (owner/name) either")
    return _backbone(path_or_id, revision)


def _picture(path: Path) -> dict[str, Any]:
    from PIL import Image

    from blemish.image_io import read_image

    image = read_image(path)
    with Image.open(path) as stored:
        kind, mode, frames = stored.format, stored.mode, getattr(stored, "n_frames", 1)
    width, height = image.size
    return {
        "kind": "picture",
        "path": str(path),
        "format": kind,
        "size": [width, height],
        "mode": mode,
        "frames": frames,
        "bytes": path.stat().st_size,
        "notes": list(image.notes),
    }


def _folder(path: Path) -> dict[str, Any]:
    from blemish.image_io import find_images

    images = list(find_images([path], recursive=True))
    if not images:
        raise UsageError(f"{path} holds neither pictures nor a backbone (a backbone's folder has a config.json)")
    suffixes = [Path(image).suffix.lower().lstrip(".") for image in images]
    return {
        "kind": "folder of pictures",
        "path": str(path),
        "pictures": len(images),
        "formats": {suffix: suffixes.count(suffix) for suffix in sorted(set(suffixes))},
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    import dataclasses

    from blemish.errors import WeightsError
    from blemish.methods import checkpoints

    common = {"path": str(path), "bytes": path.stat().st_size}
    try:
        if not checkpoints.is_official(path):
            return {"kind": "method weights", **common, **dataclasses.asdict(checkpoints.read_header(path))}
        method = checkpoints.identify(checkpoints.read_official(path))
        if method is not None:
            return {"kind": "published method weights", **common, "method": method}
        reason = "it is not like any published file"
    except WeightsError as error:
        reason = str(error)
    try:
        return _backbone(str(path), None)
    except WeightsError as error:
        raise WeightsError(f"{path} is neither a method's weights ({reason}) nor a backbone ({error})", path) from error


def _exported(path: Path) -> dict[str, Any]:
    from blemish.exporting import load_exported

    detector = load_exported(path)
    provenance = detector.provenance
    return {
        "kind": "exported detector",
        "path": str(path),
        "backend": provenance.backend,
        "fingerprint": provenance.model_fingerprint,
        "method": provenance.method,
        "backbone": provenance.backbone,
        "backbone_fingerprint": provenance.backbone_fingerprint,
        "weights": provenance.weights,
        "object": detector.object_name if detector.engine.needs_object else None,
        "references": provenance.references,
        "precision": provenance.precision,
        "input_size": detector.engine.size,
        "map_range": list(detector.engine.map_range()),
        "threshold": detector.threshold,
        "mask_threshold": detector.mask_threshold,
    }


def _backbone(name: str, revision: str | None) -> dict[str, Any]:
    from blemish.clip import Backbone, load_backbone

    backbone = load_backbone(name, revision=revision)
    facts = {
        "kind": "backbone",
        "name": backbone.name,
        "fingerprint": backbone.fingerprint,
        "parameters": sum(parameter.numel() for parameter in backbone.towers.parameters()),
        "input_size": backbone.size,
        "patch": backbone.patch,
        "layers": backbone.layers,
        "width": backbone.width,
    }
    if isinstance(backbone, Backbone):
        facts |= {
            "embedding": backbone.embed_dim,
            "text_layers": backbone.text_layers,
            "text_width": backbone.text_width,
            "context": backbone.context,
        }
    else:
        facts |= {"register_tokens": backbone.registers, "words": "none"}
    return facts | {"activation": backbone.activation, "heads": backbone.vision.config.num_attention_heads}


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(inner)}" for key, inner in value.items()) or "-"
    if isinstance(value, list):
        if len(value) == 2 and all(isinstance(side, int) for side in value):
            return f"{value[0]} x {value[1]}"
        return "; ".join(map(_words, value)) or "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)
