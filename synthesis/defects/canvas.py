"""What all kinds of defect share: the picture as a canvas, blending, colours, and the exact mask."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from synthesis.defects.shapes import Rng, blob, chance, fractal, log_uniform, sign, soften
from synthesis.scenes.base import only

if TYPE_CHECKING:
    from synthesis.scenes.base import Scene

VISIBLE = 8  # of 255: a smaller change is lost in the camera's noise


@dataclass(frozen=True)
class Change:
    """A changed picture and the intended region; a `solid` change is an area rather than a few strokes."""

    image: np.ndarray
    region: np.ndarray
    solid: bool = False


Maker = Callable[[Rng, "Canvas"], Change | None]


@dataclass(frozen=True)
class Canvas:
    image: np.ndarray
    foreground: np.ndarray  # uint8, 0 or 1
    scene: Scene
    photos: Sequence[np.ndarray]

    @property
    def size(self) -> int:
        return int(self.image.shape[0])

    @functools.cached_property
    def gray(self) -> np.ndarray:
        return cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY)

    @functools.cached_property
    def coverage(self) -> float:
        return max(cv2.countNonZero(self.foreground) / self.foreground.size, 1e-4)

    @functools.cached_property
    def spots(self) -> np.ndarray:
        return np.flatnonzero(self.foreground)

    @functools.cached_property
    def is_texture(self) -> bool:
        return self.coverage > 0.97 and len(self.scene.instances) < 2

    @functools.cached_property
    def ordered(self) -> bool:
        """Whether a turned or shifted piece is visible; in gravel, for instance, it is not."""
        if not self.is_texture:
            return True
        small = cv2.resize(self.gray, (128, 128), interpolation=cv2.INTER_AREA).astype(np.float32)
        across, down = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
        xx, yy, xy = (float(np.vdot(*pair)) for pair in ((across, across), (down, down), (across, down)))
        if np.hypot(xx - yy, 2 * xy) > 0.3 * (xx + yy + 1e-3):
            return True
        return spectral_peak(small[32:96, 32:96])[1] > 14

    @functools.cached_property
    def regular(self) -> bool:
        """Whether the parts stand in a regular order, so that a missing or misplaced one is visible."""
        parts = self.scene.instances
        if len(parts) < 3:
            return False
        moments = [cv2.moments(part.view(np.uint8), binaryImage=True) for part in parts]
        centres = np.array([(at["m10"], at["m01"]) for at in moments]) / [[max(at["m00"], 1)] for at in moments]
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=2) + np.eye(len(parts)) * 1e9
        nearest = apart.min(1)
        return bool(nearest.std() < 0.08 * nearest.mean())

    @functools.cached_property
    def alike(self) -> bool:
        """Whether all parts have about the same brightness, so that a different one stands out."""
        tones = [cv2.mean(self.gray, part.view(np.uint8))[0] for part in self.scene.instances]
        return len(tones) > 2 and float(np.std(tones)) < 15

    @functools.cached_property
    def backdrop(self) -> np.ndarray:
        """The picture without its objects."""
        if self.scene.background is not None:
            return self.scene.background
        return fill_from(self.image, 1 - cv2.dilate(self.foreground, np.ones((5, 5), np.uint8)))

    def somewhere(self, rng: Rng) -> tuple[float, float]:
        for _ in range(12):  # listing all places costs more than some misses
            x, y = rng.integers(0, self.size, 2).tolist()
            if self.foreground[y, x]:
                return float(x), float(y)
        index = int(self.spots[rng.integers(self.spots.size)])
        return float(index % self.size), float(index // self.size)

    def radius(self, rng: Rng, low: float = 0.0006, high: float = 0.25) -> float:
        """Draw a radius in pixels, its area log-uniform between two fractions of the picture."""
        area = log_uniform(rng, low, max(min(high, self.coverage * 0.55), low * 1.5))
        return float(np.sqrt(area / np.pi) * self.size)

    def area(self, rng: Rng, low: float = 0.0006, high: float = 0.25, softness: float | None = None) -> np.ndarray:
        """Return the alpha of a random area in the foreground, with a hard or soft border."""
        radius = self.radius(rng, low, high)
        drawn = blob(rng, self.size, self.somewhere(rng), radius)
        if softness is None:
            softness = 0.0 if chance(rng, 0.3) else log_uniform(rng, 0.02, 0.6)
        return self.inside(soften(drawn, radius * softness))

    def inside(self, alpha: np.ndarray) -> np.ndarray:
        return alpha if self.coverage > 0.995 else alpha * self.foreground


def box(alpha: np.ndarray, pad: int = 0) -> tuple[slice, slice]:
    """Return the rows and columns in which alpha is not zero; a corner pixel if it is zero everywhere."""
    x, y, width, height = cv2.boundingRect((alpha > 0.01).astype(np.uint8))
    width, height = max(width, 1), max(height, 1)
    rows, columns = alpha.shape
    top, left = max(y - pad, 0), max(x - pad, 0)
    return slice(top, min(y + height + pad, rows)), slice(left, min(x + width + pad, columns))


def blend(image: np.ndarray, layer: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay a colour, or a picture of full size, over the image."""
    where = box(alpha)
    below = image[where].astype(np.float32)
    above = layer if layer.ndim == 1 else layer[where]
    return _written(image, where, below + (above - below) * alpha[where][..., None])


