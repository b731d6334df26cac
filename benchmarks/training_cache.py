"""What an epoch costs when the backbone's features are kept: the first one computes them, the others only read.

    python benchmarks/training_cache.py april-gan [METHOD ...] [--backbone embedded] [--samples 64] [--cache DIR]

Prints seconds of the first epoch (features and steps) and of a later one, and their ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
from PIL import Image

from blemish.clip import load_backbone
from blemish.methods import create
from blemish.training import Progress, Sample, train


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


def measure(name: str, backbone: str, count: int, folder: str) -> tuple[float, float]:
    """Seconds of the first and of the second epoch."""
    method, ends = create(name, load_backbone(backbone)), []
    per_epoch = -(-count // 8)

    def told(progress: Progress) -> None:
        if progress.stage == "steps" and progress.done % per_epoch == 0:
            ends.append(time.perf_counter())

    start = time.perf_counter()
    train(method, plates(count), epochs=2, batch_size=8, cache=folder, progress=told)
    return ends[0] - start, ends[1] - ends[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--cache")
    arguments = parser.parse_args()
    for name in arguments.methods:
        with tempfile.TemporaryDirectory(dir=arguments.cache) as folder:
            first, later = measure(name, arguments.backbone, arguments.samples, folder)
        print(f"{name}: first epoch {first:.2f} s, later {later:.2f} s: {later / first:.1%}")


if __name__ == "__main__":
    main()
