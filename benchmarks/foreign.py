"""How often new pictures are said to look unlike the good ones of a profile: of this product, damaged, and of others.

    python benchmarks/foreign.py DIR [DIR ...] [--method joint] [--references 8] [--pictures 4] [--products SET=REGEX]

Each DIR holds sets in MVTec AD's layout. Of each set with defects a profile is made from some good pictures; then other
good ones, bad ones, and pictures of every other set are scored with it. A row has the ratio that
`blemish.calibration.look_foreign` compares with 2.1, and whether it warns. Sets without defects are strangers only.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from blemish.datasets import Sample, read
from blemish.detector import Detector
from blemish.loading import load


def ratio(detector: Detector, usual: list[float]) -> float:
    """Return how many times farther than the farthest good picture the median of the pictures is."""
    profile = detector.profile
    assert profile is not None
    low, high = profile.map_range
    good = max(entry.usual for entry in profile.good if entry.usual is not None)
    other, own = ((value - low) / (high - low) for value in (float(np.median(usual)), good))
    return other / (1 - other) / (own / (1 - own))


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    a.add_argument("--method", default="joint")
    a.add_argument("--references", type=int, default=8, help="good pictures of a profile")
    a.add_argument("--pictures", type=int, default=4, help="pictures of each kind that are scored")
    a.add_argument("--strangers", type=int, default=4, help="other sets that are scored with a profile")
    a.add_argument("--products", nargs="*", default=[], metavar="SET=REGEX", help="take one product of a set only")
    o = a.parse_args()
    rules = dict(rule.split("=", 1) for rule in o.products)
    sets: dict[str, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in (sample for folder in o.folders for sample in read("folder", folder).samples):
        if re.search(rules.get(sample.category, ""), sample.path.name):
            sets[sample.category][sample.label].append(sample)
    rng, plain = random.Random(0), load(o.method)
    print("| profile | pictures | ratio | warns |\n| --- | --- | ---: | --- |")
    for name, own in sets.items():
        if not own[1]:
            continue
        good = rng.sample(own[0], min(o.references + o.pictures, len(own[0])))
        references, rest = good[: o.references], good[o.references :]
        detector = plain.fit([sample.path for sample in references])
        others = rng.sample(sorted(set(sets) - {name}), min(o.strangers, len(sets) - 1))
        groups = {"good": rest, "bad": own[1], **{other: sets[other][0] for other in others}}
        for title, samples in groups.items():
            chosen = [sample.path for sample in rng.sample(samples, min(o.pictures, len(samples)))]
            usual = [detector.usual(detection) for detection in detector(chosen)]
            warns = "yes" if detector.foreign(usual) else "no"
            print(f"| {name} | {title} | {ratio(detector, usual):.2f} | {warns} |", flush=True)


if __name__ == "__main__":
    main()
