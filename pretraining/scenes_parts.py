"""Parts shaded from height maps: the species of things that product pictures are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from scenes_base import Photos, Rng, chance, loguni, normalise, octaves, pick, relight, smooth
from scenes_objects import fill, polar, rounded, wobbly
from scenes_patterns import box, disc
from scenes_studio import Relief, Skin, Sprite, Studio, blurred, photo_window, sober, sources_of, stamp, write

Draw = Callable[[Rng, int, float], Sprite]


@dataclass(frozen=True)
class Thing:
    """One kind of object: `draw(rng, side, angle)` gives one instance, lit as if it were then turned by `angle`."""

    draw: Draw
    name: str
    material: str
    tall: float = 1.0  # height against width, so that rows can lie close


# --- round parts, described by one profile from the middle to the rim -------------------------------------


def round_part(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Bottles, caps and lids from above, bearings, rings, rotors, impellers, turned discs, candles."""
    n, kind = 1024, pick(rng, "disc", "ring", "cap", "bottle", "bearing", "rotor", "impeller", "lid", "wheel")
    r = np.linspace(0, 1.5, n)
    skins = [Skin(rng, photos, extent, "plastic" if kind in ("cap", "bottle") and chance(rng, 0.7) else None)]
    skins += [Skin(rng, photos, extent) for _ in range(int(rng.integers(0, 2)))]
    zones = int(rng.integers(2, 6)) + (2 if kind in ("bottle", "bearing") else 0)
    limits = np.concatenate([[0], np.sort(rng.uniform(0.14, 0.84, zones - 1)), [0.92]])
    profile, which, tone = np.zeros(n), np.zeros(n, int), np.ones(n)
    for k in range(zones):
        inside = (r >= limits[k]) & (r < limits[k + 1])
        place = (r[inside] - limits[k]) / (limits[k + 1] - limits[k])
        shape, deep = rng.choice(4, p=[0.45, 0.3, 0.1, 0.15]), rng.uniform(0.01, 0.1)
        bulge = np.sqrt(np.clip(place * (1 - place) * 4, 0, 1))
        forms = (np.zeros_like(place), bulge * deep, -bulge * deep, (place - 0.5) * deep * rng.choice([-1, 1]))
        profile[inside] = rng.uniform(0, 0.09) + forms[int(shape)]
        which[inside] = int(rng.integers(len(skins)))
        tone[inside] = 1.0 if chance(rng, 0.5) else rng.uniform(0.45, 1.3)
    if kind == "bottle":  # one looks into the neck
        tone[r < limits[2]] = rng.uniform(0.08, 0.4)
        profile[r < limits[2]] = 0.0
    if chance(rng, 0.3):  # turning rings
        profile += np.convolve(rng.normal(0, 1, n), np.ones(5) / 5, "same") * loguni(rng, 0.0002, 0.0015)
        tone *= 1 + np.convolve(rng.normal(0, 1, n), np.ones(7) / 7, "same") * rng.uniform(0.01, 0.1)
    sigma = loguni(rng, 3, 16)
    kernel = np.exp(-0.5 * (np.arange(-48, 49) / sigma) ** 2)
    profile = np.convolve(np.pad(profile, 48, "edge"), kernel / kernel.sum(), "valid").astype(np.float32)
    tone = np.convolve(np.pad(tone, 48, "edge"), np.ones(5) / 5, "valid")[46:-46].astype(np.float32)
    bore = limits[1] * rng.uniform(0.5, 1) if kind in ("ring", "bearing", "rotor", "wheel", "impeller") else 0.0
    count = int(rng.integers(3, 9)) if kind == "wheel" else int(rng.integers(8, 42))
    band = int(rng.integers(1, zones)) if kind in ("rotor", "impeller", "bearing", "wheel") else -1
    knurl = (chance(rng, 0.5) if kind in ("cap", "lid") else chance(rng, 0.15)) and kind != "ring"
    twist, duty, deep = rng.uniform(-3, 3) * (kind == "impeller"), rng.uniform(-0.5, 0.5), loguni(rng, 0.01, 0.05)
    bow, bow_at = (rng.uniform(0.05, 0.35), rng.uniform(0, math.pi)) if skins[0].metal > 0.4 else (0.0, 0.0)
    label, carved = stamp(rng, 1, 6), rng.choice(["none", "none", "none", "raised", "printed"])
    letters = min(loguni(rng, 0.08, 0.2), 1.1 * limits[1] / len(label))
    ink = sober(rng)
    shift = rng.normal(0, 0.012, 2) if chance(rng, 0.4) else np.zeros(2)  # seen from a little aside
    if kind in ("rotor", "impeller", "bearing", "wheel"):
        limits[band : band + 2] = [max(bore + 0.08, limits[band] * 0.8), min(limits[band + 1] * 1.1, 0.84)]

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief = Relief(rng, side, skins[0])
        axis = np.linspace(-1, 1, side, dtype=np.float32)
        x, y = axis[None] * np.float32(1.03), axis[:, None] * np.float32(1.03)
        radius = np.hypot(x, y)
        inner = np.hypot(x - np.float32(shift[0]), y - np.float32(shift[1]))
        turn = np.arctan2(y, x) if (band >= 0 or knurl or bow) else radius
        start = np.float32(rng.uniform(0, 6.28))
        if knurl:
            radius = radius + np.float32(0.012) * np.cos(turn * count * 2 + start)
        pixel = np.float32(2.06 / side)
        outline = np.clip((0.92 - radius) / pixel + 0.5, 0, 1)
        if bore > 0:
            outline *= np.clip((radius - np.float32(bore)) / pixel + 0.5, 0, 1)
        relief.alpha = (outline * 255).astype(np.uint8)
        index = np.minimum(inner * np.float32((n - 1) / 1.5), n - 1).astype(np.int32)
        height, factor = profile[index] * np.float32(side), tone[index]
        for k in range(1, len(skins)):
            relief.coat(((which == k) * np.uint8(255)).astype(np.uint8)[index], skins[k], rng)
        if band >= 0:
            zone = np.clip((radius - limits[band]) / 0.02, 0, 1) * np.clip((limits[band + 1] - radius) / 0.02, 0, 1)
            wave = np.cos(turn * count + start + np.float32(twist) * radius * 3)
            bars = np.tanh((wave + np.float32(duty)) * np.float32(min(side / count * 0.25, 9))) * zone
            height = height + bars * np.float32(deep * side)
            factor = factor * (1 - 0.3 * zone + 0.3 * bars)
        if knurl:
            rim = np.clip((radius - 0.8) / 0.05, 0, 1)
            height = height + rim * np.cos(turn * count * 2 + start) * np.float32(0.012 * side)
        if bow:
            factor = factor * (1 + np.float32(bow) * np.cos(2 * (turn - np.float32(bow_at + math.radians(angle)))))
        relief.height += height
        if carved != "none" and side > 40:
            mask = relief.mask()
            write(mask, label, side / 2, side / 2, letters * side)
            if carved == "raised":
                relief.lift(mask, 0.012, 0.003)
            else:
                relief.albedo[mask > 100] = ink
        relief.albedo = cv2.multiply(relief.albedo, cv2.merge([factor] * 3), dtype=cv2.CV_8U)
        return relief.shade(studio, angle)

    names = {
        "disc": ("machined disc", "disc", "flange", "button", "candle"),
        "ring": ("ring", "washer", "gasket", "seal"),
        "cap": ("cap", "bottle cap", "knob"),
        "bottle": ("bottle", "bottle from above", "jar"),
        "bearing": ("bearing", "ball bearing"),
        "rotor": ("rotor", "commutator", "motor part"),
        "impeller": ("impeller", "fan", "casting"),
        "lid": ("lid", "can lid", "plate"),
        "wheel": ("wheel", "pulley", "gear"),
    }[kind]
    return Thing(draw, pick(rng, *names), _material(skins[0]))


