"""From ranked scores to numbers, in one pass over the levels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from blemish.metrics.ranking import Counts, Levels, Shares


@dataclass(frozen=True)
class Summary:
    """Every metric of one ranking; nan where there are no positives (or, for auroc and aupro, no negatives).

    Attributes:
        auroc: area under the ROC curve, a tie between a positive and a negative counting half.
        ap: sum over distinct scores of (R_n - R_{n-1}) P_n.
        f1_max: largest F1 over distinct scores t, predicting score >= t.
        f1_threshold: the lowest t that reaches it.
        iou: intersection over union of {score >= f1_threshold} and the positives.
        iou_above: the same of {score > f1_threshold}.
        aupro: area under overlap against false-positive rate up to the limit, divided by the limit.
    """

    auroc: float
    ap: float
    f1_max: float
    f1_threshold: float
    iou: float
    iou_above: float
    aupro: float


def summarise(
    blocks: Iterable[Levels], positives: int, negatives: int, *, fpr_limit: float = 1.0, f1_epsilon: float = 0.0
) -> Summary:
    """Read all metrics off `blocks`, which together hold every level in descending order.

    `f1_epsilon` is added to the denominator of F1 = 2PR / (P + R); 0 gives F1 itself.
    """
    if positives == 0:
        return Summary(*[math.nan] * 7)
    limit = fpr_limit * negatives
    pairs, precision_sum, area = 0, 0.0, 0.0
    f1_best, threshold, iou, iou_above = -1.0, math.nan, math.nan, math.nan
    tp_last, fp_last, pro_last = 0, 0, 0.0
    for level in blocks:
        tp_before = np.concatenate([[tp_last], level.tp[:-1]])
        gained = level.tp - tp_before
        precision = level.tp / (level.tp + level.fp)
        # Twice the number of (positive, negative) pairs in the right order, ties counting one: exact in integers.
        pairs += int((gained * (2 * negatives - level.fp - level.fp_above)).sum())
        precision_sum += float((gained * precision).sum())

        if f1_epsilon:
            recall = level.tp / positives
            f1 = 2 * precision * recall / (precision + recall + f1_epsilon)
        else:
            # One rounding only, so that equal F1 are equal floats and the lowest threshold is found.
            f1 = 2 * level.tp / (level.tp + level.fp + positives)
        best = f1.size - 1 - int(np.argmax(f1[::-1]))
        if f1[best] >= f1_best:
            f1_best, threshold = float(f1[best]), float(level.scores[best])
            iou = float(level.tp[best] / (positives + level.fp[best]))
            iou_above = float(tp_before[best] / (positives + level.fp_above[best]))

        if negatives:
            pro_before = np.concatenate([[pro_last], level.pro[:-1]])
            fp_before = np.concatenate([[fp_last], level.fp[:-1]])
            area += _area_within(level, fp_before, pro_before, limit)
        tp_last, fp_last, pro_last = int(level.tp[-1]), int(level.fp[-1]), float(level.pro[-1])
    area += pro_last * (limit - min(fp_last, limit))
    return Summary(
        auroc=pairs / (2 * positives * negatives) if negatives else math.nan,
        ap=precision_sum / positives,
        f1_max=f1_best,
        f1_threshold=threshold,
        iou=iou,
        iou_above=iou_above,
        aupro=area / limit if negatives else math.nan,
    )


def _area_within(level: Levels, fp_before: Counts, pro_before: Shares, limit: float) -> float:
    """Area under the overlap curve, in units of false positives, that these levels add left of `limit`.

    From one level to the next the curve runs flat over the negatives in between, then straight to the next overlap
    over the negatives that are tied with it.
    """
    foot, head = np.minimum(level.fp_above, limit), np.minimum(level.fp, limit)
    flat = pro_before * (foot - np.minimum(fp_before, limit))
    width = head - foot
    tied = np.maximum(level.fp - level.fp_above, 1)
    slope = pro_before + (level.pro - pro_before) * width / (2 * tied)
    return float((flat + width * slope).sum())
