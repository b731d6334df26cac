"""The frozen backbone: load a CLIP, run it once and return the streams that methods ask for.

Nothing in this package knows about anomalies. Other packages import from here, not from the modules.
"""

from __future__ import annotations

from blemish.clip.backbone import CLIP_MEAN, CLIP_STD, Backbone, fingerprint_of, resize_image
from blemish.clip.forward import resize_positions
from blemish.clip.load import load_backbone
from blemish.clip.model import Towers
from blemish.clip.openai import from_openai_state_dict
from blemish.clip.request import Activation, Computation, ImageFeatures, PositionMode, Request, Tap
from blemish.clip.tokenizer import TextTokenizer, clip_tokenizer

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "Activation",
    "Backbone",
    "Computation",
    "ImageFeatures",
    "PositionMode",
    "Request",
    "Tap",
    "TextTokenizer",
    "Towers",
    "clip_tokenizer",
    "fingerprint_of",
    "from_openai_state_dict",
    "load_backbone",
    "resize_image",
    "resize_positions",
]