def _material(skin: Skin) -> str:
    return {"metal": "metal", "plastic": "plastic", "cast": "cast", "paint": "painted"}.get(skin.kind, "textured")


# --- plates ---------------------------------------------------------------------------------------------------


def plate(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Machined and cast plates, brackets, clips, buckles and keys: an outline with bores, ribs and marks."""
    kind = pick(rng, "rectangle", "polygon", "bracket", "star", "key", "buckle", "flange")
    skin, other = Skin(rng, photos, extent), Skin(rng, photos, extent)
    wide, tall = 0.44, rng.uniform(0.14, 0.44)
    corner, bevel, thick = loguni(rng, 0.006, 0.07), loguni(rng, 0.004, 0.03), rng.uniform(0.02, 0.08)
    n, squash = int(rng.integers(3, 9)), rng.uniform(0.6, 1.0)
    arm = rng.uniform(0.1, 0.2)
    bores = _bores(rng, wide, tall)
    ribs = [(*rng.uniform(-0.8, 0.8, 2), rng.uniform(0.02, 0.08), chance(rng, 0.5)) for _ in range(rng.integers(0, 4))]
    pocket, coat_pocket = (rng.uniform(0.5, 0.85), chance(rng, 0.5)) if chance(rng, 0.5) else (0.0, False)
    sunk = rng.choice([-1, 1]) * rng.uniform(0.01, 0.04)
    label, marked = stamp(rng), rng.choice(["none", "none", "carved", "printed"])
    at, letters, ink = rng.uniform(-0.3, 0.3, 2), loguni(rng, 0.05, 0.16), sober(rng)
    bits = rng.uniform(0.02, 0.1, 7)

    def outline(relief: Relief) -> np.ndarray:
        mask, s = relief.mask(), relief.side
        if kind in ("polygon", "star"):
            radii = np.full(n, 0.86) if kind == "polygon" else np.tile([0.88, 0.88 * (1 - arm * 2.2)], n)
            return rounded(fill(s, polar(s, radii, squash)), max(1.0, corner * s))
        if kind == "flange":
            disc(mask, s / 2, s / 2, s * (0.2 + arm), 255)
            for sign in (-1, 1):
                disc(mask, s * (0.5 + sign * 0.32), s / 2, s * arm * 0.8, 255)
            box(mask, s * 0.2, s * (0.5 - arm * 0.6), s * 0.8, s * (0.5 + arm * 0.6), 255)  # type: ignore[arg-type]
            return rounded(mask, max(1.0, 0.03 * s))
        if kind == "key":
            disc(mask, s * 0.24, s / 2, s * 0.18, 255)
            box(mask, s * 0.35, s * 0.45, s * 0.94, s * 0.55, 255)  # type: ignore[arg-type]
            for k, bit in enumerate(bits):
                box(mask, s * (0.58 + 0.05 * k), s * 0.5, s * (0.6 + 0.05 * k), s * (0.55 + bit), 255)  # type: ignore[arg-type]
            disc(mask, s * 0.18, s / 2, s * 0.06, 0)  # type: ignore[arg-type]
            return rounded(mask, max(1.0, 0.008 * s))
        box(mask, *(s * (0.5 + np.array([-wide, -tall, wide, tall]))), 255)  # type: ignore[arg-type]
        if kind == "bracket":
            box(mask, *(s * (0.5 + np.array([-wide + arm, -tall + arm, wide + 0.1, tall + 0.1]))), 0)  # type: ignore[arg-type]
        elif kind == "buckle":
            for sign in (-1, 1):
                x = wide * 0.45 * sign
                edges = np.array([x - wide * 0.33, -tall + 0.09, x + wide * 0.33, tall - 0.09])
                if tall > 0.15:
                    box(mask, *(s * (0.5 + edges)), 0)  # type: ignore[arg-type]
        return rounded(mask, max(1.0, corner * s))

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief = Relief(rng, side, skin)
        relief.alpha = outline(relief)
        solid, c = kind in ("rectangle", "polygon"), side / 2
        if solid and pocket:
            mask = cv2.warpAffine(
                relief.alpha, np.float32([[pocket, 0, c * (1 - pocket)], [0, pocket, c * (1 - pocket)]]), (side, side)
            )
            relief.lift(mask, sunk, bevel * 0.6)
            if coat_pocket:
                relief.coat(mask, other, rng)
        for x, _y, w, upright in ribs if solid else ():
            mask = relief.mask()
            a = (c * (1 + x * 0.8), 0, c * (1 + x * 0.8) + w * side, side)
            box(mask, *(a if upright else (a[1], a[0], a[3], a[2])), 255)  # type: ignore[arg-type]
            relief.lift(mask, abs(sunk) * 0.8, bevel * 0.6)
        depth = cv2.distanceTransform((relief.alpha > 127).astype(np.uint8), cv2.DIST_L2, 3)
        for x, y, radius, through in bores if solid or kind == "flange" else ():
            if depth[int(c + y * side), int(c + x * side)] < 1.9 * radius * side:
                continue  # it would cut the edge
            spot = relief.mask()
            disc(spot, c + x * side, c + y * side, radius * side * 1.45, 255)
            relief.lift(spot, 0.012, 0.004)
            spot = relief.mask()
            disc(spot, c + x * side, c + y * side, radius * side, 255)
            relief.lift(spot, -0.05, 0.006)
            if through:
                relief.alpha = cv2.subtract(relief.alpha, spot)
            else:
                dark = 1 - spot.astype(np.float32) * np.float32(0.75 / 255)
                relief.albedo = cv2.multiply(relief.albedo, cv2.merge([dark] * 3), dtype=cv2.CV_8U)
        relief.lift(relief.alpha, thick, bevel)
        if marked != "none" and side > 60 and solid and not ribs:
            mask = relief.mask()
            high = min(letters, 0.9 * min(wide, tall) / len(label))
            write(mask, label, c + at[0] * tall * side, c + at[1] * tall * side, high * side)
            if marked == "carved":
                relief.lift(mask, -0.012, 0.003)
            else:
                relief.albedo[mask > 100] = ink
        return relief.shade(studio, angle)

    names = {
        "rectangle": ("plate", "machined part", "housing", "cover", "block"),
        "polygon": ("plate", "tile", "nut", "cover"),
        "bracket": ("bracket", "angle bracket", "frame"),
        "star": ("star knob", "gear", "badge"),
        "key": ("key",),
        "buckle": ("buckle", "clasp", "link"),
        "flange": ("flange", "clamp", "casting", "lever"),
    }[kind]
    narrow = min(1.0, 2.3 * tall) if kind in ("rectangle", "bracket", "buckle") else 1.0
    return Thing(draw, pick(rng, *names), _material(skin), narrow if kind != "flange" else 0.7)


def _bores(rng: Rng, wide: float, tall: float) -> list[tuple[float, float, float, bool]]:
    """Bores in symmetric order: corners, a row, a circle or one in the middle."""
    radius, through = rng.uniform(0.02, 0.06), chance(rng, 0.4)
    kind = rng.integers(5)
    if kind == 0:
        x, y = wide - radius * 2.4, max(tall - radius * 2.4, 0.0)
        return [(sx * x, sy * y, radius, through) for sx in (-1, 1) for sy in (-1, 1)]
    if kind == 1:
        n = int(rng.integers(2, 5))
        return [(0.7 * wide * (2 * k / (n - 1) - 1), 0.0, radius, through) for k in range(n)]
    if kind == 2:
        n, r = int(rng.integers(3, 7)), min(tall * 0.7, 0.28)
        return [(r * math.cos(6.283 * k / n), r * math.sin(6.283 * k / n), radius * 0.7, through) for k in range(n)]
    return [(0.0, 0.0, min(radius * 2.5, tall * 0.5), through)] if kind == 3 else []


# --- long things that are round about their axis ---------------------------------------------------------------


def lathe(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Screws, bolts, pipes, tubes, pens, capsules, batteries, bottles from the side, pins, threaded rods."""
    kind = pick(rng, "screw", "bolt", "pipe", "tube", "capsule", "bottle", "pin", "rod", "battery", "nozzle")
    n = 512
    t = np.linspace(0, 1, n)
    thin = {"screw": 0.07, "bolt": 0.1, "pipe": 0.2, "pin": 0.06, "rod": 0.08}.get(kind, 0.2) * rng.uniform(0.8, 1.5)
    half = np.full(n, thin)
    cut = np.sort(rng.uniform(0.12, 0.88, 3))
    zone = np.digitize(t, cut)
    if kind in ("screw", "bolt"):
        head = rng.uniform(0.06, 0.2)
        half[t < head] = thin * rng.uniform(1.6, 2.3)
        if kind == "screw":
            half *= np.clip((1 - t) / rng.uniform(0.1, 0.3), 0, 1) ** 0.8
            half[t < head] *= np.clip(0.4 + t[t < head] / head, 0, 1) if chance(rng, 0.5) else 1
        zone = (t > head).astype(int)
    elif kind == "capsule":
        half = thin * 1.2 * np.sqrt(np.clip(1 - np.clip(np.abs(t - 0.5) - 0.28, 0, None) ** 2 / 0.22**2, 0, 1))
        zone = (t > 0.5).astype(int) * int(chance(rng, 0.7))
    elif kind == "bottle":
        neck = rng.uniform(0.18, 0.34)
        half = thin * (0.4 + 0.75 / (1 + np.exp(-(t - neck) * rng.uniform(20, 60))))
        zone = (t < neck * 0.7).astype(int) + 2 * ((t > 0.5) & (t < 0.85))
    elif kind in ("tube", "nozzle", "rod"):
        for k in range(4):
            half[zone == k] *= rng.uniform(0.7, 1.25)
    half = np.where((t < 0.04) | (t > 0.96), 0, half)
    half = np.convolve(half, np.ones(5) / 5, "same").astype(np.float32)
    threaded = kind in ("screw", "bolt", "rod") or chance(rng, 0.1)
    start, pitch, tooth = rng.uniform(0.25, 0.5), loguni(rng, 0.018, 0.05), rng.uniform(0.08, 0.2)
    skins = [Skin(rng, photos, extent, "metal" if kind in ("screw", "bolt", "pin", "rod") else None)]
    if kind not in ("screw", "bolt", "pin", "rod"):
        skins += [Skin(rng, photos, extent) for _ in range(int(rng.integers(0, 3)))]
    pick_of = rng.integers(0, len(skins), 4)
    label, marked, ink, grade = stamp(rng, 2, 8), chance(rng, 0.4) and kind in _PRINTED, sober(rng), rng.uniform(1, 2)

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief = Relief(rng, side, skins[0])
        columns = np.linspace(0, 1, side, dtype=np.float32)
        radius = np.interp(columns, t, half).astype(np.float32)
        y = (np.arange(side, dtype=np.float32)[:, None] / side - 0.5) / np.maximum(radius[None], 1e-4)
        reach = np.repeat(radius[None], side, 0)
        if threaded:
            around = np.arcsin(np.clip(y, -1, 1)) * np.float32(1 / (2 * math.pi))
            phase = (columns[None] - np.float32(start)) / np.float32(pitch) + around + np.float32(rng.random())
            wave = 1 - np.abs(2 * (phase - np.floor(phase)) - 1) * np.float32(grade)
            on = np.clip((columns[None] - np.float32(start)) * 60, 0, 1)
            reach = reach * (1 + np.float32(tooth) * on * np.clip(wave, -1, 1))
            y = (np.arange(side, dtype=np.float32)[:, None] / side - 0.5) / np.maximum(reach, 1e-4)
        relief.alpha = (np.clip((1 - np.abs(y)) * reach * side + 0.5, 0, 1) * (reach > 0.004) * 255).astype(np.uint8)
        relief.height += np.sqrt(np.clip(1 - y * y, 0, 1)) * reach * np.float32(side)
        for k in range(1, len(skins)):
            on = (pick_of[np.clip(np.interp(columns, t, zone).round().astype(int), 0, 3)] == k).astype(np.uint8) * 255
            if on.any():
                relief.coat(np.repeat(on[None], side, 0), skins[k], rng)
        if marked and side > 60:
            mask = relief.mask()
            write(mask, label, side * 0.6, side / 2, min(thin * 0.7, 0.5 / len(label)) * side)
            relief.albedo[mask > 100] = ink
        return relief.shade(studio, angle, 0.25)

    names = {
        "tube": ("tube", "pen", "sleeve", "syringe"),
        "capsule": ("capsule", "tablet", "fuse"),
        "bottle": ("bottle", "vial", "container"),
        "rod": ("threaded rod", "shaft", "rod"),
        "nozzle": ("nozzle", "fitting", "spindle", "candle"),
        "pin": ("pin", "needle roller", "dowel"),
    }.get(kind, (kind,))
    return Thing(draw, pick(rng, *names), _material(skins[0]), float(np.clip(half.max() * 2.4, 0.25, 1)))


_PRINTED = ("tube", "capsule", "bottle", "battery")


def spring(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Coil springs and coiled cords lying on their side."""
    skin = Skin(rng, photos, extent, "metal" if chance(rng, 0.8) else "plastic")
    turns, wide = int(rng.integers(5, 15)), rng.uniform(0.12, 0.26)
    wire = min(rng.uniform(0.25, 0.8) * 0.8 / turns / 2, 0.03)

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief = Relief(rng, side, skin)
        stretch = rng.uniform(0.97, 1.0)
        a = np.linspace(0, turns * 2 * math.pi, turns * 24)
        x, y = 0.5 + (a / a[-1] - 0.5) * 0.84 * stretch + 0.3 * wire * np.sin(a), 0.5 + wide * np.cos(a)
        front = np.sin(a) > 0
        width = max(2, round(wire * side * 2))
        for level, part in ((0.35, ~front), (1.0, front)):
            mask = relief.mask()
            for run in np.split(np.arange(len(a)), np.flatnonzero(np.diff(front.astype(int))) + 1):
                if part[run[0]] and len(run) > 1:
                    points = np.stack([x[run], y[run]], -1) * side * 8
                    cv2.polylines(mask, [points.astype(np.int32)], False, 255, width, cv2.LINE_AA, 3)
            depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(width / 2)
            body = np.sqrt(np.clip(depth * (2 - depth), 0, 1)) * np.float32(width / 2)
            on = mask > 127
            relief.height[on] = body[on] + level * width
            if level < 1:
                relief.albedo[on] = (relief.albedo[on] * 0.5).astype(np.uint8)
                back = relief.albedo.copy()
            else:
                fresh, _ = skin.lay(rng, side)
                relief.albedo = cv2.copyTo(fresh, mask, back)
            relief.alpha = cv2.max(relief.alpha, mask)
        relief.height = cv2.GaussianBlur(relief.height, (0, 0), 0.8)
        return relief.shade(studio, angle, 0.2)

    return Thing(draw, pick(rng, "spring", "coil", "coil spring"), _material(skin), min(1.0, wide * 2.4))


# --- soft and grown things -----------------------------------------------------------------------------------


def lump(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Biscuits, nuts, pasta, bread, sweets, soap, stones: rounded bodies with a grown or baked surface."""
    kind = pick(rng, "biscuit", "nut", "bean", "bread", "sweet", "bent", "stone", "ring")
    skin = Skin(rng, photos, extent, "photo" if chance(rng, 0.5) else "cast")
    tables = {
        "biscuit": ((150, 220), (100, 165), (50, 105)),
        "nut": ((105, 190), (70, 125), (40, 80)),
        "bean": ((60, 230), (40, 200), (30, 160)),
        "bread": ((160, 215), (105, 160), (55, 105)),
        "bent": ((200, 240), (165, 215), (90, 160)),
    }
    low_high = tables.get(kind)
    color = np.array([rng.uniform(*c) for c in low_high]) if low_high else np.array(sober(rng))
    gain = color / np.maximum(np.array(skin.color), 8)
    skin.bump *= 0.35  # crumb and shell are finer than castings
    squash, wobble, flat = rng.uniform(0.55, 1.0), loguni(rng, 0.008, 0.06), rng.uniform(0.12, 1.0)
    rough, mottle, bake = loguni(rng, 0.0006, 0.008), rng.uniform(0.03, 0.2), rng.uniform(0, 0.5)
    gloss = rng.uniform(0.3, 0.9) if kind in ("sweet", "bean") else rng.uniform(0, 0.25)
    bits = int(rng.integers(6, 26)) if kind == "biscuit" and chance(rng, 0.6) else 0
    bit_color, bit = np.array(sober(rng, 20, 120)), rng.uniform(0.02, 0.06)
    docks = kind == "biscuit" and not bits and chance(rng, 0.7)
    lobes = int(rng.integers(5, 30)) if kind == "biscuit" and chance(rng, 0.4) else 0
    streaks = kind == "nut"
    sweep, thick = rng.uniform(1.2, 4.5), rng.uniform(0.09, 0.2)

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief = Relief(rng, side, skin)
        c = side / 2
        if kind in ("bent", "ring"):
            arc = np.linspace(0, 6.2832 if kind == "ring" else sweep * rng.uniform(0.93, 1.07), 60)
            points = (c + (0.45 - thick) * side * np.stack([np.cos(arc), np.sin(arc)], -1)) * 8
            cv2.polylines(
                relief.alpha, [points.astype(np.int32)], kind == "ring", 255, max(2, int(thick * 2 * side)), 16, 3
            )
            reach = thick * side
        else:
            radii = 0.86 * wobbly(rng, wobble, 96)
            if lobes:
                radii = radii * (1 + 0.025 * np.cos(np.arange(96) * 6.2832 / 96 * lobes))
            relief.alpha = fill(side, polar(side, radii, squash * rng.uniform(0.97, 1.03)))
            reach = max(2.0, flat * squash * side * 0.43)
        depth = cv2.distanceTransform((relief.alpha > 127).astype(np.uint8), cv2.DIST_L2, 5)
        d = np.minimum(depth / np.float32(reach), 1)
        body = cv2.GaussianBlur(np.sqrt(d * (2 - d)), (0, 0), max(0.8, side * 0.015))
        relief.height += body * np.float32(min(reach, side * 0.3))
        relief.height += np.float32(rough * side) * octaves(rng, side, max(2.0, side * 0.06), 0.6)
        tone = 1 + np.float32(mottle) * smooth(rng, side, side * rng.uniform(0.1, 0.3))
        tone *= 1 - np.float32(bake) * (1 - body) ** 2
        if streaks:
            axis = np.linspace(-1, 1, side, dtype=np.float32)
            turn = np.arctan2(axis[:, None], axis[None] + np.float32(0.7))
            fine = rng.normal(0, 1, 256).astype(np.float32)
            tone *= 1 + np.float32(0.1) * fine[((turn + 3.1416) * 40).astype(np.int32) % 256]
        field = cv2.merge([tone * np.float32(g) for g in gain])
        relief.albedo = cv2.multiply(relief.albedo, np.maximum(field, 0), dtype=cv2.CV_8U)
        if bits:
            mask = relief.mask()
            for x, y in rng.uniform(-0.36, 0.36, (bits, 2)):
                disc(mask, c + x * side, c + y * side * squash, bit * side * rng.uniform(0.5, 1.2), 255)
            mask = cv2.min(mask, relief.alpha)
            relief.lift(mask, bit * 0.5, bit * 0.4)
            relief.albedo[mask > 127] = bit_color
        if docks:
            mask = relief.mask()
            for x in (-0.2, 0, 0.2):
                for y in (-0.2, 0, 0.2):
                    disc(mask, c + x * side, c + y * side * squash, 0.014 * side, 255)
            relief.lift(mask, -0.02, 0.006)
        relief.gloss = gloss
        return relief.shade(studio, angle)

    names = {
        "biscuit": ("biscuit", "cookie", "cracker"),
        "nut": ("hazelnut", "nut", "almond"),
        "bean": ("bean", "coffee bean", "olive"),
        "bread": ("bread roll", "bun", "pastry"),
        "sweet": ("candy", "soap", "chocolate", "tablet"),
        "bent": ("pasta", "macaroni", "cashew", "snack"),
        "stone": ("stone", "pebble", "potato"),
        "ring": ("ring", "seal ring", "doughnut"),
    }[kind]
    return Thing(draw, pick(rng, *names), pick(rng, "natural", "baked", "soft"), squash if kind != "ring" else 1.0)


def bristles(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Brush heads: tufts of many fine bristles, light tips over dark roots, set in a body."""
    skin = Skin(rng, photos, extent, "plastic")
    rows, columns = int(rng.integers(3, 7)), int(rng.integers(5, 12))
    tall, corner = rng.uniform(0.16, 0.42), rng.uniform(0.3, 1.0)
    colors = [np.array(sober(rng, 90)) for _ in range(int(rng.integers(1, 4)))]
    order, spread = rng.integers(3), rng.uniform(0.4, 0.56)
    strand, lie = rng.uniform(1.5, 7), rng.uniform(0, math.pi)

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief = Relief(rng, side, skin)
        c = side / 2
        box(relief.alpha, *(c + side * np.array([-0.45, -tall - 0.03, 0.45, tall + 0.03])), 255)  # type: ignore[arg-type]
        relief.alpha = rounded(relief.alpha, max(1.0, corner * 0.035 * side))
        relief.lift(relief.alpha, 0.06, 0.02)
        fibres = smooth(rng, side, max(1.0, side * 0.008), strand, lie) + 0.5 * smooth(rng, side, side * 0.05)
        tips = np.clip(normalise(fibres, 0.13) + 0.28, 0.2, 1.2)
        radius = spread * side * min(0.84 / columns, 2 * tall / rows)
        for j in range(rows):
            for i in range(columns):
                x = c + side * 0.84 * ((i + 0.5) / columns - 0.5) + rng.normal() * side * 0.003
                y = c + side * 2 * tall * ((j + 0.5) / rows - 0.5) + rng.normal() * side * 0.003
                r = int(radius * 1.1) + 2
                area = (slice(max(int(y) - r, 0), int(y) + r), slice(max(int(x) - r, 0), int(x) + r))
                patch = relief.albedo[area]
                alpha = np.zeros(patch.shape[:2], np.uint8)
                disc(alpha, x - area[1].start, y - area[0].start, radius, 255)
                soft = alpha.astype(np.float32)[..., None] / 255
                color = colors[(i, j, min(j, rows - 1 - j))[order] % len(colors)]
                dark = 0.55 + 0.6 * cv2.GaussianBlur(alpha, (0, 0), radius * 0.5)[..., None] / 255  # roots lie in shade
                tuft = tips[area][..., None] * color * dark
                relief.albedo[area] = np.clip(patch * (1 - soft) + tuft * soft, 0, 255).astype(np.uint8)
                relief.height[area] += soft[..., 0] * np.float32(0.03 * side)
        return relief.shade(studio, angle)

    return Thing(draw, pick(rng, "brush", "toothbrush head", "brush head"), "bristle", min(1.0, 2.3 * tall))


def package(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Boxes, pouches, bars and cards with print: blocks of colour, lines of text, a bar code, crimped ends."""
    skin = Skin(rng, photos, extent, str(rng.choice(["paint", "plastic", "photo"])))
    kind = pick(rng, "box", "pouch", "bar", "card")
    wide, tall = 0.44, rng.uniform(0.18, 0.44)
    inks = [np.array(sober(rng)) for _ in range(3)]
    at = rng.uniform(-0.6, 0.2, 2)
    blocks = [(-1.2, at[0], 2.4, rng.uniform(0.3, 1.0), 0), (at[1], -1.2, rng.uniform(0.3, 0.9), 2.4, 1)]
    blocks = [blocks[k] for k in rng.permutation(2)[: int(rng.integers(0, 3))]]
    n = int(rng.integers(1, 5))
    first, step = rng.uniform(-0.65, -0.3), rng.uniform(0.28, 0.4)
    lines = [(stamp(rng, 3, 10), float(rng.choice([-0.75, -0.2])), first + k * step, step * 0.6) for k in range(n)]
    bars = rng.random(26) < 0.5 if chance(rng, 0.4) else None
    picture = photo_window(rng, sources_of(photos, 3), 96) if sources_of(photos, 3) and chance(rng, 0.5) else None
    crimp = kind in ("pouch", "bar")
    swell, segments = rng.uniform(0.05, 0.25), int(rng.integers(2, 7)) if kind == "bar" and chance(rng, 0.5) else 0

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief, c = Relief(rng, side, skin), side / 2
        w, h = wide * side, tall * side
        corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) + rng.normal(0, 0.004, (4, 2)) * side + c
        relief.alpha = fill(side, corners)
        if kind == "card":
            relief.alpha = rounded(relief.alpha, max(1.0, 0.03 * side))
        for x, y, bw, bh, ink in () if segments else blocks:
            x0, y0 = c + x * w, c + y * h
            box(relief.albedo, x0, y0, x0 + bw * w, y0 + bh * h, inks[ink].tolist())
        if picture is not None and not segments:
            n = max(4, int(0.9 * min(w, h)))
            y0, x0 = int(c - n / 2), int(c - w * 0.8)
            relief.albedo[y0 : y0 + n, x0 : x0 + n] = cv2.resize(picture, (n, n), interpolation=cv2.INTER_AREA)
        for content, x, y, high in lines if side > 50 and not segments else ():
            room = (0.25 if bars is not None and y > 0.25 else 0.9) - x
            scale = max(min(high * h, room * w / (0.85 * len(content))), 4.0) / 22
            at = (int(c + x * w), int(c + y * h))
            cv2.putText(relief.albedo, content, at, 0, scale, inks[2].tolist(), max(1, int(scale * 2)), cv2.LINE_AA)
        if bars is not None and not segments:
            x0, y0, pitch = c + 0.35 * w, c + 0.4 * h, 0.5 * w / 26
            box(relief.albedo, x0 - pitch, y0 - 2, x0 + 27 * pitch, y0 + 0.42 * h, (240, 240, 238))
            for k in np.flatnonzero(bars):
                box(relief.albedo, x0 + k * pitch, y0, x0 + (k + 1) * pitch, y0 + 0.36 * h, (24, 24, 24))
        axis = np.linspace(-1, 1, side, dtype=np.float32)
        if crimp:
            u = np.clip(1 - (axis[None] / np.float32(1.7 * wide)) ** 4, 0, 1)
            v = np.clip(1 - (axis[:, None] / np.float32(2.2 * tall)) ** 2, 0, 1)
            relief.height += np.sqrt(u * v) * np.float32(swell * tall * 2 * side)
            relief.height += smooth(rng, side, side * 0.15) * np.float32(0.004 * side)
            ends = np.clip((np.abs(axis) - 1.72 * wide) * 60, 0, 1)[None]
            relief.height += ends * np.sin(axis * np.float32(side * 0.9))[None] * np.float32(0.008 * side)
        if segments:
            wave = np.abs(np.sin((axis / np.float32(2 * wide) + 0.5) * np.float32(math.pi * segments)))
            relief.height += np.minimum(wave * 3, 1)[None] * np.float32(0.03 * side)
        relief.lift(relief.alpha, 0.03, 0.008)
        return relief.shade(studio, angle, 0.25)

    names = {
        "box": ("box", "package", "carton"),
        "pouch": ("pouch", "bag", "sachet"),
        "bar": ("bar", "chocolate bar", "wafer", "chewing gum"),
        "card": ("card", "label", "cassette"),
    }[kind]
    return Thing(draw, pick(rng, *names), pick(rng, "printed", "plastic", "paper"), min(1.0, 2.3 * tall))


def housing(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Plastic and metal blocks with a grid of openings, pins or keys: plugs, terminals, switches, grilles, moulds."""
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
    return Thing(draw, pick(rng, *names), _material(skin), min(1.0, 2.3 * tall + 0.1))


def cable_end(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """A cut cable seen end on: a sheath, insulated cores, bundles of bright strands."""
    skin, copper = Skin(rng, photos, extent, "plastic"), Skin(rng, photos, extent, "metal")
    n, rows = int(rng.integers(1, 6)), int(rng.integers(2, 5))
    colors = [np.array(sober(rng, 40)) for _ in range(n)]
    outer, start = rng.uniform(0.76, 0.9), rng.uniform(0, 6.28)

    def draw(rng: Rng, side: int, angle: float) -> Sprite:
        relief, c = Relief(rng, side, skin), side / 2
        disc(relief.alpha, c, c, 0.46 * side, 255)  # type: ignore[arg-type]
        relief.lift(relief.alpha, 0.04, 0.012)
        room = 0.46 * outer
        r = room * (0.9 if n == 1 else math.sin(math.pi / n) / (1 + math.sin(math.pi / n)) * 0.97)
        wires, cores = relief.mask(), relief.mask()
        disc(relief.albedo, c, c, room * side, [v * 0.5 for v in skin.color])
        for k in range(n):
            a = start + k * 6.2832 / n + rng.normal(0, 0.03)
            away = 0.0 if n == 1 else room - r
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
    """Electronic parts with legs: a printed body, sometimes a drilled metal tab, bright pins on one side or on two."""
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


PARTS: dict[str, tuple[Callable[[Rng, Studio, Photos, int], Thing], float]] = {
    "round": (round_part, 3.0),
    "plate": (plate, 2.6),
    "lathe": (lathe, 2.4),
    "spring": (spring, 0.6),
    "lump": (lump, 2.2),
    "bristles": (bristles, 0.5),
    "package": (package, 1.1),
    "housing": (housing, 1.2),
    "cable_end": (cable_end, 0.4),
    "leaded": (leaded, 0.8),
}
_KINDS = list(PARTS)
_SHARES = np.array([w for _, w in PARTS.values()]) / sum(w for _, w in PARTS.values())


def any_part(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    return PARTS[_KINDS[int(rng.choice(len(_KINDS), p=_SHARES))]][0](rng, studio, photos, extent)
