"""Train the methods that learn on the embedded backbone with synthetic auxiliary data, and judge them on more of it.

    python pretraining/train_methods.py anomalyclip [METHOD ...] [--samples 3000] [--photos FOLDER ...]

Writes `src/blemish/weights/METHOD.safetensors`. The papers' losses, optimizers and schedules are kept; only the
recipe's sizes follow the small backbone (`Method.EMBEDDED`). All pictures are made here; those that judge come from
another stream.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pool import bundled_photos, load_photos, make_sample

from blemish.clip import Backbone, load_backbone
from blemish.methods import create, load_class, weights
from blemish.methods.base import Method
from blemish.metrics import auroc, pixel_metrics
from blemish.training import Progress, Sample, train

ROOT = Path(__file__).resolve().parent.parent
TRAIN_SEED, JUDGE_SEED = 20_001, 20_002


class Synthetic(Sequence[Sample]):
    """`count` labelled pictures of one stream, made when they are asked for."""

    def __init__(self, seed: int, count: int, photos: list[np.ndarray]) -> None:
        self.seed, self.count, self.photos = seed, count, photos

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < self.count:
            raise IndexError(index)
        image, mask, (name, _, kind, _) = make_sample(self.seed, index, self.photos)
        if kind == "lost":  # a defect that the camera moved out of sight: neither normal nor defective
            return self[index - 1] if index else Sample(Image.fromarray(image), None, 0, name)
        return Sample(Image.fromarray(image), mask if mask.any() else None, int(mask.any()), name)


@torch.inference_mode()
def judge(method: Method, samples: Sequence[Sample], batch: int = 16) -> dict[str, float]:
    """Image AUROC by each rule for the image score, and pixel AUROC and AUPRO, on `samples`."""
    rules: dict[str, list[float]] = {rule: [] for rule in method.recipe.image_scores}
    masks, maps, labels = [], [], []
    text = method.text_features(["object"])[0]
    original = method.recipe
    for start in range(0, len(samples), batch):
        part = [samples[i] for i in range(start, min(start + batch, len(samples)))]
        pixels = method.backbone.preprocess([s.image for s in part], method.computation.size)
        features = method.backbone.encode_image(pixels, method.request, method.computation)
        for rule, scores in rules.items():
            method.recipe = replace(original, image_score=rule)
            prediction = method.score(features, text)
            scores += prediction.score.tolist()
        method.recipe = original
        labels += [s.label for s in part]
        maps += list(prediction.map.numpy())
        masks += [np.zeros(prediction.map.shape[1:], bool) if s.mask is None else np.asarray(s.mask) for s in part]
    pixel = pixel_metrics(masks, maps)
    result = {f"image_auroc/{rule}": auroc(np.array(labels), np.array(scores)) for rule, scores in rules.items()}
    return {**result, "pixel_auroc": pixel.auroc, "aupro": pixel.aupro}


def run(name: str, backbone: Backbone, samples: Sequence[Sample], judged: Sequence[Sample], epochs: int | None) -> None:
    """Train, judge, keep with the rule for the image score that ranks the judged (synthetic) pictures best."""
    method = create(name, backbone)
    words = f"{len(samples)} synthetic pictures (pretraining/, stream {TRAIN_SEED})"
    if method.info.trainable:
        with tempfile.TemporaryDirectory() as out:

            def told(p: Progress) -> None:
                if p.done % 250 == 0 or p.done == p.total:
                    loss = f" loss {p.losses['total']:.4f}" if p.losses else ""
                    print(f"{name}: {p.stage} {p.done}/{p.total}{loss}", flush=True)

            train(method, samples, epochs=epochs, out=out, trained_on=words, progress=told)
    method.eval()
    found = judge(method, judged)
    print(name, json.dumps({k: round(v, 4) for k, v in found.items()}), flush=True)
    if method.info.trainable:
        method.recipe = replace(
            method.recipe, image_score=max(method.recipe.image_scores, key=lambda rule: found[f"image_auroc/{rule}"])
        )
        print(f"{name}: image score by {method.recipe.image_score}", flush=True)
        weights.save(
            method, ROOT / "src/blemish/weights" / f"{name}.safetensors", trained_on=words, source="pretraining/"
        )


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("methods", nargs="+")
    a.add_argument("--backbone", default="embedded")
    a.add_argument("--samples", type=int, default=3000)
    a.add_argument("--judged", type=int, default=600)
    a.add_argument("--epochs", type=int, help="default: the paper's")
    a.add_argument("--photos", type=Path, nargs="*", default=[])
    o = a.parse_args()
    for name in o.methods:
        load_class(name)
    photos = load_photos(o.photos) + bundled_photos()
    backbone = load_backbone(o.backbone)
    samples, judged = Synthetic(TRAIN_SEED, o.samples, photos), Synthetic(JUDGE_SEED, o.judged, photos)
    judged = [judged[i] for i in range(len(judged))]
    for name in o.methods:
        run(name, backbone, samples, judged, o.epochs)


if __name__ == "__main__":
    main()
