"""blemish: zero-shot visual anomaly detection with a frozen CLIP.

    import blemish

    detector = blemish.load("anomalyclip")
    detection = detector.detect("part.jpg")
    detection.score          # 0 .. 1, higher = more anomalous
    detection.anomaly_map          # (height, width) float32, the picture's own size

Names are imported on first use: `import blemish` itself is quick and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from blemish.errors import BlemishError, ImageError, OutputError, UsageError, WeightsError

if TYPE_CHECKING:
    from blemish.detection import Detection, Provenance, Region
    from blemish.detector import Detector, load
    from blemish.evaluation import evaluate
    from blemish.exporting import load_exported
    from blemish.image_io import LoadedImage, find_images, read_image

__version__ = "0.1.0"

_LAZY = {
    "Detection": "blemish.detection",
    "Detector": "blemish.detector",
    "LoadedImage": "blemish.image_io",
    "Provenance": "blemish.detection",
    "Region": "blemish.detection",
    "evaluate": "blemish.evaluation",
    "find_images": "blemish.image_io",
    "load": "blemish.detector",
    "load_exported": "blemish.exporting",
    "read_image": "blemish.image_io",
}

__all__ = [
    "BlemishError",
    "Detection",
    "Detector",
    "ImageError",
    "LoadedImage",
    "OutputError",
    "Provenance",
    "Region",
    "UsageError",
    "WeightsError",
    "__version__",
    "evaluate",
    "find_images",
    "load",
    "load_exported",
    "read_image",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'blemish' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
