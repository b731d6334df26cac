"""Sentences for training: states, templates and captions of pictures.

`HELD_OUT_TEMPLATES` are in no caption; validation asks with them alone.
"""

from __future__ import annotations

import numpy as np

from synthesis.defects import words_for
from synthesis.samples import LOST, Caption

#: Prompts for normal objects from the papers.
PAPER_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "normal {}",
    "good {}",
    "intact {}",
    "undamaged {}",
    "clean {}",
    "healthy {}",
    "fine {}",
    "faultless {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
    "{} without scratch",
    "{} without crack",
    "{} without contamination",
    "{} in good condition",
    "{} without anomaly",
)
#: More words for normal objects: adjectives, then phrases that follow the noun.
_ADJECTIVES = (
    "unbroken unscratched uncracked unstained undented uncontaminated unblotched unmarked unworn uncorroded untorn "
    "unbent unflawed unchipped uninfected uninterrupted undistorted excellent great acceptable proper correct sound "
    "complete functional functioning working usable serviceable reliable satisfactory conforming defect-free "
    "damage-free scratch-free crack-free rust-free error-free good-looking well-made well-formed well-kept "
    "well-preserved brand-new fresh neat uniform well-assembled non-defective healthy-looking benign benign-looking "
    "disease-free lesion-free physiological unremarkable normal-looking"
)
_PHRASES = (
    "in excellent condition",
    "in perfect condition",
    "in working condition",
    "in flawless condition",
    "in very good condition",
    "in undamaged condition",
    "in normal condition",
    "in good shape",
    "in great shape",
    "in good order",
    "in working order",
    "in a good state",
    "in a healthy state",
    "of good quality",
    "of high quality",
    "that is intact",
    "that is flawless",
    "that is fine",
    "that is not damaged",
    "that is not broken",
    "that is not defective",
    "that is clean and whole",
    "that looks normal",
    "that looks good",
    "that looks as it should",
    "which is undamaged",
    "with no defect",
    "with no defects",
    "with no damage",
    "with no visible damage",
    "with no scratches",
    "with no cracks",
    "with no flaws",
    "with no lesion",
    "with no sign of disease",
    "without any defect",
    "without any damage",
    "without defects",
    "without flaws",
    "without scratches",
    "without cracks",
    "without stains",
    "without stain",
    "without dents",
    "without holes",
    "without missing parts",
    "without lesion",
    "without lesions",
    "without tumor",
    "without disease",
    "without abnormality",
    "without pathology",
    "free of defects",
    "free of damage",
    "free of scratches",
    "free from flaws",
    "free from contamination",
    "showing no damage",
    "showing no defect",
    "showing no sign of wear",
    "showing no abnormality",
    "having no defect",
    "having no flaws",
    "as good as new",
    "as expected",
)
NORMAL_STATES = (
    *PAPER_STATES,
    *(f"{word} {{}}" for word in _ADJECTIVES.split()),
    *(f"{{}} {phrase}" for phrase in _PHRASES),
)

TEMPLATES = (
    "{}",
    "{}.",
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of a {}",
    "a photo of the {}",
    "a cropped photo of the {}.",
    "a close-up photo of a {}.",
    "a bright photo of the {}.",
    "a dark photo of the {}.",
    "a blurry photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a low resolution photo of a {}.",
    "a black and white photo of the {}.",
    "a good photo of a {}.",
    "a bad photo of the {}.",
    "a photo of one {}.",
    "a photo of my {}.",
    "a photo of a small {}.",
    "a photo of the large {}.",
    "there is a {} in the scene.",
    "this is the {} in the scene.",
    "an image of a {}",
    "a picture of the {}",
    "a photo of a {} for visual inspection.",
    "a photo of the {} for anomaly detection.",
    "a microscope picture of the {}",
    "a medical image of a {}",
    "a scan of a {}",
    "an x-ray image of a {}",
    "an image of the {}.",
    "a picture of one {}",
    "a close view of a {}.",
    "a detailed photo of the {}.",
    "a photo of a {} on a table.",
    "a photo of a {} from above",
    "a photo of some {}.",
    "a grayscale image of the {}",
    "a microscope image of a {}.",
    "a ct scan of a {}",
    "an mri scan of the {}",
    "an ultrasound image of a {}",
    "an endoscopy image of the {}",
    "a medical photo of the {}.",
    "a product photo of a {}.",
    "the {} as a camera sees it",
    "the {}",
    "a {}",
    "one {}",
    "here is a {}.",
    "it is a {}.",
    "this {}",
    "we see a {}",
)
HELD_OUT_TEMPLATES = (
    "a photo of the cool {}.",
    "a close-up photo of the {}.",
    "a cropped photo of a {}.",
    "this is one {} in the scene.",
    "a dark photo of a {}.",
    "a photo of the small {}.",
    "an inspection image showing a {}",
    "look at this {}",
)
#: Nouns that name nothing in particular.
_GENERIC = (
    "object surface item part product thing texture sample component material piece specimen workpiece device unit "
    "assembly structure area region tissue"
)
GENERIC_NOUNS = tuple(_GENERIC.split())


def as_state(phrase: str) -> str:
    """Return words for a defect as a format string: "with a scratch" follows the noun, "scratched" precedes it."""
    return f"{{}} {phrase}" if phrase.startswith("with") else f"{phrase} {{}}"


def draw_state(rng: np.random.Generator) -> str:
    """Draw a normal state, every second time one of the papers'."""
    return NORMAL_STATES[rng.integers(len(PAPER_STATES) if rng.random() < 0.5 else len(NORMAL_STATES))]


def draw_caption(rng: np.random.Generator, picture: Caption) -> str:
    """Draw a sentence about a picture: its object and state, sometimes its material and the place of its defect."""
    phrases = words_for(picture.kind) if picture.kind and picture.kind != LOST else ()
    phrase = phrases[rng.integers(len(phrases))] if phrases else None
    thing = picture.name if not picture.material or rng.random() < 0.3 else f"{picture.material} {picture.name}"
    if phrase is None:
        thing = draw_state(rng).format(thing)
    else:
        thing = as_state(phrase).format(thing)
        if phrase.startswith("with") and picture.place and rng.random() < 0.4:
            thing += f" {picture.place}"
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(thing)
