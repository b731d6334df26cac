"""Thresholds by other rules: named ones that promise nothing, and those that need bad pictures.

The named rules are what others use with good pictures only; none of them says how often a good picture is called
anomalous. With scores of bad pictures as well, `f1_optimal`, `fixed_recall` and `cheapest` look at every possible cut;
their numbers hold for the pictures they were chosen on, and new pictures do a little worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from blemish.calibration.conformal import as_scores
from blemish.errors import UsageError

_EIGHT = np.ones((3, 3), dtype=bool)
#: Side of the square by which MEBin erodes masks.
_EROSION = 6
#: Levels between the lowest and the highest peak in MEBin.
_LEVELS = 255


def mean_plus_std(values: npt.ArrayLike | Iterable[npt.ArrayLike], factor: float = 3.0) -> float:
    """Return mean + factor x standard deviation.

    The rule of the script that checks submissions to MVTec AD 2: 3 standard deviations (over all values, not n - 1)
    above the mean of all pixels of the maps of the validation pictures, which are good.

    Args:
        values: Scores (n,), one map, or an iterable of maps, which are read once.
        factor: Number of standard deviations.

    Raises:
        UsageError: There is no value, or one is not finite.
    """
    count, mean, squares = 0, 0.0, 0.0
    for part in _parts(values):
        own = float(part.mean())
        shift = own - mean
        total = count + part.size
        # Sums of squares around the means of parts add up exactly (Chan, Golub and LeVeque 1983).
        squares += float(((part - own) ** 2).sum()) + shift * shift * count * part.size / total
        mean += shift * part.size / total
        count = total
    if not count:
        raise UsageError("there is no value to take the mean of")
    return mean + factor * math.sqrt(squares / count)


def percentile_times(
    values: npt.ArrayLike | Iterable[npt.ArrayLike], percentile: float = 95.0, factor: float = 1.421
) -> float:
    """Return a percentile x a factor.

    The rule of SuperADD (first place of the VAND 4.0 challenge): 1.421 times the 95th percentile of all pixels of the
    maps of good pictures.

    Args:
        values: Scores (n,), one map, or an iterable of maps.
        percentile: From 0 to 100; between two values it is interpolated.
        factor: What it is multiplied with.

    Raises:
        UsageError: There is no value, one is not finite, or the percentile is out of range.
    """
    if not 0.0 <= percentile <= 100.0:
        raise UsageError(f"a percentile is a number from 0 to 100, not {percentile}")
    parts = [part.ravel() for part in _parts(values)]
    if not parts:
        raise UsageError("there is no value to take the percentile of")
    return factor * float(np.percentile(np.concatenate(parts), percentile))


def mebin_range(anomaly_maps: Iterable[npt.ArrayLike]) -> tuple[float, float]:
    """Return the range that `mebin` searches: the lowest and the highest of the maps' peaks."""
    peaks = [float(as_scores(values).max()) for values in anomaly_maps]
    if not peaks:
        raise UsageError("there is no map to take the peak of")
    return min(peaks), max(peaks)


