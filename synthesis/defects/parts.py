"""Defects of objects and of print: missing, extra and misplaced parts, bitten outlines, broken strokes."""

from __future__ import annotations

import cv2
import numpy as np

from synthesis.defects.canvas import Canvas, Change, blend, box, fill_from, mean_colour, shade, spectral_peak
from synthesis.defects.shapes import Rng, blob, chance, curve, draw_line, fractal, grid, log_uniform, sign, soften

CROSS = np.ones((3, 3), np.uint8)


def _silhouette(rng: Rng, canvas: Canvas) -> np.ndarray | None:
    """Return the outline to change: a part, or the whole foreground if it does not fill the picture."""
    parts = canvas.scene.instances
    if parts and chance(rng, 0.6):
        return parts[int(rng.integers(len(parts)))].astype(np.uint8)
    return canvas.foreground if canvas.coverage < 0.93 else None


def _edge_point(rng: Rng, mask: np.ndarray) -> tuple[float, float] | None:
    """Draw a point on the outline, away from the picture's border."""
    size = mask.shape[0]
    edge = mask - cv2.erode(mask, CROSS)
    edge[:3] = edge[-3:] = 0
    edge[:, :3] = edge[:, -3:] = 0
    spots = np.flatnonzero(edge)
    if spots.size < 8:
        return None
    index = int(spots[rng.integers(spots.size)])
    return float(index % size), float(index // size)


def _behind(canvas: Canvas, mask: np.ndarray) -> np.ndarray:
    """Return the picture without `mask`: with the known background, or filled from its surroundings."""
    if canvas.scene.background is not None or canvas.coverage < 0.9:
        return canvas.backdrop
    rows, columns = box(mask.astype(np.float32), 16)
    layer = canvas.image.copy()
    known = 1 - cv2.dilate(np.ascontiguousarray(mask[rows, columns]).astype(np.uint8), np.ones((5, 5), np.uint8))
    layer[rows, columns] = fill_from(np.ascontiguousarray(canvas.image[rows, columns]), known)
    return layer


def chip(rng: Rng, canvas: Canvas) -> Change | None:
    """Cut a chip out of an outline, sometimes with a lighter facet where it broke."""
    mask = _silhouette(rng, canvas)
    point = None if mask is None else _edge_point(rng, mask)
    if mask is None or point is None:
        return None
    whole = cv2.countNonZero(mask) / mask.size
    radius = np.sqrt(log_uniform(rng, max(0.0006, whole * 0.01), whole * 0.25) / np.pi) * canvas.size
    bite = soften(blob(rng, canvas.size, point, radius) * mask, log_uniform(rng, 0.3, 0.9))
    image = canvas.image
    if chance(rng, 0.4):
        facet = np.clip(soften(bite, max(1.0, radius * 0.2)) * 2 - bite, 0, 1) * mask
        image = shade(image, facet * sign(rng) * log_uniform(rng, 15, 70))
    return Change(blend(image, _behind(canvas, bite > 0.02), bite), cv2.dilate(bite, np.ones((9, 9))) > 0.02, True)


def burr(rng: Rng, canvas: Canvas) -> Change | None:
    """Draw material that protrudes from an outline, in the object's own colours."""
    mask = _silhouette(rng, canvas)
    point = None if mask is None else _edge_point(rng, mask)
    if mask is None or point is None:
        return None
    radius = canvas.radius(rng, 0.0006, 0.03)
    extra = blob(rng, canvas.size, point, radius)
    extra = soften(extra * (1 - mask), log_uniform(rng, 0.3, 0.8)) * (1 - mask)
    rows, columns = box(extra, 12)
    layer = canvas.image.copy()
    layer[rows, columns] = fill_from(
        np.ascontiguousarray(canvas.image[rows, columns]), cv2.erode(mask, CROSS)[rows, columns]
    )
    image = blend(canvas.image, layer, extra)
    if chance(rng, 0.5):
        image = shade(image, extra * rng.normal(0, 25))
    return Change(image, extra > 0.02, True)


def severed(rng: Rng, canvas: Canvas) -> Change | None:
    """Cut off an end of the object along a more or less ragged line."""
    mask = _silhouette(rng, canvas)
    if mask is None or cv2.countNonZero(mask) < 60:
        return None
    turn = rng.uniform(0, 2 * np.pi)
    x, y = grid(canvas.size)
    depth = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    depth = depth + (fractal(rng, canvas.size, canvas.size, log_uniform(rng, 4, 40)) - 0.5) * log_uniform(rng, 0.5, 30)
    cut = float(np.quantile(depth[mask > 0][::3], 1 - log_uniform(rng, 0.02, 0.45)))
    gone = np.clip(depth - cut + 0.5, 0, 1) * mask
    gone = soften(gone, log_uniform(rng, 0.3, 0.8))
    return Change(blend(canvas.image, _behind(canvas, gone > 0.02), gone), gone > 0.02, True)


def missing_part(rng: Rng, canvas: Canvas) -> Change | None:
    """Remove a part, or replace a piece of a pattern by its surroundings."""
    parts = canvas.scene.instances
    if canvas.regular:
        mask = parts[int(rng.integers(len(parts)))].astype(np.uint8)
        mask = cv2.dilate(mask, CROSS)
        if cv2.countNonZero(mask) > 0.5 * mask.size:
            return None
    else:
        mask = (canvas.area(rng, 0.001, 0.1, 0.0) > 0.5).astype(np.uint8)
    rows, columns = box(mask.astype(np.float32), 16)
    layer = canvas.image.copy()
    if canvas.scene.background is not None and parts:
        layer = canvas.scene.background
    else:
        known = 1 - cv2.dilate(mask[rows, columns], CROSS)
        layer[rows, columns] = fill_from(np.ascontiguousarray(canvas.image[rows, columns]), known)
    alpha = soften(mask.astype(np.float32), log_uniform(rng, 0.3, 1.2))
    return Change(blend(canvas.image, layer, alpha), alpha > 0.02, True)


def _pick_part(rng: Rng, canvas: Canvas, fewest: int = 2) -> np.ndarray | None:
    """Draw a part that has others like it, which show how it should lie and look."""
    parts = canvas.scene.instances
    if len(parts) < fewest:
        return None
    mask = parts[int(rng.integers(len(parts)))].astype(np.uint8)
    return mask if 30 < cv2.countNonZero(mask) < 0.3 * mask.size else None


def _paste_part(
    canvas: Canvas, mask: np.ndarray, below: np.ndarray, turn: float, move: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = box(mask.astype(np.float32))
    middle = ((columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle, turn, scale)
    matrix[:, 2] += move
    moved = cv2.warpAffine(canvas.image, matrix, mask.shape[::-1], borderMode=cv2.BORDER_REFLECT)
    alpha = cv2.warpAffine(soften(mask.astype(np.float32), 0.5), matrix, mask.shape[::-1])
    return blend(below, moved, alpha), alpha


def extra_part(rng: Rng, canvas: Canvas) -> Change | None:
    mask = _pick_part(rng, canvas)
    if mask is None:
        return None
    rows, columns = box(mask.astype(np.float32))
    middle = np.array([(columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2])
    if canvas.regular and chance(rng, 0.6):
        target = rng.uniform(0.08, 0.92, 2) * canvas.size
    else:  # on top of another part, where it cannot belong
        target = np.array(canvas.somewhere(rng))
    turn, scale = float(rng.choice([0, rng.uniform(0, 360)])), log_uniform(rng, 0.7, 1.2)
    image, alpha = _paste_part(canvas, mask, canvas.image, turn, target - middle, scale)
    return Change(image, alpha > 0.1, True)


def misplaced_part(rng: Rng, canvas: Canvas) -> Change | None:
    """Turn, shift or resize a part; the background appears where it was."""
    mask = _pick_part(rng, canvas) if canvas.regular else None
    if mask is None:
        return None
    wide = cv2.dilate(mask, CROSS)
    below = blend(canvas.image, _behind(canvas, wide), soften(wide.astype(np.float32), 0.5))
    reach = np.sqrt(cv2.countNonZero(mask))
    make = rng.random()
    turn, move, scale = 0.0, np.zeros(2), 1.0
    if make < 0.45:
        turn = float(sign(rng) * rng.uniform(12, 180))
    elif make < 0.8:
        move = rng.normal(0, 1, 2) * reach * rng.uniform(0.15, 0.5)
    else:
        scale = log_uniform(rng, 1.2, 1.7) ** sign(rng)
    image, alpha = _paste_part(canvas, mask, below, turn, move, scale)
    return Change(image, cv2.dilate(((alpha > 0.05) | (wide > 0)).astype(np.uint8), CROSS), True)


def recoloured_part(rng: Rng, canvas: Canvas) -> Change | None:
    """Give a part the wrong colour or brightness."""
    mask = _pick_part(rng, canvas, 3) if canvas.alike else None
    if mask is None:
        return None
    alpha = soften(mask.astype(np.float32), 0.6)
    if chance(rng, 0.5):
        return Change(shade(canvas.image, alpha * sign(rng) * log_uniform(rng, 25, 120)), alpha > 0.05, True)
    swapped = canvas.image[..., rng.permutation(3)] if chance(rng, 0.3) else 255 - canvas.image
    layer = swapped if chance(rng, 0.3) else np.clip(canvas.image * rng.uniform(0.3, 1.6, 3), 0, 255)
    return Change(blend(canvas.image, layer.astype(np.float32), alpha), alpha > 0.05, True)


# --- strokes: print, traces, weave, anything with thin dark or bright lines --------------------------------


class Strokes:
    """Thin structures in a window of the picture, by a local Otsu threshold."""

    def __init__(self, rng: Rng, canvas: Canvas) -> None:
        x, y = canvas.somewhere(rng)
        half = int(log_uniform(rng, 0.08, 0.25) * canvas.size)
        self.rows = slice(max(int(y) - half, 0), min(int(y) + half, canvas.size))
        self.columns = slice(max(int(x) - half, 0), min(int(x) + half, canvas.size))
        self.patch = np.ascontiguousarray(canvas.image[self.rows, self.columns])
        gray = cv2.GaussianBlur(canvas.gray[self.rows, self.columns], (3, 3), 0)
        _, high = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        share = cv2.countNonZero(high) / high.size
        self.mask = high if share < 0.5 else 1 - high
        self.share = min(share, 1 - share)
        self.contrast = abs(cv2.mean(gray, self.mask)[0] - cv2.mean(gray, 1 - self.mask)[0])
        spread = float(cv2.meanStdDev(gray)[1][0, 0])
        # Otsu's measure of two clear classes: 0.64 for plain noise, 1 for black on white.
        self.clearness = self.share * (1 - self.share) * self.contrast**2 / max(spread, 1.0) ** 2
        self.ordered = canvas.ordered
        self.depth = cv2.distanceTransform(self.mask, cv2.DIST_L2, 3)

    @property
    def usable(self) -> bool:
        if not self.ordered or self.clearness < 0.76:
            return False
        return self.contrast > 22 and self.share > 0.02 and min(self.mask.shape) > 12

    def point(self, rng: Rng, where: np.ndarray) -> tuple[float, float] | None:
        spots = np.flatnonzero(where)
        if spots.size < 4:
            return None
        index = int(spots[rng.integers(spots.size)])
        return float(index % where.shape[1]), float(index // where.shape[1])

    def ridge(self) -> np.ndarray:
        """The centre lines of strokes that are thin relative to the window."""
        top = cv2.dilate(self.depth, CROSS)
        return (self.depth > 0.8) & (self.depth >= top - 0.1) & (self.depth < 0.1 * min(self.mask.shape))

    def ground(self) -> np.ndarray:
        return fill_from(self.patch, 1 - cv2.dilate(self.mask, CROSS))

    def ink(self) -> np.ndarray:
        core = cv2.erode(self.mask, CROSS)
        return mean_colour(self.patch, core if cv2.countNonZero(core) > 8 else self.mask)

    def change(self, canvas: Canvas, layer: np.ndarray, alpha: np.ndarray) -> Change:
        image, region = canvas.image.copy(), np.zeros(canvas.foreground.shape, np.uint8)
        image[self.rows, self.columns] = blend(self.patch, layer, alpha)
        region[self.rows, self.columns] = alpha > 0.02
        return Change(image, region)


def _disc(shape: tuple[int, int], point: tuple[float, float], radius: float, rng: Rng) -> np.ndarray:
    side = max(shape)
    return blob(rng, side, point, radius)[: shape[0], : shape[1]]


def line_break(rng: Rng, canvas: Canvas) -> Change | None:
    """Interrupt a stroke: its ground appears in a cut across it."""
    strokes = Strokes(rng, canvas)
    point = strokes.point(rng, strokes.ridge()) if strokes.usable else None
    if point is None:
        return None
    thick = max(1.5, 2 * float(strokes.depth[int(point[1]), int(point[0])]))
    reach = min(thick * log_uniform(rng, 0.8, 3.0), 0.3 * min(strokes.mask.shape))
    alpha = _disc(strokes.mask.shape, point, reach, rng) * cv2.dilate(strokes.mask, CROSS)
    return strokes.change(canvas, strokes.ground(), soften(alpha, 0.5) * rng.uniform(0.7, 1))


def line_bridge(rng: Rng, canvas: Canvas) -> Change | None:
    """Join two strokes, or two stretches of a stroke, by a blob of their own colour."""
    strokes = Strokes(rng, canvas)
    if not strokes.usable:
        return None
    count, labels = cv2.connectedComponents(strokes.mask)
    if count < 3:
        return None
    first = int(rng.integers(1, count))
    away = cv2.distanceTransform((labels != first).astype(np.uint8), cv2.DIST_L2, 3)
    others = np.flatnonzero((labels > 0) & (labels != first))
    near = others[np.argsort(away.flat[others])[: max(1, int(others.size * 0.05))]]
    index = int(near[rng.integers(near.size)])
    width = labels.shape[1]
    end = np.array([index % width, index // width], float)
    own = np.flatnonzero(labels == first)
    pixels = np.stack([own % width, own // width], 1)
    start = pixels[np.argmin(((pixels - end) ** 2).sum(1))]
    drawn = np.zeros(labels.shape, np.uint8)
    thick = max(1.0, 2 * float(np.median(strokes.depth[strokes.depth > 0])) * rng.uniform(0.4, 1.6))
    draw_line(drawn, np.stack([start, end]), thick)
    alpha = soften(drawn.astype(np.float32) / 255, 0.5)
    return strokes.change(canvas, strokes.ink(), alpha * rng.uniform(0.75, 1))


def nibble(rng: Rng, canvas: Canvas) -> Change | None:
    """Cut a notch into a stroke's edge, or draw a spur of its colour."""
    strokes = Strokes(rng, canvas)
    if not strokes.usable:
        return None
    edge = cv2.dilate(strokes.mask, CROSS) - cv2.erode(strokes.mask, CROSS)
    point = strokes.point(rng, edge)
    if point is None:
        return None
    thick = 2 * float(np.median(strokes.depth[strokes.depth > 0.5])) + 1
    radius = max(1.6, thick * log_uniform(rng, 0.4, 1.3))
    area = _disc(strokes.mask.shape, point, radius, rng)
    if chance(rng, 0.5):
        return strokes.change(canvas, strokes.ground(), soften(area * cv2.dilate(strokes.mask, CROSS), 0.5))
    return strokes.change(canvas, strokes.ink(), soften(area, 0.5))


def missing_glyph(rng: Rng, canvas: Canvas) -> Change | None:
    """Remove a connected mark, or make it pale as if the ink had run out."""
    strokes = Strokes(rng, canvas)
    if not strokes.usable:
        return None
    _count, labels, stats, _ = cv2.connectedComponentsWithStats(strokes.mask)
    left, top, width, height, area = stats.T[:5]
    rows, columns = labels.shape
    whole = (left > 0) & (top > 0) & (left + width < columns) & (top + height < rows) & (area > 10)
    whole[0] = False
    choices = np.flatnonzero(whole)
    if not choices.size:
        return None
    mark = (labels == int(rng.choice(choices))).astype(np.uint8)
    alpha = soften(cv2.dilate(mark, np.ones((5, 5), np.uint8)).astype(np.float32), 0.6)
    return strokes.change(canvas, strokes.ground(), alpha * (1 if chance(rng, 0.7) else rng.uniform(0.4, 0.9)))


def double_print(rng: Rng, canvas: Canvas) -> Change | None:
    """Print strokes twice, slightly apart, or let their ink run."""
    strokes = Strokes(rng, canvas)
    if not strokes.usable or strokes.share > 0.45:
        return None
    step = rng.normal(0, 1, 2)
    step = step / np.hypot(*step) * log_uniform(rng, 2, 9)
    ghost = np.roll(strokes.mask, tuple(np.round(step).astype(int)), (0, 1)).astype(np.float32)
    rows, columns = strokes.mask.shape
    centre = (rng.uniform(0.3, 0.7) * columns, rng.uniform(0.3, 0.7) * rows)
    area = _disc((rows, columns), centre, min(rows, columns) * rng.uniform(0.2, 0.5), rng)
    alpha = soften(ghost, 0.5) * (1 - strokes.mask) * soften(area, 1)
    return strokes.change(canvas, strokes.ink(), alpha * rng.uniform(0.3, 1))


def broken_repetition(rng: Rng, canvas: Canvas) -> Change | None:
    """Shift a repeating pattern inside a patch, or merge its lines."""
    size = canvas.size
    alpha = canvas.area(rng, 0.002, 0.15, 0.0 if chance(rng, 0.6) else rng.uniform(0.02, 0.2))
    rows, columns = box(alpha)
    middle = ((rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2)
    top, left = (int(np.clip(part - 32, 0, size - 64)) for part in middle)
    window = canvas.gray[top : top + 64, left : left + 64].astype(np.float32)
    wave, clearness = spectral_peak(window)
    if clearness < 10:
        return None
    step = wave / (wave @ wave) * rng.choice([0.5, 0.5, rng.uniform(0.2, 0.8)])
    if chance(rng, 0.7):
        layer = np.roll(canvas.image, tuple(np.round(step).astype(int)), (0, 1))
    else:
        height, width = (int(np.clip(abs(part) * 2, 1, 41)) | 1 for part in step)
        layer = cv2.blur(canvas.image, (width, height))
    return Change(blend(canvas.image, layer, alpha), alpha > 0.03, True)


def stray_line(rng: Rng, canvas: Canvas) -> Change | None:
    """Draw an extra stroke in the ink of its neighbours, in another direction."""
    strokes = Strokes(rng, canvas)
    if not strokes.usable:
        return None
    rows, columns = strokes.mask.shape
    drawn = np.zeros((rows, columns), np.uint8)
    centre = (rng.uniform(0.3, 0.7) * columns, rng.uniform(0.3, 0.7) * rows)
    thick = 2 * float(np.median(strokes.depth[strokes.depth > 0.5]))
    draw_line(drawn, curve(rng, centre, min(rows, columns) * rng.uniform(0.3, 0.9), log_uniform(rng, 0.02, 0.8)), thick)
    return strokes.change(canvas, strokes.ink(), soften(drawn.astype(np.float32) / 255, 0.5) * rng.uniform(0.7, 1))
