"""WinCLIP's compositional ensemble: seven normal and four anomalous states in 21 templates.

The list is that of the reproduction whose numbers come nearest to the paper's. One template stands twice in it and so
has twice the weight in the mean; the "a" forms of two others are missing.
"""

from __future__ import annotations

from blemish.prompts import PromptSet

COMPOSITIONAL = PromptSet(
    normal=(
        "{}",
        "flawless {}",
        "perfect {}",
        "unblemished {}",
        "{} without flaw",
        "{} without defect",
        "{} without damage",
    ),
    anomalous=(
        "damaged {}",
        "{} with flaw",
        "{} with defect",
        "{} with damage",
    ),
    templates=(
        "a cropped photo of the {}.",
        "a close-up photo of a {}.",
        "a close-up photo of the {}.",
        "a bright photo of a {}.",
        "a bright photo of the {}.",
        "a dark photo of the {}.",
        "a dark photo of a {}.",
        "a jpeg corrupted photo of the {}.",
        "a jpeg corrupted photo of the {}.",  # twice in the list
        "a blurry photo of the {}.",
        "a blurry photo of a {}.",
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of a small {}.",
        "a photo of the small {}.",
        "a photo of a large {}.",
        "a photo of the large {}.",
        "a photo of the {} for visual inspection.",
        "a photo of a {} for visual inspection.",
        "a photo of the {} for anomaly detection.",
        "a photo of a {} for anomaly detection.",
    ),
)
