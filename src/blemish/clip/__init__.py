"""The frozen backbone: load a CLIP, run it once, hand out what was tapped.

Nothing in this package knows about anomalies.
"""

from __future__ import annotations

from blemish.clip.backbone import Backbone
from blemish.clip.convert import from_openai_state_dict
from blemish.clip.load import load_backbone
from blemish.clip.request import Activation, Computation, ImageFeatures, PositionMode, Request, Tap

__all__ = [
    "Activation",
    "Backbone",
    "Computation",
    "ImageFeatures",
    "PositionMode",
    "Request",
    "Tap",
    "from_openai_state_dict",
    "load_backbone",
]
