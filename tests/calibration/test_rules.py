"""Other rules: against hand-made cases and against trying every cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blemish.calibration import (
    cheapest,
    f1_optimal,
    fixed_recall,
    mean_plus_std,
    mebin,
    mebin_range,
    percentile_times,
)
from blemish.errors import UsageError
from blemish.metrics import f1_max

some = st.lists(st.integers(0, 8), min_size=1, max_size=12)


def test_mean_plus_std_of_scores_and_of_maps() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(50) + 100
    assert mean_plus_std(scores) == pytest.approx(scores.mean() + 3 * scores.std(), rel=1e-12)
    assert mean_plus_std(scores.tolist(), 2) == pytest.approx(scores.mean() + 2 * scores.std(), rel=1e-12)
    maps = [rng.random((4, 5)).astype(np.float32), rng.random((7, 3)).astype(np.float32)]
    pixels = np.concatenate([values.ravel() for values in maps]).astype(np.float64)
    assert mean_plus_std(iter(maps)) == pytest.approx(pixels.mean() + 3 * pixels.std(), rel=1e-12)


def test_percentile_times_a_factor() -> None:
    pixels = np.arange(101, dtype=np.float32)
    assert percentile_times([pixels[:50].reshape(5, 10), pixels[50:].reshape(3, 17)]) == pytest.approx(1.421 * 95)
    assert percentile_times(pixels, 50, 2) == pytest.approx(100)
    with pytest.raises(UsageError, match="0 to 100"):
        percentile_times(pixels, 101)


@pytest.mark.parametrize("rule", [mean_plus_std, percentile_times])
def test_rules_without_values(rule: object) -> None:
    with pytest.raises(UsageError, match="no value"):
        rule([])  # type: ignore[operator]
    with pytest.raises(UsageError, match="finite"):
        rule([np.nan])  # type: ignore[operator]


def blocks() -> np.ndarray:
    """Two plateaus of 20 x 20 and one of 20 x 10 on a floor of 0, heights 1, 0.8 and 0.3."""
    values = np.zeros((80, 80), np.float32)
    values[5:25, 5:25], values[40:60, 40:60], values[5:25, 60:70] = 1.0, 0.8, 0.3
    return values


def test_mebin_takes_the_lowest_level_of_the_longest_stable_interval() -> None:
    values = blocks()
    search = mebin_range([values, np.full((80, 80), 0.2, np.float32)])
    assert search == pytest.approx((0.2, 1.0))
    # Levels go down from 255 in steps of 4. One region from 251 (255 is not below the peak) to 195 (0.81), two down
    # to 35 (0.31), then three to 3: the interval with two regions is the longest, and 35 is its lowest level.
    assert mebin(values, search) == pytest.approx(0.2 + 35 / 255 * 0.8)
    # Eroded by 6 pixels nothing is left of narrow lines.
    lines = np.zeros((80, 80), np.float32)
    lines[::10, :60] = 1.0
    assert mebin(lines, (0.0, 1.0)) == math.inf
    assert mebin(lines, (0.0, 1.0), erosion=False) == pytest.approx(3 / 255)
    assert mebin(np.zeros((80, 80), np.float32), search) == math.inf


def test_mebin_ignores_short_intervals() -> None:
    # Three levels (255, 171, 87) have one region at most twice in a row.
    assert mebin(blocks(), (0.2, 1.0), sample_rate=84) == math.inf
    assert mebin(blocks(), (0.2, 1.0), sample_rate=84, min_interval=2) < 1


def test_f1_optimal_by_hand() -> None:
    result = f1_optimal([0.1, 0.2, 0.5], [0.4, 0.6, 0.9])
    assert result.value == pytest.approx(0.3)  # in the middle of the gap between 0.2 and 0.4
    assert (result.recall, result.false_alarms, result.precision) == pytest.approx((1, 1 / 3, 3 / 4))
    assert result.f1 == pytest.approx(6 / 7)
    assert (result.good, result.bad) == (3, 3)
    assert math.isnan(result.cost)
    assert result.to_dict()["recall"] == 1


@settings(max_examples=200, deadline=None)
@given(some, some, st.integers(1, 10), st.integers(0, 5), st.integers(1, 5))
def test_no_cut_is_better(good: list[int], bad: list[int], tenths: int, fa_cost: int, miss_cost: int) -> None:
    good_scores, bad_scores = np.array(good, np.float32) / 8, np.array(bad, np.float32) / 8
    labels = np.repeat([0, 1], [len(good), len(bad)])
    by_f1 = f1_optimal(good_scores, bad_scores)
    assert by_f1.f1 == pytest.approx(f1_max(labels, np.concatenate([good_scores, bad_scores])).value)

    cuts = np.arange(-1, 20) / 16 + 0.01
    recall = np.array([(bad_scores >= cut).mean() for cut in cuts])
    alarms = np.array([(good_scores >= cut).mean() for cut in cuts])
    by_recall = fixed_recall(good_scores, bad_scores, tenths / 10)
    assert by_recall.recall >= tenths / 10 - 1e-9
    assert by_recall.false_alarms == pytest.approx(alarms[recall >= tenths / 10 - 1e-9].min())

    share = len(bad) / (len(good) + len(bad))
    by_cost = cheapest(good_scores, bad_scores, false_alarm_cost=fa_cost, miss_cost=miss_cost)
    costs = (1 - share) * fa_cost * alarms + share * miss_cost * (1 - recall)
    assert by_cost.cost == pytest.approx(costs.min(), abs=1e-12)

    for result in (by_f1, by_recall, by_cost):  # what is said of the threshold is what it does
        assert result.recall == pytest.approx((bad_scores >= np.float32(result.value)).mean())
        assert result.false_alarms == pytest.approx((good_scores >= np.float32(result.value)).mean())


def test_cost_depends_on_how_rare_bad_pictures_are() -> None:
    good, bad = np.arange(100) / 100, np.array([0.5, 0.97, 0.995])
    rare = cheapest(good, bad, miss_cost=10, bad_share=0.001)
    usual = cheapest(good, bad, miss_cost=10, bad_share=0.3)
    assert rare.value > usual.value
    assert rare.false_alarms == 0
    assert usual.recall == 1


def test_equal_scores_of_good_and_bad() -> None:
    result = fixed_recall([0.5, 0.5], [0.5, 0.5], 0.5)
    assert (result.recall, result.false_alarms) == (1, 1)
    assert cheapest([0.5], [0.5], false_alarm_cost=5).value > 0.5  # nothing is anomalous


def test_neighbouring_floats_have_no_middle() -> None:
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    assert np.float32(f1_optimal([low], [high]).value) == high


def test_rules_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="good and of bad"):
        f1_optimal([], [0.5])
    with pytest.raises(UsageError, match="recall must be"):
        fixed_recall([0.1], [0.5], 0)
    with pytest.raises(UsageError, match="not both 0"):
        cheapest([0.1], [0.5], false_alarm_cost=0, miss_cost=0)
    with pytest.raises(UsageError, match="share of bad pictures"):
        cheapest([0.1], [0.5], bad_share=1.0)
    with pytest.raises(UsageError, match="no map"):
        mebin_range([])
