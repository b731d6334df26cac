"""`blemish info`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blemish.cli.console import print_json
from blemish.errors import UsageError

_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_EXPORTED = (".onnx", ".xml")


def info(path_or_id: str, *, revision: str | None = None, json: bool = False) -> int:
    """Say what something is: a picture, a folder, a backbone, what a method learnt or an exported detector.

    Args:
        path_or_id: A picture file, a folder of pictures, a backbone (`builtin`, a hub id, a folder, a checkpoint
            file), the weights of a method or a file from `blemish export`.
        revision: Of a backbone on the hub.
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
    """The facts as JSON-able values; `kind` says of what.

    Raises:
        UsageError: There is no such file, and it cannot be a hub id.
        ImageError, WeightsError: It is there, but not usable.
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

    picture = read_image(path)
    with Image.open(path) as stored:
        kind, mode, frames = stored.format, stored.mode, getattr(stored, "n_frames", 1)
    width, height = picture.size
    return {
        "kind": "picture",
        "path": str(path),
        "format": kind,
        "size": [width, height],
        "mode": mode,
        "frames": frames,
        "bytes": path.stat().st_size,
        "notes": list(picture.notes),
    }


def _folder(path: Path) -> dict[str, Any]:
    from blemish.image_io import find_images

    found = list(find_images([path], recursive=True))
    if not found:
        raise UsageError(f"{path} holds neither pictures nor a backbone (a backbone's folder has a config.json)")
    suffixes = [Path(one).suffix.lower().lstrip(".") for one in found]
    return {
        "kind": "folder of pictures",
        "path": str(path),
        "pictures": len(found),
        "formats": {suffix: suffixes.count(suffix) for suffix in sorted(set(suffixes))},
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    import dataclasses

    from blemish.errors import WeightsError
    from blemish.methods import weights
    from blemish.methods.published import method_of

    common = {"path": str(path), "bytes": path.stat().st_size}
    try:
        if not weights.is_official(path):
            return {"kind": "method weights", **common, **dataclasses.asdict(weights.read_header(path))}
        method = method_of(weights.read_official(path))
        if method is not None:
            return {"kind": "published method weights", **common, "method": method}
        reason = "it is like no published file that is known"
    except WeightsError as error:
        reason = str(error)
    try:
        return _backbone(str(path), None)
    except WeightsError as error:
        raise WeightsError(f"{path} is neither a method's weights ({reason}) nor a backbone ({error})", path) from error


def _exported(path: Path) -> dict[str, Any]:
    from blemish.exporting import load_exported

    detector = load_exported(path)
    made = detector.provenance
    return {
        "kind": "exported detector",
        "path": str(path),
        "backend": made.backend,
        "fingerprint": made.model_fingerprint,
        "method": made.method,
        "backbone": made.backbone,
        "backbone_fingerprint": made.backbone_fingerprint,
        "weights": made.weights,
        "object": detector.object_name if detector.engine.needs_object else None,
        "references": made.references,
        "precision": made.precision,
        "input_size": detector.engine.size,
        "map_range": list(detector.engine.map_range()),
        "threshold": detector.threshold,
        "mask_threshold": detector.mask_threshold,
    }


def _backbone(name: str, revision: str | None) -> dict[str, Any]:
    from blemish.clip import load_backbone

    found = load_backbone(name, revision=revision)
    return {
        "kind": "backbone",
        "name": found.name,
        "fingerprint": found.fingerprint,
        "parameters": sum(parameter.numel() for parameter in found.towers.parameters()),
        "input_size": found.size,
        "patch": found.patch,
        "layers": found.layers,
        "width": found.width,
        "embedding": found.embed_dim,
        "text_layers": found.text_layers,
        "text_width": found.text_width,
        "context": found.context,
        "activation": found.towers.config.vision_config.hidden_act,
        "heads": found.towers.config.vision_config.num_attention_heads,
    }


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
