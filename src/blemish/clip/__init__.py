"""The frozen backbones: load a CLIP or a DINOv2, run it once and return the streams that methods ask for.

Nothing in this package knows about anomalies. Other packages import from here, not from the modules.
"""

from __future__ import annotations

from blemish.clip.backbone import CLIP_MEAN, CLIP_STD, Backbone
from blemish.clip.dinov2 import IMAGENET_MEAN, IMAGENET_STD, Dinov2Tower
from blemish.clip.forward import resize_positions, resolve_position
from blemish.clip.geometry import input_sides, to_levels, visible_part
from blemish.clip.image import Dinov2Backbone, ImageBackbone, fingerprint_of
from blemish.clip.load import load_backbone
from blemish.clip.model import Towers
from blemish.clip.openai import from_openai_state_dict
from blemish.clip.request import Activation, Computation, Geometry, ImageFeatures, PositionMode, Request, Tap
from blemish.clip.tokenizer import TextTokenizer, clip_tokenizer

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Activation",
    "Backbone",
    "Computation",
    "Dinov2Backbone",
    "Dinov2Tower",
    "Geometry",
    "ImageBackbone",
    "ImageFeatures",
    "PositionMode",
    "Request",
    "Tap",
    "TextTokenizer",
    "Towers",
    "clip_tokenizer",
    "fingerprint_of",
    "from_openai_state_dict",
    "input_sides",
    "load_backbone",
    "resize_positions",
    "resolve_position",
    "to_levels",
    "visible_part",
]
