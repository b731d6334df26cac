"""Real pictures that scenes are made from: photographs, cutouts and slices of template heads, where they are given."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

_TO_RGB = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}


def load_photos(folders: Iterable[Path]) -> list[np.ndarray]:
    """Read the pictures of folders, with scikit-image's surfaces behind them.

    Returns:
        uint8 arrays: photographs (H, W, 3), cutouts with alpha (H, W, 4) and grey slices (H, W).
    """
    photos = []
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".png"}):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if image is None or image.dtype != np.uint8 or max(image.shape[:2]) < 64:
                continue
            photos.append(image if image.ndim == 2 else cv2.cvtColor(image, _TO_RGB[image.shape[2]]))
    return photos + _bundled()


def _bundled() -> list[np.ndarray]:
    """Read the surfaces that scikit-image comes with (public domain or CC0); none if it is not installed."""
    try:
        from skimage import data
    except ImportError:
        return []
    photos = []
    for name in ("brick", "grass", "gravel"):
        try:
            image = getattr(data, name)()
        except Exception:  # not in this wheel, and no network to download it
            continue
        photos.append(np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., :3])
    return photos
