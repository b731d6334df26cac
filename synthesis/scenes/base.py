"""What all families share: smooth noise, palettes, shading, poses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

cv2.setNumThreads(0)

Rng = np.random.Generator
#: Real pictures, uint8: photographs (H, W, 3), cutouts with alpha (H, W, 4), slices of heads (H, W).
Photos = Sequence[np.ndarray]

# White noise is slow to draw: it is drawn once, and every use takes a random window of it.
_BANK = np.random.default_rng(20240229).standard_normal((1024, 1024), dtype=np.float32)


@dataclass(frozen=True)
class Scene:
    """A normal picture, where defects may lie on it (foreground), and its names."""

    image: np.ndarray
    foreground: np.ndarray
    name: str
    material: str
    instances: tuple[np.ndarray, ...] = ()
    background: np.ndarray | None = None
    render: Callable[..., Scene] | None = None
    modality: str = ""  # imaging method of a body: mri, ct, xray, ultrasound, oct, mucosa, skin, retina or cells


Family = Callable[[Rng, int, Photos], Scene]
Surface = tuple[np.ndarray, str, str]  # a picture, its name, its material
Painter = Callable[[Rng, int, Photos], Surface]
Sprite = tuple[np.ndarray, np.ndarray]  # colour and alpha


def pick(rng: Rng, *options: str) -> str:
    return options[int(rng.integers(len(options)))]


def only(photos: Photos, channels: int) -> list[np.ndarray]:
    """Return the photographs (3 channels), the cutouts (4) or the slices (1)."""
    return [p for p in photos if (p.shape[2] if p.ndim == 3 else 1) == channels]


def loguni(rng: Rng, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def chance(rng: Rng, probability: float) -> bool:
    return bool(rng.random() < probability)


def white(rng: Rng, height: int, width: int | None = None) -> np.ndarray:
    """Return white noise of unit variance, read-only."""
    width = height if width is None else width
    if max(height, width) > 1024:
        return rng.standard_normal((height, width), dtype=np.float32)
    y, x = int(rng.integers(1025 - height)), int(rng.integers(1025 - width))
    window = _BANK[y : y + height, x : x + width]
    return np.ascontiguousarray(window[:: 1 if chance(rng, 0.5) else -1, :: 1 if chance(rng, 0.5) else -1])


def smooth(rng: Rng, size: int, period: float, aspect: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """Return smooth noise of about unit variance; `aspect` > 1 stretches it along `angle` (radians)."""
    px, py = max(period * aspect, 1.0), max(period, 1.0)
    n_x, n_y = min(int(1.5 * size / px) + 5, 900), min(int(1.5 * size / py) + 5, 900)
    c, s, half = math.cos(angle), math.sin(angle), size / 2
    matrix = np.array([[c / px, s / px, 0.0], [-s / py, c / py, 0.0]])
    matrix[:, 2] = [n_x / 2, n_y / 2] - matrix[:, :2] @ [half, half]
    flags = (cv2.INTER_CUBIC if period > 4 else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    return 1.25 * cv2.warpAffine(
        white(rng, n_y, n_x), matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )


def octaves(
    rng: Rng, size: int, period: float, decay: float, aspect: float = 1.0, angle: float = 0.0,
    wave: Callable[..., np.ndarray] = smooth,
) -> np.ndarray:  # fmt: skip
    """Return octaves of `wave` from `period` down to pixels; `decay` < 1 makes the fine octaves weaker."""
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    for _ in range(5):
        total += weight * (wave(rng, size, period, aspect, angle) if period > 1.6 else white(rng, size))
        weight, period = weight * decay, period / 2.2
        if period < 0.8 or weight < 0.05:
            break
    return total


def normalise(h: np.ndarray, spread: float = 0.22) -> np.ndarray:
    """Scale to a mean of 0.5 and a standard deviation of `spread`."""
    mean, std = cv2.meanStdDev(h)
    return (h - float(mean[0, 0])) * (spread / (float(std[0, 0]) + 1e-6)) + 0.5


def grid(rng: Rng, size: int, angle: float | None = None, wobble: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return rotated pixel coordinates (u, v) with a smooth displacement of `wobble` pixels."""
    angle = rand_angle(rng) if angle is None else angle
    axis = np.arange(size, dtype=np.float32) - size / 2
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    u = c * axis[None, :] + s * axis[:, None] + np.float32(rng.uniform(1000, 1200))
    v = c * axis[:, None] - s * axis[None, :] + np.float32(rng.uniform(1000, 1200))
    if wobble > 0:
        period = loguni(rng, size / 8, size)
        u += wobble * smooth(rng, size, period)
        v += wobble * smooth(rng, size, period)
    return u, v


