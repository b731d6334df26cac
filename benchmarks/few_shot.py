"""Few-shot methods on sets of pictures: image AUROC by number of good pictures, and the promise against what happens.

    python benchmarks/few_shot.py DIR [DIR ...] [--methods joint] [--shots 4,16,20] [--seeds 5] [--false-alarms 0.05]

Each DIR is in MVTec AD's layout (`SET/test/good`, `SET/test/<defect>`, maybe `SET/train/good`). For each set, number k
and seed, k good pictures are drawn from train/good, or else from test/good, and are then not scored. `Detector.fit`
makes a profile of them, whose threshold promises the false-alarm rate that was asked for, or the smallest rate that k
pictures can promise, 1 / (k + 1). All other pictures are scored with the k pictures as memory.

The table has the mean image AUROC over the seeds, the share of good pictures above the threshold (all seeds together),
and its 95 % interval (Clopper and Pearson), for which every good picture counts once, however many seeds it was scored
with. A promise is broken if the whole interval lies above it. A method whose score is not monotone holds some pictures
back for the threshold, so only its AUROC is comparable, and no promise is given.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import beta

from blemish.calibration import smallest_promise
from blemish.cli.console import note
from blemish.datasets import Sample, read
from blemish.errors import BlemishError, UsageError
from blemish.files import write_atomically
from blemish.loading import load
from blemish.methods.base import MemoryBank, ReferenceMethod
from blemish.metrics import auroc
from blemish.tiling import batched

BATCH = 8


def drawn(samples: Sequence[Sample], limit: int, seed: int = 0) -> list[Sample]:
    """Return at most so many samples, always the same ones; 0 returns all."""
    if not limit or len(samples) <= limit:
        return list(samples)
    return sorted(random.Random(seed).sample(samples, limit), key=lambda sample: sample.path)


def interval(count: float, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate of `count` in `total` (Clopper and Pearson)."""
    low = float(beta.ppf(0.025, count, total - count + 1)) if count > 0 else 0.0
    high = float(beta.ppf(0.975, count + 1, total - count)) if count < total else 1.0
    return low, high


def good_pools(root: Path, limit: int) -> dict[str, tuple[list[Sample], list[Sample], bool]]:
    """Return for each set: the good pictures to draw from, the pictures to score, and whether they overlap."""
    test = read("folder", root)
    try:
        train = read("folder", root, split="train")
    except UsageError:
        train = None
    pools = {}
    for category in test.categories:
        samples = test.of(category)
        good = drawn([sample for sample in samples if not sample.label], limit)
        bad = drawn([sample for sample in samples if sample.label], limit)
        apart = [] if train is None else [s for s in train.samples if s.category == category and not s.label]
        pools[category] = (apart or good, good + bad, not apart)
    return pools


class Runner:
    """One method with the pictures of one set, each of which goes through the backbone once."""

    def __init__(self, name: str) -> None:
        self.detector = load(name)
        self.engine = self.detector.torch_engine
        method = self.engine.method
        assert isinstance(method, ReferenceMethod)
        self.method = method

    def features(self, samples: Sequence[Sample]) -> Iterator[tuple[list[int], Any]]:
        """Yield numbers of samples and their features, in batches of one shape."""
        pixels = ((number, self.engine.preprocess(s.picture().image)) for number, s in enumerate(samples))
        for _, alike in itertools.groupby(pixels, key=lambda pair: pair[1].shape):
            for batch in batched(alike, BATCH):
                stacked = torch.cat([each for _, each in batch])
                yield [number for number, _ in batch], self.engine.encode(stacked, self.method.memory_request)

    def scores(self, samples: Sequence[Sample], memories: Sequence[MemoryBank]) -> np.ndarray:
        """Return the image scores of all samples with each memory: (memories, samples) float32."""
        text = self.engine.text([self.detector.object_name])
        out = np.empty((len(memories), len(samples)), np.float32)
        for numbers, features in self.features(samples):
            for row, memory in enumerate(memories):
                out[row, numbers] = self.engine.score(features, text, memory).score.numpy()
        return out


