"""Slow and plain versions of the metrics, to compare the fast ones with."""

from __future__ import annotations

import numpy as np
from skimage.measure import label


def brute_aupro(masks, maps, limit=0.3):
    """Every distinct value is a threshold; overlaps are counted region by region, the curve is cut at the limit."""
    regions, outside = [], []
    for mask, scores in zip(masks, maps, strict=True):
        numbers = label(mask, connectivity=2)
        regions += [scores[numbers == number] for number in range(1, numbers.max() + 1)]
        outside.append(scores[mask == 0])
    normal = np.concatenate(outside)
    thresholds = np.unique(np.concatenate([np.ravel(scores) for scores in maps]))[::-1]
    rates, overlaps = [0.0], [0.0]
    for threshold in thresholds:
        rates.append(np.mean(normal >= threshold))
        overlaps.append(np.mean([np.mean(region >= threshold) for region in regions]))
    area = 0.0
    for x0, x1, y0, y1 in zip(rates[:-1], rates[1:], overlaps[:-1], overlaps[1:], strict=True):
        if x1 > limit:
            if x0 < limit:
                y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
                area += (limit - x0) * (y0 + y1) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def stepped_aupro(masks, maps, limit=0.3, steps=200):
    """The 200-step approximation, threshold by threshold, in the arithmetic of NumPy 2's float32 arange."""
    low, high = maps.min(), maps.max()
    step = (high - low) / steps
    thresholds = [
        np.float64(low) + i * (np.float64(low + step) - np.float64(low))
        for i in range(int(np.ceil((high - low) / step)))
    ]
    numbers = [label(mask, connectivity=2) for mask in masks]
    regions = [scores[n == k] for n, scores in zip(numbers, maps, strict=True) for k in range(1, n.max() + 1)]
    normal = maps[masks == 0]
    points = [(np.mean(normal > t), np.mean([np.mean(region > t) for region in regions])) for t in thresholds]
    rates, overlaps = np.array([point for point in points if point[0] < limit])[::-1].T
    rates = (rates - rates.min()) / (rates.max() - rates.min())
    return float((np.diff(rates) * (overlaps[1:] + overlaps[:-1]) / 2).sum())


def sample(seed, shape=(3, 12, 14), levels=None, dtype=np.float32, share=0.12):
    """Return random masks with at least one anomalous and one normal pixel, and maps that correlate with them.

    With `levels`, the maps hold that many distinct values, so there are many ties.
    """
    rng = np.random.default_rng(seed)
    masks = (rng.random(shape) < share).astype(np.uint8)
    masks[0, 0, 0], masks[0, 0, 1] = 1, 0
    maps = masks * 0.8 + rng.normal(size=shape)
    if levels:
        maps = np.round((maps - maps.min()) / (maps.max() - maps.min()) * (levels - 1)) / levels
    return masks, maps.astype(dtype)
