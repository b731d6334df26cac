"""Components of boards, and the canvas with colour and height that they are drawn on."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from synthesis.scenes.base import Rng, chance
from synthesis.scenes.drawing import box, disc
from synthesis.scenes.products.studio import sober, stamp

Rect = tuple[float, float, float, float]
TIN = (186.0, 188.0, 190.0)
GOLD = (205.0, 172.0, 96.0)


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
        """Write text with its left end at x and its middle at y."""
        if height < 4.5:
            return
        scale, thick = height / 22, max(1, round(height / 12))
        at = (int(x), int(y + height / 2))
        cv2.putText(self.albedo, content, at, 0, scale, color, thick, cv2.LINE_AA)


def _turned(r: Rect, a: float, b: float, c: float, d: float, upright: bool) -> Rect:
    """Return a part of a rectangle, in fractions along (a..c) and across (b..d) its long axis."""
    x0, y0, x1, y1 = r
    w, h = x1 - x0, y1 - y0
    if upright:
        return (x0 + b * w, y0 + a * h, x0 + d * w, y0 + c * h)
    return (x0 + a * w, y0 + b * h, x0 + c * w, y0 + d * h)


class Kind:
    """A component type of a board: its pads are drawn on the bare board, its body later."""

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
