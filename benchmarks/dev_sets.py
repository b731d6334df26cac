"""How well the methods rank real pictures: image AUROC and AP, pixel AUROC and AUPRO where there are masks.

    python benchmarks/dev_sets.py [--folders DIR ...] [--methods clip,anomalyclip] [--backbone embedded] [--out FILE]

Solar cells and textiles come from packages (`pip install 'blemish[demo]'`); each DIR holds MVTec-like sets
(`SET/test/good`, `SET/test/<defect>`, `SET/ground_truth/<defect>/<stem>_mask.png`). They judge finished models;
nothing is trained, tuned or chosen on them. `random` is the same architecture with random weights, a floor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from blemish import load
from blemish.clip import Backbone, Computation, load_backbone
from blemish.datasets import Sample, read
from blemish.demo import picture_sets
from blemish.methods import create
from blemish.methods.base import Method
from blemish.methods.clip import Clip
from blemish.metrics import auroc, average_precision, bootstrap_interval, pixel_metrics

Map: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class DevSet:
    """Pictures of one thing."""

    name: str
    object: str
    samples: list[Sample]

    @property
    def has_masks(self) -> bool:
        return all(sample.masks is not None for sample in self.samples)


def packaged() -> Iterator[DevSet]:
    for s in picture_sets(per_set=0):
        samples = [Sample(p.path, p.label, s.name, masks=None if p.label else ()) for p in s.samples]
        yield DevSet(s.name, s.object, samples)


def folders(root: Path) -> Iterator[DevSet]:
    for folder in sorted(p.parent for p in root.glob("*/test")):
        samples = sorted(read("folder", folder), key=lambda sample: sample.path)
        yield DevSet(folder.name, folder.name.replace("_", " "), samples)


def score(methods: dict[str, Method], pictures: DevSet, batch: int = 16) -> dict[str, tuple[list[float], list[Map]]]:
    """Scores, and where there are masks maps at the pictures' own sizes; methods that agree share a pass."""
    passes: dict[tuple[int, Computation], list[str]] = {}
    for name, method in methods.items():
        passes.setdefault((id(method.backbone), method.computation), []).append(name)
    texts = {name: method.text_features([pictures.object])[0] for name, method in methods.items()}
    found: dict[str, tuple[list[float], list[Map]]] = {name: ([], []) for name in methods}
    for start in range(0, len(pictures.samples), batch):
        images = [sample.picture().image for sample in pictures.samples[start : start + batch]]
        for (_, computation), names in passes.items():
            backbone = methods[names[0]].backbone
            request = reduce(or_, (methods[name].request for name in names))
            pixels = backbone.preprocess(images, computation.size)
            features = backbone.encode_image(pixels, request, computation)
            for name in names:
                prediction = methods[name].score(features, texts[name])
                found[name][0].extend(prediction.score.tolist())
                if pictures.has_masks:
                    maps = zip(prediction.map[:, None], images, strict=True)
                    found[name][1].extend(
                        interpolate(m[None], i.size[::-1], mode="bilinear")[0, 0].numpy() for m, i in maps
                    )
    return found


def measure(labels: NDArray[np.int64], scores: list[float], masks: list[Map], maps: list[Map]) -> dict[str, float]:
    """One row: image AUROC with its 95 % bootstrap interval, AP; pixel AUROC and AUPRO with masks."""
    values = np.array(scores)
    interval = bootstrap_interval(labels, values)
    row = {
        "pictures": len(labels),
        "anomalous": int(labels.sum()),
        "image_auroc": auroc(labels, values),
        "low": interval.low,
        "high": interval.high,
        "image_ap": average_precision(labels, values),
    }
    if maps:
        pixel = pixel_metrics(masks, maps)
        row |= {"pixel_auroc": pixel.auroc, "aupro": pixel.aupro}
    return row


def random_backbone(like: Backbone, seed: int = 0) -> Backbone:
    """The same architecture and tokenizer with random weights."""
    torch.manual_seed(seed)
    model = type(like.model)(like.model.config).eval().requires_grad_(False)
    return Backbone(model, like.tokenizer, name="random")


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--folders", type=Path, nargs="*", default=[])
    a.add_argument("--methods", default="clip,clip-ac,anomalyclip")
    a.add_argument("--backbone", default="embedded")
    a.add_argument("--out", type=Path, help="JSON file for the rows")
    o = a.parse_args()
    backbone = load_backbone(o.backbone)
    detectors = {name: load(name, backbone=backbone) for name in o.methods.split(",")}
    methods = {name: detector.method for name, detector in detectors.items()}
    methods["random"] = create("clip", random_backbone(backbone), recipe=Clip.EMBEDDED)
    sets = [*packaged(), *(s for root in o.folders for s in folders(root))]
    rows: dict[str, dict[str, dict[str, float]]] = {}
    print(f"| set | {' | '.join(methods)} |\n|{' --- |' * (len(methods) + 1)}")
    for pictures in sets:
        labels = np.array([sample.label for sample in pictures.samples])
        with torch.inference_mode():
            found = score(methods, pictures)
        masks = [sample.mask() for sample in pictures.samples] if pictures.has_masks else []
        rows[pictures.name] = {name: measure(labels, s, masks, maps) for name, (s, maps) in found.items()}
        cells = []
        for r in rows[pictures.name].values():
            pixel = f"; px {r['pixel_auroc']:.3f}, pro {r['aupro']:.3f}" if "pixel_auroc" in r else ""
            cells.append(f"{r['image_auroc']:.3f} [{r['low']:.3f}, {r['high']:.3f}]{pixel}")
        print(f"| {pictures.name} | {' | '.join(cells)} |", flush=True)
    means = [np.mean([r[name]["image_auroc"] for r in rows.values()]) for name in methods]
    print(f"| mean image AUROC | {' | '.join(f'{m:.3f}' for m in means)} |")
    if o.out:
        provenance = {name: d.provenance.to_dict() for name, d in detectors.items()}
        o.out.write_text(json.dumps({"rows": rows, "detectors": provenance}, indent=1) + "\n")


if __name__ == "__main__":
    main()
