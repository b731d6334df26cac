"""CLIP-AD's ensemble: nine normal and ten anomalous states in 22 templates, 198 and 220 sentences per object.

These are the industrial ones, the only ones in the authors' code; the paper has others for medical pictures.
"""

from __future__ import annotations

from blemish.prompts import PromptSet

ENSEMBLE = PromptSet(
    normal=(
        "flawless {}",
        "perfect {}",
        "unblemished {}",
        "{} without flaw",
        "{} without defect",
        "{} without damage",
        "{} without scratch",
        "{} without crack",
        "{} without contamination",
    ),
    anomalous=(
        "damaged {}",
        "imperfect {}",
        "blemished {}",
        "broken {}",
        "{} with flaw",
        "{} with defect",
        "{} with damage",
        "{} with scratch",
        "{} with crack",
        "{} with contamination",
    ),
    templates=(
        "a cropped photo of the {}.",
        "a cropped photo of a {}.",
        "a close-up photo of a {}.",
        "a close-up photo of the {}.",
        "a bright photo of a {}.",
        "a bright photo of the {}.",
        "a dark photo of the {}.",
        "a dark photo of a {}.",
        "a jpeg corrupted photo of a {}.",
        "a jpeg corrupted photo of the {}.",
        "a blurry photo of the {}.",
        "a blurry photo of a {}.",
        "a photo of the {}.",
        "a photo of a {}.",
        "a photo of a large {}.",
        "a photo of the small {}.",
        "a photo of the large {}.",
        "a photo of a small {}.",
        "a photo of the {} for visual inspection.",
        "a photo of a {} for visual inspection.",
        "a photo of the {} for anomaly detection.",
        "a photo of a {} for anomaly detection.",
    ),
)
