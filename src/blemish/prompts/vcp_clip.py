"""VCP-CLIP's two sentences; what the picture says of itself stands where the object's name would."""

from __future__ import annotations

from blemish.prompts import PromptSet

GOOD_DAMAGED = PromptSet(normal=("a photo of a good {}",), anomalous=("a photo of a damaged {}",))
