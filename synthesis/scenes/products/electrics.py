"""Electrical parts shaded from height maps: housings with openings or keys, cable ends, parts with legs."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import Photos, Rng, Sprite, chance, loguni, pick, relight
from synthesis.scenes.drawing import box, disc, rounded
from synthesis.scenes.products.studio import Relief, Skin, Studio, Thing, blurred, material_of, sober, stamp, write


def housing(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Return a plastic or metal block with a grid of openings, pins or keys: plug, terminal, switch, grille, mould."""
    skin, inner = Skin(rng, photos, extent), Skin(rng, photos, extent)
    nx, ny = int(rng.integers(1, 7)), int(rng.integers(1, 5))
    tall = float(np.clip(0.42 * ny / nx * rng.uniform(0.8, 1.4), 0.14, 0.44))
    kind, share, around = rng.integers(3), rng.uniform(0.5, 0.85), chance(rng, 0.4)
    depth, lips = rng.uniform(0.02, 0.06), rng.integers(0, 3)
    edge, corner = rng.uniform(0.02, 0.07), loguni(rng, 0.005, 0.04)
    dark = rng.uniform(0.15, 0.7)

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief, c = Relief(rng, side, skin), side / 2
        w, h = 0.44 * side, tall * side
        box(relief.alpha, c - w, c - h, c + w, c + h, 255)  # type: ignore[arg-type]
        for k in range(int(lips)):
            x = c + w * (-0.5 + k)
            out = min(0.05, 0.48 - tall) * side
            box(relief.alpha, x - 0.15 * w, c - h - out, x + 0.15 * w, c + h + out, 255)  # type: ignore[arg-type]
        relief.alpha = rounded(relief.alpha, max(1.0, corner * side))
        relief.lift(relief.alpha, 0.05, 0.012)
        holes, pins = relief.mask(), relief.mask()
        e = edge * side
        step_x, step_y = 2 * (w - e) / nx, 2 * (h - e) / ny
        a, b = (0.5 * share * min(step_x, step_y),) * 2 if around else (0.5 * share * step_x, 0.5 * share * step_y)
        for j in range(ny):
            for i in range(nx):
                x, y = c - w + e + (i + 0.5) * step_x, c - h + e + (j + 0.5) * step_y
                for mask, s in ((holes, 1.0), (pins, 0.45)):
                    if around:
                        disc(mask, x, y, a * s, 255)  # type: ignore[arg-type]
                    else:
                        box(mask, x - a * s, y - b * s, x + a * s, y + b * s, 255)  # type: ignore[arg-type]
        if kind == 2:  # keys stand out
            relief.coat(holes, inner, rng)
            relief.lift(holes, depth, 0.01)
        else:
            deep = 1 - blurred(holes, max(0.7, 0.006 * side)).astype(np.float32) * np.float32((1 - dark) / 255)
            relief.albedo = relight(relief.albedo, deep)
            relief.lift(holes, -depth, 0.006)
            if kind == 1:
                relief.coat(pins, inner, rng)
                relief.lift(pins, depth, 0.006)
        return relief.shade(studio, angle)

    names = ("connector", "plug", "terminal block", "switch", "housing", "grille", "keypad", "heat sink")
    return Thing(draw, pick(rng, *names), material_of(skin), min(1.0, 2.3 * tall + 0.1))