def rand_angle(rng: Rng) -> float:
    """Draw an angle: often upright, else turned by a little, by a quarter or by any amount."""
    roll = rng.random()
    if roll < 0.35:
        return 0.0
    if roll < 0.5:
        return math.pi / 2
    if roll < 0.65:
        return float(rng.normal(0, 0.06))
    return float(rng.uniform(-math.pi, math.pi))


def cells(rng: Rng, size: int, period: float, regular: float = 0.0) -> tuple[np.ndarray, np.ndarray, int]:
    """Return Voronoi cells: distance to the seed, cell index and number of cells. `regular` 1 is a jittered grid."""
    n = max(2, round(size / period))
    if regular > 0:
        step = size / n
        base = (np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) + 0.5) * step
        points = base + rng.uniform(-0.5, 0.5, base.shape) * step * (1.4 - regular)
    else:
        points = rng.uniform(0, size, (n * n, 2))
    points = np.clip(points, 0, size - 1).astype(np.intp)
    seeds = np.full((size, size), 255, np.uint8)
    seeds[points[:, 1], points[:, 0]] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    return distance, labels, len(points) + 1


def cell_edges(labels: np.ndarray, width: int = 1) -> np.ndarray:
    """Return a uint8 mask (0/255) of the borders between cells."""
    edge = np.zeros(labels.shape, np.uint8)
    edge[:, 1:][labels[:, 1:] != labels[:, :-1]] = 255
    edge[1:][labels[1:] != labels[:-1]] = 255
    return edge if width <= 1 else cv2.dilate(edge, np.ones((width, width), np.uint8))


class Theme:
    """The palette of a picture: grey in 45 % of them, else a base hue with related ones."""

    def __init__(self, rng: Rng, grey: bool | None = None) -> None:
        self.rng = rng
        self.grey = chance(rng, 0.45) if grey is None else grey
        self.hue = float(rng.uniform(0, 180))
        self.saturation = float(rng.beta(1.4, 2.0))
        self.spread = loguni(rng, 4, 90)

    def color(self, value: float | None = None, low: float = 28, high: float = 235) -> tuple[float, float, float]:
        """Draw an RGB colour (0..255) of about the given brightness."""
        value = float(self.rng.uniform(low, high) if value is None else np.clip(value, 0, 255))
        if self.grey:
            return (value, value, value)
        hue = (self.hue + self.rng.uniform(-1, 1) * self.spread) % 180
        saturation = np.clip(255 * self.saturation * self.rng.uniform(0.5, 1.2), 0, 255)
        pixel = np.array([[[hue, saturation, value]]], np.uint8)
        r, g, b = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(float)
        return (r, g, b)

    def pair(self, contrast: float | None = None) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Draw two colours that differ in brightness by `contrast` (default: random, faint to strong)."""
        contrast = loguni(self.rng, 15, 210) if contrast is None else contrast
        middle = self.rng.uniform(max(contrast / 2, 32), 255 - max(contrast / 2, 12))
        sign = 1 if chance(self.rng, 0.5) else -1
        return self.color(middle - sign * contrast / 2), self.color(middle + sign * contrast / 2)

    def ramp(self, contrast: float | None = None, stops: int | None = None) -> np.ndarray:
        """Draw a colour table of 256 entries through two to four related colours."""
        stops = int(self.rng.integers(2, 5)) if stops is None else stops
        first, last = self.pair(contrast)
        knots = [np.array(first)]
        for i in range(1, stops - 1):
            mean = (np.mean(first) * (stops - 1 - i) + np.mean(last) * i) / (stops - 1)
            knots.append(np.array(self.color(mean)))
        knots.append(np.array(last))
        where = np.linspace(0, 1, 256)
        at = np.linspace(0, 1, stops)
        return np.stack([np.interp(where, at, [k[c] for k in knots]) for c in range(3)], -1).astype(np.uint8)


def paint(h: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Colour a map (0..1) with a colour table."""
    index = cv2.convertScaleAbs(np.clip(h, 0, 1), alpha=255)
    return cv2.LUT(cv2.merge([index, index, index]), table.reshape(1, 256, 3))


