"""Synthetic defects: a table of kinds, each with a maker, a weight and words, and the exact mask of what changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from synthesis.defects import bodies, parts, patches, scans, surface
from synthesis.defects import materials as real
from synthesis.defects.canvas import Canvas, Maker, box, exact_mask
from synthesis.defects.distractors import add_distractors
from synthesis.defects.shapes import Rng, chance

if TYPE_CHECKING:
    from synthesis.scenes.base import Scene

__all__ = ["KINDS", "Defect", "add_defects", "add_distractors", "one_defect", "words_for"]

MAX_ATTEMPTS = 6  # kinds that are tried on a scene
MIN_AREA = 12 / 256**2  # minimum fraction of the picture
MIN_CHANGE = 9.0  # minimum mean change in the mask, of 255; more in small masks


@dataclass(frozen=True)
class Defect:
    image: np.ndarray
    mask: np.ndarray
    kind: str


class Kind(NamedTuple):
    make: Maker
    weight: float
    words: tuple[str, ...]


KINDS: dict[str, Kind] = {
    "scratch": Kind(surface.scratch, 6, ("scratched", "with a scratch", "with scratches", "with scratch")),
    "crack": Kind(surface.crack, 6, ("cracked", "with a crack", "fractured", "with crack")),
    "hole": Kind(surface.hole, 4, ("punctured", "with a hole", "pierced")),
    "dent": Kind(surface.dent, 4, ("dented", "with a dent", "with a bump")),
    "contamination": Kind(surface.contamination, 5, ("contaminated", "dirty", "with contamination", "with dirt")),
    "drops": Kind(surface.drops, 1.5, ("wet", "with drops", "with liquid on it")),
    "fibre": Kind(surface.fibre, 3, ("with a hair on it", "with a loose thread", "with a fibre")),
    "pulled thread": Kind(surface.pulled_thread, 2, ("with a pulled thread", "torn", "with a flawed thread")),
    "knot": Kind(surface.knot, 1.5, ("knotted", "with a knot")),
    "fold": Kind(surface.fold, 3, ("folded", "wrinkled", "with a crease")),
    "foreign object": Kind(
        surface.foreign_object, 4, ("with a foreign object", "contaminated", "with something on it")
    ),
    "scribble": Kind(surface.scribble, 2, ("scribbled", "with pen marks", "with ink on it")),
    "inactive region": Kind(surface.inactive, 6, ("with a dark area", "broken", "with a dead region")),
    "stain": Kind(patches.stain, 4, ("stained", "with a stain", "with a spill")),
    "discolouration": Kind(patches.discolouration, 4, ("discoloured", "discolored", "with a discoloured spot")),
    "hot spot": Kind(patches.hot_spot, 2, ("with a hot spot", "unevenly coloured", "with a spot")),
    "burn": Kind(patches.burn, 1.5, ("burnt", "burned", "with a burn")),
    "rust": Kind(patches.rust, 1.5, ("rusty", "corroded", "with rust")),
    "mottling": Kind(patches.mottling, 2, ("mottled", "blotchy", "with blotches")),
    "foreign texture": Kind(patches.foreign_texture, 6, ("with a foreign patch", "defective", "with a damaged area")),
    "cut paste": Kind(patches.cut_paste, 6, ("defective", "with a misplaced patch", "with a defect")),
    "texture change": Kind(patches.texture_change, 3, ("irregular", "with an irregular area", "distorted")),
    "contrast change": Kind(patches.contrast_change, 2.5, ("worn", "with a rough area", "faded")),
    "smear": Kind(patches.smear, 3, ("smeared", "smudged", "with a smear")),
    "warp": Kind(patches.warp, 4, ("bent", "deformed", "with a distortion", "squeezed")),
    "turned patch": Kind(patches.turned_patch, 2.5, ("wrongly assembled", "with a rotated part", "misaligned")),
    "shifted band": Kind(patches.shifted_band, 2.5, ("misaligned", "with a shifted part", "with a misalignment")),
    "lesion": Kind(scans.lesion, 4, ("with a lesion", "unhealthy", "diseased", "with a mass")),
    "polyp": Kind(bodies.polyp, 2, ("with a polyp", "with a growth", "with a swelling", "swollen")),
    "bleed": Kind(bodies.bleed, 1.5, ("bleeding", "inflamed", "with a bleeding")),
    "tumor": Kind(scans.tumor, 2.5, ("with a tumor", "with a mass", "with cancer", "unhealthy")),
    "nodule": Kind(scans.nodule, 2, ("with a nodule", "with a mass", "with a cyst")),
    "oedema": Kind(scans.oedema, 1.5, ("with an opacity", "swollen", "infected", "with an infection")),
    "haemorrhage": Kind(scans.haemorrhage, 1.5, ("with a haemorrhage", "with a hemorrhage", "bleeding")),
    "skin lesion": Kind(bodies.skin_lesion, 1.5, ("with a skin lesion", "with a mole", "with a lesion")),
    "ulcer": Kind(bodies.ulcer, 0.8, ("with an ulcer", "with a wound", "sore")),
    "calcification": Kind(scans.calcification, 0.6, ("calcified", "with a calcification")),
    "exudates": Kind(bodies.exudates, 0.6, ("with exudates", "diseased", "with lesions")),
    "fluid": Kind(bodies.fluid, 0.6, ("with fluid", "swollen", "with a cyst")),
    "abnormal cells": Kind(bodies.abnormal_cells, 0.8, ("with abnormal cells", "malignant", "with cancer")),
    "chip": Kind(parts.chip, 6, ("chipped", "with a broken edge", "with a chip")),
    "burr": Kind(parts.burr, 4, ("with a burr", "with a protrusion", "with excess material")),
    "severed": Kind(parts.severed, 4, ("broken", "broken off", "cut", "with a broken end")),
    "missing part": Kind(parts.missing_part, 6, ("incomplete", "with a missing part", "with something missing")),
    "extra part": Kind(parts.extra_part, 4, ("with an extra part", "with one too many", "wrong")),
    "misplaced part": Kind(parts.misplaced_part, 6, ("misplaced", "with a misplaced part", "misaligned")),
    "recoloured part": Kind(parts.recoloured_part, 3.5, ("wrongly coloured", "with a wrong part", "with an odd part")),
    "line break": Kind(parts.line_break, 5, ("with a broken line", "interrupted", "with an open")),
    "line bridge": Kind(parts.line_bridge, 4, ("with a bridge", "short-circuited", "with a short")),
    "nibble": Kind(parts.nibble, 4, ("nibbled", "with a spur", "with a mouse bite")),
    "missing glyph": Kind(parts.missing_glyph, 4, ("misprinted", "with a missing mark", "with faded print")),
    "double print": Kind(parts.double_print, 3, ("misprinted", "with a print error", "blurred")),
    "stray line": Kind(parts.stray_line, 3, ("with a stray line", "with an extra line", "misprinted")),
    "broken repetition": Kind(parts.broken_repetition, 4, ("irregular", "with a broken pattern", "badly woven")),
    "yarn flaw": Kind(
        real.yarn_flaw, 12, ("badly woven", "with a missing yarn", "with a thick yarn", "with a broken pick")
    ),
    "frayed hole": Kind(real.frayed_hole, 6, ("torn", "frayed", "with a frayed hole", "with a tear")),
    "oil spot": Kind(real.oil_spot, 7, ("oily", "with an oil spot", "with a water mark")),
    "inclusion": Kind(real.inclusions, 10, ("streaked", "with an inclusion", "with a sliver", "with fine scratches")),
    "scale": Kind(real.scale, 9, ("scaly", "patchy", "with rolled-in scale", "with patches")),
    "pitting": Kind(real.pitting, 10, ("pitted", "with a pit", "with pinholes", "with a crater")),
    "gouge": Kind(real.gouge, 8, ("gouged", "with a gouge", "with a deep scratch")),
    "hairline crack": Kind(real.hairline, 12, ("cracked", "split", "with a hairline crack", "with a fine crack")),
    "peeling": Kind(real.peeling, 9, ("peeling", "flaked", "with a blister", "with flaked paint")),
    "dead area": Kind(real.dead_area, 8, ("broken", "with a dark area", "with a dead area", "with a broken finger")),
    "real patch": Kind(real.real_patch, 16, ("defective", "irregular", "with a flaw", "with a damaged area")),
}
_NAMES = tuple(KINDS)
_MEDICAL = {kind for findings in bodies.FINDINGS.values() for kind in findings}
#: Findings are rare in pictures that show no body, and frequent in those that do, see `_random_kind`.
_WEIGHTS = np.cumsum([kind.weight * (0.3 if name in _MEDICAL else 1) for name, kind in KINDS.items()])
_FINDINGS = {name: (tuple(kinds), np.cumsum(list(kinds.values()))) for name, kinds in bodies.FINDINGS.items()}


def words_for(kind: str) -> tuple[str, ...]:
    """Return words for a kind: adjectives ("scratched") and phrases that begin with "with" ("with a scratch")."""
    return KINDS[kind].words


def add_defects(rng: Rng, scene: Scene, photos: Sequence[np.ndarray] = ()) -> Defect | None:
    """Add a defect, sometimes two or three of mostly one kind; return None if no attempt is visible."""
    first = None
    for _ in range(MAX_ATTEMPTS):
        first = one_defect(rng, scene, _random_kind(rng, scene), photos)
        if first is not None:
            break
    if first is None:
        return None
    image, mask = first.image, first.mask
    for _ in range(int(rng.choice((0, 1, 2), p=(0.76, 0.16, 0.08)))):
        kind = first.kind if chance(rng, 0.8) else _random_kind(rng, scene)
        more = one_defect(rng, dataclasses.replace(scene, image=image), kind, photos)
        if more is not None:
            image, mask = more.image, mask | more.mask
    return Defect(image, mask, first.kind)


def _random_kind(rng: Rng, scene: Scene) -> str:
    names, weights = _NAMES, _WEIGHTS
    if scene.modality in _FINDINGS and chance(rng, 0.68):
        names, weights = _FINDINGS[scene.modality]
    return names[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]


def one_defect(rng: Rng, scene: Scene, kind: str, photos: Sequence[np.ndarray] = ()) -> Defect | None:
    """Add a defect of one kind; return None if the scene does not suit it or the change is not visible."""
    foreground = np.ascontiguousarray(scene.foreground).astype(np.uint8)
    canvas = Canvas(scene.image, foreground, scene, photos)
    if canvas.coverage < 0.0008:
        return None
    change = KINDS[kind].make(rng, canvas)
    if change is None:
        return None
    mask, strength = exact_mask(scene.image, change)
    share = cv2.countNonZero(mask) / mask.size
    if share < MIN_AREA or share > 0.6 or strength < _needed(canvas, mask, share):
        return None
    return Defect(change.image, mask.astype(bool), kind)


def _needed(canvas: Canvas, mask: np.ndarray, share: float) -> float:
    """Return the mean change that is visible: more where the mask is small or the picture busy."""
    rows, columns = box(mask, 4)
    _, busy = cv2.meanStdDev(np.ascontiguousarray(canvas.gray[rows, columns]))
    return MIN_CHANGE + 0.1 / np.sqrt(share) + 0.15 * float(busy[0, 0])
