"""Drift: do new pictures still look like those that the promise rests on?

A promise holds while good pictures are exchangeable with the calibration pictures. Two tests of that look at scores
only: `compare` takes a set of new scores as a whole, `DriftTest` one score after the other, for as long as it runs,
without a rising chance of a false alarm.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blemish.calibration.conformal import as_scores
from blemish.errors import UsageError

#: Share of the capital that the simple jumper moves between its bets at each step (Vovk et al. 2021).
_JUMP = 0.01


@dataclass(frozen=True)
class Comparison:
    """Two sets of scores compared.

    Attributes:
        statistic: Kolmogorov-Smirnov distance, in [0, 1]: how far the two distribution functions are apart at most.
        p_value: Chance of such a distance or a larger one if nothing has changed.
        shift: Chance that a new score is above an old one, ties counting half; 0.5 is no shift.
    """

    statistic: float
    p_value: float
    shift: float


def compare(old: npt.ArrayLike, new: npt.ArrayLike) -> Comparison:
    """Compare new scores with old ones by the two-sample Kolmogorov-Smirnov test.

    Args:
        old: (n,) scores made in the same way as the new ones: by split, or of pictures that came in earlier.
            Leave-one-out scores are a little higher than those of new pictures, since one reference fewer made them.
        new: (m,) scores.

    Raises:
        UsageError: One of the two is empty, or a score is not finite.
    """
    from scipy import stats  # 0.3 s to import, and needed here only

    before, after = np.sort(as_scores(old).ravel()), as_scores(new).ravel()
    if not before.size or not after.size:
        raise UsageError("two sets of scores are needed to compare them")
    result = stats.ks_2samp(before, after)
    below = np.searchsorted(before, after, side="left") + np.searchsorted(before, after, side="right")
    return Comparison(float(result.statistic), float(result.pvalue), float(below.mean() / (2 * before.size)))


class DriftTest:
    """A running test of exchangeability: a conformal test martingale, the simple jumper (Vovk et al. 2021).

    Each score gets a p-value among all before it, ties broken at random. While the scores are exchangeable these are
    independent and uniform. The test bets against that: its capital starts at 1, grows if the p-values gather at one
    end, and exceeds C at any time with a probability of at most 1 / C (Ville's inequality). So a capital of 100 is an
    alarm that is false in at most 1 of 100 runs, however long they are.

    Args:
        scores: Scores to begin with, such as those of a calibration by split. Begin without any after leave-one-out:
            its scores are a little higher than those of new pictures, and the test would find that in the end.
        seed: Seed of the tie-breaking.
        window: Number of latest scores that new ones are compared with; None keeps all. With a window the bound on the
            probability is approximate.

    Reference:
        V. Vovk, I. Petej, I. Nouretdinov, E. Ahlberg, L. Carlsson, A. Gammerman, "Retrain or not retrain:
        conformal test martingales for change-point detection", COPA 2021.
    """

    def __init__(self, scores: npt.ArrayLike = (), *, seed: int = 0, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise UsageError(f"window must be at least 1, not {window}")
        self._rng = np.random.default_rng(seed)
        self._window = window
        self._latest: list[float] = as_scores(scores).ravel().tolist()[-window if window else 0 :]
        self._ordered = sorted(self._latest)
        self._log_bets = np.log(np.full(3, 1 / 3))

    @property
    def log_capital(self) -> float:
        """Logarithm of the capital, to base 10: 2 is an alarm that is false in at most 1 of 100 runs."""
        return float(np.logaddexp.reduce(self._log_bets)) / math.log(10)

    def update(self, score: float) -> float:
        """Add one score and return `log_capital`.

        Raises:
            UsageError: The score is not finite.
        """
        value = float(as_scores(score))
        low, high = bisect.bisect_left(self._ordered, value), bisect.bisect_right(self._ordered, value)
        above, ties = len(self._ordered) - high, high - low + 1
        p = (above + float(self._rng.random()) * ties) / (len(self._ordered) + 1)
        self._ordered.insert(low, value)
        if self._window is not None:
            self._latest.append(value)
            if len(self._latest) > self._window:
                self._ordered.pop(bisect.bisect_left(self._ordered, self._latest.pop(0)))
        moved = np.logaddexp(
            self._log_bets + math.log1p(-_JUMP), np.logaddexp.reduce(self._log_bets) + math.log(_JUMP / 3)
        )
        self._log_bets = moved + np.log1p(np.array([-1.0, 0.0, 1.0]) * (p - 0.5))
        return self.log_capital

    def run(self, scores: Iterable[float]) -> npt.NDArray[np.float64]:
        """Add scores one by one and return `log_capital` after each."""
        return np.array([self.update(score) for score in scores])