def tint(rng: Rng, h: np.ndarray, theme: Theme | None = None, contrast: float | None = None) -> np.ndarray:
    theme = Theme(rng) if theme is None else theme
    return paint(h, theme.ramp(contrast))


def relight(image: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Multiply a picture by a brightness map."""
    return cv2.multiply(image, cv2.merge([factor, factor, factor]), dtype=cv2.CV_8U)


def lighting(rng: Rng, image: np.ndarray, probability: float = 0.5) -> np.ndarray:
    """Add uneven but smooth light, at a probability: a gradient, a vignette or broad clouds."""
    if not chance(rng, probability):
        return image
    size = image.shape[0]
    amount = loguni(rng, 0.04, 0.4)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    kind = rng.integers(4)
    if kind <= 1:
        angle = rng.uniform(0, 2 * math.pi)
        field = math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None]
    elif kind == 2:
        cx, cy = rng.normal(0, 0.3, 2)
        field = 0.7 - (axis[None, :] - cx) ** 2 - (axis[:, None] - cy) ** 2
    else:
        field = 0.5 * smooth(rng, size, size * rng.uniform(0.4, 0.9))
    return relight(image, np.clip(1 + amount * field, 0.2, 1.6).astype(np.float32))


def grain(rng: Rng, image: np.ndarray, amount: float) -> np.ndarray:
    """Add even surface grain of `amount` grey levels."""
    noise = white(rng, *image.shape[:2]) * np.float32(amount)
    if chance(rng, 0.4):
        noise = cv2.GaussianBlur(noise, (0, 0), 0.8) * 2
    return cv2.add(image, cv2.merge([noise, noise, noise]), dtype=cv2.CV_8U)


def blend(base: np.ndarray, top: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay `top` over `base` by an alpha (uint8)."""
    a = alpha.astype(np.float32) * np.float32(1 / 255)
    return cv2.blendLinear(base, top, 1 - a, a)


def turned(rng: Rng, size: int) -> tuple[int, float]:
    """Return the canvas size and angle of a drawing that `untilt` turns later; an upright one needs no margin."""
    angle = rand_angle(rng)
    straight = abs(math.sin(2 * angle)) < 1e-6
    return (size if straight else int(size * 1.45)), angle


def untilt(canvas: np.ndarray, size: int, angle: float, nearest: bool = False) -> np.ndarray:
    """Cut the turned square of `size` out of the middle of a canvas."""
    width = canvas.shape[0]
    if width == size:
        return canvas if abs(angle) < 1e-6 else np.ascontiguousarray(np.rot90(canvas))
    matrix = cv2.getRotationMatrix2D((width / 2, width / 2), math.degrees(angle), 1.0)
    matrix[:, 2] += size / 2 - width / 2
    return cv2.warpAffine(canvas, matrix, (size, size), flags=cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR)


def plain(size: int, color: Sequence[float]) -> np.ndarray:
    image = np.empty((size, size, 3), np.uint8)
    image[:] = np.array(color, np.uint8)
    return image


def full(size: int) -> np.ndarray:
    return np.ones((size, size), bool)


def cuts(rng: Rng, size: int, period: float, jitter: float) -> np.ndarray:
    """Return ascending positions across `size`, about `period` apart; `jitter` is relative."""
    n = int(size / period) + 3
    start = rng.uniform(-period, 0)
    return start + np.cumsum(period * (1 + jitter * rng.uniform(-1, 1, n)))