def mebin(
    anomaly_map: npt.NDArray[np.float32],
    search: tuple[float, float],
    *,
    sample_rate: int = 4,
    min_interval: int = 4,
    erosion: bool = True,
) -> float:
    """Return the threshold of one map by MEBin: where the number of regions is stable.

    Main element binarisation (Huang et al., AnomalyNCD, CVPR 2025, arXiv 2410.14379). The range from the lowest to the
    highest peak of a set of maps is cut into 255 levels, of which every `sample_rate`-th is tried from the top. At
    each, the map is cut (value > level), eroded by a square of 6 pixels, and its 8-connected regions are counted. The
    longest run of levels with the same number (above 0) of regions is the stable interval, and its *lowest* level is
    the threshold, as in the authors' code. Two details differ: that code reads maps as 8-bit pictures and rounds the
    threshold down to a whole grey value, which makes no sense for float maps.

    Args:
        anomaly_map: (H, W) float32.
        search: (low, high) of `mebin_range`.
        sample_rate: Step between levels, in 255ths of the range.
        min_interval: Least number of levels that count as stable.
        erosion: Whether the mask is eroded before regions are counted.

    Returns:
        The threshold: values *above* it are anomalous. inf if no interval is stable: nothing is anomalous.
    """
    from scipy import ndimage  # takes a while to import, and is needed here only

    low, high = search
    values = np.asarray(anomaly_map, dtype=np.float64)
    levels = [level / _LEVELS * (high - low) + low for level in range(_LEVELS, 0, -sample_rate)]
    counts = []
    for level in levels:
        mask = values > level
        if erosion:
            # The border counts as set, as OpenCV does it.
            mask = ndimage.binary_erosion(mask, np.ones((_EROSION, _EROSION), dtype=bool), border_value=1)
        counts.append(int(ndimage.label(mask, structure=_EIGHT)[1]))
    stable: dict[int, list[tuple[int, int]]] = {}  # by number of regions: (levels, last level) of each interval
    start = 0
    for end in range(len(counts)):
        if end + 1 < len(counts) and counts[end + 1] == counts[start]:
            continue
        if counts[start] > 0 and end - start + 1 >= min_interval:
            stable.setdefault(counts[start], []).append((end - start + 1, end))
        start = end + 1
    if not stable:
        return math.inf
    # Of equally long intervals: the number of regions that became stable first, and of that the last interval.
    longest = max(stable.values(), key=lambda intervals: max(intervals)[0])
    return levels[max(longest)[1]]


@dataclass(frozen=True)
class LabelledThreshold:
    """A threshold that was chosen with good and bad pictures, and what it does on these.

    Attributes:
        value: A picture with score >= value is anomalous: the float32 in the middle of the gap between two scores, so
            that either side has the same margin.
        recall: Share of the bad pictures that are anomalous.
        false_alarms: Share of the good pictures that are anomalous.
        precision: Share of bad pictures among the anomalous ones; nan if there is none.
        f1: 2 TP / (2 TP + FP + FN).
        cost: What the errors cost per picture; nan for a rule without costs.
        good: Number of good pictures.
        bad: Number of bad pictures.
    """

    value: float
    recall: float
    false_alarms: float
    precision: float
    f1: float
    cost: float
    good: int
    bad: int

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return asdict(self)


def f1_optimal(good: npt.ArrayLike, bad: npt.ArrayLike) -> LabelledThreshold:
    """Return the threshold with the largest F1; of several, the one that finds the most bad pictures.

    F1 depends on how many good and bad pictures were given; in production bad ones are usually rarer.

    Args:
        good: Scores of good pictures; with references by leave-one-out, never of pictures that are in the memory.
        bad: Scores of bad pictures.

    Raises:
        UsageError: One of the two is empty, or a score is not finite.
    """
    cuts = _Cuts(good, bad)
    return cuts.at(_last_best(cuts.f1()))


def fixed_recall(good: npt.ArrayLike, bad: npt.ArrayLike, recall: float) -> LabelledThreshold:
    """Return the threshold that finds at least a share of the bad pictures, with the fewest false alarms.

    Args:
        good: As in `f1_optimal`.
        bad: As in `f1_optimal`.
        recall: Share in (0, 1].

    Raises:
        UsageError: As `f1_optimal`, or the share is out of range.
    """
    if not 0.0 < recall <= 1.0:
        raise UsageError(f"recall must be above 0 and at most 1, not {recall}")
    cuts = _Cuts(good, bad)
    enough = math.ceil(recall * cuts.bad.size - 1e-9)
    return cuts.at(int(np.argmax(cuts.tp >= enough)))


