"""Suspicious pictures among the good ones."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.calibration import Calibration, deviations, suspicious, without_suspicious
from blemish.errors import UsageError


def good(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0.3, 0.03, n)


def test_bad_pictures_are_named_the_worst_first() -> None:
    scores = good(30, np.random.default_rng(0))
    scores[[4, 17]] = 0.6, 0.9
    assert suspicious(scores).tolist() == [17, 4]
    assert deviations(scores)[4] > 6


def test_good_pictures_are_rarely_named() -> None:
    rng = np.random.default_rng(0)
    for n, limit in ((10, 0.002), (20, 0.002), (60, 0.0005)):
        flagged = [suspicious(good(n, rng)).size for _ in range(1000)]
        assert np.sum(flagged) / (1000 * n) < limit
        skewed = [suspicious(rng.gamma(3, size=n)).size for _ in range(1000)]
        assert np.sum(skewed) / (1000 * n) < 3 * limit


def test_few_and_equal_scores_say_nothing() -> None:
    assert suspicious([0.1, 0.1, 0.1, 0.1, 0.9]).size == 0
    assert suspicious(np.full(20, 0.5)).size == 0
    assert deviations(np.full(20, 0.5)).tolist() == [0.0] * 20
    # More than half are equal: the mean deviation stands in for the median one.
    assert suspicious([0.5] * 19 + [0.9]).tolist() == [19]


def test_one_row_per_set() -> None:
    scores = np.random.default_rng(0).random((3, 15))
    assert deviations(scores) == pytest.approx(np.stack([deviations(row) for row in scores]))


def test_left_out_of_the_calibration() -> None:
    scores = good(30, np.random.default_rng(0))
    scores[[4, 17]] = 0.6, 0.9
    robust = without_suspicious(Calibration(scores, "leave-one-out"))
    assert len(robust) == 28
    assert robust.removed == 2
    assert robust.threshold(0.05).value < Calibration(scores, "leave-one-out").threshold(0.05).value
    guarantee = robust.guarantee(0.05)
    assert guarantee.bound == pytest.approx(1 / 29)
    assert guarantee.bound_if_removed_good == pytest.approx(3 / 31)
    with pytest.raises(UsageError, match="calibrate again"):
        without_suspicious(Calibration(scores, "cross", np.arange(30)))
