"""`blemish info`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from blemish.cli.console import columns, count, one_line, print_json
from blemish.errors import UsageError
from blemish.types import Preset

if TYPE_CHECKING:
    from blemish.profile import Profile

_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_EXPORTED = (".onnx", ".xml")
_PROFILE = ".profile"
#: Missed defects that are named.
MAX_NAMES = 10


def info(path_or_id: str, *, revision: str | None = None, json: bool = False) -> int:
    """Describe a picture, a folder, a profile, a backbone, a weights file or an exported detector.

    Args:
        path_or_id: A picture, a folder of pictures, a profile from `blemish fit`, a backbone (`builtin`, a hub id, a
            folder, a checkpoint file), a method's weights or a file from `blemish export`.
        revision: Revision of a backbone on the hub.
        json: Print one JSON object instead of lines.
    """
    facts = describe(path_or_id, revision)
    if json:
        print_json(facts)
        return 0
    if facts["kind"] == "profile":
        _print_profile(facts)
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
        kinds = {
            **dict.fromkeys(_CHECKPOINTS, _checkpoint),
            **dict.fromkeys(_EXPORTED, _exported),
            _PROFILE: _profile,
        }
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
    provenance, limits = detector.provenance, detector.limits
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
        "preset": provenance.preset,
        "references": provenance.references,
        "precision": provenance.precision,
        "input_size": detector.engine.size,
        "map_range": list(detector.engine.map_range()),
        "threshold": detector.threshold,
        "mask_threshold": detector.mask_threshold,
        "review_threshold": limits.review_threshold,
        "calibration_pictures": len(limits.scores),
        "promise": limits.promise,
        "region_of_interest": None if limits.roi is None else limits.roi.share,
        "tile": provenance.tile,
    }


def _profile(path: Path) -> dict[str, Any]:
    from blemish.profile import read_profile

    profile = read_profile(path)
    facts = {"kind": "profile", "path": str(path), "bytes": path.stat().st_size, **profile.summary()}
    return {**facts, "sentences": limits_sentences(profile)}


def limits_sentences(profile: Profile) -> list[str]:
    """Return what the limits of a profile are and promise, for a person."""
    from blemish.calibration import percent

    limits, guarantee = profile.limits, profile.guarantee
    calibrating = sum(entry.calibrates for entry in profile.good)
    references = sum(entry.images > 0 for entry in profile.good)
    schemes = {
        "leave-one-out": f"each of the {calibrating} pictures is scored with all others as references",
        "split": f"{count(references, 'picture')} {'is a reference' if references == 1 else 'are references'}, "
        f"{calibrating} others calibrate",
    }
    recall = profile.options.get("recall")
    caught = "the wanted share" if recall is None else f"at least {percent(recall)}"
    rules = {
        "mean-std": "mean + 3 standard deviations of the good scores",
        "percentile": "1.421 times the 95th percentile of the good scores",
        "f1": "the largest F1 on the good and bad pictures",
        "recall": f"the highest that catches {caught} of the pictures with defects",
        "cost": "the lowest cost on the good and bad pictures",
    }
    rule = str(profile.options.get("rule", "conformal"))
    sentences = [f"Calibration: {schemes.get(limits.scheme, limits.scheme)} ({limits.scheme})."]
    if limits.review_threshold is not None:
        share = percent(guarantee["review"])
        sentences.append(f"Review from a score of {limits.review_threshold:.4f}: at most {share} of good pictures.")
    if limits.promise is not None:
        sentences.append(f"Reject from a score of {limits.threshold:.4f}. {limits.promise}")
    else:
        sentences.append(f"Reject from a score of {limits.threshold:.4f}: {rules[rule]}. This rule promises nothing.")
    if labelled := guarantee.get("labelled"):
        sentences.append(
            f"On the very pictures that chose it, {percent(labelled['recall'])} of {labelled['bad']} with defects and "
            f"{percent(labelled['false_alarms'])} of {labelled['good']} good ones are called anomalous; expect less on "
            "new pictures."
        )
    low, high = profile.map_range
    if limits.mask_threshold is not None:
        value = low + limits.mask_threshold * (high - low)
        region = (
            ""
            if limits.promise is None
            else f"; at most the same share of good pictures shows a region of {limits.min_area} px or more"
        )
        sentences.append(f"Pixels are anomalous from a map value of {value:.4f}{region}.")
    if limits.roi is not None:
        sentences.append(f"Region of interest: {percent(limits.roi.share)} of the picture ({limits.roi.source}).")
    return sentences + defect_sentences(profile)


def defect_sentences(profile: Profile) -> list[str]:
    """Return how many of the known defects a profile catches, and which it misses; nothing without any."""
    known = len(profile.known_defects)
    if not known:
        return []
    missed = profile.missed_defects()
    sentence = f"{known - len(missed)} of {count(known, 'known defect')} {'is' if known == 1 else 'are'} caught"
    if not missed:
        return [f"{sentence}."]
    names = [f"{one_line(defect.name)} ({defect.score:.4f})" for defect in missed[:MAX_NAMES]]
    more = f" and {len(missed) - MAX_NAMES} more" if len(missed) > MAX_NAMES else ""
    return [f"{sentence}; missed: {', '.join(names)}{more}."]


def _print_profile(facts: Mapping[str, Any]) -> None:
    """Print a profile for a person to read."""
    weights = facts["weights"]
    scores, good = facts["scores"], facts["good"]
    lines = {
        "profile": f"{facts['path']} ({facts['bytes'] / 1e6:.1f} MB)",
        "object": facts["object_name"],
        "method": facts["method"] + (f", weights {weights} ({facts['weights_fingerprint']})" if weights else ""),
        "preset": _words(facts["preset"]),
        "config": _words(facts["config"]),
        "backbone": f"{facts['backbone']} ({facts['backbone_fingerprint']}), {facts['precision']}",
        "preprocessing": _words(facts["preprocessing"]),
        "tiles": "-" if facts["tile"] is None else f"{facts['tile']} px, overlap {facts['overlap']:g}",
        "good pictures": f"{len(good)}, fingerprint {facts['fingerprint']}; scores {scores['lowest']:.4f} to "
        f"{scores['highest']:.4f}, median {scores['median']:.4f}",
        "made": f"{facts['created']}, blemish {facts['version']}",
    }
    width = max(map(len, lines))
    for key, value in lines.items():
        print(f"{key:<{width}}  {value}")
    print()
    for sentence in (*facts["sentences"], *facts["notes"]):
        print(sentence)
    rows = [("SCORE", "FINGERPRINT", "USE", "GOOD PICTURE")]
    for entry in sorted(good, key=lambda entry: -(entry["score"] or 0)):
        use = "reference" if entry["images"] else "calibration"
        use += ", added because of its score" if entry["selected"] else ""
        use += ", unlike the others" if entry["suspicious"] else ""
        score = "-" if entry["score"] is None else f"{entry['score']:.4f}"
        rows.append((score, entry["fingerprint"], use, one_line(entry["name"])))
    print(f"\n{columns(rows, right=(0,))}")
    if defects := facts["known_defects"]:
        rows = [("SCORE", "FINGERPRINT", "CAUGHT", "KNOWN DEFECT")]
        for defect in sorted(defects, key=lambda defect: -defect["score"]):
            caught = "yes" if defect["score"] >= facts["limits"]["threshold"] else "no"
            rows.append((f"{defect['score']:.4f}", defect["fingerprint"], caught, one_line(defect["name"])))
        print(f"\n{columns(rows, right=(0,))}")


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
    if backbone.name == "builtin":
        facts["presets"] = list(get_args(Preset))
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
