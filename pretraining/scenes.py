"""Normal pictures for pretraining: a table of families, each a small painter with many random parameters.

`make_scene(rng, size, photos)` draws one. Everything in it belongs there: seams, bars, print, grain, shadows.
`python pretraining/scenes.py sheet.png [photo-folder]` writes a contact sheet and prints milliseconds per family.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # so that this file works as a script, as a module and as an import

from scenes_base import (
    Family,
    Photos,
    Rng,
    Scene,
    Theme,
    blend,
    cells,
    chance,
    cuts,
    full,
    lighting,
    loguni,
    pick,
    plain,
    relight,
    smooth,
    turned,
    untilt,
)
from scenes_bodies import BODIES
from scenes_drawing import Color, box, disc, line, text, word
from scenes_fabrics import FABRICS
from scenes_medical import MEDICAL
from scenes_objects import SPECIES, heap, kit, object_family
from scenes_patterns import PATTERNS
from scenes_products import PRODUCTS
from scenes_surfaces import SURFACES, surface_scene
from scenes_textures import TEXTURES, any_texture, texture_scene

__all__ = ["FAMILIES", "Scene", "make_scene"]


def regions(rng: Rng, size: int, photos: Photos) -> Scene:
    """Two to four surfaces side by side, divided by straight, wavy or cellular seams."""
    index = _partition(rng, size)
    painted = [any_texture(rng, size, photos) for _ in range(int(index.max()) + 1)]
    image = painted[0][0]
    soft = rng.uniform(0.5, 1.5)
    seam = np.zeros((size, size), np.uint8)
    for k in range(1, len(painted)):
        mask = cv2.GaussianBlur((index == k).astype(np.uint8) * 255, (0, 0), soft)
        image = blend(image, painted[k][0], mask)
        seam = cv2.max(seam, cv2.min(mask, 255 - mask) * 2)
    if chance(rng, 0.5):
        width = int(loguni(rng, 1, 9))
        image = blend(image, plain(size, Theme(rng).color()), cv2.dilate(seam, np.ones((width, width), np.uint8)))
    name = pick(rng, "assembly", "patchwork", "joint", "furniture", "upholstery", "facade", "product surface")
    return Scene(lighting(rng, image, 0.5), full(size), name, painted[0][2])


def _partition(rng: Rng, size: int) -> np.ndarray:
    kind = rng.integers(4)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 6.28)
    field = np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None]
    if kind == 0:
        return (field > rng.uniform(-0.4, 0.4)).astype(np.int32)
    if kind == 1:
        field = field + rng.uniform(0.05, 0.4) * smooth(rng, size, size * 0.4)
        return np.digitize(field, np.sort(rng.uniform(-0.6, 0.6, int(rng.integers(1, 4))))).astype(np.int32)
    if kind == 2:
        period = rng.uniform(0.4, 1.5)
        return (np.floor(field / period).astype(np.int32) % int(rng.integers(2, 4))).astype(np.int32)
    _, labels, _n = cells(rng, size, size / 2)
    return (labels % int(rng.integers(2, 4))).astype(np.int32)


def framed(rng: Rng, size: int, photos: Photos) -> Scene:
    """A picture within borders: mats, bezels, table edges around another surface."""
    theme = Theme(rng)
    inner, name, material = any_texture(rng, size, photos)
    back = any_texture(rng, size, photos)[0] if chance(rng, 0.4) else plain(size, theme.color())
    sides = np.where(rng.random(4) < 0.75, rng.uniform(0.02, 0.22, 4), 0.0) * size
    if chance(rng, 0.5):
        sides[:] = sides.max()
    image, mask = back, np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(0, 3))):
        grow = rng.uniform(1, 10)
        box(image, sides[0] - grow, sides[1] - grow, size - sides[2] + grow, size - sides[3] + grow, theme.color())
    box(mask, sides[0], sides[1], size - sides[2], size - sides[3], 255)  # type: ignore[arg-type]
    image = blend(image, inner, mask)
    return Scene(lighting(rng, image, 0.4), mask > 127, name, material)


def garnished(rng: Rng, size: int, photos: Photos) -> Scene:
    """A surface with one thing made on it that runs through: a stitched seam, rivets, a fold, a weld, a print."""
    width, angle = turned(rng, size)
    image, name, material = any_texture(rng, width, photos)
    theme = Theme(rng)
    first, second = theme.color(), theme.color()
    for y in cuts(rng, width, width * rng.choice([0.35, 0.5, 0.9]), rng.uniform(0, 0.2)):
        if 0 < y < width:
            _ornament(rng, image, float(y), int(rng.integers(6)), first, second)
    image = untilt(image, size, angle)
    if chance(rng, 0.5):
        image = cv2.GaussianBlur(image, (0, 0), 0.6)
    return Scene(lighting(rng, image, 0.4), full(size), name, material)


def _ornament(rng: Rng, image: np.ndarray, y: float, kind: int, first: Color, second: Color) -> None:
    """One band across the picture at height y."""
    width = image.shape[0]
    scale = loguni(rng, 2, 12)
    if kind == 0:  # stitches
        line(image, 0, y, width, y, second, max(1, scale * 0.2))
        for x in np.arange(0, width, scale * 2.2):
            line(image, x, y + rng.normal() * 0.2, x + scale * 1.4, y + rng.normal() * 0.2, first, scale * 0.5)
    elif kind == 1:  # rivets or screws
        r = scale * 0.8
        for x in np.arange(r, width, r * rng.uniform(3, 9)):
            disc(image, x + r * 0.15, y + r * 0.15, r * 1.15, (20, 20, 20))
            disc(image, x, y, r, first)
            disc(image, x - r * 0.2, y - r * 0.2, r * 0.6, second)
    elif kind in (2, 3):  # a fold or a weld bead: light on one side, shade on the other, ripples for the bead
        scale = max(scale, 5.0)  # a narrow one would pass for a scratch
        rows = (np.arange(width, dtype=np.float32) - y) / scale
        profile = rows * np.exp(-(rows**2))
        factor = np.repeat(profile[:, None], width, 1)
        if kind == 3:
            x = np.arange(width, dtype=np.float32)
            ripple = np.sin((x[None] + 0.4 * scale * rows[:, None] ** 2) * np.float32(3 / scale))
            factor = factor + 0.5 * np.exp(-((rows[:, None] / 1.4) ** 4)) * ripple
        image[:] = relight(image, (1 + rng.uniform(0.2, 0.9) * factor).astype(np.float32))
    elif kind == 4:  # a print
        x = rng.uniform(0, 30)
        while x < width:
            x += (
                text(image, word(rng, 3, 9), x, y, scale * 3.5, first, int(rng.integers(8)), 1 + int(scale > 6))
                + scale * 3
            )
    else:  # an inlay or a ribbon
        box(image, 0, y - scale - 1, width, y + scale + 1, second)
        box(image, 0, y - scale, width, y + scale, first)


_OTHER: dict[str, tuple[Family, float]] = {
    "garnished": (garnished, 2.5),
    "regions": (regions, 2.5),
    "framed": (framed, 1.5),
    "kit": (kit, 2.0),
    "heap": (heap, 1.2),
}

# name -> (family, weight). Weights are shares of the whole after normalisation.
FAMILIES: dict[str, tuple[Family, float]] = {
    **{name: (texture_scene(painter), weight) for name, (painter, weight) in TEXTURES.items()},
    **{name: (surface_scene(painter), weight) for name, (painter, weight) in (SURFACES | FABRICS).items()},
    **PATTERNS,
    **{name: (object_family(name), 1.2 * weight) for name, (_, weight) in SPECIES.items()},
    **MEDICAL,
    **PRODUCTS,
    **BODIES,
    **_OTHER,
}
_NAMES = list(FAMILIES)
_SHARES = np.cumsum([weight for _, weight in FAMILIES.values()])


def make_scene(rng: Rng, size: int, photos: Photos = ()) -> Scene:
    """One random normal picture of `size` pixels a side."""
    at = int(np.searchsorted(_SHARES, rng.uniform(0, _SHARES[-1])))
    return FAMILIES[_NAMES[min(at, len(_NAMES) - 1)]][0](rng, size, photos)


def _sheet(rng: Rng, photos: Photos, size: int, per_family: int, only: list[str] | None = None) -> np.ndarray:
    """Labelled examples of every family."""
    shown = []
    for name, (family, _weight) in FAMILIES.items():
        if only and name not in only:
            continue
        for _ in range(per_family):
            tile = cv2.resize(family(rng, size, photos).image, (160, 160), interpolation=cv2.INTER_AREA)
            cv2.rectangle(tile, (0, 148), (160, 160), (0, 0, 0), -1)
            cv2.putText(tile, name, (3, 157), 0, 0.35, (255, 255, 255), 1, cv2.LINE_AA)
            shown.append(tile)
    columns = 12  # wide enough for one family a row
    shown += [np.zeros((160, 160, 3), np.uint8)] * (-len(shown) % columns)
    return np.concatenate([np.concatenate(shown[i : i + columns], 1) for i in range(0, len(shown), columns)], 0)


def _timings(rng: Rng, photos: Photos, size: int, repeats: int) -> dict[str, float]:
    spent = {}
    for name, (family, _weight) in FAMILIES.items():
        start = time.process_time()
        for _ in range(repeats):
            scene = family(rng, size, photos)
            if scene.image.shape != (size, size, 3) or scene.image.dtype != np.uint8:
                raise AssertionError(f"{name}: {scene.image.shape} {scene.image.dtype}")
            if scene.foreground.shape != (size, size) or scene.foreground.dtype != bool:
                raise AssertionError(f"{name}: foreground {scene.foreground.shape} {scene.foreground.dtype}")
        spent[name] = 1000 * (time.process_time() - start) / repeats
    return spent


def _load(folder: Path) -> list[np.ndarray]:
    files = [f for f in sorted(folder.rglob("*")) if f.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    images = [cv2.imread(str(f), cv2.IMREAD_COLOR) for f in files]
    return [cv2.cvtColor(i, cv2.COLOR_BGR2RGB) for i in images if i is not None]


def main(arguments: list[str]) -> None:
    rng = np.random.default_rng(int(arguments[2]) if len(arguments) > 2 else 0)
    photos = _load(Path(arguments[1])) if len(arguments) > 1 else []
    only = arguments[3].split(",") if len(arguments) > 3 else None
    sheet = _sheet(rng, photos, 256, 12 if only else 2, only)
    cv2.imwrite(arguments[0], cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    spent = _timings(rng, photos, 256, 25)
    shares = {name: weight / _SHARES[-1] for name, (_, weight) in FAMILIES.items()}
    for name, ms in spent.items():
        print(f"{name:14s} {ms:6.1f} ms  {100 * shares[name]:4.1f} %")
    print(f"weighted mean  {sum(ms * shares[name] for name, ms in spent.items()):6.1f} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