def cheapest(
    good: npt.ArrayLike,
    bad: npt.ArrayLike,
    *,
    false_alarm_cost: float = 1.0,
    miss_cost: float = 1.0,
    bad_share: float | None = None,
) -> LabelledThreshold:
    """Return the threshold with the lowest cost per picture; of several, the one that finds the most bad pictures.

    The cost is (1 - q) FPR C_f + q FNR C_m, where q is the share of bad pictures in production.

    Args:
        good: As in `f1_optimal`.
        bad: As in `f1_optimal`.
        false_alarm_cost: Cost C_f of a good picture that is called anomalous.
        miss_cost: Cost C_m of a bad picture that is not.
        bad_share: q in (0, 1); None is the share among the given pictures.

    Raises:
        UsageError: As `f1_optimal`, a cost is negative, both are 0, or the share is out of range.
    """
    if false_alarm_cost < 0 or miss_cost < 0 or false_alarm_cost + miss_cost == 0:
        raise UsageError("costs must be 0 or more, and not both 0")
    if bad_share is not None and not 0.0 < bad_share < 1.0:
        raise UsageError(f"the share of bad pictures must be between 0 and 1, not {bad_share}")
    cuts = _Cuts(good, bad)
    share = cuts.bad.size / (cuts.bad.size + cuts.good.size) if bad_share is None else bad_share
    cost = (1 - share) * false_alarm_cost * cuts.fp / cuts.good.size
    cost = cost + share * miss_cost * (cuts.bad.size - cuts.tp) / cuts.bad.size
    place = _last_best(-cost)
    return cuts.at(place, float(cost[place]))


class _Cuts:
    """Every way to cut the scores in two, from "nothing is anomalous" to "everything is"."""

    def __init__(self, good: npt.ArrayLike, bad: npt.ArrayLike) -> None:
        self.good, self.bad = np.sort(as_scores(good).ravel()), np.sort(as_scores(bad).ravel())
        if not self.good.size or not self.bad.size:
            raise UsageError("a threshold by labels needs scores of good and of bad pictures")
        self.scores = np.unique(np.concatenate([self.good, self.bad]))[::-1]
        self.tp = np.append(0, self.bad.size - np.searchsorted(self.bad, self.scores, side="left"))
        self.fp = np.append(0, self.good.size - np.searchsorted(self.good, self.scores, side="left"))

    def f1(self) -> npt.NDArray[np.float64]:
        # One rounding only, so that equal F1 are equal floats.
        f1: npt.NDArray[np.float64] = 2 * self.tp / (self.tp + self.fp + self.bad.size)
        return f1

    def at(self, place: int, cost: float = math.nan) -> LabelledThreshold:
        tp, fp = int(self.tp[place]), int(self.fp[place])
        return LabelledThreshold(
            value=self._value(place),
            recall=tp / self.bad.size,
            false_alarms=fp / self.good.size,
            precision=tp / (tp + fp) if tp + fp else math.nan,
            f1=float(self.f1()[place]),
            cost=cost,
            good=self.good.size,
            bad=self.bad.size,
        )

    def _value(self, place: int) -> float:
        """Return the threshold that calls the `place` highest distinct scores anomalous."""
        if place == 0:
            return float(np.nextafter(self.scores[0], np.float32(np.inf)))
        lowest = self.scores[place - 1]
        if place == self.scores.size:
            return float(lowest)
        # Between neighbouring floats the middle rounds to one of them; the threshold is never the lower one.
        middle = np.float32((float(lowest) + float(self.scores[place])) / 2)
        return float(middle if middle > self.scores[place] else lowest)


def _last_best(values: npt.NDArray[np.float64]) -> int:
    """Return the last index of the largest value; values that differ by rounding only are equal."""
    best = values.max()
    return int(np.flatnonzero(values >= best - 1e-12 * max(abs(float(best)), 1.0))[-1])


def _parts(values: npt.ArrayLike | Iterable[npt.ArrayLike]) -> Iterable[npt.NDArray[np.float64]]:
    """Yield arrays of finite numbers: the array itself, or each of an iterable's."""
    alone = isinstance(values, np.ndarray) or (isinstance(values, Sequence) and all(np.ndim(v) == 0 for v in values))
    for part in [values] if alone else values:  # type: ignore[union-attr]
        array = np.asarray(part, dtype=np.float64)
        if not np.isfinite(array).all():
            raise UsageError("values must be finite numbers")
        if array.size:
            yield array
