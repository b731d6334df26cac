"""Exact metrics for anomaly detection, on NumPy arrays; usable alone.

Of pictures, from one score each: `image_metrics`, and singly `auroc`, `average_precision`, `f1_max`.
Of pixels, from a map each: `pixel_metrics`, and singly `aupro`; `aupro_200` is the approximation found in papers.
For data that do not fit into memory: `StreamingPixelMetrics`, with an error bound for every number.
How far to trust a number: `bootstrap_interval`, and for pixels `PixelBootstrap`, which is quick. Over classes:
`class_mean`.

Scores are ranked as they are: nothing is squashed, clipped or rescaled first.
"""

from __future__ import annotations

from blemish.metrics.checks import MetricInputError, UndefinedMetricWarning
from blemish.metrics.image import (
    F1Max,
    ImageMetrics,
    Interval,
    auroc,
    average_precision,
    bootstrap_interval,
    f1_max,
    image_metrics,
)
from blemish.metrics.intervals import PixelBootstrap, PixelIntervals
from blemish.metrics.pixel import PixelMetrics, aupro, aupro_200, class_mean, pixel_metrics
from blemish.metrics.streaming import PixelErrors, StreamedPixelMetrics, StreamingPixelMetrics

__all__ = [
    "F1Max",
    "ImageMetrics",
    "Interval",
    "MetricInputError",
    "PixelBootstrap",
    "PixelErrors",
    "PixelIntervals",
    "PixelMetrics",
    "StreamedPixelMetrics",
    "StreamingPixelMetrics",
    "UndefinedMetricWarning",
    "aupro",
    "aupro_200",
    "auroc",
    "average_precision",
    "bootstrap_interval",
    "class_mean",
    "f1_max",
    "image_metrics",
    "pixel_metrics",
]
