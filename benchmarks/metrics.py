"""Measure speed and memory of the pixel metrics, beside other implementations.

    python benchmarks/metrics.py                          the whole comparison on 20 maps, and blemish on 372
    python benchmarks/metrics.py --subset 40 --full 1725  the published scale: 463 million pixels

The maps are synthetic: coarse noise, enlarged like a model's patch grid, and raised inside the defects of every second
image. Each implementation runs in its own process on maps generated from the same seed. Compare processor seconds on a
busy machine; wall seconds are printed beside them. Memory is the peak of the process, maps and masks included.

`references` follows the evaluation of the published research code step by step: scikit-learn for AUROC, AP and the
precision-recall curve; AUPRO by 200 thresholds, labelling every mask again at each; IoU by comparing maps with the
threshold. It is a new implementation: their code is not part of this project.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Numbers = dict[str, float]
Masks, Maps = NDArray[np.uint8], NDArray[np.float32]


def generate(images: int, size: int, seed: int = 0) -> tuple[Masks, Maps]:
    """Return masks (N, S, S) with about 3 % anomalous pixels, and maps (N, S, S) in (0, 1) that correlate weakly."""
    rng = np.random.default_rng(seed)
    masks, maps = np.zeros((images, size, size), np.uint8), np.empty((images, size, size), np.float32)
    for index in range(images):
        if index % 2:
            for _ in range(rng.integers(1, 4)):
                side = rng.integers(size // 20, size // 4, 2)
                row, column = (int(rng.integers(0, size - length)) for length in side)
                masks[index, row : row + side[0], column : column + side[1]] = 1
        coarse = rng.normal(size=(37, 37)) - 2 + 2 * masks[index, :: size // 37, :: size // 37][:37, :37]
        enlarged = ndimage.zoom(coarse.astype(np.float32), size / 37, order=1, grid_mode=True, mode="nearest")
        maps[index] = 1 / (1 + np.exp(-enlarged))
    return masks, maps


def blemish(masks: Masks, maps: Maps) -> Numbers:
    from blemish.metrics import pixel_metrics

    result = pixel_metrics(masks, maps)
    return {name: getattr(result, name) for name in ("auroc", "ap", "f1_max", "iou", "aupro")}


def streaming(masks: Masks, maps: Maps) -> Numbers:
    from blemish.metrics import StreamingPixelMetrics

    stream = StreamingPixelMetrics()
    for mask, scores in zip(masks, maps, strict=True):
        stream.update(mask, scores)
    result = stream.compute()
    return {name: getattr(result, name) for name in ("auroc", "ap", "f1_max", "iou", "aupro")}


def scikit_learn(masks: Masks, maps: Maps) -> Numbers:
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, scores = masks.ravel(), maps.ravel()
    return {"auroc": roc_auc_score(labels, scores), "ap": average_precision_score(labels, scores)}


def torchmetrics(masks: Masks, maps: Maps) -> Numbers:
    import torch
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    labels, scores = torch.from_numpy(masks).ravel().long(), torch.from_numpy(maps).ravel()
    return {"auroc": float(binary_auroc(scores, labels)), "ap": float(binary_average_precision(scores, labels))}


def references(masks: Masks, maps: Maps) -> Numbers:
    from sklearn.metrics import precision_recall_curve

    result = scikit_learn(masks, maps)
    precision, recall, thresholds = precision_recall_curve(masks.ravel(), maps.ravel())
    f1 = 2 * precision * recall / (precision + recall + 1e-8)
    best = int(np.argmax(f1))
    above = maps > thresholds[best]
    result["f1_max"] = float(f1[best])
    result["iou"] = float(np.logical_and(above, masks).sum() / np.logical_or(above, masks).sum())
    return result | {"aupro": _stepped(masks, maps)}


def _stepped(masks: Masks, maps: Maps, steps: int = 200, limit: float = 0.3) -> float:
    from skimage.measure import label, regionprops

    normal = 1 - masks
    points = []
    for threshold in np.linspace(maps.min(), maps.max(), steps, endpoint=False):
        predicted = maps > threshold
        overlaps = []
        for image, mask in zip(predicted, masks, strict=True):
            for region in regionprops(label(mask)):
                rows, columns = region.coords.T
                overlaps.append(image[rows, columns].sum() / region.area)
        rate = np.logical_and(normal, predicted).sum() / normal.sum()
        points.append((rate, np.mean(overlaps)))
    rates, means = np.array([point for point in points if point[0] < limit])[::-1].T
    rates = (rates - rates.min()) / (rates.max() - rates.min())
    return float((np.diff(rates) * (means[1:] + means[:-1]) / 2).sum())


IMPLEMENTATIONS: dict[str, Callable[[Masks, Maps], Numbers]] = {
    "blemish": blemish,
    "streaming": streaming,
    "scikit_learn": scikit_learn,
    "torchmetrics": torchmetrics,
    "references": references,
}


def measure(name: str, images: int, size: int) -> tuple[float, float, float, Numbers]:
    """Return (processor seconds, wall seconds, peak gigabytes, numbers) of one implementation, without imports."""
    IMPLEMENTATIONS[name](*generate(4, 37 * 2))
    masks, maps = generate(images, size)
    cpu, wall = time.process_time(), time.perf_counter()
    numbers = IMPLEMENTATIONS[name](masks, maps)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    scale = 1e9 if sys.platform == "darwin" else 1e6
    return cpu, wall, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale, numbers


def report(names: list[str], images: int, size: int) -> None:
    print(f"\n{images} maps of {size} x {size}: {images * size * size / 1e6:.1f} million pixels")
    first = None
    for name in names:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            try:
                cpu, wall, peak, numbers = pool.apply(measure, (name, images, size))
            except ImportError as missing:
                print(f"{name:>13}  skipped: {missing}")
                continue
        first = first or cpu
        values = "  ".join(f"{key} {value:.6f}" for key, value in numbers.items())
        print(
            f"{name:>13}  {cpu:7.2f} s cpu  {wall:7.2f} s wall  {peak:5.2f} GB  x{cpu / first:<6.1f} {values}",
            flush=True,
        )


def main() -> None:
    options = argparse.ArgumentParser(description="Measure speed and memory of the pixel metrics.")
    options.add_argument("--size", type=int, default=518, help="side of a map")
    options.add_argument("--subset", type=int, default=20, help="number of maps for every implementation; 0 for none")
    options.add_argument("--full", type=int, default=372, help="number of maps for blemish alone; 0 for none")
    given = options.parse_args()
    if given.subset:
        report(list(IMPLEMENTATIONS), given.subset, given.size)
    if given.full:
        report(["blemish", "streaming"], given.full, given.size)


if __name__ == "__main__":
    main()