def cable_end(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Return a cut cable, end on: a sheath, insulated cores, bundles of bright strands."""
    skin, copper = Skin(rng, photos, extent, "plastic"), Skin(rng, photos, extent, "metal")
    n, rows = int(rng.integers(1, 6)), int(rng.integers(2, 5))
    colors = [np.array(sober(rng, 40)) for _ in range(n)]
    outer, start = rng.uniform(0.76, 0.9), rng.uniform(0, 6.28)

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief, c = Relief(rng, side, skin), side / 2
        disc(relief.alpha, c, c, 0.46 * side, 255)  # type: ignore[arg-type]
        relief.lift(relief.alpha, 0.04, 0.012)
        space = 0.46 * outer
        r = space * (0.9 if n == 1 else math.sin(math.pi / n) / (1 + math.sin(math.pi / n)) * 0.97)
        wires, cores = relief.mask(), relief.mask()
        disc(relief.albedo, c, c, space * side, [v * 0.5 for v in skin.color])
        for k in range(n):
            a = start + k * 6.2832 / n + rng.normal(0, 0.03)
            away = 0.0 if n == 1 else space - r
            x, y = c + away * side * math.cos(a), c + away * side * math.sin(a)
            disc(cores, x, y, r * side, 255)  # type: ignore[arg-type]
            disc(relief.albedo, x, y, r * side, colors[k].tolist())
            disc(relief.albedo, x, y, r * side * 0.7, (34, 26, 20))
            strand = 0.66 * r * side / (2 * rows + 1)
            for ring in range(rows + 1):
                for m in range(max(1, 6 * ring)):
                    b = m * 6.2832 / max(1, 6 * ring) + ring * 0.4 + k
                    px, py = (p + rng.normal(0, 0.08) * strand for p in (math.cos(b), math.sin(b)))
                    px, py = x + 2 * ring * strand * math.cos(b) + px - math.cos(b), y + 2 * ring * strand * math.sin(b)
                    disc(wires, px, py, strand * 0.95, 255)  # type: ignore[arg-type]
        relief.lift(cores, 0.02, 0.006)
        relief.coat(wires, copper, rng)
        d = cv2.distanceTransform((wires > 127).astype(np.uint8), cv2.DIST_L2, 3)
        relief.height += np.sqrt(d) * np.float32(0.6)
        return relief.shade(studio, angle, 0.3)

    return Thing(draw, pick(rng, "cable", "cable end", "wire bundle"), pick(rng, "copper", "insulated"))


def leaded(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Return an electronic part with legs: a printed body, sometimes a drilled tab, bright pins on one or two sides."""
    body, metal = Skin(rng, photos, extent, "plastic"), Skin(rng, photos, extent, "metal")
    if chance(rng, 0.6):
        body.map = cv2.convertScaleAbs(body.map, alpha=rng.uniform(25, 60) / max(float(body.map.mean()), 1))
    legs, double, tab = int(rng.integers(2, 9)), chance(rng, 0.45), chance(rng, 0.6)
    wide, tall = rng.uniform(0.16, 0.4), rng.uniform(0.1, 0.2)
    around = not double and chance(rng, 0.25)
    if around:  # the legs leave from under a round body
        wide = min(wide, 0.7 * tall)
    thin, label, second, ink = rng.uniform(0.3, 0.6), stamp(rng, 3, 6), stamp(rng, 3, 6), sober(rng, 150)
    shoulder, bevel = rng.uniform(0.0, 0.5), loguni(rng, 0.005, 0.03)
    lean = rng.uniform(0, 0.02)

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief, c = Relief(rng, side, metal), side / 2
        top = 0.5 - tall if double else 0.3
        low = top + (1.6 if around else 2) * tall
        pins, block = relief.mask(), relief.mask()
        pitch = 2 * wide * side / legs
        for k in range(legs):
            x = c - wide * side + (k + 0.5) * pitch
            for y0, y1 in ((low, 0.93), (0.07, top))[: 2 if double else 1]:
                foot = x + rng.normal(0, 1) * lean * side * 0.3
                points = np.array(
                    [[x, y0 * side], [foot, y1 * side]] if y0 >= low else [[x, y1 * side], [foot, y0 * side]]
                )
                cv2.polylines(pins, [(points * 8).astype(np.int32)], False, 255, max(1, int(pitch * thin)), 16, 3)
                if shoulder > 0.2 and not around:
                    near = points[0, 1] + (0.06 if y0 >= low else -0.06) * side
                    edges = (x - pitch * 0.36, min(near, points[0, 1]), x + pitch * 0.36, max(near, points[0, 1]))
                    box(pins, *edges, 255)  # type: ignore[arg-type]
        if tab and not double and not around:
            box(pins, c - wide * 0.92 * side, 0.08 * side, c + wide * 0.92 * side, top * side, 255)  # type: ignore[arg-type]
            disc(pins, c, 0.19 * side, min(0.065, wide * 0.5) * side, 0)  # type: ignore[arg-type]
        if around:
            disc(block, c, (top + tall) * side, (tall + 0.08) * side, 255)  # type: ignore[arg-type]
        else:
            box(block, c - wide * side, top * side, c + wide * side, low * side, 255)  # type: ignore[arg-type]
            block = rounded(block, max(0.8, 0.008 * side))
        relief.alpha = cv2.max(pins, block)
        relief.lift(pins, 0.02, 0.006)
        relief.coat(block, body, rng)
        relief.lift(block, 0.06, bevel)
        if side > 60:
            mask = relief.mask()
            high = min(tall * 0.5, 1.5 * (tall if around else wide) / len(label)) * side
            write(mask, label, c, (top + 0.72 * tall) * side, high)
            write(mask, second, c, (top + 1.35 * tall) * side, high)
            relief.albedo[mask > 110] = ink
        return relief.shade(studio, angle, 0.3)

    names = ("transistor", "voltage regulator", "integrated circuit", "electronic component", "sensor", "capacitor")
    return Thing(draw, pick(rng, *names), pick(rng, "electronic", "metal"), 1.0)
