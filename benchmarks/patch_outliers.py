"""A floor for detectors: how odd each place is among the other places of the same picture, by four plain statistics.

No training, no words, no other picture. Around every pixel of the grey picture (256 x 256, in [0, 1]) a square of
16 x 16 gives its mean, its spread, and the mean steps to the neighbours across and down. Each statistic is measured in
its own robust spread over the picture: z = (value - median) / (1.4826 x median absolute deviation + one grey level).
The map is the root mean square of the four z, the score its maximum. Nothing in it was chosen by looking at pictures
with labels. It finds what breaks an even texture, and is blind to what a thing should look like.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter

SIDE, SQUARE = 256, 16
#: Of an even surface, whose spread may be 0.
GREY_LEVEL = 1 / 255


def patch_outliers(picture: Image.Image) -> NDArray[np.float32]:
    """The map of a picture: (256, 256) float32, 0 = as everywhere else in it, no upper end."""
    resized = picture.convert("RGB").convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    grey = np.asarray(resized, np.float32) / 255
    down, across = (np.abs(np.diff(grey, axis=axis, append=grey.take([-1], axis))) for axis in (0, 1))
    mean, square, rows, columns = (uniform_filter(part, SQUARE) for part in (grey, grey**2, down, across))
    statistics = np.stack([mean, np.sqrt(np.maximum(square - mean**2, 0)), rows, columns])
    away = statistics - np.median(statistics, axis=(1, 2), keepdims=True)
    spread = 1.4826 * np.median(np.abs(away), axis=(1, 2), keepdims=True) + GREY_LEVEL
    distances: NDArray[np.float32] = np.sqrt(((away / spread) ** 2).mean(axis=0)).astype(np.float32)
    return distances
