"""What an epoch costs when the backbone's features are kept: the first one computes them, the others only read.

    python benchmarks/training_cache.py [METHOD ...] [--backbone builtin] [--samples 64] [--batch N] [--cache DIR]

Prints for each method (default: all that learn) seconds of the first epoch (features and steps) and of a later one, the
median of some, their ratio, and what a picture's features take. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import pairwise

import numpy as np
from PIL import Image
from towers import random_vit_l

from blemish.clip import load_backbone
from blemish.methods import create, info, list_methods
from blemish.training import Features, Progress, Sample, train


def plates(count: int) -> list[Sample]:
    """Noise, half of it with a bright hole that is marked."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        pixels, mask = rng.integers(90, 130, (256, 256, 3)).astype(np.uint8), np.zeros((256, 256), np.uint8)
        if number % 2:
            pixels[60:120, 80:160], mask[60:120, 80:160] = 250, 255
        samples.append(Sample(Image.fromarray(pixels), mask, number % 2, "plate"))
    return samples


def measure(
    name: str, backbone: str, count: int, batch: int | None, folder: str, later: int
) -> tuple[float, float, int]:
    """Seconds of the first epoch, the median of the `later` ones, and bytes of all features."""
    tower = random_vit_l() if backbone == "random-vit-l" else load_backbone(backbone)
    method, ends = create(name, tower), []
    schedule = method.schedule
    assert schedule is not None
    batch = batch or schedule.batch_size
    per_epoch = -(-count // batch)

    def record(progress: Progress) -> None:
        if progress.stage == "steps" and progress.done % per_epoch == 0:
            ends.append(time.perf_counter())

    samples = plates(count)
    size = Features(method, samples, cache=False).size()
    start = time.perf_counter()
    train(method, samples, epochs=1 + later, batch_size=batch, cache=folder, on_progress=record)
    return ends[0] - start, statistics.median(b - a for a, b in pairwise(ends)), size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=[name for name in list_methods() if info(name).trainable])
    parser.add_argument("--backbone", default="builtin", help="or random-vit-l: ViT-L/14@336, the size of the papers")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch", type=int, help="default: the one that the method is trained with")
    parser.add_argument("--later", type=int, default=3, help="later epochs, of which the median counts")
    parser.add_argument("--cache")
    o = parser.parse_args()
    for name in o.methods:
        with tempfile.TemporaryDirectory(dir=o.cache) as folder:
            first, later, size = measure(name, o.backbone, o.samples, o.batch, folder, o.later)
        kept = f"{size / o.samples / 1e6:.2f} MB a picture"
        print(f"{name}: first epoch {first:.2f} s, later {later:.2f} s: {later / first:.1%}; {kept}", flush=True)


if __name__ == "__main__":
    main()
