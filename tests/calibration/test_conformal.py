"""p-values, thresholds and guarantees: hand-made cases, and what they have to agree on."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from blemish.calibration import (
    SCHEMES,
    Calibration,
    conditional_bound,
    conformal_threshold,
    cross_p_values,
    cross_remainder,
    deal_folds,
    p_values,
    percent,
    pictures_needed,
    quantile_rank,
    smallest_promise,
    two_thresholds,
    verdict,
)
from blemish.errors import UsageError

levels = st.lists(st.integers(0, 6), min_size=1, max_size=30)


def test_p_value_counts_scores_at_least_as_high() -> None:
    known = [0.1, 0.2, 0.2, 0.4]
    assert p_values(known, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx([1.0, 1.0, 0.8, 0.4, 0.4, 0.2])
    assert p_values(known, np.full((2, 3), 0.3)).shape == (2, 3)
    assert Calibration(np.array(known)).p_value(0.3) == pytest.approx(0.4)


def test_threshold_lies_right_above_the_quantile() -> None:
    scores = np.arange(1, 20, dtype=np.float32) / 20
    value = Calibration(scores).threshold(0.1).value  # k = 2: above the second highest
    assert value == np.nextafter(np.float32(0.9), np.float32(1))
    assert float(np.float32(0.9)) < value
    # Scores are compared as float32: a float64 that rounds to the quantile is not above it.
    assert p_values(scores, 0.9 + 1e-12) == pytest.approx(3 / 20)


def test_threshold_above_every_score() -> None:
    assert Calibration(np.ones(20)).threshold(0.05).value > 1.0


@settings(max_examples=200, deadline=None)
@given(levels, levels, st.integers(1, 99), st.integers(0, 3))
def test_label_and_p_value_agree(known: list[int], new: list[int], hundredths: int, contaminated: int) -> None:
    promise = hundredths / 100
    if Fraction(hundredths, 100) * (len(known) - contaminated + 1) < 1 or contaminated >= len(known):
        with pytest.raises(UsageError, match="cannot keep"):
            conformal_threshold(known, promise, contaminated=contaminated)
        return
    scores = np.array(new, dtype=np.float32) / 7
    threshold = conformal_threshold(np.array(known) / 7, promise, contaminated=contaminated)
    p = p_values(np.array(known) / 7, scores, contaminated=contaminated)
    small = np.array([Fraction(value).limit_denominator(1000) <= Fraction(hundredths, 100) for value in p.tolist()])
    assert ((scores >= threshold) == small).all()


def test_one_row_per_calibration_set() -> None:
    scores = np.random.default_rng(0).random((5, 30))
    alone = [conformal_threshold(row, 0.1) for row in scores]
    assert conformal_threshold(scores, 0.1).tolist() == alone


@pytest.mark.parametrize("pictures", [1, 4, 19, 20, 99, 100, 199])
def test_rank_is_exact_where_products_round(pictures: int) -> None:
    for hundredths in range(1, 100):
        exact = Fraction(hundredths, 100) * (pictures + 1)
        if exact >= 1:
            assert quantile_rank(pictures, hundredths / 100) == min(int(exact), pictures)


@pytest.mark.parametrize(("promise", "pictures"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.001, 999), (0.5, 1), (0.3, 3)])
def test_pictures_needed_is_the_smallest_number(promise: float, pictures: int) -> None:
    assert pictures_needed(promise) == pictures
    assert quantile_rank(pictures, promise) == 1
    assert smallest_promise(pictures) <= promise + 1e-12
    if pictures > 1:
        with pytest.raises(UsageError):
            quantile_rank(pictures - 1, promise)
    assert quantile_rank(pictures_needed(promise, contaminated=2), promise, contaminated=2) == 1


def test_too_few_pictures_is_one_helpful_sentence() -> None:
    with pytest.raises(UsageError) as error:
        Calibration(np.zeros(16)).threshold(0.01)
    assert str(error.value) == (
        "16 good pictures cannot keep false alarms at 1 %: the smallest promise they can keep is 5.9 %, "
        "and 1 % takes 99 pictures."
    )
    with pytest.raises(
        UsageError, match=r"1 good picture, 1 of which may be bad, cannot keep .* 10 % takes 10 pictures"
    ):
        Calibration(np.zeros(1), contaminated=1).threshold(0.1)


def test_guarantee_of_each_scheme() -> None:
    scores = np.arange(20) / 20
    for scheme in ("split", "leave-one-out", "minmax"):
        guarantee = Calibration(scores, scheme).guarantee(0.1)
        assert guarantee.bound == pytest.approx(2 / 21)
        assert (guarantee.conditional is not None) == (scheme == "split")
    cross = Calibration(scores, "cross", deal_folds(20, 5)).guarantee(0.1)
    assert cross.bound == pytest.approx(4 / 21 + (1 - 5 / 20) / 6)
    jackknife = Calibration(scores, "cross", np.arange(20)).guarantee(0.1)
    assert jackknife.bound == pytest.approx(4 / 21)
    assert Calibration(scores, contaminated=1).guarantee(0.1).bound == pytest.approx(2 / 20)


def test_cross_remainder() -> None:
    assert cross_remainder([1] * 7) == 0
    assert cross_remainder([100, 100]) == pytest.approx(2 / 202)  # the first term is the smaller one
    assert cross_remainder([4] * 5) == pytest.approx(0.75 / 6)
    assert cross_remainder([5, 5, 4]) == pytest.approx(4 / 17)  # folds of two sizes: the first term only
    assert cross_remainder([4] * 5, contaminated=2) == pytest.approx(8 / 23)


def test_sentences_say_what_is_true_of_the_scheme() -> None:
    scores = np.arange(60) / 60
    split = Calibration(scores).guarantee(0.05)
    assert split.sentence() == (
        "A new good picture is called anomalous with a probability of at most 5 %, on average over "
        "choices of the 60 calibration pictures; for this choice it is at most 8.7 % with 90 % confidence. It rests on "
        "new good pictures being exchangeable with the calibration pictures: the same product, the same camera, the "
        "same light."
    )
    assert "confidence" not in Calibration(scores, "leave-one-out").guarantee(0.05).sentence()
    cross = Calibration(scores, "cross", np.arange(60)).guarantee(0.05).sentence()
    assert "at most 9.9 % (usually about 5 %" in cross
    robust = Calibration(scores, contaminated=2, removed=3).guarantee(0.05).sentence()
    assert "even if up to 2 of the 60 are bad" in robust
    assert "3 more looked unlike the others and were left out" in robust
    assert "up to 8.1 %" in robust  # (2 + 3) / (60 + 3 - 2 + 1), rounded up
    assert json.loads(json.dumps(split.to_dict()))["sentence"] == split.sentence()


def test_conditional_bound_is_a_quantile_of_the_beta_distribution() -> None:
    assert conditional_bound(59, 3, 0.9) == pytest.approx(stats.beta.ppf(0.9, 3, 57))


def test_percent_rounds_bounds_up() -> None:
    assert [percent(share) for share in (0.05, 0.0476, 0.123, 0.00123, 1.0, 0.0)] == [
        "5 %", "4.8 %", "12.3 %", "0.12 %", "100 %", "0 %",
    ]  # fmt: skip
    assert percent(1 / 21, up=True) == "4.8 %"
    assert percent(0.0471, up=True) == "4.8 %"
    assert percent(0.05, up=True) == "5 %"


def test_cross_p_value_compares_within_folds() -> None:
    known, folds = [0.1, 0.9, 0.5, 0.7], [0, 0, 1, 1]
    # In fold 0 one of (0.1, 0.9) is >= 0.2; in fold 1 none of (0.5, 0.7) is >= 0.8.
    assert cross_p_values(known, folds, [0.2, 0.8]) == pytest.approx(2 / 5)
    calibration = Calibration(np.array(known), "cross", np.array(folds))
    assert calibration.p_values(np.full((3, 2), 0.6)) == pytest.approx([3 / 5] * 3)
    with pytest.raises(UsageError, match="no single threshold"):
        calibration.threshold(0.4)
    with pytest.raises(UsageError, match="one score per fold"):
        calibration.p_value(0.2)


def test_folds_are_as_even_as_can_be() -> None:
    folds = deal_folds(23, 5)
    assert sorted(np.bincount(folds).tolist()) == [4, 4, 5, 5, 5]
    assert folds.tolist() == deal_folds(23, 5).tolist()
    with pytest.raises(UsageError, match="2 to 3 folds"):
        deal_folds(3, 4)


def test_two_thresholds() -> None:
    calibration = Calibration(np.arange(1, 100) / 100)
    review, reject = two_thresholds(calibration, 0.05, 0.01)
    assert review.value < reject.value
    verdicts = [verdict(score, review.value, reject.value) for score in (0.5, 0.95, float(np.float32(0.96)), 0.99, 1.0)]
    assert verdicts == ["pass", "pass", "review", "review", "reject"]
    with pytest.raises(UsageError, match="fewer false alarms than review, not 5 % and 1 %"):
        two_thresholds(calibration, 0.01, 0.05)


@pytest.mark.parametrize("promise", [0.0, 1.0, 5.0, -0.1, float("nan")])
def test_promise_out_of_range(promise: float) -> None:
    with pytest.raises(UsageError, match="share between 0 and 1"):
        Calibration(np.zeros(30)).threshold(promise)


def test_calibrations_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="one score per good picture"):
        Calibration(np.empty(0))
    with pytest.raises(UsageError, match="finite"):
        Calibration(np.array([0.1, np.nan]))
    with pytest.raises(UsageError, match="choose from split"):
        Calibration(np.zeros(3), "loo")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="folds belong to"):
        Calibration(np.zeros(3), "split", np.array([0, 1, 2]))
    with pytest.raises(UsageError, match="folds belong to"):
        Calibration(np.zeros(3), "cross")
    with pytest.raises(UsageError, match="none of them empty"):
        Calibration(np.zeros(3), "cross", np.array([0, 2, 2]))
    with pytest.raises(UsageError, match="cannot be negative"):
        Calibration(np.zeros(3), contaminated=-1)
    with pytest.raises(UsageError, match="confidence"):
        Calibration(np.zeros(30)).threshold(0.1, confidence=1.0)


def test_scores_are_kept_and_read_only() -> None:
    scores = np.zeros(3)
    calibration = Calibration(scores)
    scores[0] = 1
    assert calibration.scores.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        calibration.scores[0] = 1
    assert len(SCHEMES) == 4


def test_a_bound_that_is_the_promise_is_said_once() -> None:
    scores = np.arange(22) / 22
    sentence = Calibration(scores, "leave-one-out").guarantee(1 / 23).sentence()
    assert "at most 4.4 %, on average" in sentence
    assert "at most 4.4 % (promised: 5 %), on average" in Calibration(scores).guarantee(0.05).sentence()
