"""Rank scores once and read every metric off the ranking.

The metrics depend only on the order of the scores, so floats are mapped to integers of the same order, which NumPy
sorts several times faster. The many negatives are sorted on their own; the few positives are then located among them
by binary search, with one row per distinct positive score. A threshold between two positive scores needs no row: recall
does not change there while false positives grow, so it adds nothing to AP, cannot raise F1, and leaves the overlap
curve of AUPRO level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.metrics.checks import Bools, Floats

Keys = NDArray[np.signedinteger[Any]]
Counts = NDArray[np.int64]
Shares = NDArray[np.float64]

BLOCK = 1 << 16
"""Positives per block: the negatives between their scores then mostly fit into the processor's cache."""


@dataclass(frozen=True)
class Levels:
    """Consecutive distinct positive scores in descending order, and what a threshold at each predicts.

    Attributes:
        scores: (K,) thresholds t.
        tp: (K,) int64, positives with score >= t.
        fp: (K,) int64, negatives with score >= t.
        fp_above: (K,) int64, negatives with score > t.
        pro: (K,) float64, mean per-region overlap at score >= t; zeros if the ranking has no regions.
    """

    scores: Floats
    tp: Counts
    fp: Counts
    fp_above: Counts
    pro: Shares


@dataclass(frozen=True)
class Ranking:
    """Positives and negatives as order-preserving keys, each sorted ascending.

    Attributes:
        positives: (P,) keys.
        negatives: (N,) keys of the same dtype.
        regions: (P,) int32, region of each positive, or None.
        weights: (R,) contribution of one pixel of each region to the mean overlap, 1 / (regions x area), or None.
    """

    positives: Keys
    negatives: Keys
    regions: NDArray[np.int32] | None = None
    weights: Shares | None = None

    def shares(self, start: int, end: int) -> Shares:
        """Return the contribution of each positive in [start, end) to the mean overlap; zeros without regions."""
        if self.regions is None or self.weights is None:
            return np.zeros(end - start)
        return self.weights[self.regions[start:end]]


@dataclass(frozen=True)
class Summary:
    """Every metric of one ranking; nan without positives, and auroc and aupro are also nan without negatives.

    Attributes:
        auroc: Area under the ROC curve; a tie between a positive and a negative counts half.
        ap: Sum over distinct scores of (R_n - R_{n-1}) P_n.
        f1_max: Largest F1 over distinct scores t, predicting score >= t.
        f1_threshold: Lowest t that reaches `f1_max`.
        iou: Intersection over union of {score >= f1_threshold} and the positives.
        iou_above: Intersection over union of {score > f1_threshold} and the positives.
        aupro: Area under overlap against false-positive rate up to the limit, divided by the limit.
    """

    auroc: float
    ap: float
    f1_max: float
    f1_threshold: float
    iou: float
    iou_above: float
    aupro: float


def to_keys(scores: Floats) -> Keys:
    """Map finite float32 (float64) to int32 (int64) of the same order; 0.0 and -0.0 get one key.

    IEEE floats compare like their bit patterns while positive, and in reverse while negative.
    """
    unsigned_zero = scores + scores.dtype.type(0)
    if unsigned_zero.dtype == np.float32:
        return _fold(unsigned_zero.view(np.int32))
    return _fold(unsigned_zero.view(np.int64))


def from_keys(keys: Keys) -> Floats:
    """Invert `to_keys`."""
    if keys.dtype == np.int32:
        return _fold(keys).view(np.float32)
    return _fold(keys).view(np.float64)


def _fold(bits: Keys) -> Keys:
    info = np.iinfo(bits.dtype)
    flip = bits >> (info.bits - 1)
    flip &= info.max
    flip ^= bits
    return flip


def rank(labels: Bools, scores: Floats) -> Ranking:
    """Rank scores of the same shape as `labels`, without regions."""
    keys = to_keys(scores)
    positives, negatives = keys[labels], keys[~labels]
    positives.sort()
    negatives.sort()
    return Ranking(positives, negatives)


def rank_regions(positives: Keys, regions: NDArray[np.int32], negatives: Keys, areas: Counts) -> Ranking:
    """Rank pixels whose positives belong to regions; `negatives` is sorted in place."""
    negatives.sort()
    weights = np.reciprocal(areas.size * areas.astype(np.float64))
    if positives.dtype == np.int32:
        # Pack key and region into one integer: a plain sort is several times faster than argsort and gather.
        packed = positives.astype(np.int64)
        packed <<= 32
        packed |= regions
        packed.sort()
        return Ranking((packed >> 32).astype(np.int32), negatives, packed.astype(np.int32), weights)
    order = np.argsort(positives)
    return Ranking(positives[order], negatives, regions[order], weights)


def levels(ranking: Ranking, block: int = BLOCK) -> Iterator[Levels]:
    """Yield every distinct positive score, from the highest down, in blocks of about `block` positives."""
    positives, negatives = ranking.positives, ranking.negatives
    end, carried = positives.size, 0.0
    while end:
        # A block begins where its lowest score begins, so that equal scores are never split.
        start = int(np.searchsorted(positives, positives[max(0, end - block)], side="left"))
        chunk = positives[start:end]
        first = np.flatnonzero(np.concatenate([[True], chunk[1:] != chunk[:-1]]))
        values = chunk[first]
        low = int(np.searchsorted(negatives, values[0], side="left"))
        high = int(np.searchsorted(negatives, values[-1], side="right"))
        window, above = negatives[low:high], negatives.size - low
        overlap = carried + np.cumsum(ranking.shares(start, end)[::-1])
        if start == 0 and ranking.regions is not None:
            overlap[-1] = 1.0  # every region is covered: the sum differs from 1 only by rounding
        yield Levels(
            scores=from_keys(values[::-1]),
            tp=(positives.size - start - first)[::-1],
            fp=(above - np.searchsorted(window, values, side="left"))[::-1],
            fp_above=(above - np.searchsorted(window, values, side="right"))[::-1],
            pro=np.minimum(overlap[chunk.size - 1 - first][::-1], 1.0),
        )
        end, carried = start, float(overlap[-1])


def summarise(
    blocks: Iterable[Levels], positives: int, negatives: int, *, fpr_limit: float = 1.0, f1_epsilon: float = 0.0
) -> Summary:
    """Compute all metrics in one pass over `blocks`, which together hold every level in descending order.

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
        # Twice the number of (positive, negative) pairs in the right order, a tie counts one: exact in integers.
        pairs += int((gained * (2 * negatives - level.fp - level.fp_above)).sum())
        precision_sum += float((gained * precision).sum())

        if f1_epsilon:
            recall = level.tp / positives
            f1 = 2 * precision * recall / (precision + recall + f1_epsilon)
        else:
            # One rounding only, so that equal F1 are equal floats and the lowest threshold is selected.
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
    """Return the area under the overlap curve, in units of false positives, that these levels add left of `limit`.

    From one level to the next the curve is flat over the negatives in between, then straight up to the next overlap
    over the negatives that are tied with it.
    """
    foot, head = np.minimum(level.fp_above, limit), np.minimum(level.fp, limit)
    flat = pro_before * (foot - np.minimum(fp_before, limit))
    width = head - foot
    tied = np.maximum(level.fp - level.fp_above, 1)
    slope = pro_before + (level.pro - pro_before) * width / (2 * tied)
    return float((flat + width * slope).sum())