def measure(
    name: str, pools: dict[str, tuple[list[Sample], list[Sample], bool]], shots: Sequence[int], seeds: int, rate: float
) -> list[dict[str, Any]]:
    """Return a row for each set and number of good pictures."""
    runner, rows = Runner(name), []
    for category, (pool, samples, overlap) in pools.items():
        usable = [k for k in shots if k <= len(pool) - (2 if overlap else 0)]
        if len(usable) < len(shots):
            note(f"{category} has {len(pool)} good pictures, too few for {max(shots)}.")
        keys, memories, thresholds, references = [], [], [], []
        for k, seed in itertools.product(usable, range(seeds)):
            chosen = random.Random(1000 * k + seed).sample(pool, k)
            paths = [sample.path for sample in chosen]
            promise = max(rate, smallest_promise(k))
            if runner.method.monotone:
                fitted = runner.detector.fit(paths, false_alarms=promise)
                assert fitted.memory is not None
                memories.append(fitted.memory)
                thresholds.append(fitted.limits.threshold)
            else:
                memory = runner.detector.with_references(paths).memory
                assert memory is not None
                memories.append(memory)
                thresholds.append(None)
            keys.append((k, promise))
            references.append({sample.path for sample in chosen})
        all_scores = runner.scores(samples, memories)
        labels = np.array([sample.label for sample in samples])
        results: dict[tuple[int, float], list[tuple[float, int, int]]] = defaultdict(list)
        for key, scores, threshold, own in zip(keys, all_scores, thresholds, references, strict=True):
            scored = np.array([sample.path not in own for sample in samples])
            good = scores[scored & (labels == 0)]
            alarms = 0 if threshold is None else int((good >= threshold).sum())
            results[key].append((auroc(labels[scored], scores[scored]), alarms, len(good)))
        for (k, promise), runs in results.items():
            aurocs, alarms, scored = (np.array(values, float) for values in zip(*runs, strict=True))
            share, distinct = alarms.sum() / scored.sum(), int((labels == 0).sum()) - (k if overlap else 0)
            low, high = interval(share * distinct, distinct)
            monotone = runner.method.monotone
            rows.append({
                "method": name, "set": category, "good": k, "seeds": seeds, "pictures": len(samples),
                "auroc": float(aurocs.mean()), "auroc_std": float(aurocs.std()),
                "promise": promise if monotone else None,
                "false_alarms": float(share) if monotone else None, "low": low if monotone else None,
                "high": high if monotone else None, "kept": bool(low <= promise) if monotone else None,
                "references": "set aside from test/good" if overlap else "train/good",
            })  # fmt: skip
            print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    cells = [row["method"], row["set"], str(row["good"]), f"{row['auroc']:.3f} ± {row['auroc_std']:.3f}"]
    if row["promise"] is None:
        return f"| {' | '.join([*cells, '-', '-', '-'])} |"
    kept, promise = "yes" if row["kept"] else "**no**", f"{row['promise']:.1%}"
    rate = f"{row['false_alarms']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
    return f"| {' | '.join([*cells, promise, rate, kept])} |"


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Return mean and worst image AUROC of each method and number of pictures, and how often the promise was kept."""
    lines = ["| method | good pictures | mean | worst | promise kept |", "| --- | ---: | ---: | ---: | ---: |"]
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["method"], row["good"]].append(row)
    for (name, k), several in groups.items():
        values = [row["auroc"] for row in several]
        kept = [row["kept"] for row in several if row["kept"] is not None]
        kept_share = f"{sum(kept)} of {len(kept)}" if kept else "-"
        lines.append(f"| `{name}` | {k} | {np.mean(values):.3f} | {min(values):.3f} | {kept_share} |")
    return "\n".join(lines)


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folders of sets in MVTec AD's layout")
    a.add_argument("--methods", default="joint", help="comma list of few-shot methods")
    a.add_argument("--shots", default="4,16,20", help="numbers of good pictures")
    a.add_argument("--seeds", type=int, default=5, help="draws of the good pictures")
    a.add_argument("--false-alarms", type=float, default=0.05, help="promised false-alarm rate")
    a.add_argument("--limit", type=int, default=0, help="at most so many good and so many bad pictures of each set")
    a.add_argument("--out", type=Path, help="JSON file for all rows")
    o = a.parse_args()
    try:
        pools = {}
        for folder in o.folders:
            pools.update(good_pools(folder, o.limit))
        print("| method | set | good pictures | image AUROC | promise | false alarms | kept |")
        print("| --- | --- | ---: | ---: | ---: | ---: | --- |")
        rows = []
        for name in o.methods.split(","):
            rows += measure(name, pools, [int(k) for k in o.shots.split(",")], o.seeds, o.false_alarms)
        print(f"\n{summary(rows)}")
        if o.out:
            data = json.dumps(rows, indent=1).encode()
            write_atomically(o.out, lambda stream: stream.write(data))
    except BlemishError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
