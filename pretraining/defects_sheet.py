"""The contact sheet: every kind some times over, as picture | defect | mask, and what each costs."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
from camera import camera
from defects import KINDS, Defect, add_defects, add_distractors, one_defect
from scenes import make_scene

SIZE, TILE, ACROSS = 256, 128, 3


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
    rows = []
    for kind in KINDS:
        spent = done = tries = 0
        cells: list[np.ndarray] = []
        while tries < 40:
            tries += 1
            subject = make_scene(rng, SIZE, photos)
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
    _overall(rng, [make_scene(rng, SIZE, photos) for _ in range(60)], photos)


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
