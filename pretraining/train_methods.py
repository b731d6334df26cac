"""Train the methods that learn on the built-in backbone with synthetic auxiliary data, and judge them on more of it.

    python pretraining/train_methods.py [METHOD ...] [--samples 1000] [--judged 400] [--photos FOLDER ...]
    python pretraining/train_methods.py [METHOD ...] --sizes 256 320 384 [--judged 400] [--photos FOLDER ...]

Writes `src/blemish/weights/METHOD.safetensors` for each method (default: all that learn) as soon as it is trained. The
losses and optimizers are the papers'; what the small backbone needs otherwise (sizes, where training starts, epochs,
learning rate) is written in each method's `BUILTIN` and `BUILTIN_TRAINING`. The backbone sees every picture once, for
all methods. All pictures are made here. Those that judge come from another stream: products, each one scene that is
photographed ten times, in turns as it should be and with a defect. Image AUROC is that of each product, as a data set
has it, and their mean. They choose the epoch that is kept and the rule for the image score. What was chosen is then
compared with `clip`, which learns nothing, on as many pictures of a third stream, which chose nothing: these figures
are the ones to quote. A METHOD that learns nothing is only judged and compared; a mutual one (`musc`) is shown all ten
photographs of a product, unlabelled, and in any pose if they lie so. With `--sizes` judged pictures only say how well
methods that learn nothing (default: `clip`) do at each input size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from pathlib import Path

import numpy as np
import torch
from blemish.references import ASKED
from PIL import Image
from pool import Made, bundled_photos, load_photos, make_product, make_sample

from blemish.clip import Computation, ImageFeatures, Request, load_backbone
from blemish.datasets.masks import resize_mask
from blemish.engine import TorchEngine
from blemish.evaluation.plan import effective
from blemish.methods import create, info, names, weights
from blemish.methods.base import FewShotMethod, MemoryBank, Method
from blemish.metrics import auroc, pixel_metrics
from blemish.training import Features, Progress, Sample, train

WEIGHTS = Path(__file__).resolve().parent.parent / "src/blemish/weights"
TRAIN_SEED, JUDGE_SEED, COMPARE_SEED = 20_001, 20_002, 20_003
#: Side of the pictures in pixels: larger than what the model sees, as photographs are.
SIDE = 512
BASELINE = "clip"
#: Names that stay; pictures of all other things are called "object", since the texts of each name take their time.
NAMES = 16
#: Photographs of one judged product.
EACH = 10
#: Every so many-th pixel is enough to choose an epoch.
STRIDE = 8

Scores = dict[str, float]
#: Pictures, and the number (n,) of each one's product.
Products = tuple[list[Sample], np.ndarray]


def synthetic(seed: int, count: int, photos: list[np.ndarray]) -> list[Sample]:
    """The first `count` pictures of a stream whose defects stayed in sight."""
    with multiprocessing.Pool(initializer=_PHOTOS.extend, initargs=(photos,)) as pool:
        drawn = pool.imap(partial(_drawn, seed), range(2 * count), chunksize=16)
        kept = [sample for sample in drawn if sample is not None][:count]
        pool.terminate()
    return common_names(kept)


def products(seed: int, count: int, photos: list[np.ndarray]) -> Products:
    """Pictures of `count // EACH` products whose defects stayed in sight, and the number (n,) of each one's product."""
    with multiprocessing.Pool(initializer=_PHOTOS.extend, initargs=(photos,)) as pool:
        drawn = pool.map(partial(_photographed, seed), range(count // EACH), chunksize=2)
    groups = np.repeat(np.arange(len(drawn)), [len(one) for one in drawn])
    return common_names([sample for one in drawn for sample in one]), groups


def common_names(kept: list[Sample]) -> list[Sample]:
    """The same pictures, with rare names left out."""
    common = {name for name, _ in Counter(sample.object_name for sample in kept).most_common(NAMES)}
    return [sample if sample.object_name in common else sample._replace(object_name="object") for sample in kept]


#: Of a process that draws.
_PHOTOS: list[np.ndarray] = []


def _drawn(seed: int, index: int) -> Sample | None:
    return _sample(make_sample(seed, index, _PHOTOS, SIDE))


def _photographed(seed: int, index: int) -> list[Sample]:
    made = make_product(seed, index, _PHOTOS, SIDE, EACH)
    return [sample for one in made if (sample := _sample(one)) is not None]


def _sample(made: Made) -> Sample | None:
    image, mask, (name, _, kind, _) = made
    if kind == "lost":  # a defect that the camera moved out of sight: neither normal nor defective
        return None
    return Sample(Image.fromarray(image), mask if mask.any() else None, int(mask.any()), name)


@dataclass(frozen=True)
class Judge:
    """What ranks methods: judged pictures and their features, masks (n, S, S), labels (n,), and products (n,)."""

    pictures: Sequence[Sample]
    features: Features
    masks: np.ndarray
    labels: np.ndarray
    products: np.ndarray

    def __call__(self, method: Method, *, briefly: bool = False) -> Scores:
        """Image AUROC, the products' mean, by each rule for the image score; pixel AUROC; unless briefly, AUPRO."""
        found, maps = self._predictions(method, STRIDE if briefly else 1)
        scores = {f"image_auroc/{rule}": self._within(values) for rule, values in found.items()}
        if briefly:
            return {**scores, "pixel_auroc": auroc(self.masks[:, ::STRIDE, ::STRIDE].ravel(), np.ravel(maps))}
        pixel = pixel_metrics(list(self.masks), list(maps))
        return {**scores, "pixel_auroc": pixel.auroc, "aupro": pixel.aupro}

    def _within(self, values: np.ndarray) -> float:
        """The mean AUROC of the products that have pictures of both kinds."""
        rows = [self.products == one for one in np.unique(self.products)]
        return float(np.mean([auroc(self.labels[r], values[r]) for r in rows if 0 < self.labels[r].mean() < 1]))

    @torch.inference_mode()
    def _predictions(self, method: Method, stride: int, batch: int = 16) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Scores (n,) by rule, and maps."""
        original, training = method.config, method.training
        method.eval()
        text = method.text_features(["object"])[0]
        scores: dict[str, list[float]] = {rule: [] for rule in original.image_scores}
        maps = []
        order = np.arange(len(self.labels))
        mutual = method if isinstance(method, FewShotMethod) and method.info.transductive else None
        # To a mutual method a product's pictures are its set; they lie beside each other.
        ends = order[batch::batch] if mutual is None else np.flatnonzero(np.diff(self.products)) + 1
        for rows in np.split(order, ends):
            features = self.features.batch(rows.tolist(), method.request | Request())[0]
            known = () if mutual is None else (self._remembered(mutual, features, rows),)
            for rule in scores:
                method.config = replace(original, image_score=rule)
                prediction = method.score(features, text, *known)
                scores[rule] += prediction.score.tolist()
            maps.append(prediction.map[:, ::stride, ::stride].numpy())
        method.config = original
        method.train(training)
        return {rule: np.array(values) for rule, values in scores.items()}, np.concatenate(maps)

    def _remembered(self, method: FewShotMethod, features: ImageFeatures, rows: np.ndarray) -> MemoryBank:
        """These pictures, turned if they want it."""
        engine = TorchEngine(method)
        pixels = torch.cat([engine.preprocess(self.pictures[row].image) for row in rows])
        views = engine.views(pixels[:ASKED])
        return method.build_memory_bank(features) if len(views) == 1 else engine.build_memory_bank([pixels], views)


def rule_of(scores: Scores) -> str:
    """The rule for the image score that ranks best."""
    rules = [name for name in scores if name.startswith("image_auroc/")]
    return max(rules, key=lambda name: scores[name]).removeprefix("image_auroc/")


def quality(scores: Scores) -> float:
    """What chooses an epoch: image and pixel AUROC count alike."""
    return scores[f"image_auroc/{rule_of(scores)}"] + scores["pixel_auroc"]


def learn(method: Method, features: Features, judge: Judge, epochs: int | None) -> int:
    """Trains, and goes back to the epoch that the judged pictures like best. Returns its number, from 1."""
    name, schedule, kept = method.info.name, method.schedule, []
    assert schedule is not None
    per_epoch = -(-len(features) // schedule.batch_size)
    print(f"{name}: before training {_said(judge(method, briefly=True))}", flush=True)

    def told(p: Progress) -> None:
        if p.stage == "steps" and p.done % per_epoch == 0:
            scores = judge(method, briefly=True)
            state = {key: value.clone() for key, value in method.state_dict().items()}
            kept.append((quality(scores), state))
            print(f"{name}: epoch {p.done // per_epoch} loss {p.losses['total']:.4f} {_said(scores)}", flush=True)

    train(method, features, epochs=epochs, progress=told)
    best = max(range(len(kept)), key=lambda epoch: kept[epoch][0])
    method.load_state_dict(kept[best][1])
    return best + 1


def _said(scores: Scores) -> str:
    return json.dumps({key: round(value, 4) for key, value in scores.items()})


def shared(methods: Sequence[Method], samples: Sequence[Sample], *, scoring: bool) -> Features:
    """What all the methods need of the pictures, for training or for a score, computed once."""
    # every rule for the image score is tried, so the class token is wanted by all
    requests = [method.request | Request() if scoring else method.training_request for method in methods]

    def told(done: int, total: int, size: int) -> None:
        if done in (0, total):
            print(f"features: {done:,} of {total:,} pictures, {size / 1e9:.1f} GB", flush=True)

    return Features(methods[0], samples, request=reduce(or_, requests), batch_size=16, told=told)


def judge_for(methods: Sequence[Method], judged: Products) -> Judge:
    """What ranks these methods, which are computed alike."""
    size, (pictures, groups) = methods[0].computation.size, judged
    masks = np.stack([resize_mask(sample.mask, size) for sample in pictures])
    labels = np.array([sample.label for sample in pictures])
    return Judge(pictures, shared(methods, pictures, scoring=True), masks, labels, groups)


def run(
    methods: Sequence[Method],
    samples: Sequence[Sample],
    judged: Products,
    compared: Products,
    epochs: int | None,
    out: Path,
) -> bool:
    """Trains methods that are computed alike, the first of them the baseline. Returns whether all are as good as it."""
    baseline, *others = methods
    judge = judge_for(methods, judged)
    print(f"{BASELINE} judged {_said(judge(baseline))}", flush=True)
    taught = [method for method in others if method.info.trainable]
    features = shared(taught, samples, scoring=False) if taught else None
    for method in others:
        if features is None or method not in taught:
            print(f"{method.info.name} judged {_said(judge(method))}", flush=True)
            continue
        start, name = time.monotonic(), method.info.name
        epoch = learn(method, features, judge, epochs)
        found = judge(method)
        rule = rule_of(found)
        method.config = replace(method.config, image_score=rule)
        words = f"{len(samples)} synthetic pictures (pretraining/, stream {TRAIN_SEED}), {epoch} epochs"
        weights.save(method, out / f"{name}.safetensors", trained_on=words, source="pretraining/")
        print(f"{name} judged {_said(found)}", flush=True)
        print(f"{name}: epoch {epoch}, image score by {rule}, {time.monotonic() - start:.0f} s", flush=True)
    del judge, features  # as large as what comes now
    return compare(methods, judge_for(methods, compared))


def compare(methods: Sequence[Method], judge: Judge) -> bool:
    """Says how good what was chosen is, and which methods are worse than the first. Returns whether none is."""
    floor: Scores = {}
    fine = True
    for method in methods:
        name, found = method.info.name, judge(method)
        found["image_auroc"] = found[f"image_auroc/{method.config.image_score}"]
        floor = floor or found
        print(f"{name} compared {_said(found)}", flush=True)
        for what, key in {"image AUROC": "image_auroc", "pixel AUROC": "pixel_auroc", "AUPRO": "aupro"}.items():
            if found[key] < floor[key]:
                fine = False
                print(f"{name}: WORSE THAN {BASELINE} in {what}: {found[key]:.4f} < {floor[key]:.4f}", flush=True)
    return fine


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("methods", nargs="*", metavar="METHOD")
    a.add_argument("--backbone", default="builtin")
    a.add_argument("--samples", type=int, default=1000)
    a.add_argument("--judged", type=int, default=400, help="and as many are compared")
    a.add_argument("--epochs", type=int, help="default: each method's own")
    a.add_argument("--sizes", type=int, nargs="+", help="only compare input sizes")
    a.add_argument("--photos", type=Path, nargs="*", default=[])
    a.add_argument("--out", type=Path, default=WEIGHTS, help="folder; default: where blemish looks for them")
    o = a.parse_args()
    ours = [name for name in names() if info(name).trainable or info(name).transductive]
    o.methods = o.methods or ([BASELINE] if o.sizes else ours)
    if wrong := [name for name in o.methods if o.sizes and info(name).trainable]:
        a.error(f"{', '.join(wrong)}: has to be trained first")
    start = time.monotonic()
    photos = load_photos(o.photos) + bundled_photos()
    backbone = load_backbone(o.backbone)
    judged = products(JUDGE_SEED, o.judged, photos)
    if o.sizes:
        for name, size in itertools.product(o.methods, o.sizes):
            method = create(name, backbone, {"size": size})
            print(f"{name}, {size} pixels: {_said(judge_for([method], judged)(method))}", flush=True)
        return
    trained = any(info(name).trainable for name in o.methods)
    samples = synthetic(TRAIN_SEED, o.samples, photos) if trained else []
    compared = products(COMPARE_SEED, o.judged, photos)
    print(f"{len(samples) + 2 * o.judged:,} pictures made in {time.monotonic() - start:.0f} s", flush=True)
    alike: dict[Computation, list[Method]] = {}
    for name in o.methods:
        method = create(name, backbone)
        alike.setdefault(effective(method.computation, backbone), []).append(method)
    fine = []
    for computation, methods in alike.items():
        baseline = create(BASELINE, backbone, {"size": computation.size})
        fine.append(run([baseline, *methods], samples, judged, compared, o.epochs, o.out))
    print(f"all done in {time.monotonic() - start:.0f} s" + ("" if all(fine) else f"; not all as good as {BASELINE}"))


if __name__ == "__main__":
    main()
