"""Shapes shared by all kinds of defect: soft blobs, polygons, noise islands, curves, trees, scatters.

Most functions return a full-size float32 array in [0, 1] (an "alpha"), so that a defect is a single blend.
Noise is drawn small and enlarged: a random number for every pixel would cost more than the whole defect.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from synthesis.scenes.base import Rng, chance

SHIFT = 3  # sub-pixel bits for OpenCV's anti-aliased drawing


def log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(max(high, low * 1.0001)))))


def sign(rng: Rng) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


@functools.lru_cache(maxsize=8)
def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of every pixel, float32; cached, since every warp and line field needs them."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    return x, y


def noise(rng: Rng, height: int, width: int, cells: float) -> np.ndarray:
    """Return smooth value noise in about [0, 1], with `cells` bumps along the longer side."""
    longer = max(height, width)
    rows, columns = (max(2, round(cells * side / longer) + 1) for side in (height, width))
    small = rng.random((min(rows, height), min(columns, width)), dtype=np.float32)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def fractal(rng: Rng, height: int, width: int, cells: float, octaves: int = 3) -> np.ndarray:
    """Return a sum of octaves of value noise, stretched to exactly [0, 1]."""
    total = noise(rng, height, width, cells)
    for octave in range(1, octaves):
        total = total + noise(rng, height, width, cells * 2**octave) * (0.55**octave)
    return cv2.normalize(total, None, 0.0, 1.0, cv2.NORM_MINMAX)


def soften(alpha: np.ndarray, sigma: float) -> np.ndarray:
    """Apply a Gaussian blur; a wide one is computed on a smaller array, which is much faster."""
    if sigma < 0.3:
        return alpha
    factor = max(1, int(sigma / 1.5))
    if factor == 1:
        return cv2.GaussianBlur(alpha, (0, 0), sigma)
    height, width = alpha.shape
    small = cv2.resize(alpha, (max(4, width // factor), max(4, height // factor)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def fill_polygon(size: int, points: np.ndarray) -> np.ndarray:
    drawn = np.zeros((size, size), np.uint8)
    fixed = np.round(points * (1 << SHIFT)).astype(np.int32)
    cv2.fillPoly(drawn, [fixed.reshape(-1, 1, 2)], 255, cv2.LINE_AA, SHIFT)
    return drawn.astype(np.float32) / 255


def outline_points(rng: Rng, radius: float, roughness: float, corners: int = 64) -> np.ndarray:
    """Return a closed curve around the origin, its radius a random Fourier series, squashed and turned."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    stretch = np.ones(corners)
    for order in range(1, 9):
        stretch += roughness * rng.normal() / order**0.9 * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    stretch = radius * np.clip(stretch, 0.15, 2.5)
    points = np.stack([np.cos(angle) * stretch, np.sin(angle) * stretch], 1)
    return squash_and_turn(rng, points)


def squash_and_turn(rng: Rng, points: np.ndarray, max_aspect: float = 3.0) -> np.ndarray:
    aspect = np.sqrt(log_uniform(rng, 1.0, max_aspect))
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points * (aspect, 1 / aspect) @ rotation


def polygon_points(rng: Rng, radius: float, corners: int) -> np.ndarray:
    angle = (
        np.sort(rng.uniform(0, 2 * np.pi, corners)) if chance(rng, 0.6) else np.arange(corners) * 2 * np.pi / corners
    )
    stretch = radius * 1.2 * rng.uniform(0.6, 1.2, corners)
    return squash_and_turn(rng, np.stack([np.cos(angle) * stretch, np.sin(angle) * stretch], 1))


