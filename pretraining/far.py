"""Far validation: how models rank pictures that neither their training's photographs nor its defects went into.

    apt-get download PACKAGE && dpkg -x PACKAGE_*.deb FOLDER/PACKAGE      # each package of PICTURES
    python pretraining/far.py [BACKBONE ...] --from FOLDER [--methods clip musc]

A product is one cutout on plain ground, always upright or in any pose, or pieces of one picture of a surface,
photographed ten times, in turns as it is and with a defect. The pictures are in no training (their licences are not for
that; nothing of them is kept), and the defects are made by others' configs: a piece of the picture moved (CutPaste; Li
and others, 2021), another picture seen through noise (DRAEM; Zavrtanik and others, 2021), a piece blended in by
Poisson's equation (NSA; Schlueter and others, 2022), and places that are blurred or of another brightness or colour. A
model that only knows our own engine's pictures by heart does badly here. No real defects are seen, so it may decide
what ships.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from gather_sources import SOURCES
from PIL import Image
from train_methods import EACH, SIDE, Products, judge_for

from blemish.clip import load_backbone
from blemish.methods import create, load_class
from blemish.training import Sample

#: Package, what is taken of it, and whether these are cutouts; nothing that `gather.py` takes.
PICTURES = (
    ("tuxpaint-stamps-default", "**/*.png", True),
    ("supertuxkart-data", "**/*.[jp][pn]g", False),
    ("mate-backgrounds", "**/*.jpg", False),
)
#: Least side of a cutout and of a surface, and least bytes a pixel: fewer is a drawing of even areas.
LEAST, DETAIL = (256, 512), 0.08
#: Pictures of these names are not of surfaces.
NOT_SEEN = re.compile(r"normal|_nm|_n\.|gloss|alpha|gui|screenshot|light|mask")
#: Products of each kind, and pictures that defects are made of.
COUNT, OTHERS = 45, 30
#: How a cutout lies: turned and moved to either side by so many degrees and pixels at most, and of what scales.
UPRIGHT, ANY_POSE = (7, 15, (0.94, 1.04)), (180, 40, (0.7, 1.0))
#: Least mean difference of a pixel that counts as changed, and least part of a defect that is.
CHANGE, CHANGED = 6, 0.3
SEED = 9


def paths(folder: Path) -> tuple[list[Path], list[Path]]:
    """Cutouts and surfaces, each in an order of chance."""
    found: tuple[list[Path], list[Path]] = ([], [])
    ours = [(folder / source.package, pattern) for source in SOURCES for pattern in source.patterns]
    used = {path for package, pattern in ours if "!" not in pattern for path in package.glob(pattern)}
    for package, pattern, cutouts in PICTURES:
        for path in sorted((folder / package).glob(pattern)):
            if path in used or NOT_SEEN.search(str(path)) or not path.is_file():
                continue
            with Image.open(path) as image:
                (width, height), mode = image.size, image.mode
            fine = min(width, height) >= LEAST[0 if cutouts else 1] and path.stat().st_size >= DETAIL * width * height
            if fine and (mode == "RGBA") == cutouts:
                found[0 if cutouts else 1].append(path)
    rng = np.random.default_rng(SEED)
    for each in found:
        rng.shuffle(each)  # type: ignore[arg-type]
    return found


def noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """(size, size) float32, smooth."""
    grid = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def place(rng: np.random.Generator, allowed: np.ndarray) -> np.ndarray | None:
    """A mask inside `allowed` (S, S) bool: a box, a scar, a blob or a cloud."""
    size = len(allowed)
    rows, columns = np.nonzero(allowed)
    down, across = np.mgrid[:size, :size]
    for _ in range(50):
        at = rng.integers(len(rows))
        y, x = rows[at], columns[at]
        area = np.exp(rng.uniform(np.log(0.0015), np.log(0.06))) * size * size
        far, kind = np.hypot(down - y, across - x), rng.integers(4)
        mask = np.zeros((size, size), np.uint8)
        if kind < 2:
            long = np.exp(rng.uniform(-1, 1))
            sides = ((area * long) ** 0.5, (area / long) ** 0.5) if kind == 0 else rng.uniform((2, 20), (10, 120))
            turn = 0.0 if kind == 0 else rng.uniform(0, 180)
            box = cv2.boxPoints(((float(x), float(y)), (float(sides[0]), float(sides[1])), turn))
            cv2.fillPoly(mask, [box.astype(np.int32)], 1)
        elif kind == 2:
            edge = (area / np.pi) ** 0.5 * (1 + 0.5 * noise(rng, size, int(rng.integers(6, 24))))
            mask = (far < edge).astype(np.uint8)
        else:
            cloud = noise(rng, size, int(rng.integers(8, 40))) > 0.5
            mask = (cloud & (far < 1.6 * (area / np.pi) ** 0.5)).astype(np.uint8)
        inside: np.ndarray = (mask > 0) & allowed
        if inside.sum() > 60:
            return inside
    return None


def spoilt(
    rng: np.random.Generator, image: np.ndarray, allowed: np.ndarray, others: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The picture (S, S, 3) uint8 with a defect, and its mask; None if nothing came of it."""
    mask = place(rng, allowed)
    if mask is None:
        return None
    size, out, kind = len(image), image.astype(np.float32), rng.integers(4)
    moved = np.roll(image, tuple(rng.integers(-size // 2, size // 2, 2)), (0, 1))
    other = others[rng.integers(len(others))]
    if kind == 0:
        out[mask] = moved[mask] * rng.uniform(0.85, 1.15) + rng.uniform(-12, 12)
    elif kind == 1:
        share = rng.uniform(0.2, 0.8)
        out[mask] = share * out[mask] + (1 - share) * other[mask]
    elif kind == 2:
        inner = np.pad(mask[1:-1, 1:-1], 1).astype(np.uint8) * 255
        x, y, width, height = cv2.boundingRect(inner)
        if min(width, height) < 3:
            return None
        source = other if rng.random() < 0.5 else np.ascontiguousarray(moved)
        flag = cv2.MIXED_CLONE if rng.random() < 0.5 else cv2.NORMAL_CLONE
        out = cv2.seamlessClone(source, image, inner, (x + width // 2, y + height // 2), flag).astype(np.float32)
    else:
        changed = (
            cv2.GaussianBlur(out, (0, 0), rng.uniform(2, 6)),
            out * rng.uniform(0.5, 0.8),
            out * rng.uniform(1.2, 1.6),
            out + rng.uniform(-45, 45, 3),
        )[rng.integers(4)]
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), rng.uniform(0.8, 4))[..., None]
        out = out * (1 - soft) + changed * soft
    out = out.clip(0, 255)
    visible = np.abs(out - image).mean(2)[mask] > CHANGE
    return (out.astype(np.uint8), mask) if visible.mean() >= CHANGED else None


def way(scale: float) -> int:
    """How a picture is resized by this factor."""
    return cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC


def photographed(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Other light, noise, JPEG."""
    image = image * rng.uniform(0.93, 1.07) + rng.uniform(-6, 6) + rng.standard_normal(image.shape) * rng.uniform(1, 4)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(75, 96))]
    return cv2.imdecode(cv2.imencode(".jpg", image.clip(0, 255).astype(np.uint8), quality)[1], cv2.IMREAD_COLOR)


def product(
    rng: np.random.Generator,
    path: Path,
    others: Sequence[np.ndarray],
    size: int = SIDE,
    pose: tuple[float, float, tuple[float, float]] = UPRIGHT,
) -> list[Sample]:
    """Up to EACH photographs of the cutout, in this pose, or of the surface in this file."""
    source = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cutout = source.ndim == 3 and source.shape[2] == 4
    if cutout:
        (angle, shift, scales), scale = pose, 0.8 * size / max(source.shape[:2])
        source = cv2.resize(source, None, fx=scale, fy=scale, interpolation=way(scale))
        colour = rng.uniform(30, 225) + rng.uniform(-15, 15, 3)
        grain = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), rng.uniform(0.6, 6))
        grain *= rng.uniform(1, 8) / grain.std()
    else:
        source = cv2.cvtColor(source, cv2.COLOR_GRAY2BGR) if source.ndim == 2 else source
        height, width = source.shape[:2]
        side = int(rng.uniform(400, 900) if min(height, width) > 1500 else min(height, width) * rng.uniform(0.3, 0.6))
    photographs = []
    for number in range(EACH):
        if cutout:
            height, width = source.shape[:2]
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-angle, angle), rng.uniform(*scales))
            turn[:, 2] += np.array([size - width, size - height]) / 2 + rng.uniform(-shift, shift, 2)
            turned = cv2.warpAffine(source, turn, (size, size))
            cover = turned[..., 3:] / 255
            ground = np.roll(grain, tuple(rng.integers(0, size, 2)), (0, 1))[..., None] + colour
            image = (turned[..., :3] * cover + ground * (1 - cover)).clip(0, 255).astype(np.uint8)
            allowed = cv2.erode((cover[..., 0] > 0.9).astype(np.uint8), np.ones((5, 5))) > 0
        else:
            y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
            piece = np.ascontiguousarray(source[y : y + side, x : x + side])
            image = cv2.resize(piece, (size, size), interpolation=way(size / side))
            allowed = np.ones((size, size), bool)
        mask = None
        if number % 2:
            made = None
            for _ in range(8 if allowed.sum() > 2000 else 0):
                made = made or spoilt(rng, image, allowed, others)
            if made is None:
                continue
            image, mask = made
        image = cv2.cvtColor(photographed(rng, image), cv2.COLOR_BGR2RGB)
        photographs.append(Sample(Image.fromarray(image), mask, int(mask is not None), "object"))
    return photographs


def products(folder: Path, count: int = COUNT) -> dict[str, Products]:
    """By kind of product: their photographs, and the number (n,) of each one's product."""
    cutouts, surfaces = paths(folder)
    spare = [cv2.resize(cv2.imread(str(p)), (SIDE, SIDE)) for p in surfaces[count : count + OTHERS]]
    kinds = {
        "cutouts": (0, cutouts, UPRIGHT),
        "cutouts in any pose": (0, cutouts, ANY_POSE),
        "surfaces": (1, surfaces, UPRIGHT),
    }
    made = {}
    for kind, (which, chosen, pose) in kinds.items():
        drawn = enumerate(chosen[:count])
        each = [product(np.random.default_rng([SEED, which, n]), p, spare, pose=pose) for n, p in drawn]
        each = [one for one in each if len(one) >= EACH - 2]
        groups = np.repeat(np.arange(len(each)), [len(one) for one in each])
        made[kind] = ([sample for one in each for sample in one], groups)
    return made


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("backbones", nargs="*", default=["builtin"], metavar="BACKBONE")
    a.add_argument("--from", dest="folder", type=Path, required=True, help="unpacked packages, each by its name")
    a.add_argument("--methods", nargs="+", default=["clip", "musc"])
    a.add_argument("--count", type=int, default=COUNT, help="products of each kind")
    a.add_argument("--size", type=int, help="of the input in pixels; default: the backbone's own")
    o = a.parse_args()
    sets = products(o.folder, o.count)
    for name in o.backbones:
        backbone = load_backbone(name)
        for method in o.methods:
            made = create(method, backbone, {**vars(load_class(method).BUILTIN), "size": o.size or backbone.size})
            for kind, each in sets.items():
                found = judge_for([made], each)(made)
                found["image_auroc"] = found[f"image_auroc/{made.config.image_score}"]
                told = json.dumps({key: round(value, 4) for key, value in found.items()})
                print(f"{name}, {method}, {len(each[0])} photographs of {kind}: {told}", flush=True)


if __name__ == "__main__":
    main()
