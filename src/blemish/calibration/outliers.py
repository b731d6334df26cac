"""Pictures among the good ones that do not look good.

They are only named, and with care: a good picture that is called suspicious costs trust, and leaving it out would make
the threshold too low.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from blemish.calibration.conformal import Calibration, as_scores
from blemish.errors import UsageError

#: Median absolute deviation of a normal distribution with standard deviation 1, inverted.
_MAD_TO_STD = 1.4826
#: The same for the mean absolute deviation, which stands in where more than half of the scores are equal.
_MEAN_TO_STD = 1.2533
#: Robust standard deviations above the median from which a good picture is suspicious.
OUTLIER_DEVIATIONS = 6.0
#: Fewest scores from which a spread is known.
_MIN_SCORES = 6
#: Largest share of the pictures that can be suspicious; beyond it the scores have no common level.
_MAX_SHARE = 0.4


def deviations(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return how many robust standard deviations each score lies above the median.

    The deviation is (s - median) / (1.4826 MAD) (Iglewicz and Hoaglin 1993). Distances spread further above their
    median than below, so the MAD is that of all scores or that of the upper half, whichever is larger.

    Args:
        scores: (..., n) scores of good pictures.

    Returns:
        (..., n); zeros where all scores are equal.

    Raises:
        UsageError: A score is not finite.
    """
    values = as_scores(scores).astype(np.float64)
    centred = values - np.median(values, axis=-1, keepdims=True)
    upper = np.sort(centred, axis=-1)[..., values.shape[-1] // 2 :]
    spread = _MAD_TO_STD * np.maximum(
        np.median(np.abs(centred), axis=-1, keepdims=True), np.median(upper, axis=-1, keepdims=True)
    )
    spread = np.where(spread > 0, spread, _MEAN_TO_STD * np.abs(centred).mean(axis=-1, keepdims=True))
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def suspicious(scores: npt.ArrayLike, *, cutoff: float = OUTLIER_DEVIATIONS) -> npt.NDArray[np.int64]:
    """Return which good pictures look unlike the others, the most unlike first.

    A bad picture is named only if nothing like it is among the references: two pictures with the same defect in the
    same place look alike, and leave-one-out scores do not show them.

    Args:
        scores: (n,) scores of good pictures, each without itself among the references.
        cutoff: Robust standard deviations above the median from which a picture is named.

    Returns:
        Indices into `scores`; none of fewer than 6 pictures, and at most 40 % of them.

    Raises:
        UsageError: A score is not finite.
    """
    values = as_scores(scores)
    if values.size < _MIN_SCORES:
        return np.empty(0, dtype=np.int64)
    above = deviations(values)
    order = np.argsort(-above, kind="stable")
    return order[above[order] > cutoff][: int(_MAX_SHARE * values.size)].astype(np.int64)


def without_suspicious(calibration: Calibration, *, cutoff: float = OUTLIER_DEVIATIONS) -> Calibration:
    """Return the calibration without the scores of suspicious pictures: the robust option.

    Bad pictures among the good ones never cause false alarms: with any scores, c of them change the bound from
    k / (n + 1) to k / (n - c + 1) at most. But their high scores raise the threshold, so that defects are missed. Left
    out, they cannot. If a picture that is left out was good after all, the threshold is too low; `Guarantee` says by
    how much at most.

    Args:
        calibration: Scores of the pictures.
        cutoff: As in `suspicious`.

    Raises:
        UsageError: The scheme is `cross`: leave the pictures out of the references instead, and calibrate again.
    """
    if calibration.folds is not None:
        raise UsageError("scores of the scheme cross belong to their folds: leave the pictures out and calibrate again")
    outliers = suspicious(calibration.scores, cutoff=cutoff)
    return replace(
        calibration,
        scores=np.delete(calibration.scores, outliers),
        removed=calibration.removed + outliers.size,
    )
