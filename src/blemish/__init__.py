"""blemish: zero-shot visual anomaly detection with a frozen CLIP.

    import blemish

    detector = blemish.load("anomalyclip")
    detection = detector("part.jpg")
    detection.score          # 0 .. 1, higher = more anomalous
    detection.anomaly_map    # (height, width) float32, the picture's own size
    detection.save("out")    # out/overlay/part.jpg.png

Names are imported on first use: `import blemish` itself is quick and does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from blemish.errors import BlemishError, ImageError, OutputError, ProfileError, UsageError, WeightsError

if TYPE_CHECKING:
    from blemish.detection import Detection, Provenance
    from blemish.detector import Detector
    from blemish.evaluation import evaluate
    from blemish.exporting import export
    from blemish.image_io import LoadedImage, find_images, read_image
    from blemish.loading import load
    from blemish.methods import list_methods
    from blemish.profile import Profile, read_profile
    from blemish.regions import Region

__version__ = "0.1.0"

_LAZY = {
    "Detection": "blemish.detection",
    "Detector": "blemish.detector",
    "LoadedImage": "blemish.image_io",
    "Profile": "blemish.profile",
    "Provenance": "blemish.detection",
    "Region": "blemish.regions",
    "evaluate": "blemish.evaluation",
    "export": "blemish.exporting",
    "find_images": "blemish.image_io",
    "list_methods": "blemish.methods",
    "load": "blemish.loading",
    "read_image": "blemish.image_io",
    "read_profile": "blemish.profile",
}

__all__ = [
    "BlemishError",
    "Detection",
    "Detector",
    "ImageError",
    "LoadedImage",
    "OutputError",
    "Profile",
    "ProfileError",
    "Provenance",
    "Region",
    "UsageError",
    "WeightsError",
    "__version__",
    "evaluate",
    "export",
    "find_images",
    "list_methods",
    "load",
    "read_image",
    "read_profile",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'blemish' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
