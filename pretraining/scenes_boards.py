"""Flat assemblies as photographed: populated boards near and far, blister packs, zippers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from scenes_base import Photos, Rng, Scene, blend, chance, full, grain, loguni, pick, relight, smooth, white
from scenes_objects import rounded
from scenes_patterns import _bus, _claim, _route, box, disc, line
from scenes_studio import Skin, Studio, cast_shadow, flat, ground, shaded, sober, stamp

Family = Callable[[Rng, int, Photos], Scene]
Rect = tuple[float, float, float, float]
TIN = (186.0, 188.0, 190.0)
GOLD = (205.0, 172.0, 96.0)
_MASKS = (
    ((18, 88, 48), 0.42),  # green, dark green
    ((12, 62, 40), 0.62),
    ((20, 48, 120), 0.76),  # blue
    ((24, 24, 26), 0.88),  # black
    ((140, 24, 28), 0.94),  # red
    ((222, 222, 214), 1.01),  # white
)


@dataclass
class Canvas:
    """A board being drawn: its colours, and height, metal and gloss in the three channels of `surface`."""

    albedo: np.ndarray
    surface: np.ndarray
    unit: float  # pixels of the width of a small chip resistor
    tin: tuple[float, float, float] = TIN
    silk: tuple[float, float, float] = (225.0, 225.0, 218.0)
    parts: list[tuple[str, Rect]] = field(default_factory=list)

    def box(self, r: Rect, color: tuple[float, ...], height: float, metal: float = 0, gloss: float = 60) -> None:
        first, last = (int(r[0] * 8), int(r[1] * 8)), (int(r[2] * 8), int(r[3] * 8))
        cv2.rectangle(self.albedo, first, last, color, -1, cv2.LINE_AA, 3)
        cv2.rectangle(self.surface, first, last, (height, metal, gloss), -1, cv2.LINE_AA, 3)

    def disc(
        self, x: float, y: float, r: float, color: tuple[float, ...], height: float, metal: float = 0, gloss: float = 60
    ) -> None:
        disc(self.albedo, x, y, r, color)
        disc(self.surface, x, y, r, (height, metal, gloss))

    def pad(self, x0: float, y0: float, x1: float, y1: float, height: float = 9) -> None:
        self.box((x0, y0, x1, y1), self.tin, height, 235, 40)

    def write(self, content: str, x: float, y: float, height: float, color: tuple[float, ...]) -> None:
        """Text with its left end at x and its middle at y."""
        if height < 4.5:
            return
        scale, thick = height / 22, max(1, round(height / 12))
        at = (int(x), int(y + height / 2))
        cv2.putText(self.albedo, content, at, 0, scale, color, thick, cv2.LINE_AA)


def _turned(r: Rect, a: float, b: float, c: float, d: float, upright: bool) -> Rect:
    """Part of a rectangle in fractions along (a..c) and across (b..d) its long axis."""
    x0, y0, x1, y1 = r
    w, h = x1 - x0, y1 - y0
    if upright:
        return (x0 + b * w, y0 + a * h, x0 + d * w, y0 + c * h)
    return (x0 + a * w, y0 + b * h, x0 + c * w, y0 + d * h)


class Kind:
    """One component type of a board: its pads are drawn on the bare board, its body later."""

    def __init__(self, rng: Rng, unit: float, name: str) -> None:
        self.name = name
        u = unit * rng.uniform(0.85, 1.15)
        n = int(rng.integers(3, 9))
        sizes = {
            "resistor": (2 * u, u),
            "capacitor": (2 * u, u * 1.1),
            "diode": (2.6 * u, 1.2 * u),
            "sot": (2.0 * u, 1.9 * u),
            "so": (n * 0.9 * u, 4.2 * u),
            "quad": (6.5 * u, 6.5 * u),
            "can": (4.5 * u, 4.5 * u),
            "coil": (3.6 * u, 3.6 * u),
            "crystal": (5.0 * u, 2.2 * u),
            "socket": (n * 1.5 * u, 3.0 * u),
            "header": (n * 1.6 * u, 1.7 * u),
            "joints": (n * 1.6 * u, 1.6 * u),
            "hole": (3.4 * u, 3.4 * u),
            "label": (6.5 * u, 3.4 * u),
        }
        self.long, self.wide = sizes[name]
        self.pins = n
        self.letters, self.second = stamp(rng, 2, 5), stamp(rng, 4, 8)
        dark = rng.uniform(22, 52)
        self.body = tuple(np.clip(dark + rng.normal(0, 2, 3), 5, 255))
        if name == "capacitor":
            self.body = (rng.uniform(150, 190), rng.uniform(120, 155), rng.uniform(85, 120))
        elif name == "socket":
            self.body = tuple(sober(rng)) if chance(rng, 0.4) else (rng.uniform(200, 235),) * 3
        elif name == "coil":
            self.body = (rng.uniform(60, 130),) * 3
        self.ink = (rng.uniform(110, 210),) * 3
        self.gold = chance(rng, 0.5)
        self.mark = rng.uniform(0.3, 0.7)

    def pads(self, c: Canvas, r: Rect, up: bool) -> None:
        if self.name in ("resistor", "capacitor", "diode"):
            for a, b in ((-0.12, 0.26), (0.74, 1.12)):
                c.pad(*_turned(r, a, -0.06, b, 1.06, up), height=7)
        elif self.name == "sot":
            for a, b, d, e in ((0.05, -0.15, 0.35, 0.25), (0.65, -0.15, 0.95, 0.25), (0.35, 0.75, 0.65, 1.15)):
                c.pad(*_turned(r, a, b, d, e, up), height=6)
        elif self.name in ("so", "quad"):
            n = self.pins if self.name == "so" else self.pins + 4
            for k in range(n):
                a, b = (k + 0.25) / n, (k + 0.75) / n
                c.pad(*_turned(r, a, -0.03, b, 0.16, up), height=5)
                c.pad(*_turned(r, a, 0.84, b, 1.03, up), height=5)
                if self.name == "quad":
                    c.pad(*_turned(r, -0.03, 0.15 + 0.7 * a, 0.16, 0.15 + 0.7 * b, up), height=5)
                    c.pad(*_turned(r, 0.84, 0.15 + 0.7 * a, 1.03, 0.15 + 0.7 * b, up), height=5)
        elif self.name in ("header", "joints", "socket"):
            self._row(c, r, up, 0.34 if self.name != "socket" else 0.2)
        elif self.name == "hole":
            x, y, radius = (r[0] + r[2]) / 2, (r[1] + r[3]) / 2, self.wide / 2
            c.disc(x, y, radius, c.tin, 4, 235, 40)
            c.disc(x, y, radius * 0.66, (14, 14, 14), 0)
        else:
            for a, b in ((-0.06, 0.2), (0.8, 1.06)):
                c.pad(*_turned(r, a, 0.3, b, 0.7, up))

    def _row(self, c: Canvas, r: Rect, up: bool, radius: float) -> None:
        for k in range(self.pins):
            q = _turned(r, (k + 0.5) / self.pins, 0.5, (k + 0.5) / self.pins, 0.5, up)
            pitch = self.long / self.pins
            c.disc(q[0], q[1], pitch * (radius + 0.08), c.tin, 4, 235, 40)
            c.disc(q[0], q[1], pitch * radius * 0.7, (20, 18, 16) if self.name != "joints" else c.tin, 20, 200, 60)

    def place(self, c: Canvas, r: Rect, up: bool) -> None:
        name, tall = self.name, min(r[2] - r[0], r[3] - r[1])
        cx, cy = (r[0] + r[2]) / 2, (r[1] + r[3]) / 2
        if name in ("resistor", "capacitor"):
            c.box(r, c.tin, 26, 220, 60)
            c.box(_turned(r, 0.2, -0.01, 0.8, 1.01, up), self.body, 28, 0, 70)
            if name == "resistor" and not up:
                c.write(self.letters[:3], r[0] + 0.24 * self.long, cy, tall * 0.42, (215, 215, 215))
        elif name == "diode":
            c.box(_turned(r, 0.0, 0.3, 1.0, 0.7, up), c.tin, 14, 220, 60)
            c.box(_turned(r, 0.14, 0, 0.86, 1, up), self.body, 40, 0, 70)
            c.box(_turned(r, 0.2, 0, 0.3, 1, up), self.ink, 40)
        elif name == "sot":
            for a, b, d, e in ((0.1, -0.08, 0.3, 0.3), (0.7, -0.08, 0.9, 0.3), (0.4, 0.7, 0.6, 1.08)):
                c.box(_turned(r, a, b, d, e, up), c.tin, 14, 225, 60)
            c.box(_turned(r, 0, 0.18, 1, 0.82, up), self.body, 38, 0, 70)
            c.write(self.letters[:2], r[0] + 0.2 * (r[2] - r[0]), cy, tall * 0.3, self.ink)
        elif name in ("so", "quad"):
            self._chip(c, r, up)
        elif name == "can":
            c.box(r, (26, 26, 28), 14)
            c.disc(cx, cy, tall * 0.47, (178, 180, 182), 130, 235, 80)
            c.disc(cx, cy, tall * 0.41, (190, 192, 194), 138, 220, 80)
            angle = 90 if up else 0
            size = (int(tall * 0.41 * 8),) * 2
            cv2.ellipse(c.albedo, (int(cx * 8), int(cy * 8)), size, angle, -52, 52, (30, 30, 34), -1, cv2.LINE_AA, 3)
            c.write(self.letters[:3], cx - tall * 0.28, cy, tall * 0.17, (40, 40, 44))
        elif name == "coil":
            c.box(r, self.body, 60, 0, 50)
            c.disc(cx, cy, tall * 0.42, tuple(v * 0.6 for v in self.body), 46)
            c.disc(cx, cy, tall * 0.36, tuple(v * 1.2 for v in self.body), 66)
            c.write(self.letters[:3], cx - tall * 0.2, cy, tall * 0.2, (200, 200, 200))
        elif name == "crystal":
            c.box(r, (150, 152, 152), 30, 240, 80)
            c.box(_turned(r, 0.05, 0.1, 0.95, 0.9, up), (188, 190, 190), 52, 235, 80)
            if not up:
                c.write(self.second[:6], r[0] + self.long * 0.15, cy, tall * 0.3, (70, 70, 70))
        elif name == "socket":
            c.box(r, self.body, 100, 0, 90)
            c.box(_turned(r, 0.03, 0.2, 0.97, 0.86, up), tuple(v * 0.45 for v in self.body), 40)
            for k in range(self.pins):
                a = (k + 0.5) / self.pins
                c.box(_turned(r, a - 0.25 / self.pins, 0.32, a + 0.25 / self.pins, 0.7, up), GOLD, 60, 230, 90)
        elif name == "header":
            c.box(r, self.body, 50, 0, 60)
            for k in range(self.pins):
                a, w = (k + 0.5) / self.pins, 0.19 / self.pins
                color = GOLD if self.gold else c.tin
                c.box(_turned(r, a - w, 0.34, a + w, 0.66, up), color, 150, 235, 120)
        elif name == "joints":  # solder domes around clipped leads
            for k in range(self.pins):
                q = _turned(r, (k + 0.5) / self.pins, 0.5, (k + 0.5) / self.pins, 0.5, up)
                for step in range(4):
                    c.disc(q[0], q[1], self.wide * (0.4 - 0.09 * step), c.tin, 14 + 16 * step, 240, 120)
        elif name == "hole":
            if self.gold:  # a screw sits in it
                c.disc(cx, cy, tall * 0.47, (170, 170, 172), 60, 240, 110)
                for a, b in (((0.2, 0.45), (0.8, 0.55)), ((0.45, 0.2), (0.55, 0.8))):
                    c.box(_turned(r, *a, *b, up), (50, 50, 52), 25, 120)
        elif name == "label":
            c.box(r, (226, 226, 222), 8, 0, 50)
            c.write(self.second, r[0] + self.long * 0.06, r[1] + tall * 0.3, tall * 0.28, (30, 30, 30))
            for k, ch in enumerate(self.second * 5):
                if ord(ch) % 2 and not up:
                    x = r[0] + self.long * (0.08 + 0.84 * k / (5 * len(self.second)))
                    right = x + max(1.0, self.long * 0.015)
                    box(c.albedo, x, r[1] + tall * 0.55, right, r[1] + tall * 0.88, (30, 30, 30))

    def _chip(self, c: Canvas, r: Rect, up: bool) -> None:
        quad = self.name == "quad"
        n = self.pins + 4 if quad else self.pins
        for k in range(n):
            a, b = (k + 0.3) / n, (k + 0.7) / n
            for q in ((a, 0.03, b, 0.25), (a, 0.75, b, 0.97)):
                c.box(_turned(r, *q, up), c.tin, 16, 230, 90)
            if quad:
                a, b = 0.15 + 0.7 * a, 0.15 + 0.7 * b
                for q in ((0.03, a, 0.25, b), (0.75, a, 0.97, b)):
                    c.box(_turned(r, *q, up), c.tin, 16, 230, 90)
        inset = 0.1 if quad else 0.0
        body = _turned(r, inset, 0.1 if quad else 0.18, 1 - inset, 0.9 if quad else 0.82, up)
        c.box(body, self.body, 44, 0, 70)
        x0, y0, x1, y1 = body
        w, h = x1 - x0, y1 - y0
        m = 0.13 * min(w, h)
        c.disc(x0 + m, y0 + m, 0.4 * m + 0.6, tuple(v * 0.7 for v in self.body), 38)
        letters = min(h * 0.2, w / 5.5)
        c.write(self.second, x0 + w * 0.12, y0 + h * 0.42, letters, self.ink)
        c.write(self.letters, x0 + w * 0.12, y0 + h * 0.7, letters, self.ink)


_SMALL = ("resistor", "capacitor", "resistor", "capacitor", "diode", "sot")
_LARGE = ("so", "so", "quad", "can", "coil", "crystal", "socket", "header", "joints", "hole", "label")
_MARKS = {"resistor": "R", "capacitor": "C", "can": "C", "coil": "L", "so": "U", "quad": "U", "diode": "D", "sot": "Q"}
Placed = list[tuple[Kind, Rect, bool]]


def _layout(rng: Rng, unit: float, taken: np.ndarray) -> tuple[Placed, Placed]:
    """Where parts stand: big ones first, then rows of equal small ones; all of them, and the longest row."""
    size = len(taken)
    left, top, width, height = cv2.boundingRect(255 - taken)
    placed: Placed = []
    best: Placed = []
    full_of = rng.uniform(0.3, 1.0)
    kinds = [Kind(rng, unit, str(rng.choice(_LARGE))) for _ in range(int(rng.integers(2, 6)))]
    kinds += [Kind(rng, unit, str(rng.choice(_SMALL))) for _ in range(int(rng.integers(2, 6)))]
    tries = int(np.clip(60 * full_of, 8, 60))
    for t in range(tries):
        big = t < tries * 0.35
        fits = [k for k in kinds if (k.long > 3.2 * unit) == big] or kinds
        kind = fits[int(rng.integers(len(fits)))]
        up = chance(rng, 0.5)
        w, h = (kind.wide, kind.long) if up else (kind.long, kind.wide)
        n = 1 if big and chance(rng, 0.6) else int(rng.integers(1, 4 if big else 9))
        gap = unit * rng.uniform(0.9, 2.0)
        along = chance(rng, 0.25) != up
        x, y = np.round((rng.uniform(-0.05, 0.95, 2) * (width, height) + (left, top)) / (unit * 0.5)) * unit * 0.5
        row: Placed = []
        for k in range(n):
            dx, dy = (0.0, k * (h + gap)) if along is False else (k * (w + gap), 0.0)
            margin = unit * 0.55
            x0, y0 = x + dx, y + dy
            if not _claim(taken, x0 - margin, y0 - margin, x0 + w + margin, y0 + h + margin):
                break
            row.append((kind, (x0, y0, x0 + w, y0 + h), up))
        placed += row
        whole = [p for p in row if min(p[1]) > 2 and max(p[1]) < size - 2]
        best = whole if len(whole) > len(best) else best
    return placed, best


def _bare(rng: Rng, size: int, unit: float, taken: np.ndarray) -> Canvas:
    """The board without parts: mask over copper, ground planes, traces, vias, silk-screen dots."""
    roll = rng.random()
    base = next(np.array(c, float) for c, limit in _MASKS if roll < limit)
    base = np.clip(base * rng.uniform(0.7, 1.35) + rng.normal(0, 5, 3), 4, 240)
    copper = np.zeros((size, size), np.uint8)
    pitch = unit * rng.uniform(0.8, 1.6)
    wide = max(1.0, pitch * rng.uniform(0.2, 0.45))
    lanes = np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(0, 6))):
        _bus(rng, copper, lanes, 255, 0, max(pitch * 0.7, 2.2 * wide), wide)  # type: ignore[arg-type]
    _route(rng, copper, lanes, 255, 0, max(pitch, size / 28), wide)  # type: ignore[arg-type]
    if chance(rng, 0.55):  # a ground plane: copper everywhere but beside the traces
        gap = cv2.dilate(copper, np.ones((3, 3), np.uint8), iterations=max(1, round(pitch * 0.22)))
        copper = cv2.max(copper, 255 - gap)
    shine = 1 + rng.uniform(0.12, 0.45) * (1 if base.mean() < 150 else -0.25)
    a = cv2.GaussianBlur(copper, (0, 0), 0.7).astype(np.float32) / 255
    lit = np.clip(base * shine + rng.uniform(2, 12), 0, 250)
    albedo = cv2.blendLinear(flat(size, base), flat(size, lit), 1 - a, a)
    surface = np.zeros((size, size, 3), np.uint8)
    surface[..., 0] = copper // 60
    surface[..., 2] = rng.integers(60, 130)
    silk = (225.0, 225.0, 218.0) if base.mean() < 190 else (30.0, 30.0, 30.0)
    canvas = Canvas(albedo, surface, unit, GOLD if chance(rng, 0.2) else TIN, silk)
    radius = unit * rng.uniform(0.22, 0.38)
    for x, y in rng.uniform(0, size, (int(rng.integers(6, 46)), 2)):
        if not _claim(taken, x - radius * 2, y - radius * 2, x + radius * 2, y + radius * 2):
            continue
        open_ring = unit > 5
        canvas.disc(x, y, radius * 1.7, canvas.tin if open_ring else tuple(lit), 4, 220 if open_ring else 0)
        canvas.disc(x, y, radius * 0.8, (18, 20, 18), 0)
    return canvas


def _photo_of(canvas: Canvas, studio: Studio, tilt: np.ndarray, noise: np.ndarray, shadows: bool) -> np.ndarray:
    """Light and cast shadows on a board."""
    size = len(canvas.albedo)
    level, metal, gloss = cv2.split(canvas.surface)
    reach = canvas.unit * 2.2 / 255
    height = cv2.GaussianBlur(level, (0, 0), max(0.6, canvas.unit * 0.07)).astype(np.float32) * np.float32(reach)
    shine = metal.astype(np.float32) / 255
    wavy = height + noise * (0.25 + 0.9 * shine) + tilt
    image = shaded(canvas.albedo, wavy, shine, gloss.astype(np.float32) / 255, studio, 0.0, 0.25)
    if not shadows:
        return image
    half = cv2.resize(height, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    dark = np.zeros_like(half)
    dx, dy = -math.cos(studio.azimuth), -math.sin(studio.azimuth)
    for k in (1.0, 2.2, 3.6):
        step = k * max(1.0, canvas.unit * 0.12)
        moved = cv2.warpAffine(half, np.float32([[1, 0, dx * step / 2], [0, 1, dy * step / 2]]), half.shape[::-1])
        dark = np.maximum(dark, moved - half - np.float32(step * 0.5))
    dark = cv2.resize(cv2.GaussianBlur(np.clip(dark * 1.5, 0, 1), (0, 0), 0.6), (size, size))
    return relight(image, 1 - np.float32(0.5) * dark)


def _board(rng: Rng, size: int, unit: float, studio: Studio, taken: np.ndarray, holes: Sequence[Rect] = ()) -> Scene:
    """A board that fills the picture; nothing stands where it is `taken`, screw holes are where `holes` says."""
    top = cv2.boundingRect(255 - taken)[1]
    placed, row = _layout(rng, unit, taken)
    canvas = _bare(rng, size, unit, taken)
    screw = Kind(rng, unit, "hole")
    placed += [(screw, r, False) for r in holes]
    letters, edged = max(5.0, unit * rng.uniform(0.6, 1.0)), chance(rng, 0.6)
    count = int(rng.integers(1, 60))
    for kind, r, up in placed:
        if edged and kind.name not in ("hole", "joints", "label"):
            m = unit * 0.32
            points = np.array([[r[0] - m, r[1] - m], [r[2] + m, r[1] - m], [r[2] + m, r[3] + m], [r[0] - m, r[3] + m]])
            wide = max(1, round(unit * 0.09))
            cv2.polylines(canvas.albedo, [(points * 8).astype(np.int32)], True, canvas.silk, wide, cv2.LINE_AA, 3)
        above = r[1] - unit * 0.4 - letters > top or top == 0
        if above and kind is not screw and (letters < unit * 1.2 or kind.long > 3 * unit):
            count += 1
            canvas.write(
                f"{_MARKS.get(kind.name, 'J')}{count}", r[0], r[1] - unit * 0.4 - letters / 2, letters, canvas.silk
            )
        kind.pads(canvas, r, up)
    for _ in range(int(rng.integers(0, 6))):  # names and numbers of the board where there is room for them
        content, (x, y), tall = stamp(rng, 4, 10), rng.uniform(0, 0.85, 2) * size, letters * rng.choice([1, 1.5, 2.2])
        if _claim(taken, x - unit, y - tall, x + 0.85 * tall * len(content), y + tall):
            canvas.write(content, x, y, tall, canvas.silk)
    empty = replace(canvas, albedo=canvas.albedo.copy(), surface=canvas.surface.copy())
    for kind, r, up in placed:
        kind.place(canvas, r, up)
    noise = cv2.GaussianBlur(white(rng, size), (0, 0), max(0.8, unit * 0.12)) * np.float32(0.5 + 0.04 * unit)
    tilt = smooth(rng, size, size * 0.5) * np.float32(size * 0.01)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    a, amount = rng.uniform(0, 6.28), loguni(rng, 0.02, 0.3)
    fall = rng.uniform(0.85, 1.15) * (1 + amount * (math.cos(a) * axis[None] + math.sin(a) * axis[:, None]))
    soft, fine = loguni(rng, 0.35, 1.1) * size / 256, white(rng, size) * np.float32(loguni(rng, 0.4, 3))
    pictures = []
    for c in (canvas, empty):
        image = relight(_photo_of(c, studio, tilt, noise, c is canvas), fall.astype(np.float32))
        pictures.append(cv2.add(cv2.GaussianBlur(image, (0, 0), soft), cv2.merge([fine] * 3), dtype=cv2.CV_8U))
    chosen = row if len(row) > 2 else [p for p in placed if p[0].name not in ("hole", "joints")]
    masks = []
    for _kind, (x0, y0, x1, y1), _up in chosen[:16]:
        mask = np.zeros((size, size), bool)
        m = unit * 0.1
        mask[max(int(y0 - m), 0) : max(int(y1 + m) + 1, 0), max(int(x0 - m), 0) : max(int(x1 + m) + 1, 0)] = True
        if mask.any():
            masks.append(mask)
    name = pick(rng, "circuit board", "PCB", "electronic board", "PCB assembly", "electronics")
    return Scene(pictures[0], full(size), name, pick(rng, "electronic", "soldered"), tuple(masks), pictures[1])


def board(rng: Rng, size: int, photos: Photos) -> Scene:
    """A populated board from above."""
    unit = size * loguni(rng, 0.022, 0.06)
    return _board(rng, size, unit, Studio(rng), np.zeros((size, size), np.uint8))


def board_close(rng: Rng, size: int, photos: Photos) -> Scene:
    """A few components near by, with their solder joints."""
    unit = size * loguni(rng, 0.065, 0.16)
    return _board(rng, size, unit, Studio(rng), np.zeros((size, size), np.uint8))


def board_whole(rng: Rng, size: int, photos: Photos) -> Scene:
    """One whole module with its edges and screw holes, lying on a ground."""
    studio, unit = Studio(rng), size * loguni(rng, 0.02, 0.05)
    wide, tall = size * rng.uniform(0.36, 0.48), size * rng.uniform(0.2, 0.46)
    wide, tall = (wide, tall) if chance(rng, 0.7) else (tall, wide)
    x, y = size / 2 + rng.normal(0, 0.01, 2) * size
    outline, inside = np.zeros((size, size), np.uint8), np.full((size, size), 255, np.uint8)
    box(outline, x - wide, y - tall, x + wide, y + tall, 255)  # type: ignore[arg-type]
    if chance(rng, 0.5):
        outline = rounded(outline, max(1.0, size * 0.012))
    m, holes = unit * 0.9, []
    box(inside, x - wide + m, y - tall + m, x + wide - m, y + tall - m, 0)  # type: ignore[arg-type]
    if chance(rng, 0.7):
        d, h = unit * 2.6, unit * 1.7
        for sx in (-1, 1):
            for sy in (-1, 1):
                hx, hy = x + sx * (wide - d), y + sy * (tall - d)
                box(inside, hx - d, hy - d, hx + d, hy + d, 255)  # type: ignore[arg-type]
                holes.append((hx - h, hy - h, hx + h, hy + h))
    scene = _board(rng, size, unit, studio, inside, holes)
    floor = ground(rng, size, photos, studio)
    shade = cast_shadow(rng, outline, studio)
    edge = cv2.GaussianBlur(outline, (0, 0), 0.7)
    floor = relight(floor, shade)
    image, bare = (blend(floor, p, edge) for p in (scene.image, scene.background))
    inner = outline > 127
    return replace(scene, image=image, background=bare, foreground=inner)


def blister(rng: Rng, size: int, photos: Photos) -> Scene:
    """Tablets or capsules behind clear domes in a sheet of foil."""
    studio = Studio(rng)
    foil = Skin(rng, photos, size, "metal" if chance(rng, 0.6) else "plastic")
    albedo, detail = foil.lay(rng, size)
    nx, ny = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    step_x, step_y = size / (nx - rng.uniform(0, 0.5)), size / (ny - rng.uniform(0, 0.5))
    r = min(step_x, step_y) * rng.uniform(0.3, 0.38)
    long = rng.uniform(0, 0.8) * (max(step_x, step_y) * 0.4 - r) if chance(rng, 0.5) else 0.0
    long = max(long, 0.0)
    lying = step_x >= step_y
    first, second = ((sober(rng, 150) if chance(rng, 0.7) else sober(rng, 70)) for _ in range(2))
    halves, groove = long > r * 0.3 and chance(rng, 0.6), chance(rng, 0.5)
    x0, y0 = rng.uniform(0.35, 0.65) * step_x, rng.uniform(0.35, 0.65) * step_y
    foil_lines = np.zeros((size, size), np.float32)
    if chance(rng, 0.6):  # the foil is pressed in small squares
        axis = np.arange(size, dtype=np.float32) * np.float32(6.2832 / (size * loguni(rng, 0.012, 0.03)))
        foil_lines = (np.sin(axis)[None] * np.sin(axis)[:, None]) * np.float32(0.25)
    domes, pills, ink = (np.zeros((size, size), np.uint8) for _ in range(3))
    parts, wide = [], r * rng.uniform(0.72, 0.9)

    def bar(canvas: np.ndarray, x: float, y: float, radius: float, value: int = 255) -> None:
        dx, dy = (long, 0.0) if lying else (0.0, long)
        line(canvas, x - dx, y - dy, x + dx, y + dy, value, 2 * radius)  # type: ignore[arg-type]
        disc(canvas, x - dx, y - dy, radius, value)  # type: ignore[arg-type]
        disc(canvas, x + dx, y + dy, radius, value)  # type: ignore[arg-type]

    for j in range(ny + 1):
        for i in range(nx + 1):
            x, y = x0 + (i - 0.0) * step_x - step_x * 0.0, y0 + j * step_y
            bar(domes, x, y, r)
            px, py = x + rng.normal(0, 0.02) * r, y + rng.normal(0, 0.02) * r
            bar(pills, px, py, wide)
            if halves:
                dx, dy = (long + wide, wide) if lying else (wide, long + wide)
                box(ink, px, py - (dy if lying else 0), px + dx, py + dy, 255)  # type: ignore[arg-type]
                if not lying:
                    box(ink, px - dx, py, px + dx, py + dy, 255)  # type: ignore[arg-type]
            elif groove:
                g = wide * 0.75
                line(ink, px - g, py, px + g, py, 255, max(1.0, wide * 0.09))  # type: ignore[arg-type]
            mask = np.zeros((size, size), np.uint8)
            bar(mask, px, py, wide)
            if mask.any() and len(parts) < 20:
                parts.append(mask > 127)
    rise = cv2.GaussianBlur(domes, (0, 0), max(1.0, r * 0.12)).astype(np.float32) * np.float32(0.5 * r / 255)
    base = detail * np.float32(foil.bump * 0.5) + foil_lines * (1 - domes.astype(np.float32) / 255)
    floor = shaded(albedo, base + rise * 0.5, foil.metal, foil.gloss, studio, 0.0, 0.3)
    depth = cv2.distanceTransform((pills > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(wide)
    body = np.sqrt(np.clip(depth * (2 - depth), 0, 1)) * np.float32(wide * rng.uniform(0.25, 0.8))
    color = flat(size, first)
    a = ink.astype(np.float32) / 255
    if halves:
        color = cv2.blendLinear(color, flat(size, second), 1 - a, a)
    elif groove:
        body = body - cv2.GaussianBlur(a, (0, 0), 0.8) * np.float32(wide * 0.12)
    color = relight(color, 1 + 0.012 * white(rng, size))
    tablets = shaded(color, cv2.GaussianBlur(body, (0, 0), 0.8), 0.0, rng.uniform(0, 0.7), studio, 0.0, 0.3)
    p = cv2.GaussianBlur(pills, (0, 0), 0.7).astype(np.float32) / 255
    shade = 1 - rng.uniform(0.1, 0.5) * cv2.GaussianBlur(pills, (0, 0), r * 0.12).astype(np.float32) / 255
    clear = rng.uniform(0.05, 0.35)
    top = shaded(np.zeros_like(color), rise * 1.6, 0.0, rng.uniform(0.4, 1.2), studio, 0.0, 0.0)
    veil = flat(size, (230, 232, 235))
    pictures = []
    fine, soft = loguni(rng, 0.4, 3), loguni(rng, 0.35, 0.9)
    d = domes.astype(np.float32) * np.float32(clear * 0.4 / 255)
    for inside in (cv2.blendLinear(relight(floor, shade), tablets, 1 - p, p), floor):
        image = cv2.add(cv2.blendLinear(inside, veil, 1 - d, d), top)
        pictures.append(grain(rng, cv2.GaussianBlur(image, (0, 0), soft), fine))
    name = pick(rng, "blister pack", "tablets", "capsules", "pills in a blister", "candy tray")
    return Scene(pictures[0], full(size), name, pick(rng, "foil", "plastic"), tuple(parts), pictures[1])


def zip_fastener(rng: Rng, size: int, photos: Photos) -> Scene:
    """Interlocked teeth between two woven tapes, with their seams."""
    studio = Studio(rng)
    tape = Skin(rng, photos, size, "plastic")
    metal = Skin(rng, photos, size, "metal" if chance(rng, 0.6) else "plastic")
    albedo, _ = tape.lay(rng, size)
    step = size * loguni(rng, 0.008, 0.02)
    x, y = np.arange(size, dtype=np.float32)[None], np.arange(size, dtype=np.float32)[:, None]
    lean = rng.uniform(0.5, 1.5)
    ridge = np.sin((y + lean * np.abs(x - size / 2)) * np.float32(6.2832 / step))
    ridge = ridge * np.float32(0.6) + np.sin(x * np.float32(6.2832 / (step * 1.3))) * np.float32(0.35)
    albedo = relight(albedo, 1 + 0.1 * ridge + 0.05 * white(rng, size))
    height = ridge * np.float32(step * 0.12)
    pitch, reach, deep = size * rng.uniform(0.035, 0.09), size * rng.uniform(0.05, 0.12), rng.uniform(0.02, 0.05)
    teeth = np.zeros((size, size), np.uint8)
    masks, first = [], rng.uniform(0, pitch)
    for k in range(-1, int(size / pitch * 2) + 2):
        side, ty = (1 if k % 2 else -1), first + k * pitch / 2
        mask = np.zeros((size, size), np.uint8)
        inner, outer = size / 2 - side * reach * 0.22, size / 2 + side * reach
        box(mask, min(inner, outer), ty - pitch * 0.2, max(inner, outer), ty + pitch * 0.2, 255)  # type: ignore[arg-type]
        disc(mask, inner, ty, pitch * 0.27, 255)  # type: ignore[arg-type]
        teeth = cv2.max(teeth, mask)
        if 0 < ty < size and len(masks) < 16:
            masks.append(mask > 127)
    bare = height.copy(), albedo
    soft = cv2.GaussianBlur(teeth, (0, 0), max(0.9, pitch * 0.06)).astype(np.float32) / 255
    height = height * (1 - soft) + soft * np.float32(deep * size)
    a = cv2.GaussianBlur(teeth, (0, 0), 0.7).astype(np.float32) / 255
    around = cv2.GaussianBlur(teeth, (0, 0), pitch * 0.2).astype(np.float32) / 255
    albedo = relight(albedo, 1 - 0.5 * around)
    albedo = cv2.blendLinear(albedo, metal.lay(rng, size)[0], 1 - a, a)
    for offset in (reach * rng.uniform(1.25, 1.6), size * rng.uniform(0.25, 0.4)):  # seams
        thread = np.zeros((size, size), np.uint8)
        for sign in (-1, 1):
            for ty in np.arange(0, size, step * 3):
                line(thread, size / 2 + sign * offset, ty, size / 2 + sign * offset, ty + step * 2.1, 255, step * 0.7)  # type: ignore[arg-type]
        t = cv2.GaussianBlur(thread, (0, 0), 0.8).astype(np.float32) / 255
        height = height + t * np.float32(step * 0.5)
        bare = bare[0] + t * np.float32(step * 0.5), bare[1]
    fine, blur = loguni(rng, 0.4, 3), loguni(rng, 0.35, 0.9)
    pictures = []
    for h, c, m, g in ((height, albedo, a * metal.metal, 0.05 + a * metal.gloss), (*bare, 0.0, 0.05)):
        image = shaded(c, h, m, g, studio, 0.0, 0.4)
        pictures.append(grain(rng, cv2.GaussianBlur(image, (0, 0), blur), fine))
    image, back = pictures
    if chance(rng, 0.4):
        image, back = (np.ascontiguousarray(p.transpose(1, 0, 2)) for p in pictures)
        masks = [np.ascontiguousarray(m.T) for m in masks]
    return Scene(image, full(size), pick(rng, "zipper", "zip"), pick(rng, "metal", "fabric"), tuple(masks), back)


SHEETS: dict[str, tuple[Family, float]] = {
    "board": (board, 3.0),
    "board_close": (board_close, 1.6),
    "board_whole": (board_whole, 2.0),
    "blister": (blister, 0.8),
    "zip_fastener": (zip_fastener, 0.7),
}
