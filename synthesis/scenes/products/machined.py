"""Machined and moulded parts shaded from height maps: round ones, plates, those turned on an axis, springs."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synthesis.scenes.base import Photos, Rng, Sprite, chance, loguni, pick
from synthesis.scenes.drawing import box, disc, fill, polar, rounded
from synthesis.scenes.products.studio import Relief, Skin, Studio, Thing, material_of, sober, stamp, write

# --- round parts, described by one profile from the middle to the rim -------------------------------------


def round_part(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Return a round part: bottle, cap or lid from above, bearing, ring, rotor, impeller, turned disc, candle."""
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
    if kind == "bottle":  # open neck from above
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
    shift = rng.normal(0, 0.012, 2) if chance(rng, 0.4) else np.zeros(2)  # viewed slightly from the side
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
    return Thing(draw, pick(rng, *names), material_of(skins[0]))


# --- plates ---------------------------------------------------------------------------------------------------


def plate(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Return a machined or cast plate, bracket, clip, buckle or key: an outline with bores, ribs and marks."""
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
    return Thing(draw, pick(rng, *names), material_of(skin), narrow if kind != "flange" else 0.7)


def _bores(rng: Rng, wide: float, tall: float) -> list[tuple[float, float, float, bool]]:
    """Drill bores in symmetric order: corners, a row, a circle or the middle."""
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
    """Return a part turned on an axis: screw, bolt, pipe, tube, pen, capsule, battery, bottle, pin, threaded rod."""
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
    return Thing(draw, pick(rng, *names), material_of(skins[0]), float(np.clip(half.max() * 2.4, 0.25, 1)))


_PRINTED = ("tube", "capsule", "bottle", "battery")


def spring(rng: Rng, studio: Studio, photos: Photos, extent: int) -> Thing:
    """Return a coil spring or coiled cord on its side."""
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

    return Thing(draw, pick(rng, "spring", "coil", "coil spring"), material_of(skin), min(1.0, wide * 2.4))
