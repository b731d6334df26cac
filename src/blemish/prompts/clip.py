"""The two sentences of the plain CLIP baseline, as the AnomalyCLIP paper uses it."""

from __future__ import annotations

from blemish.prompts import PromptSet

TWO_PROMPTS = PromptSet(normal=("a photo of a normal {}.",), anomalous=("a photo of an anomalous {}.",))
