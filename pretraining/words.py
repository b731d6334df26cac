"""The words that the embedded model is taught: states, templates, nouns, captions.

Held-out templates are never shown in training; the synthetic validation asks with them alone.
"""

from __future__ import annotations

import numpy as np

NORMAL_STATES = (
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
ABNORMAL_STATES = (
    "damaged {}",
    "broken {}",
    "imperfect {}",
    "blemished {}",
    "defective {}",
    "abnormal {}",
    "anomalous {}",
    "flawed {}",
    "faulty {}",
    "bad {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
    "{} with a flaw",
    "{} with a defect",
    "{} with an anomaly",
    "{} with damage on it",
    "unhealthy {}",
    "{} with a blemish",
    "{} in bad condition",
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
#: Nouns that name nothing in particular, as prompts without an object do.
GENERIC = ("object", "surface", "item", "part", "product", "thing", "texture", "sample", "component", "material")
#: Object names that papers put into prompts: their tokens are kept whole. Their pictures are not shown.
_NAMES = (
    "carpet grid leather tile wood bottle cable capsule hazelnut metal nut pill screw toothbrush transistor "
    "zipper candle capsules cashew chewinggum fryum macaroni pcb pipe bracket connector plate tubes brain "
    "chest colon skin thyroid head tumor polyp lesion retina liver lung bone tooth cell solar wafer chip board "
    "circuit fabric textile cookie toy figure rail road steel magnetic commutator engine gear bearing casting "
    "weld pipe glass ceramic paper plastic rubber industrial medical mri ct endoscopy ultrasound dermoscopy "
    "image background foreground panel label print lens breakfast box juice pushpins splicing connectors bag "
    "audiojack eraser mint usb switch button nail spring washer "
)
NAMES = tuple(_NAMES.split())


def random_noun(rng: np.random.Generator, nouns: tuple[str, ...], vocabulary: tuple[str, ...]) -> str:
    """A noun for a prompt: generic, seen in scenes, or any word, so that states mean the same beside unknown names."""
    u = rng.random()
    if u < 0.35:
        return GENERIC[rng.integers(len(GENERIC))]
    if u < 0.55 and nouns:
        return nouns[rng.integers(len(nouns))]
    pool = NAMES if u < 0.75 else vocabulary
    words = [pool[rng.integers(len(pool))] for _ in range(1 if rng.random() < 0.7 else 2)]
    return ("_" if rng.random() < 0.1 else " ").join(words)


def state_pair(rng: np.random.Generator, noun: str, templates: tuple[str, ...] = TEMPLATES) -> tuple[str, str]:
    """One (normal, abnormal) pair of prompts about the same noun, mostly in the same template."""
    t = templates[rng.integers(len(templates))]
    t2 = t if rng.random() < 0.7 else templates[rng.integers(len(templates))]
    n = NORMAL_STATES[rng.integers(len(NORMAL_STATES))]
    a = ABNORMAL_STATES[rng.integers(len(ABNORMAL_STATES))]
    return t.format(n.format(noun)), t2.format(a.format(noun))


def as_state(phrase: str) -> str:
    """What is said of a defect, as a state of a thing: "with a scratch" follows it, "scratched" goes before."""
    return f"{{}} {phrase}" if phrase.startswith("with") else f"{phrase} {{}}"


def caption(rng: np.random.Generator, name: str, material: str, phrase: str | None, place: str | None) -> str:
    """A caption of one picture; `phrase` is a defect's adjective ("scratched") or noun phrase ("with a scratch")."""
    thing = name if not material or rng.random() < 0.3 else f"{material} {name}"
    if phrase is None:
        thing = NORMAL_STATES[rng.integers(len(NORMAL_STATES))].format(thing)
    else:
        thing = as_state(phrase).format(thing)
        if phrase.startswith("with") and place and rng.random() < 0.4:
            thing += f" {place}"
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(thing)


def place(mask: np.ndarray) -> str:
    """Where a mask lies, in words ("in the top left")."""
    y, x = np.nonzero(mask)
    cy, cx = y.mean() / mask.shape[0], x.mean() / mask.shape[1]
    row = "top" if cy < 1 / 3 else "bottom" if cy > 2 / 3 else ""
    col = "left" if cx < 1 / 3 else "right" if cx > 2 / 3 else ""
    return f"in the {row} {col}".strip().replace("  ", " ") if row or col else "in the middle"
