"""What a smaller input costs and saves: AUROC and time by input size, zero-shot and with good pictures.

    python benchmarks/input_sizes.py DIR [DIR ...] --out rows.jsonl [--sizes 224,336] [--good 40] [--bad 40]
    python benchmarks/input_sizes.py --time [--sizes 224,336] [--rounds 20]

Each DIR is in MVTec AD's layout (`SET/test/good`, `SET/test/<defect>`, maybe `SET/ground_truth`). For each set and size
every picture goes through the built-in tower once, for all methods together. `joint` gets 4 and 16 good pictures (of a
set with fewer, as many as leave seven to score), drawn so many times as --seeds says; the others score zero-shot. Pixel
AUROC is that of the first draw, on maps and masks of 224 x 224 pixels, whatever the size of the input. Finished rows
are kept in --out, and the same command goes on there.

`--time` measures the CPU time of one thread for one picture, from the decoded picture to score and map: sizes take
turns in one process, and the ratios are those to the default size within each round.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import torch
from few_shot import drawn
from interleaved import middle, ratio, turns
from numpy.typing import NDArray
from PIL import Image

from blemish.clip import ImageFeatures
from blemish.datasets import Sample, read
from blemish.datasets.masks import resize_mask
from blemish.engine import TorchEngine
from blemish.errors import BlemishError
from blemish.loading import load
from blemish.methods.base import MemoryBank, Prediction
from blemish.methods.joint import Joint
from blemish.methods.neighbours import nearest
from blemish.methods.ops import resize
from blemish.metrics import auroc
from blemish.tiling import batched

ZERO_SHOT, FEW_SHOT = ("clip", "anomalyclip", "coop"), "joint"
SIZES = (224, 238, 252, 280, 308, 336, 392, 448)
SHOTS = (4, 16)
MAP_SIDE, DEFAULT_SIZE = 224, 336
BATCH = 4


class Methods:
    """The methods at one input size, which share one pass of the tower."""

    def __init__(self, size: int, changes: Mapping[str, Any]) -> None:
        config = {"size": size, **changes}
        self.engines = {name: load(name, config=config).torch_engine for name in (*ZERO_SHOT, FEW_SHOT)}
        self.joint = self.engines[FEW_SHOT]
        methods = [engine.method for engine in self.engines.values()]
        assert len({method.computation for method in methods}) == 1
        self.request = reduce(or_, (method.request for method in methods), self.joint.request(MemoryBank(0)))

    def measure(self, samples: Sequence[Sample], seeds: int) -> list[dict[str, Any]]:
        """Return a row for each method, number of good pictures and draw, on one set."""
        batches = []
        for some in batched(samples, BATCH):
            pixels = torch.cat([self.joint.preprocess(sample.picture().image) for sample in some])
            batches.append(self.joint.encode(pixels, self.request))
        masks = [sample.mask() for sample in samples]
        truth = Truth(
            np.array([sample.label for sample in samples]),
            [None if mask is None else resize_mask(mask, MAP_SIDE) for mask in masks],
        )
        everything = list(range(len(samples)))
        rows = []
        for name in ZERO_SHOT:
            engine = self.engines[name]
            text = engine.text(["object"])
            predictions = [engine.score(features, text) for features in batches]
            rows.append({"method": name, "good": 0, "draw": 0, **truth.measured(predictions, everything)})
        good = [number for number in everything if not truth.labels[number]]
        with torch.inference_mode():
            comparisons = Comparisons(self.joint, batches, good)
            for k, draw in itertools.product(SHOTS, range(seeds)):
                chosen = random.Random(1000 * k + draw).sample(good, min(k, len(good) - 7))
                scored = [number for number in everything if number not in chosen]
                # Ranking pixels takes longer than all else but the tower, so only those of the first draw are.
                measured = truth.measured(comparisons.predictions(chosen), scored, pixels=draw == 0)
                rows.append({"method": FEW_SHOT, "good": k, "draw": draw, **measured})
        return rows


@dataclass(frozen=True)
class Truth:
    """Labels and masks of the pictures of a set; a mask is None where it is unknown."""

    labels: NDArray[np.int64]
    masks: Sequence[NDArray[np.bool_] | None]

    def measured(
        self, predictions: Sequence[Prediction], scored: Sequence[int], *, pixels: bool = True
    ) -> dict[str, Any]:
        """Return AUROCs over the scored pictures, and where the highest values of their maps lie."""
        scores = torch.cat([p.score for p in predictions]).numpy()
        maps = [anomaly_map for p in predictions for anomaly_map in p.map]
        peaks, labels = np.array([float(maps[number].max()) for number in scored]), self.labels[scored]
        masks, pixel_auroc = [self.masks[number] for number in scored], None
        if pixels and all(mask is not None for mask in masks):
            values = np.stack([resize(maps[number], MAP_SIDE, MAP_SIDE).numpy() for number in scored])
            pixel_auroc = auroc(np.stack(masks).ravel(), values.ravel())  # type: ignore[arg-type]
        return {
            "auroc": auroc(labels, scores[scored]),
            "pixel_auroc": pixel_auroc,
            "peak_good": float(np.median(peaks[labels == 0])),
            "peak_bad": float(np.quantile(peaks[labels == 1], 0.9)),
        }


class Comparisons:
    """The comparison of all pictures of a set with each good one, of which `joint` needs the smallest distances."""

    def __init__(self, engine: TorchEngine, batches: Sequence[ImageFeatures], good: Sequence[int]) -> None:
        method = engine.method
        assert isinstance(method, Joint)
        self._method, self._batches, self._text = method, batches, engine.text(["object"])
        patches = [method.patches(features) for features in batches]
        self._words = [method.words(method.patch_embeddings(features), self._text) for features in batches]
        references, usual = torch.cat(patches), torch.cat(self._words).amax(dim=1)
        self._usual = {number: usual[number] for number in good}
        self._distances = [
            {number: nearest(some, references[number]).squared[..., 0] / 2 for number in good} for some in patches
        ]

    def predictions(self, chosen: Sequence[int]) -> list[Prediction]:
        """Return the predictions of all batches with some good pictures as references."""
        usual = torch.stack([self._usual[number] for number in chosen]).max()
        out = []
        for features, words, distances in zip(self._batches, self._words, self._distances, strict=True):
            nearest_ones = torch.stack([distances[number] for number in chosen]).amin(dim=0)
            evidence = nearest_ones + self._method.config.patch_words * (words - usual).clamp_min(0)
            whole = self._method.image_embedding(features)
            out.append(self._method.joined(evidence, whole, self._text, features.grid))
        return out


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return means and worst sets by size, method and number of good pictures."""
    groups: dict[tuple[Any, ...], dict[str, list[tuple[float, float | None]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["method"], row["good"], row["variant"]][row["set"]].append((row["auroc"], row["pixel_auroc"]))
    lines = ["| method | good | input | image: mean | worst | pixel: mean | worst |", f"|{' --- |' * 7}"]
    for (name, good, variant), sets in sorted(
        groups.items(), key=lambda pair: (pair[0][:2], json.loads(pair[0][2])["size"])
    ):
        image = {key: np.mean([a for a, _ in values]) for key, values in sets.items()}
        pixel = {key: values[0][1] for key, values in sets.items() if values[0][1] is not None}
        cells = [f"`{name}`", str(good), variant]
        for values in (image, pixel):
            cells += [f"{np.mean(list(values.values())):.3f}", f"{min(values.values()):.2f}"] if values else ["-", "-"]
        lines.append(f"| {' | '.join(cells)} | {len(sets)} sets")
    return "\n".join(lines)


def timed(sizes: Sequence[int], rounds: int) -> str:
    """Return the CPU times of one thread, and their ratios to the default size."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)) for _ in range(4)]
    lines = ["| size | method | good | CPU seconds | ratio |", f"|{' --- |' * 5}"]
    for name, good in (("clip", 0), ("joint", 4)):
        contenders: dict[str, Callable[[], object]] = {}
        for size in sizes:
            detector = load(name, config={"size": size})
            if good:
                detector = detector.with_references(pictures[:good])
            contenders[str(size)] = partial(detector, pictures[0])
        seconds = turns(contenders, rounds, clock=time.process_time)
        for side, value in middle(seconds).items():
            lines.append(f"| {side} | `{name}` | {good} | {value:.3f} | {ratio(seconds, side, str(DEFAULT_SIZE))} |")
    return "\n".join(lines)


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folders", type=Path, nargs="*", metavar="DIR", help="folders of sets in MVTec AD's layout")
    a.add_argument("--sizes", default=",".join(map(str, SIZES)), help="input sizes, multiples of 14")
    a.add_argument("--config", default="{}", help="other fields of the configs to change, as JSON")
    a.add_argument("--good", type=int, default=40, help="at most so many good pictures of each set")
    a.add_argument("--bad", type=int, default=40, help="at most so many pictures with defects")
    a.add_argument("--seeds", type=int, default=3, help="draws of the good pictures")
    a.add_argument("--out", type=Path, help="file of finished rows, one JSON object a line")
    a.add_argument("--time", action="store_true", help="measure times instead")
    a.add_argument("--rounds", type=int, default=20)
    o = a.parse_args()
    sizes, changes = [int(size) for size in o.sizes.split(",")], json.loads(o.config)
    try:
        if o.time:
            print(timed(sizes, o.rounds))
            return
        rows = [json.loads(line) for line in o.out.read_text().splitlines()] if o.out.is_file() else []
        done = {(row["set"], row["variant"]) for row in rows}
        for size in sizes:
            methods, variant = Methods(size, changes), json.dumps({"size": size, **changes})
            for folder in o.folders:
                data = read("folder", folder)
                for name in data.categories:
                    if (name, variant) in done:
                        continue
                    samples = data.of(name)
                    chosen = drawn([s for s in samples if not s.label], o.good) + drawn(
                        [s for s in samples if s.label], o.bad
                    )
                    new = [{"set": name, "variant": variant, **row} for row in methods.measure(chosen, o.seeds)]
                    rows += new
                    with o.out.open("a") as stream:
                        stream.writelines(json.dumps(row) + "\n" for row in new)
                    print(time.strftime("%H:%M:%S"), name, variant, flush=True)
        print(table(rows))
    except BlemishError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