def shade(image: np.ndarray, amount: np.ndarray, factor: bool = False) -> np.ndarray:
    """Add (or multiply by 1 + amount/100) a full-size field, the same for all channels."""
    where = box(np.abs(amount))
    below = image[where].astype(np.float32)
    local = amount[where][..., None]
    return _written(image, where, below * (1 + local / 100) if factor else below + local)


def tint(image: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Multiply by a colour (1 = unchanged), as a see-through liquid does."""
    where = box(alpha)
    below = image[where].astype(np.float32)
    return _written(image, where, below * (1 + (colour - 1) * alpha[where][..., None]))


def _written(image: np.ndarray, where: tuple[slice, slice], values: np.ndarray) -> np.ndarray:
    result = image.copy()
    result[where] = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return result


def mean_colour(image: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    return np.array(cv2.mean(image, mask)[:3], np.float32)


def local_colour(canvas: Canvas, alpha: np.ndarray) -> np.ndarray:
    where = box(alpha, 2)
    return mean_colour(np.ascontiguousarray(canvas.image[where]))


def colour(rng: Rng, canvas: Canvas, alpha: np.ndarray) -> np.ndarray:
    """Draw a colour for foreign matter: near the local one, dark, bright, vivid or from another place."""
    kind = rng.random()
    if kind < 0.35:
        shift = sign(rng) * log_uniform(rng, 15, 110)
        return np.clip(local_colour(canvas, alpha) + shift + rng.normal(0, 8, 3), 0, 255).astype(np.float32)
    if kind < 0.55:
        return (rng.uniform(0, 50) + rng.normal(0, 6, 3)).clip(0, 255).astype(np.float32)
    if kind < 0.7:
        return (rng.uniform(205, 255) + rng.normal(0, 6, 3)).clip(0, 255).astype(np.float32)
    if kind < 0.85:
        return rng.uniform(0, 255, 3).astype(np.float32)
    y, x = rng.integers(0, canvas.size, 2)
    return np.clip(canvas.image[y, x] + rng.normal(0, 10, 3), 0, 255).astype(np.float32)


def substance(rng: Rng, canvas: Canvas, alpha: np.ndarray) -> np.ndarray:
    """Return a full-size layer of a colour, often with grain."""
    base = colour(rng, canvas, alpha)
    if chance(rng, 0.3):
        return base
    where = box(alpha)
    height, width = alpha[where].shape
    if not height or not width:
        return base
    grain = fractal(rng, height, width, log_uniform(rng, 2, max(4, max(height, width) / 2)), 2) - 0.5
    layer = np.empty((canvas.size, canvas.size, 3), np.float32)
    layer[where] = base + (grain * log_uniform(rng, 10, 120))[..., None]
    return layer


def fill_from(image: np.ndarray, known: np.ndarray, grain: bool = True) -> np.ndarray:
    """Fill unknown pixels from the known ones around them (push-pull pyramid), with the known pixels' fine grain.

    cv2.inpaint would do the same some fifty times slower.
    """
    weight = known.astype(np.float32)
    levels = [(cv2.multiply(image.astype(np.float32), cv2.merge([weight] * 3)), weight)]
    while min(levels[-1][1].shape) > 3:
        value, weight = levels[-1]
        half = (max(1, (weight.shape[1] + 1) // 2), max(1, (weight.shape[0] + 1) // 2))
        levels.append(tuple(cv2.resize(part, half, interpolation=cv2.INTER_AREA) for part in (value, weight)))
    value, weight = levels[-1]
    filled = np.broadcast_to(value.sum((0, 1)) / max(float(weight.sum()), 1e-3), value.shape).astype(np.float32)
    for value, weight in reversed(levels):
        filled = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        filled = value + filled * (1 - weight)[..., None]
    if grain:
        filled = _with_grain(image, known, filled)
    return np.clip(filled, 0, 255).astype(np.uint8)


def _with_grain(image: np.ndarray, known: np.ndarray, filled: np.ndarray) -> np.ndarray:
    fine = cv2.subtract(image, cv2.blur(image, (5, 5)), dtype=cv2.CV_32F)
    _, deviation = cv2.meanStdDev(fine, mask=known.astype(np.uint8))
    strength = min(float(deviation.mean()), 12.0)
    if strength < 0.7:
        return filled
    speckle = np.random.default_rng(int(strength * 1e6)).normal(0, strength, image.shape[:2]).astype(np.float32)
    return filled + (speckle * (1 - known))[..., None]


@functools.cache
def _window() -> np.ndarray:
    return np.outer(np.hanning(64), np.hanning(64)).astype(np.float32)


def spectral_peak(gray: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the strongest wave of a 64x64 patch, in cycles per pixel along y and x, and its strength over the mean."""
    power = np.abs(np.fft.rfft2((gray - gray.mean()) * _window()))
    power[:2, :2] = power[-1:, :2] = 0
    row, column = np.unravel_index(int(power.argmax()), power.shape)
    wave = np.array([row - 64 if row > 32 else row, column], float) / 64
    return wave, float(power[row, column] / max(float(power.mean()), 1e-6))


def photo_patch(rng: Rng, canvas: Canvas) -> np.ndarray:
    """Return a full-size foreign picture: a photograph's crop, a texture, or the scene turned and recoloured."""
    size = canvas.size
    photos = only(canvas.photos, 3)
    if photos and chance(rng, 0.7):
        photo = photos[int(rng.integers(len(photos)))]
        side = int(min(photo.shape[:2]) * rng.uniform(0.3, 1.0))
        top, left = (int(rng.integers(0, full - side + 1)) for full in photo.shape[:2])
        crop = photo[top : top + side, left : left + side]
        return cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=cv2.INTER_AREA)
    if chance(rng, 0.5):
        return drawn_texture(rng, size)
    turned = np.ascontiguousarray(np.rot90(canvas.image, int(rng.integers(1, 4))))
    return turned[..., rng.permutation(3)] if chance(rng, 0.7) else 255 - turned


