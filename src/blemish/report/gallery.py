"""The best and the worst pictures of a method, with masks outlined and anomaly maps laid over them."""

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
from blemish.evaluation.folder import EvaluationFolder
from blemish.evaluation.measure import (
    KINDS,
    NUM_EXAMPLES,
    Kind,
    choose_examples,
    labels_and_scores,
    rank_error,
)

#: Longer side of a picture on the page in pixels.
SIDE = 288


@dataclass(frozen=True)
class Example:
    """One picture on the page."""

    sample: Sample
    score: float
    rank_error: float
    """Share of the other label that the picture is on the wrong side of, within its category."""
    anomaly_map: NDArray[np.float32]
    """Small anomaly map."""


@dataclass(frozen=True)
class Gallery:
    """A method's examples of each kind, and the range of map values that their colours show."""

    examples: Mapping[Kind, Sequence[Example]]
    map_range: tuple[float, float]


def make_gallery(folder: EvaluationFolder, name: str, categories: Mapping[str, Sequence[Sample]]) -> Gallery | None:
    """Return the clearest examples over all categories; None if no maps of them were kept."""
    candidates: dict[Kind, list[Example]] = {kind: [] for kind in KINDS}
    for category, samples in categories.items():
        small_maps = folder.read_examples(name, category)
        scored = [sample for sample in samples if folder.score(name, sample) is not None]
        labels, scores = labels_and_scores(folder, name, scored)
        errors = rank_error(labels, scores)
        for kind, indices in choose_examples(labels, scores).items():
            for i in indices:
                anomaly_map = small_maps.get(folder.identity(scored[i]))
                if anomaly_map is not None:
                    candidates[kind].append(Example(scored[i], float(scores[i]), float(errors[i]), anomaly_map))
    examples: dict[Kind, list[Example]] = {}
    for kind, candidate in candidates.items():
        sign = -1 if kind.startswith("false") else 1
        examples[kind] = _alternate(sorted(candidate, key=lambda example: sign * example.rank_error))
    maps = [example.anomaly_map for chosen in examples.values() for example in chosen]
    return Gallery(examples, _map_range(maps)) if maps else None


def render(example: Example, map_range: tuple[float, float], name: str) -> list[tuple[str, str]] | None:
    """Return two pictures as (data URL, description): with the mask outlined, and with the anomaly map over it.

    None if the picture cannot be read.
    """
    sample = example.sample
    what = f"{sample.category}, {sample.defect or ('anomalous' if sample.label else 'normal')}, {sample.path.name}"
    try:
        image = sample.picture().image.convert("RGB")
        mask = sample.mask(image.size) if sample.masks else None
    except ImageError:
        return None
    factor = SIDE / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    small = image.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC)
    resized_map = Image.fromarray(example.anomaly_map).resize(size, Image.Resampling.BILINEAR)
    heatmap = overlay(small, np.asarray(resized_map, dtype=np.float32), map_range, alpha=0.75)
    marked, words = small, f"{what}: the picture"
    if mask is not None and mask.any():
        marked, words = _outline(small, mask), f"{what}: the marked anomaly is outlined"
    return [
        (_data_url(marked), words),
        (_data_url(heatmap), f"{what}: anomaly map of {name} over the picture, score {example.score:.3f}"),
    ]


def _alternate(examples: Sequence[Example]) -> list[Example]:
    """Return the first of each category before the second of any, so that no category fills the page."""
    counts: dict[str, int] = {}
    turns = []
    for example in examples:
        turns.append(counts.get(example.sample.category, 0))
        counts[example.sample.category] = turns[-1] + 1
    order = sorted(range(len(examples)), key=turns.__getitem__)
    return [examples[i] for i in order[:NUM_EXAMPLES]]


def _map_range(maps: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Return one range for all maps of a method; it begins at their median, so that usual values have no colour."""
    values = np.concatenate([anomaly_map.ravel() for anomaly_map in maps])
    low, high = (float(value) for value in np.percentile(values, (50, 99.9)))
    return (low, high) if high > low else (low, low + 1e-6)


def _outline(image: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """Draw a white line with black edges around the mask, which is visible on any picture."""
    # Any marked pixel counts, so that small defects survive the reduction.
    coarse = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(image.size, Image.Resampling.BOX)
    inside = np.asarray(coarse) > 0
    edges = [inside, *(ndimage.binary_dilation(inside, iterations=n) for n in (1, 3, 4))]
    pixels = np.array(image)
    for inner, outer, shade in zip(edges, edges[1:], (0, 255, 0), strict=False):
        pixels[outer & ~inner] = shade
    return Image.fromarray(pixels)


def _data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
