"""Out-of-distribution validation: how methods rank pictures and defects that no training has seen.

    apt-get download PACKAGE && dpkg -x PACKAGE_*.deb FOLDER/PACKAGE      # each package of PICTURES
    python -m pretraining.validation.out_of_distribution [BACKBONE ...] --from FOLDER [--methods clip musc]

A product is a cutout on plain ground, upright or in any pose, or pieces of one picture of a surface. It is photographed
ten times, normal and defective in turns. The pictures are in no training, since their licences do not suit that. The
defects follow published methods: a moved piece of the picture (CutPaste; Li et al., 2021), another picture through
a mask of noise (DRAEM; Zavrtanik et al., 2021), a piece blended in by Poisson's equation (NSA; Schlueter et al., 2022),
and areas that are blurred or of other brightness or colour. There are no real defects, so the result may
decide what ships.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from blemish.clip import load_backbone
from blemish.methods import create, load_class
from blemish.training import Sample
from pretraining.validation.ranking import PHOTOGRAPHS, Products, Ranking, line, with_own_rule
from synthesis.photos.sources import SOURCES

#: Package, pattern of its files, and whether these are cutouts. Files that training uses are left out.
PICTURES = (
    ("tuxpaint-stamps-default", "**/*.png", True),
    ("supertuxkart-data", "**/*.[jp][pn]g", False),
    ("mate-backgrounds", "**/*.jpg", False),
)
#: Minimum side in pixels of cutouts and of surfaces.
MIN_CUTOUT_SIDE, MIN_SURFACE_SIDE = 256, 512
#: Minimum bytes of a file per pixel; a drawing of even areas has fewer.
MIN_BYTES_PER_PIXEL = 0.08
#: Names of files that show no surface.
EXCLUDED = re.compile(r"normal|_nm|_n\.|gloss|alpha|gui|screenshot|light|mask")
#: Products of each kind, and surfaces that defects are made from.
PRODUCTS, DEFECT_SOURCES = 45, 30
#: Side of the pictures in pixels.
SIZE = 512
#: Minimum mean difference of a changed pixel, of 255, and minimum fraction of a defect's pixels that are changed.
MIN_CHANGE, MIN_CHANGED = 6, 0.3
SEED = 9


class Pose(NamedTuple):
    """How a cutout lies: maximum turn to either side in degrees, maximum shift in pixels, and range of scales."""

    angle: float
    shift: float
    scales: tuple[float, float]


UPRIGHT, ANY_POSE = Pose(7, 15, (0.94, 1.04)), Pose(180, 40, (0.7, 1.0))


def list_pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the cutouts and the surfaces below a folder of unpacked packages, each in random order."""
    sources = [(folder / source.package, pattern) for source in SOURCES for pattern in source.patterns]
    trained_on = {path for package, pattern in sources if "!" not in pattern for path in package.glob(pattern)}
    cutouts: list[Path] = []
    surfaces: list[Path] = []
    for package, pattern, is_cutout in PICTURES:
        for path in sorted((folder / package).glob(pattern)):
            if path in trained_on or EXCLUDED.search(str(path)) or not path.is_file():
                continue
            with Image.open(path) as image:
                (width, height), mode = image.size, image.mode
            large = min(width, height) >= (MIN_CUTOUT_SIDE if is_cutout else MIN_SURFACE_SIDE)
            detailed = path.stat().st_size >= MIN_BYTES_PER_PIXEL * width * height
            if large and detailed and (mode == "RGBA") == is_cutout:
                (cutouts if is_cutout else surfaces).append(path)
    rng = np.random.default_rng(SEED)
    for paths in (cutouts, surfaces):
        rng.shuffle(paths)  # type: ignore[arg-type]
    return cutouts, surfaces


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Return smooth noise (size, size) float32 with so many cells along a side."""
    grid = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def draw_mask(rng: np.random.Generator, allowed: np.ndarray) -> np.ndarray | None:
    """Draw a mask inside `allowed` (S, S) bool: a box, a scar, a blob or a cloud; None if none fits."""
    size = len(allowed)
    rows, columns = np.nonzero(allowed)
    down, across = np.mgrid[:size, :size]
    for _ in range(50):
        index = rng.integers(len(rows))
        y, x = rows[index], columns[index]
        area = np.exp(rng.uniform(np.log(0.0015), np.log(0.06))) * size * size
        distance, kind = np.hypot(down - y, across - x), rng.integers(4)
        mask = np.zeros((size, size), np.uint8)
        if kind < 2:
            aspect = np.exp(rng.uniform(-1, 1))
            sides = ((area * aspect) ** 0.5, (area / aspect) ** 0.5) if kind == 0 else rng.uniform((2, 20), (10, 120))
            angle = 0.0 if kind == 0 else rng.uniform(0, 180)
            box = cv2.boxPoints(((float(x), float(y)), (float(sides[0]), float(sides[1])), angle))
            cv2.fillPoly(mask, [box.astype(np.int32)], 1)
        elif kind == 2:
            edge = (area / np.pi) ** 0.5 * (1 + 0.5 * smooth_noise(rng, size, int(rng.integers(6, 24))))
            mask = (distance < edge).astype(np.uint8)
        else:
            cloud = smooth_noise(rng, size, int(rng.integers(8, 40))) > 0.5
            mask = (cloud & (distance < 1.6 * (area / np.pi) ** 0.5)).astype(np.uint8)
        inside: np.ndarray = (mask > 0) & allowed
        if inside.sum() > 60:
            return inside
    return None


def add_defect(
    rng: np.random.Generator, image: np.ndarray, allowed: np.ndarray, others: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Put a defect into an image.

    Args:
        rng: Source of all draws.
        image: (S, S, 3) uint8.
        allowed: Where the defect may lie, (S, S) bool.
        others: Images (S, S, 3) uint8 that defects are made from.

    Returns:
        The image and the mask of the defect; None if the change is hardly visible.
    """
    mask = draw_mask(rng, allowed)
    if mask is None:
        return None
    size, result, kind = len(image), image.astype(np.float32), rng.integers(4)
    moved = np.roll(image, tuple(rng.integers(-size // 2, size // 2, 2)), (0, 1))
    other = others[rng.integers(len(others))]
    if kind == 0:
        result[mask] = moved[mask] * rng.uniform(0.85, 1.15) + rng.uniform(-12, 12)
    elif kind == 1:
        opacity = rng.uniform(0.2, 0.8)
        result[mask] = opacity * result[mask] + (1 - opacity) * other[mask]
    elif kind == 2:
        inner = np.pad(mask[1:-1, 1:-1], 1).astype(np.uint8) * 255
        x, y, width, height = cv2.boundingRect(inner)
        if min(width, height) < 3:
            return None
        source = other if rng.random() < 0.5 else np.ascontiguousarray(moved)
        flag = cv2.MIXED_CLONE if rng.random() < 0.5 else cv2.NORMAL_CLONE
        result = cv2.seamlessClone(source, image, inner, (x + width // 2, y + height // 2), flag).astype(np.float32)
    else:
        changed = (
            cv2.GaussianBlur(result, (0, 0), rng.uniform(2, 6)),
            result * rng.uniform(0.5, 0.8),
            result * rng.uniform(1.2, 1.6),
            result + rng.uniform(-45, 45, 3),
        )[rng.integers(4)]
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), rng.uniform(0.8, 4))[..., None]
        result = result * (1 - soft) + changed * soft
    result = result.clip(0, 255)
    visible = np.abs(result - image).mean(2)[mask] > MIN_CHANGE
    return (result.astype(np.uint8), mask) if visible.mean() >= MIN_CHANGED else None


def _interpolation(scale: float) -> int:
    return cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Change the light of an image, add noise and compress it as JPEG."""
    image = image * rng.uniform(0.93, 1.07) + rng.uniform(-6, 6) + rng.standard_normal(image.shape) * rng.uniform(1, 4)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(75, 96))]
    return cv2.imdecode(cv2.imencode(".jpg", image.clip(0, 255).astype(np.uint8), quality)[1], cv2.IMREAD_COLOR)


def draw_product(
    rng: np.random.Generator, path: Path, others: Sequence[np.ndarray], size: int = SIZE, pose: Pose = UPRIGHT
) -> list[Sample]:
    """Return up to PHOTOGRAPHS photographs of the cutout or the surface in a file."""
    source = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cutout = source.ndim == 3 and source.shape[2] == 4
    if cutout:
        scale = 0.8 * size / max(source.shape[:2])
        source = cv2.resize(source, None, fx=scale, fy=scale, interpolation=_interpolation(scale))
        colour = rng.uniform(30, 225) + rng.uniform(-15, 15, 3)
        grain = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), rng.uniform(0.6, 6))
        grain *= rng.uniform(1, 8) / grain.std()
    else:
        source = cv2.cvtColor(source, cv2.COLOR_GRAY2BGR) if source.ndim == 2 else source
        shorter = min(source.shape[:2])
        side = int(rng.uniform(400, 900) if shorter > 1500 else shorter * rng.uniform(0.3, 0.6))
    height, width = source.shape[:2]
    photographs = []
    for number in range(PHOTOGRAPHS):
        if cutout:
            angle, zoom = rng.uniform(-pose.angle, pose.angle), rng.uniform(*pose.scales)
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom)
            matrix[:, 2] += np.array([size - width, size - height]) / 2 + rng.uniform(-pose.shift, pose.shift, 2)
            turned = cv2.warpAffine(source, matrix, (size, size))
            alpha = turned[..., 3:] / 255
            ground = np.roll(grain, tuple(rng.integers(0, size, 2)), (0, 1))[..., None] + colour
            image = (turned[..., :3] * alpha + ground * (1 - alpha)).clip(0, 255).astype(np.uint8)
            allowed = cv2.erode((alpha[..., 0] > 0.9).astype(np.uint8), np.ones((5, 5))) > 0
        else:
            y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
            piece = np.ascontiguousarray(source[y : y + side, x : x + side])
            image = cv2.resize(piece, (size, size), interpolation=_interpolation(size / side))
            allowed = np.ones((size, size), bool)
        mask = None
        if number % 2:
            defect = None
            for _ in range(8 if allowed.sum() > 2000 else 0):
                defect = defect or add_defect(rng, image, allowed, others)
            if defect is None:
                continue
            image, mask = defect
        image = cv2.cvtColor(photograph(rng, image), cv2.COLOR_BGR2RGB)
        photographs.append(Sample(Image.fromarray(image), mask, int(mask is not None), "object"))
    return photographs


def draw_products(folder: Path, count: int = PRODUCTS, size: int = SIZE) -> dict[str, Products]:
    """Return the products by kind, `count` of each."""
    cutouts, surfaces = list_pictures(folder)
    spare = surfaces[count : count + DEFECT_SOURCES]
    others = [cv2.resize(cv2.imread(str(path)), (size, size)) for path in spare]
    kinds = {
        "cutouts": (0, cutouts, UPRIGHT),
        "cutouts in any pose": (0, cutouts, ANY_POSE),
        "surfaces": (1, surfaces, UPRIGHT),
    }
    products = {}
    for kind, (stream, paths, pose) in kinds.items():
        rngs = (np.random.default_rng([SEED, stream, number]) for number in range(count))
        drawn = [draw_product(rng, path, others, size, pose) for rng, path in zip(rngs, paths, strict=False)]
        products[kind] = Products.of([samples for samples in drawn if len(samples) >= PHOTOGRAPHS - 2])
    return products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=["builtin"], metavar="BACKBONE", help="names or folders")
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--methods", nargs="+", default=["clip", "musc"], help="methods that learn nothing")
    parser.add_argument("--count", type=int, default=PRODUCTS, help="products of each kind")
    args = parser.parse_args()
    kinds = draw_products(args.folder, args.count)
    for backbone_name in args.backbones:
        backbone = load_backbone(backbone_name)
        for name in args.methods:
            method = create(name, backbone, {**vars(load_class(name).BUILTIN), "size": backbone.size})
            for kind, products in kinds.items():
                scores = with_own_rule(method, Ranking.make([method], products)(method))
                print(
                    f"{backbone_name}, {name}, {len(products.samples)} photographs of {kind}: {line(scores)}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
