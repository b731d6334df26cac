"""Configs and training schedules for the built-in backbone: 8 image layers, 4 text layers, 336 pixels.

The papers' configs are written for much larger backbones. These values belong to the built-in checkpoint, so they stand
here and not in the methods. A method without an entry runs with the paper's config.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from blemish.errors import UsageError, suggest
from blemish.methods.configs import Training
from blemish.types import Preset

if TYPE_CHECKING:
    from blemish.detection import Provenance

_DINO: dict[str, Any] = {"size": 336, "geometry": "squash", "position": "bicubic-antialias"}

#: Fields that differ from the paper's config, by method.
CONFIGS: dict[str, dict[str, Any]] = {
    "anomalyclip": {"size": 336, "dpam_blocks": 4, "depth": 4},
    # The tower is a DINOv2 whose last layers were trained together with words, so the final layer norm is not applied.
    # The layer was chosen on auxiliary real pictures and synthetic ones (docs/joint.md), where the seventh alone is as
    # good as 6 and 7 for subspacead. Rotations would make the memory, and the search in it, eight times as large.
    "anomalydino": _DINO | {"layer": 7, "norm": False, "rotation": False},
    "anomalydino-batch": _DINO | {"layer": 7, "norm": False},
    "april-gan": {
        "size": 336,
        "activation": "checkpoint",
        "layers": (6, 8),
        "few_shot_layers": (2, 4, 6, 8),
        "temperature": 0.07,
        "sigma": 4.0,
        "start": "projection",
    },
    "clip": {"size": 336},
    "clip-ac": {"size": 336},
    "clip-ad": {"size": 336, "sigma": 4.0},
    # The backbone was trained to read the value path of its last quarter alone.
    "clip-ad-sdp": {"size": 336, "layers": (8,), "sigma": 4.0},
    "clip-ad-sdp-plus": {"size": 336, "layers": (8,), "temperature": 0.07, "sigma": 4.0, "start": "projection"},
    "coop": {"size": 336, "ctx_init": "a photo of a", "per_state": True, "sigma": 4.0},
    # Chosen on real pictures that measure no model: docs/joint.md.
    "joint": {"size": 336, "compared": (7,), "whole": 0.15, "whole_layer": 5},
    # Chosen on synthetic products and on products outside the training domains.
    "musc": {
        "size": 336,
        "position": "bicubic-antialias",
        "mutual_layers": (7, 8),
        "degrees": (1,),
        "words": 0.25,
        "sigma": 4.0,
        "grids": 2,
        "turns": 8,
    },
    "subspacead": _DINO | {"layers": ((7, 6),), "rotations": 0},
    "subspacead-batch": _DINO | {"layers": ((7, 6),)},
    "vcp-clip": {
        "size": 336,
        "activation": "checkpoint",
        "layers": (8,),
        "prompt_len": 1,
        "total_d_layer_len": 3,
        "dropout": 0.0,
        "alpha": 0.8,
        "sigma": 3.0,
        "start": "projection",
    },
    "winclip": {"size": 280},
}

#: Presets: what each changes in the config above, by method. The size of `fast` was chosen on real pictures that
#: measure no model (docs/performance.md): the largest at which a picture takes at most half the time.
PRESETS: dict[Preset, dict[str, dict[str, Any]]] = {
    "default": {name: {} for name in CONFIGS},
    "fast": {name: {"size": 238} for name in CONFIGS} | {"winclip": {"size": 196}},
}
assert tuple(PRESETS) == get_args(Preset)

#: Scales that maps are drawn on, by method: without and with references (None: the whole range of the map). Only
#: drawings depend on them. Without references: of the highest values of undamaged pictures 80 % lie below the low end,
#: where nothing is drawn, and 97 % below the middle, as with a profile; measured like TYPICAL_SCORES. With references,
#: and for winclip: low is the median of the highest values of normal pictures, high the 90 % quantile of those of
#: pictures with defects, rounded: of 4 to 10 drawn products (`synthesis`, stream 77), for joint of seven sets of real
#: pictures that measure no model (docs/joint.md), with 4, 8 and 16 references.
DISPLAY: dict[str, tuple[tuple[float, float] | None, tuple[float, float] | None]] = {
    "anomalyclip": ((0.795, 1.056), None),
    "april-gan": ((1.738, 2.05), (1.34, 3.6)),
    "clip": ((0.802, 1.016), None),
    "clip-ac": ((0.824, 1.054), None),
    "clip-ad-sdp": ((0.061, 0.148), None),
    "clip-ad-sdp-plus": ((0.931, 1.153), None),
    "coop": ((0.823, 1.056), None),
    "joint": ((0.802, 1.016), (0.45, 0.6)),
    "musc": (None, (0.51, 1.03)),
    "vcp-clip": ((0.871, 1.03), None),
    "winclip": ((0.3, 0.46), (0.38, 0.47)),
}

#: Image scores that undamaged things mostly stay below, without references, and what they were measured with
#: (`made_with`): 97 % of 373 undamaged pictures of ten real sets lie below (anomalyclip: 98 %, coop: 97.5 %), sets
#: counting alike, and of a set that is left out 95 to 97 % on average (docs/verdicts.md; `pretraining.search.rules`
#: measures them again). clip-ad has none: at its temperature of 0.01 scores of undamaged things reach 1.0.
TYPICAL_SCORES: dict[str, tuple[float, str]] = {
    "anomalyclip": (0.796, "b2407f54d43f474a"),
    "april-gan": (0.912, "b6a3ff9074e99bca"),
    "clip": (0.877, "9439b8d10f024579"),
    "clip-ac": (0.896, "6dfdea60cd6e828b"),
    "clip-ad-sdp": (0.777, "8329e475aee1e214"),
    "clip-ad-sdp-plus": (0.79, "a2e502da36642b0f"),
    "coop": (0.779, "a47dccc13416be77"),
    "joint": (0.877, "92b16bee958ff2ed"),
    "vcp-clip": (0.951, "8cc77c9ceba5adaa"),
}


def made_with(source: Provenance) -> str:
    """Return a hash of the backbone, the weights and the config that scores come from, 16 hex digits."""
    facts = [source.method, source.backbone_fingerprint, source.weights_fingerprint, dict(source.config)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def typical_score(source: Provenance) -> float | None:
    """Return the entry of `TYPICAL_SCORES` for scores from this source; None if it was measured with something else."""
    score, measured_with = TYPICAL_SCORES.get(source.method, (0.0, ""))
    return score if made_with(source) == measured_with else None


#: Schedules that differ from the paper's, by method.
SCHEDULES: dict[str, Training] = {
    "anomalyclip": Training(epochs=8, batch_size=8, lr=1e-4, betas=(0.5, 0.999)),
    "april-gan": Training(epochs=6, batch_size=8, lr=1e-4, betas=(0.5, 0.999)),
    "coop": Training(epochs=12, batch_size=32, lr=0.5, masks=False),
    "vcp-clip": Training(epochs=5, batch_size=16, lr=2e-6, betas=(0.5, 0.999)),
}


def check_preset(preset: Preset, backbone: str) -> None:
    """Raise a UsageError for a preset that there is not, or not for the backbone of that name."""
    if preset not in PRESETS:
        raise UsageError(
            f"there is no preset {preset!r}{suggest(preset, PRESETS)}; the presets are {', '.join(PRESETS)}"
        )
    if backbone != "builtin":
        raise UsageError(f"{backbone} has no presets, only the built-in model has: leave out the preset")


def preset_changes(preset: Preset, method: str, backbone: str) -> Mapping[str, Any]:
    """Return the fields of a method's config that a preset changes.

    Args:
        preset: Name of the preset.
        method: Name of the method.
        backbone: Name of the backbone.

    Raises:
        UsageError: There is no such preset, or none for this backbone or this method.
    """
    check_preset(preset, backbone)
    if method not in PRESETS[preset]:
        raise UsageError(f"{method} has no presets, only methods of blemish have: leave out the preset")
    return PRESETS[preset][method]


def preset_of(method: str, backbone: str, config: Mapping[str, Any]) -> Preset | None:
    """Return the preset whose fields a config has, whatever its other fields; None without one.

    Args:
        method: Name of the method.
        backbone: Name of the backbone.
        config: All fields of the config, JSON-able.
    """
    if backbone != "builtin" or method not in CONFIGS:
        return None
    fields = {field for changes in PRESETS.values() for field in changes[method]}
    for name, changes in PRESETS.items():
        values = CONFIGS[method] | changes[method]
        if all(config[field] == values[field] for field in fields):
            return name
    return None
