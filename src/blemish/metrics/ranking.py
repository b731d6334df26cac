"""Scores in order: the one sort from which every metric is read.

Only the rank of a score matters to these metrics, so floats are mapped to integers of the same order, which NumPy
sorts several times faster. The many negatives are sorted on their own; the few positives are then placed among them by
binary search, one row per distinct positive score. Thresholds between two positive scores need no row: there recall
stands still while false positives grow, so they add nothing to AP, cannot raise F1, and are level stretches in AUPRO.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.metrics.checks import Bools, Floats

Keys = NDArray[np.signedinteger[Any]]
Counts = NDArray[np.int64]
Shares = NDArray[np.float64]

BLOCK = 1 << 16
"""Positives handled at a time: their window of the negatives then mostly fits into the processor's cache."""


@dataclass(frozen=True)
class Levels:
    """Some distinct positive scores in descending order, and what a threshold at each would predict.

    Attributes:
        scores: (K,) the thresholds t.
        tp: (K,) int64, positives with score >= t.
        fp: (K,) int64, negatives with score >= t.
        fp_above: (K,) int64, negatives with score > t.
        pro: (K,) float64, per-region overlap at score >= t (zeros where regions are not asked for).
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
        regions: (P,) int32, the region of each positive, or None.
        weights: (R,) what one pixel of a region adds to the mean overlap, 1 / (regions x area), or None.
    """

    positives: Keys
    negatives: Keys
    regions: NDArray[np.int32] | None = None
    weights: Shares | None = None

    def shares(self, start: int, end: int) -> Shares:
        """What each positive in [start, end) adds to the mean overlap; zeros without regions."""
        if self.regions is None or self.weights is None:
            return np.zeros(end - start)
        return self.weights[self.regions[start:end]]


def to_keys(scores: Floats) -> Keys:
    """Map finite float32 (float64) to int32 (int64) of the same order; 0.0 and -0.0 become one key.

    IEEE floats compare like their bit patterns while positive, and in reverse while negative.
    """
    unsigned_zero = scores + scores.dtype.type(0)
    if unsigned_zero.dtype == np.float32:
        return _fold(unsigned_zero.view(np.int32))
    return _fold(unsigned_zero.view(np.int64))


def from_keys(keys: Keys) -> Floats:
    """Undo `to_keys`."""
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
        # Key and region side by side in one integer: a plain sort, several times faster than argsort and gather.
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
        # A block begins where its lowest score begins, so that equal scores are never parted.
        start = int(np.searchsorted(positives, positives[max(0, end - block)], side="left"))
        chunk = positives[start:end]
        first = np.flatnonzero(np.concatenate([[True], chunk[1:] != chunk[:-1]]))
        values = chunk[first]
        low = int(np.searchsorted(negatives, values[0], side="left"))
        high = int(np.searchsorted(negatives, values[-1], side="right"))
        window, above = negatives[low:high], negatives.size - low
        overlap = carried + np.cumsum(ranking.shares(start, end)[::-1])
        if start == 0 and ranking.regions is not None:
            overlap[-1] = 1.0  # every region is covered: what the sum misses of it is rounding
        yield Levels(
            scores=from_keys(values[::-1]),
            tp=(positives.size - start - first)[::-1],
            fp=(above - np.searchsorted(window, values, side="left"))[::-1],
            fp_above=(above - np.searchsorted(window, values, side="right"))[::-1],
            pro=np.minimum(overlap[chunk.size - 1 - first][::-1], 1.0),
        )
        end, carried = start, float(overlap[-1])