def drawn_texture(rng: Rng, size: int) -> np.ndarray:
    """Return two colours mixed by noise or stripes."""
    field = fractal(rng, size, size, log_uniform(rng, 4, size / 3), 3)
    if chance(rng, 0.5):
        field = np.sin(field * log_uniform(rng, 6, 60)) * 0.5 + 0.5
    first, second = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    return (first + (second - first) * field[..., None]).astype(np.uint8)


def exact_mask(before: np.ndarray, change: Change) -> tuple[np.ndarray, float]:
    """Return where the picture changed visibly (0/1 uint8), and the mean change there."""
    whole = np.zeros(change.region.shape, np.uint8)
    where = box(change.region, 8)
    region = change.region[where]
    intended = cv2.dilate((region > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    parts = cv2.split(cv2.absdiff(before[where], change.image[where]))
    difference = cv2.max(cv2.max(parts[0], parts[1]), parts[2])
    # Swapped texture differs pixel by pixel even where it looks the same, so areas are compared more coarsely.
    smooth = cv2.blur(difference, (5, 5)) if change.solid else cv2.blur(difference, (3, 3))
    visible = (smooth > VISIBLE).astype(np.uint8) & intended
    # A thin stroke's halo would be wider than the stroke: the blurred picture decides only next to real change.
    visible &= cv2.dilate((difference > VISIBLE).astype(np.uint8), np.ones((2, 2), np.uint8))
    if change.solid:
        share = cv2.blur(visible * np.uint8(255), (13, 13))
        visible = (visible & (share > 30)) | ((share > 85).astype(np.uint8) & intended)
    visible = cv2.morphologyEx(visible, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) & intended
    if change.solid:
        _fill_holes(visible)
    whole[where] = visible
    return whole, float(cv2.mean(difference, visible)[0])


def _fill_holes(mask: np.ndarray) -> None:
    """Fill small holes of the mask in place: the top of a dent belongs to it though it looks the same."""
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    max_hole = 0.25 * cv2.countNonZero(mask)
    for contour, (_, _, _, parent) in zip(contours, tree[0] if tree is not None else (), strict=True):
        if parent >= 0 and cv2.contourArea(contour) < max_hole:
            cv2.drawContours(mask, [contour], -1, 1, -1)
