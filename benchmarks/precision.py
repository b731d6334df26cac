"""What half precision changes: the scores, the maps, and how well they rank real pictures.

    python benchmarks/precision.py [--per-set 200] [--folders DIR ...] [--methods clip,anomalyclip] [--out FILE]
    python benchmarks/precision.py --large [--pictures 3]

Scores pictures of the packages (`pip install 'blemish[demo]'`), and all of the MVTec-like sets in each DIR, with the
built-in model twice, in float32 and in half precision, and prints for each set and method the largest and the mean
difference of the image scores and of the anomaly maps (as a share of the method's scale), and both AUROCs. `--large`
does it at the sizes of ViT-L/14@336 with random weights on a few of the pictures, where there is nothing to rank.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from towers import random_vit_l

from blemish.clip import Backbone, load_backbone
from blemish.datasets import read
from blemish.demo import picture_sets
from blemish.engine import TorchEngine
from blemish.image_io import read_image
from blemish.loading import shipped
from blemish.methods import create
from blemish.metrics import auroc

BATCH = 16


@dataclass(frozen=True)
class Apart:
    """How far half precision is from float32, over the pictures of a set."""

    set: str
    method: str
    pictures: int
    score_max: float
    score_mean: float
    map_max: float
    """As a share of the method's scale, and so is the next."""
    map_mean: float
    auroc: float
    """In float32; nan without both labels."""
    auroc_half: float


def compare(
    name: str,
    method: str,
    backbone: Backbone,
    paths: Sequence[Path],
    labels: Sequence[int],
    object_name: str,
    precision: str,
) -> Apart:
    """Score pictures twice."""
    scorer = create(method, backbone, weights=shipped(method, backbone.fingerprint))
    exact, half = TorchEngine(scorer), TorchEngine(scorer, precision=precision)  # type: ignore[arg-type]
    low, high = exact.map_range
    scores, halves, largest, means = [], [], 0.0, []
    batch = BATCH if backbone.layers < 24 else 1
    for first in range(0, len(paths), batch):
        pictures = [read_image(path).image for path in paths[first : first + batch]]
        pixels = torch.cat([exact.preprocess(picture) for picture in pictures])
        reference, rounded = (engine.run(pixels, object_name).prediction for engine in (exact, half))
        scores += reference.score.tolist()
        halves += rounded.score.tolist()
        apart = (reference.map - rounded.map).abs() / (high - low)
        largest = max(largest, float(apart.max()))
        means.append(float(apart.mean()) * len(pictures))
    away = np.abs(np.array(scores) - np.array(halves))
    ranks = [auroc(np.array(labels), np.array(s)) if len(set(labels)) == 2 else float("nan") for s in (scores, halves)]
    return Apart(
        name, method, len(paths), float(away.max()), float(away.mean()), largest, sum(means) / len(paths), *ranks
    )


def builtin(methods: Sequence[str], per_set: int, folders: Sequence[Path], precision: str) -> Iterator[Apart]:
    backbone = load_backbone("builtin")
    sets = [
        (s.title, s.object_name, [(sample.path, sample.label) for sample in s.samples])
        for s in picture_sets(per_set=per_set)
    ]
    for data in (read("folder", folder) for folder in folders):
        for category in data.categories:
            samples = data.of(category)
            sets.append((category, samples[0].object_name, [(sample.path, sample.label) for sample in samples]))
    for title, object_name, pictures in sets:
        paths, labels = zip(*pictures, strict=True)
        for method in methods:
            yield compare(title, method, backbone, paths, labels, object_name, precision)


def large(methods: Sequence[str], count: int, precision: str) -> Iterator[Apart]:
    backbone = random_vit_l()
    for pictures in islice(picture_sets(per_set=4), 1):
        paths = [s.path for s in pictures.samples[:count]]
        for method in methods:
            yield compare("ViT-L/14, random", method, backbone, paths, [0] * len(paths), "object", precision)


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--per-set", type=int, default=200, help="pictures of each set; 0 for all")
    a.add_argument("--folders", type=Path, nargs="*", default=[], help="folders of MVTec-like sets")
    a.add_argument("--methods", default="clip,anomalyclip")
    a.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float16"])
    a.add_argument("--large", action="store_true")
    a.add_argument("--pictures", type=int, default=3, help="with --large")
    a.add_argument("--out", type=Path, help="JSON file")
    o = a.parse_args()
    methods = o.methods.split(",")
    results = (
        large(methods, o.pictures, o.precision) if o.large else builtin(methods, o.per_set, o.folders, o.precision)
    )
    print("| set | method | pictures | score: largest, mean | map: largest, mean | AUROC float32, half |")
    print("| --- | --- | --- | --- | --- | --- |")
    rows = []
    for result in results:
        rows.append(asdict(result))
        print(
            f"| {result.set} | {result.method} | {result.pictures} | {result.score_max:.4f}, {result.score_mean:.4f} "
            f"| {result.map_max:.4f}, {result.map_mean:.4f} | {result.auroc:.4f}, {result.auroc_half:.4f} |",
            flush=True,
        )
    if o.out:
        o.out.write_text(json.dumps({"precision": o.precision, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
