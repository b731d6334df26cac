"""A contact sheet of all families and all kinds of defect.

    python -m synthesis.sheet SHEET.png [PHOTOS ...]

Each row shows three examples: of a family the scenes, of a kind the defects with their masks outlined.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from synthesis.defects import KINDS, one_defect
from synthesis.photos import load_photos
from synthesis.scenes import FAMILIES, make_scene

SIZE, TILE, EXAMPLES, COLUMNS = 256, 128, 3, 4
#: Attempts at a kind, which does not suit every scene.
MAX_ATTEMPTS = 60


def _tile(image: np.ndarray, label: str) -> np.ndarray:
    tile = cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA)
    for color, thickness in (((0, 0, 0), 2), ((255, 255, 0), 1)):
        cv2.putText(tile, label, (2, 10), 0, 0.35, color, thickness, cv2.LINE_AA)
    return tile


def draw_sheet(seed: int, photos: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sheet (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    rows = [
        [_tile(family(rng, SIZE, photos).image, name) for _ in range(EXAMPLES)]
        for name, (family, _) in FAMILIES.items()
    ]
    for kind in KINDS:
        tiles: list[np.ndarray] = []
        for _ in range(MAX_ATTEMPTS):
            defect = one_defect(rng, make_scene(rng, SIZE, photos), kind, photos)
            if defect is not None and len(tiles) < EXAMPLES:
                outline = cv2.morphologyEx(defect.mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
                tiles.append(_tile(np.where(outline[..., None] > 0, np.uint8([255, 255, 0]), defect.image), kind))
        rows.append(tiles + [np.zeros((TILE, TILE, 3), np.uint8)] * (EXAMPLES - len(tiles)))
    rows += [[np.zeros((TILE, TILE, 3), np.uint8)] * EXAMPLES] * (-len(rows) % COLUMNS)
    strips = [np.hstack(tiles) for tiles in rows]
    return np.vstack([np.hstack(strips[start : start + COLUMNS]) for start in range(0, len(strips), COLUMNS)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path, help="file to write")
    parser.add_argument("photos", type=Path, nargs="*", help="folders of real pictures")
    args = parser.parse_args()
    cv2.imwrite(str(args.sheet), cv2.cvtColor(draw_sheet(0, load_photos(args.photos)), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
