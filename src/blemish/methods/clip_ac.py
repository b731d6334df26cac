"""CLIP-AC: CLIP with an ensemble of prompts per state.

The second baseline of AnomalyCLIP (Zhou et al., ICLR 2024, https://arxiv.org/abs/2310.18961): seven normal and five
anomalous states of the object in 35 templates. Each sentence embedding is normalised; the mean of the normal ones and
the mean of the anomalous ones are normalised again.
The image side, score and map are those of `clip`. No learnt parts, no known deviation.
"""

from __future__ import annotations

from typing import ClassVar

from blemish.methods.catalogue import CATALOGUE
from blemish.methods.clip import Clip
from blemish.prompts import PromptSet
from blemish.prompts.clip_ac import ENSEMBLE


class ClipAC(Clip):
    """Zero-shot CLIP with 245 normal and 175 anomalous sentences."""

    info = CATALOGUE["clip-ac"]
    PROMPTS: ClassVar[PromptSet] = ENSEMBLE
