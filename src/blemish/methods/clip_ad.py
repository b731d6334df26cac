"""CLIP-AD, text side only: representative vector selection (Chen et al., IJCAI 2024 workshops,
https://arxiv.org/abs/2311.00453).

Code: https://github.com/ByChelsea/CLIP-AD. A prompt ensemble gives hundreds of sentence embeddings per state; one
vector is selected that stands for them (`rep_vec`). The image side is the paper's baseline: CLIP's own class token for
the picture's score and the patches of its last layer, as they are, for the map. No learnt parts. The paper's image side
is `clip-ad-sdp`, and with learnt adapters `clip-ad-sdp-plus`.

Quirk that is kept because the published numbers were made with it: every vector but the plain mean is rounded to
float16 (`half_text`). Where DBSCAN finds no cluster the code fails; here it is the mean of all sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blemish.clip import PositionMode
from blemish.methods.catalogue import CATALOGUE
from blemish.methods.clip import Clip, ClipConfig
from blemish.methods.representatives import RepresentativeConfig, RepresentativeTexts
from blemish.prompts import PromptSet
from blemish.prompts.clip_ad import ENSEMBLE


@dataclass(frozen=True, kw_only=True)
class ClipAdConfig(ClipConfig, RepresentativeConfig):
    """The baseline's image side and CLIP-AD's text side, for ViT-B/16+ at 240 pixels."""

    size: int = 240
    position: PositionMode = "bicubic-antialias"
    temperature: float = 0.01
    sigma: float = 8.0


class ClipAD(RepresentativeTexts, Clip):
    """Plain CLIP with representative vectors of 198 normal and 220 anomalous sentences."""

    info = CATALOGUE["clip-ad"]
    Config: ClassVar[type[ClipAdConfig]] = ClipAdConfig
    BUILTIN: ClassVar[ClipAdConfig] = ClipAdConfig(size=336, sigma=4.0)
    PROMPTS: ClassVar[PromptSet] = ENSEMBLE

    config: ClipAdConfig
