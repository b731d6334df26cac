"""Detectors on a shallow stand-in backbone, and how someone runs a file who has the runtime only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from blemish import methods
from blemish.clip import Backbone
from blemish.detector import Detector
from blemish.engine import TorchEngine
from blemish.exporting.backends import BACKENDS
from blemish.exporting.header import IMAGE

#: Configs for two image and two text blocks, and a grid of 4 x 4.
SIZE = 296
SMALL: dict[str, dict[str, Any]] = {
    "anomalyclip": {"dpam_blocks": 1, "depth": 2},
    "april-gan": {"layers": (1, 2), "few_shot_layers": (1, 2)},
    "clip-ad-sdp": {"layers": (1, 2)},
    "clip-ad-sdp-plus": {"layers": (1, 2)},
    "musc": {"mutual_layers": (1, 2), "degrees": (1, 3)},
    "anomalydino": {"geometry": "squash", "rotation": False, "neighbours": 2},
    "joint": {"compared": (1, 2), "whole": 0.15, "whole_layer": 2},
    "subspacead": {"layers": ((1, 2),), "geometry": "squash-torch", "rotations": 0},
    "vcp-clip": {"layers": (1, 2), "total_d_layer_len": 1},
}
#: What has to be installed for each backend to write.
PACKAGES = {name: backend.runs_with + backend.writes_with for name, backend in BACKENDS.items()}


def make(name: str, backbone: Backbone, **options: Any) -> Detector:
    """A detector of a method; what it learns is as it was drawn."""
    method = methods.create(name, backbone, config={"size": SIZE, **SMALL.get(name, {})})
    return Detector(TorchEngine(method), **{"object_name": "metal nut", **options})


def run(path: Path, pixels: np.ndarray, *outputs: str) -> list[np.ndarray]:
    """What a file gives for pixels (B, 3, H, W), without blemish."""
    if path.suffix == ".onnx":
        import onnxruntime

        return list(onnxruntime.InferenceSession(path).run(list(outputs), {IMAGE: pixels}))
    import openvino

    found = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({IMAGE: pixels})
    return [found[name] for name in outputs]
