"""The contact sheet: every kind some times over, as picture | defect | mask, and what each costs."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
from camera import camera
from defects import KINDS, Defect, add_defects, add_distractors, one_defect

try:
    from scenes import make_scene
except ImportError:  # the sheet can be drawn before the scenes exist
    make_scene = None

TILE, ACROSS = 128, 3


def _stand_in(rng: np.random.Generator, size: int = 256):
    """A plain scene for trying defects out: stripes, or plates on a ground."""
    from defects_shapes import fractal, grid
    from scenes_base import Scene

    x, y = grid(size)
    ground = rng.uniform(40, 220, 3) + (fractal(rng, size, size, rng.uniform(5, 60)) - 0.5)[..., None] * 40
    make = rng.random()
    if make < 0.4:
        ground = ground + (np.sin(x * rng.uniform(0.1, 0.8) + y * rng.uniform(-0.3, 0.3)) * 40)[..., None]
        image = np.clip(ground, 0, 255).astype(np.uint8)
        return Scene(image, np.ones((size, size), bool), "stripes", "paint")
    image = np.clip(ground, 0, 255).astype(np.uint8)
    background, masks = image.copy(), []
    tone = tuple(int(part) for part in rng.uniform(0, 255, 3))
    places = [(128, 128, 80)] if make < 0.7 else [(x, y, 24) for x in (50, 128, 206) for y in (50, 128, 206)]
    for left, top, radius in places:
        mask = np.zeros((size, size), np.uint8)
        cv2.ellipse(mask, (left, top), (radius, int(radius * 0.7)), 20, 0, 360, 1, -1)
        masks.append(mask > 0)
        image[mask > 0] = tone
        cv2.putText(image, "B4", (left - 14, top + 8), 1, 1.6, (250, 250, 250), 2, cv2.LINE_AA)
    whole = np.any(masks, 0)
    return Scene(image, whole, "plate", "metal", tuple(masks), background if make > 0.6 else None)


def _row(before: np.ndarray, defect: Defect, label: str) -> np.ndarray:
    edge = cv2.morphologyEx(defect.mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    overlay = defect.image.copy()
    overlay[defect.mask] = overlay[defect.mask] // 2 + np.array([127, 0, 0], np.uint8)
    overlay[edge] = (255, 255, 0)
    tiles = [cv2.resize(part, (TILE, TILE), interpolation=cv2.INTER_AREA) for part in (before, defect.image, overlay)]
    row = np.hstack([*tiles, np.zeros((TILE, 4, 3), np.uint8)])
    cv2.putText(row, label, (2, 10), 0, 0.35, (0, 0, 0), 2, cv2.LINE_AA)
    cv2.putText(row, label, (2, 10), 0, 0.35, (255, 255, 0), 1, cv2.LINE_AA)
    return row


def main(target: str, seed: int = 0, photos: tuple[np.ndarray, ...] = ()) -> None:
    rng = np.random.default_rng(seed)
    scene = make_scene or _stand_in
    rows = []
    for kind in KINDS:
        spent = done = tries = 0
        cells: list[np.ndarray] = []
        while tries < 40:
            tries += 1
            subject = scene(rng)
            start = time.perf_counter()
            defect = one_defect(rng, subject, kind, photos)
            spent += time.perf_counter() - start
            if defect is not None:
                done += 1
                if len(cells) < ACROSS:
                    cells.append(_row(subject.image, defect, f"{kind} {defect.mask.mean() * 100:.2f}%"))
        print(f"{kind:18s} {spent / tries * 1000:5.2f} ms  made {done / tries:4.0%}")
        blank = np.zeros((TILE, TILE * 3 + 4, 3), np.uint8)
        rows.append(np.hstack(cells + [blank] * (ACROSS - len(cells))))
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(target, cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
    _overall(rng, [scene(rng) for _ in range(60)], photos)


def _overall(rng: np.random.Generator, subjects: list, photos: tuple[np.ndarray, ...]) -> None:
    """Time and yield of the whole engine."""
    start = time.perf_counter()
    made = [add_defects(rng, subject, photos) for subject in subjects * 10]
    cost = (time.perf_counter() - start) / len(made) * 1000
    areas = np.array([defect.mask.mean() for defect in made if defect is not None]) * 100
    parts = np.quantile(areas, (0.05, 0.25, 0.5, 0.75, 0.95)).round(2)
    print(f"add_defects {cost:.2f} ms, None {sum(defect is None for defect in made) / len(made):.1%}, area % {parts}")
    start = time.perf_counter()
    for subject in subjects * 5:
        camera(rng, subject.image, subject.foreground)
    print(f"camera {(time.perf_counter() - start) / len(subjects) / 5 * 1000:.2f} ms")
    start = time.perf_counter()
    for subject in subjects * 5:
        add_distractors(rng, subject)
    print(f"add_distractors {(time.perf_counter() - start) / len(subjects) / 5 * 1000:.2f} ms")
