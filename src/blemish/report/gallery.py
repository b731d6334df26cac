"""The best and the worst pictures of a method: what is marked in them, and the anomaly map laid over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from blemish.datasets.samples import Sample
from blemish.draw import overlay
from blemish.errors import ImageError
from blemish.evaluation.examples import EACH, KINDS, Kind, load, order, wrongness
from blemish.evaluation.record import Record

#: Longer side of a picture on the page, in pixels.
SIDE = 288


@dataclass(frozen=True)
class Tile:
    """One picture on the page.

    `wrong` is the share of the other label that the picture is on the wrong side of, within its category.
    """

    sample: Sample
    score: float
    wrong: float
    values: NDArray[np.float32]  # the small map


@dataclass(frozen=True)
class Gallery:
    """A method's pictures of each kind, and the scale that their maps are drawn on."""

    tiles: Mapping[Kind, Sequence[Tile]]
    scale: tuple[float, float]


def gallery(record: Record, name: str, categories: Mapping[str, Sequence[Sample]]) -> Gallery | None:
    """Choose the most telling pictures over all categories; None where no maps of them were kept."""
    found: dict[Kind, list[Tile]] = {kind: [] for kind in KINDS}
    for category, samples in categories.items():
        finished = record.finished.get((name, category))
        maps = load(record, name, category, finished.examples) if finished is not None else {}
        scored = [(sample, entry) for sample in samples if (entry := record.entry(name, sample)) is not None]
        labels = np.array([sample.label for sample, _ in scored], dtype=np.int64)
        scores = np.array([entry.score for _, entry in scored], dtype=np.float64)
        wrong = wrongness(labels, scores)
        for kind in KINDS:
            for place in order(kind, labels, scores, wrong)[:EACH].tolist():
                sample = scored[place][0]
                values = maps.get(record.identity(sample))
                if values is not None:
                    found[kind].append(Tile(sample, float(scores[place]), float(wrong[place]), values))
    tiles: dict[Kind, list[Tile]] = {}
    for kind, choice in found.items():
        sign = -1 if kind in ("missed", "false alarm") else 1
        tiles[kind] = _spread([choice[i] for i in np.argsort([sign * tile.wrong for tile in choice], kind="stable")])
    every = [tile.values for kind in KINDS for tile in tiles[kind]]
    if not every:
        return None
    return Gallery(tiles, _scale(every))


def pictures(tile: Tile, scale: tuple[float, float], name: str) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """Two pictures, each as (data address, words): with what is marked outlined, and with the anomaly map over it.

    None if the picture is gone.
    """
    sample = tile.sample
    what = f"{sample.category}, {sample.defect or ('anomalous' if sample.label else 'normal')}, {sample.path.name}"
    try:
        picture = sample.picture().image.convert("RGB")
        mask = sample.mask(picture.size) if sample.masks else None
    except ImageError:
        return None
    factor = SIDE / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    small = picture.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC)
    values = np.asarray(Image.fromarray(tile.values).resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    marked, words = small, f"{what}: as it is"
    if mask is not None and mask.any():
        marked, words = _outlined(small, mask), f"{what}: what is marked as anomalous is outlined"
    laid = overlay(small, values, scale, alpha=0.75)
    return (_inline(marked), words), (_inline(laid), f"{what}: anomaly map of {name} over it, score {tile.score:.3f}")


def _spread(tiles: Sequence[Tile]) -> list[Tile]:
    """The first of each category before the second of any, so that one category does not fill the page."""
    turns: dict[str, int] = {}
    keyed = []
    for place, tile in enumerate(tiles):
        turn = turns.get(tile.sample.category, 0)
        turns[tile.sample.category] = turn + 1
        keyed.append((turn, place, tile))
    return [tile for _, _, tile in sorted(keyed, key=lambda one: one[:2])][:EACH]


def _scale(maps: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """One scale for all of a method's pictures: from their median up, so that what is usual stays as it is."""
    values = np.concatenate([one.ravel() for one in maps])
    low, high = (float(value) for value in np.percentile(values, (50, 99.9)))
    return (low, high) if high > low else (low, low + 1e-6)


def _outlined(picture: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """A white line around what is marked, with black on both sides so that it shows on any picture."""
    # Any marked pixel counts: a defect must not vanish because the picture is made small.
    coarse = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(picture.size, Image.Resampling.BOX)
    inside = np.asarray(coarse) > 0
    edges = [inside, *(ndimage.binary_dilation(inside, iterations=times) for times in (1, 3, 4))]
    pixels = np.array(picture)
    for inner, outer, shade in zip(edges, edges[1:], (0, 255, 0), strict=False):
        pixels[outer & ~inner] = shade
    return Image.fromarray(pixels)


def _inline(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
