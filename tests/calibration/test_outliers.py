"""Suspicious pictures among the good ones, and references of two products."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.calibration import Calibration, deviations, suspicious, two_groups, without_suspicious
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


@pytest.mark.parametrize("dimension", [2, 8, 64])
def test_two_products(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    centres = rng.normal(size=(2, dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    member = np.repeat([0, 1], [14, 6])
    rng.shuffle(member)
    features = centres[member] + 0.05 / np.sqrt(dimension) * rng.normal(size=(20, dimension))
    grouping = two_groups(features * rng.uniform(1, 5, (20, 1)))
    assert grouping is not None
    assert grouping.groups == tuple(member.tolist())
    assert grouping.sentence().startswith("The 20 good pictures look like two groups, of 14 and 6:")


def test_one_product_is_rarely_two_groups() -> None:
    rng = np.random.default_rng(0)
    for n in (6, 10, 20, 60):
        for dimension in (3, 8, 64):
            centre = rng.normal(size=dimension)
            found = [
                two_groups(centre + 0.3 * rng.normal(size=(n, dimension)) @ np.diag(0.8 ** np.arange(dimension)))
                for _ in range(200)
            ]
            assert sum(grouping is not None for grouping in found) <= 4, (n, dimension)


def test_one_product_in_every_pose() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, (100, 20))
    turned = [np.stack([np.cos(a), np.sin(a), np.full(20, 2.0)], axis=1) for a in angles]
    assert sum(two_groups(features) is not None for features in turned) <= 2


def test_one_odd_picture_is_no_group() -> None:
    rng = np.random.default_rng(0)
    features = np.array([1.0, 0, 0, 0]) + 0.05 * rng.normal(size=(20, 4))
    features[7] = [0, 1, 0, 0]
    assert two_groups(features) is None
    # Nor does it hide two groups.
    features[10:] += [0, 0, 3, 0]
    grouping = two_groups(features)
    assert grouping is not None
    assert sorted((grouping.groups.count(0), grouping.groups.count(1))) in ([9, 11], [10, 10])


def test_equal_pictures_and_few_pictures() -> None:
    assert two_groups(np.ones((10, 3))) is None
    assert two_groups(np.eye(5)) is None
    with pytest.raises(UsageError, match="one row per picture"):
        two_groups(np.ones(5))
