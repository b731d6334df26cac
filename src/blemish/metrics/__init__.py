"""Exact metrics for anomaly detection on NumPy arrays; the package can be used on its own.

Image level, from one score per image: `image_metrics`, or `auroc`, `average_precision` and `f1_max` alone; `roc_curve`,
`precision_recall_curve`, `tpr_at_fpr` and `fpr_at_tpr`; `pg` and `pb` for sorting before people look.
Pixel level, from one anomaly map per image: `pixel_metrics`, or `aupro` alone; `aupro_200` is the approximation of the
papers; `aupimo` for each image; `mask_metrics` at a threshold that was fixed beforehand. `StreamingPixelMetrics` is for
data that do not fit into memory; it bounds the error of every number.
Confidence intervals: `bootstrap_interval` for any metric, `bootstrap_image_metrics` and `PixelBootstrap` for speed;
`paired_bootstrap` for the difference of two methods.
Means over classes: `class_mean`.

Scores are ranked as they are: nothing is squashed, clipped or rescaled first.
"""

from __future__ import annotations

from blemish.metrics.bootstrap import (
    Difference,
    Interval,
    PixelBootstrap,
    PixelIntervals,
    bootstrap_image_metrics,
    bootstrap_interval,
    paired_bootstrap,
    paired_difference,
    percentile_interval,
)
from blemish.metrics.checks import MetricInputError, UndefinedMetricWarning
from blemish.metrics.image import (
    Curve,
    F1Max,
    ImageMetrics,
    auroc,
    average_precision,
    f1_max,
    fpr_at_tpr,
    image_metrics,
    pb,
    pg,
    precision_recall_curve,
    roc_curve,
    tpr_at_fpr,
)
from blemish.metrics.pimo import aupimo
from blemish.metrics.pixel import (
    MaskMetrics,
    PixelMetrics,
    aupro,
    aupro_200,
    class_mean,
    mask_metrics,
    pixel_metrics,
)
from blemish.metrics.streaming import PixelErrors, StreamedPixelMetrics, StreamingPixelMetrics

__all__ = [
    "Curve",
    "Difference",
    "F1Max",
    "ImageMetrics",
    "Interval",
    "MaskMetrics",
    "MetricInputError",
    "PixelBootstrap",
    "PixelErrors",
    "PixelIntervals",
    "PixelMetrics",
    "StreamedPixelMetrics",
    "StreamingPixelMetrics",
    "UndefinedMetricWarning",
    "aupimo",
    "aupro",
    "aupro_200",
    "auroc",
    "average_precision",
    "bootstrap_image_metrics",
    "bootstrap_interval",
    "class_mean",
    "f1_max",
    "fpr_at_tpr",
    "image_metrics",
    "mask_metrics",
    "paired_bootstrap",
    "paired_difference",
    "pb",
    "percentile_interval",
    "pg",
    "pixel_metrics",
    "precision_recall_curve",
    "roc_curve",
    "tpr_at_fpr",
]