def blob(rng: Rng, size: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    """Draw a hard-edged shape of a random kind, about as large as a disc of `radius`."""
    make = rng.random()
    if make < 0.5:
        points = outline_points(rng, radius, float(rng.choice([0.03, 0.1, 0.2, 0.3])))
    elif make < 0.65:
        points = polygon_points(rng, radius, int(rng.integers(3, 9)))
    elif make < 0.75:
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * radius * 0.89
        points = squash_and_turn(rng, square, 8.0)
    else:
        return noise_island(rng, size, centre, radius)
    return fill_polygon(size, points + centre)


def noise_island(rng: Rng, size: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    """Draw thresholded fractal noise under a round envelope: ragged islands, often in several pieces (as in DRAEM)."""
    reach = max(4, int(radius * 2))
    x, y = grid(2 * reach)
    envelope = np.clip(1.3 - np.hypot(x - reach, y - reach) / reach, 0, 1)
    field = fractal(rng, 2 * reach, 2 * reach, log_uniform(rng, 2, 9)) * envelope
    cut = float(np.quantile(field[::2, ::2], 1 - np.pi / 16))
    local = np.clip((field - cut) * 14 + 0.5, 0, 1)
    return put(local, size, centre)


def put(local: np.ndarray, size: int, centre: tuple[float, float]) -> np.ndarray:
    """Return an empty full-size alpha with a small one centred on `centre`."""
    whole = np.zeros((size, size), np.float32)
    height, width = local.shape
    left, top = int(centre[0] - width / 2), int(centre[1] - height / 2)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, size), min(top + height, size)
    if x1 > x0 and y1 > y0:
        whole[y0:y1, x0:x1] = local[y0 - top : y1 - top, x0 - left : x1 - left]
    return whole


def curve(rng: Rng, centre: tuple[float, float], length: float, bend: float, steps: int = 24) -> np.ndarray:
    """Return points of a smooth curve through `centre`; a bend of 0 is straight, 1 is free."""
    turn = np.cumsum(rng.normal(0, 1, steps))
    turn = cv2.GaussianBlur(turn.reshape(1, -1), (0, 0), 2.0).ravel() * bend * 0.9
    heading = rng.uniform(0, 2 * np.pi) + turn + np.linspace(-1, 1, steps) * rng.normal() * bend * 1.5
    step = length / steps
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * step, 0)
    return points - points[steps // 2] + centre


def jagged(rng: Rng, points: np.ndarray, amount: float) -> np.ndarray:
    return points + rng.normal(0, amount, points.shape)


def draw_line(drawn: np.ndarray, points: np.ndarray, width: float, value: int = 255, taper: bool = False) -> None:
    """Draw a stroke into a uint8 array; below a width of one pixel it becomes fainter, as a camera would show it."""
    fixed = np.round(points * (1 << SHIFT)).astype(np.int32)
    if not taper:
        faint = value if width >= 1 else int(value * width)
        cv2.polylines(drawn, [fixed.reshape(-1, 1, 2)], False, faint, max(1, round(width)), cv2.LINE_AA, SHIFT)
        return
    count = len(fixed) - 1
    for index in range(count):
        local = width * (1 - 0.85 * abs(2 * index / max(count - 1, 1) - 1))
        faint = value if local >= 1 else int(value * max(local, 0.25))
        start, end = fixed[index].tolist(), fixed[index + 1].tolist()
        cv2.line(drawn, start, end, faint, max(1, round(local)), cv2.LINE_AA, SHIFT)


def tree(
    rng: Rng, drawn: np.ndarray, start: np.ndarray, heading: float, length: float, width: float, depth: int
) -> None:
    """Draw a crack: a random walk that gets thinner and branches."""
    steps = int(np.clip(length / 4, 4, 28))
    turns = heading + np.cumsum(rng.normal(0, 0.22, steps)) + rng.normal(0, 0.45, steps)
    points = start + np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1) * length / steps, 0)
    points = np.vstack([start, points])
    for index in range(0, steps, 3):
        local = width * (1 - 0.8 * index / steps)
        draw_line(drawn, points[index : index + 4], local)
    if depth > 0:
        for index in rng.integers(1, steps, int(rng.integers(0, 5))):
            side = turns[index] + sign(rng) * rng.uniform(0.4, 1.2)
            part = rng.uniform(0.25, 0.6)
            tree(rng, drawn, points[index], side, length * part, width * 0.6, depth - 1)


def scatter(rng: Rng, size: int, centre: tuple[float, float], radius: float, count: int, speck: float) -> np.ndarray:
    """Draw a cluster of small specks, denser in its middle."""
    drawn = np.zeros((size, size), np.uint8)
    spread = rng.normal(0, radius * 0.5, (count, 2)) + centre
    for (x, y), part in zip(spread, rng.lognormal(0, 0.5, count), strict=True):
        radii = np.maximum(speck * part * rng.uniform(0.7, 1.3, 2), 0.5)
        middle, axes = (int(x * 8), int(y * 8)), (int(radii[0] * 8), int(radii[1] * 8))
        cv2.ellipse(drawn, middle, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA, SHIFT)
    return drawn.astype(np.float32) / 255


def line_field(rng: Rng, size: int, centre: tuple[float, float], bend: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the approximate signed distance to a gently curved line through `centre`, and the position along it."""
    x, y = grid(size)
    turn = rng.uniform(0, 2 * np.pi)
    along = (x - centre[0]) * np.float32(np.cos(turn)) + (y - centre[1]) * np.float32(np.sin(turn))
    across = (y - centre[1]) * np.float32(np.cos(turn)) - (x - centre[0]) * np.float32(np.sin(turn))
    waves = np.linspace(-size, size, 65)
    offset = np.cumsum(np.cumsum(rng.normal(0, bend, 65)) * 0.2)
    offset -= offset[32]
    return across - np.interp(along, waves, offset).astype(np.float32), along
