"""Metrics that go with verdicts: PGn and PBn, AUPIMO, masks at a fixed threshold, paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blemish.metrics import (
    Difference,
    MetricInputError,
    UndefinedMetricWarning,
    aupimo,
    auroc,
    average_precision,
    bootstrap_image_metrics,
    mask_metrics,
    paired_bootstrap,
    paired_difference,
    pb,
    pg,
    pixel_metrics,
)

some = st.lists(st.integers(0, 8), min_size=1, max_size=25)


def test_presorting_by_hand() -> None:
    labels = np.repeat([0, 1], [10, 100])
    scores = np.concatenate([np.arange(10), np.arange(100) / 10 + 3.05])  # two bad ones lie below 3.2
    assert pg(labels, scores) == 0.4  # 0 to 3 are below 3.25, the third lowest bad score
    assert pg(labels, scores, 0) == 0.4
    assert pg(labels, scores, 10) == 0.5
    assert pb(labels, scores, 0) == 0.4 + 0.0  # above 9: 9.05 to 12.95
    assert pb(labels, scores, 10) == 0.5  # above 8
    assert pg(labels, scores, 100) == pb(labels, scores, 100) == 1.0


@settings(max_examples=150, deadline=None)
@given(some, some, st.integers(0, 100))
def test_presorting_is_the_best_of_all_thresholds(good: list[int], bad: list[int], percent: int) -> None:
    labels, scores = np.repeat([0, 1], [len(good), len(bad)]), np.array(good + bad)
    cuts = np.arange(-1, 11) - 0.5
    misses = np.array([np.mean(np.array(bad) < cut) for cut in cuts])
    alarms = np.array([np.mean(np.array(good) >= cut) for cut in cuts])
    limit = percent / 100 + 1e-9
    assert pg(labels, scores, percent) == pytest.approx((1 - alarms)[misses <= limit].max())
    assert pb(labels, scores, percent) == pytest.approx((1 - misses)[alarms <= limit].max())


def test_presorting_without_one_class() -> None:
    for labels in ([0, 0], [1, 1]):
        with pytest.warns(UndefinedMetricWarning):
            assert math.isnan(pg(labels, [1, 2]))
        with pytest.warns(UndefinedMetricWarning):
            assert math.isnan(pb(labels, [1, 2]))
    with pytest.raises(MetricInputError, match="0 to 100"):
        pg([0, 1], [1, 2], 101)


def pimo_by_steps(masks, maps, bounds, steps=20000):
    """The recall at evenly spaced log rates; the threshold of a rate is the lowest one that keeps to it."""
    low, high = bounds
    normal = [scores for mask, scores in zip(masks, maps, strict=True) if not mask.any()]
    thresholds = np.append(np.unique(np.concatenate([scores.ravel() for scores in maps])), np.inf)
    rates = np.array([np.mean([np.mean(scores >= t) for scores in normal]) for t in thresholds])
    levels = np.exp(np.linspace(np.log(low), np.log(high), steps + 1)[:-1] + np.log(high / low) / steps / 2)
    chosen = thresholds[[int(np.argmax(rates <= level)) for level in levels]]
    return np.array([
        math.nan if not mask.any() else np.mean([np.mean(scores[mask] >= t) for t in chosen])
        for mask, scores in zip(masks, maps, strict=True)
    ])  # fmt: skip


@pytest.mark.parametrize("values", [None, 30], ids=["distinct", "tied"])
@pytest.mark.parametrize("sizes", [[(12, 14)] * 7, [(12, 14), (9, 9), (20, 5), (12, 14), (9, 9), (6, 6), (10, 10)]])
def test_aupimo_is_the_area_over_log_rates(values, sizes) -> None:
    rng = np.random.default_rng(0)
    masks = [np.zeros(size, dtype=bool) for size in sizes]
    for mask in masks[::2]:
        mask[2:5, 1:5] = True
    maps = [(rng.normal(size=m.shape) + m).astype(np.float32) for m in masks]
    if values:
        maps = [np.round(scores * values / 4).astype(np.float32) for scores in maps]
    bounds = (0.005, 0.3)
    exact = aupimo(masks, maps, bounds=bounds)
    assert exact == pytest.approx(pimo_by_steps(masks, maps, bounds), abs=2e-4, nan_ok=True)
    assert np.isnan(exact[1::2]).all()
    assert ((exact[::2] > 0.01) & (exact[::2] < 0.99)).all()


def test_aupimo_ends() -> None:
    normal = np.linspace(0, 1, 400 * 400).reshape(400, 400)
    mask = np.zeros((400, 400), dtype=np.uint8)
    mask[:2, :2] = 1
    above, below, half = normal.copy(), normal.copy(), normal.copy()
    above[:2, :2], below[:2, :2], half[:2, :2] = 2.0, 0.5, [[2.0, 2.0], [0.5, 0.5]]
    assert aupimo([None, mask, mask, mask], [normal, above, below, half])[1:].tolist() == [1, 0, 0.5]
    # At a rate in the middle of the logarithmic range, half of the range lies to its right.
    at = normal.ravel()[-round(400 * 400 * math.sqrt(1e-5 * 1e-4))]
    middle = normal.copy()
    middle[:2, :2] = at
    assert aupimo([None, mask], [normal, middle])[1] == pytest.approx(0.5, abs=0.02)


def test_aupimo_needs_normal_images_with_enough_pixels() -> None:
    mask = np.zeros((100, 100), dtype=np.uint8)
    mask[0, 0] = 1
    maps = np.random.default_rng(0).random((2, 100, 100))
    assert np.isnan(aupimo([mask, mask], maps)).all()
    assert np.isnan(aupimo([None, mask], maps)).all()  # 10,000 pixels cannot resolve a rate of 1e-5
    assert not np.isnan(aupimo([None, mask], maps, bounds=(1e-4, 1e-3))[1])
    with pytest.raises(MetricInputError, match="two rates"):
        aupimo([None, mask], maps, bounds=(1e-4, 1e-5))


def test_mask_metrics_by_hand() -> None:
    maps = np.array([[[0.1, 0.9], [0.2, 0.8]], [[0.1, 0.1], [0.6, 0.1]], [[0.1, 0.1], [0.1, 0.1]]])
    masks = np.array([[[0, 1], [1, 0]], [[0, 0], [0, 0]], [[1, 0], [0, 0]]])
    result = mask_metrics(masks, maps, 0.6)  # TP 1, FP 2 (0.8 and the 0.6 of a normal image), FN 2
    assert result.seg_f1 == pytest.approx(2 / 6)
    assert result.class_f1 == pytest.approx(2 / 4)
    assert (result.recall, result.false_alarms) == (0.5, 1.0)
    assert mask_metrics(masks, maps >= 0.6, 1) == result


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_seg_f1_is_f1_max_only_at_the_best_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 6, 7)) < 0.2
    masks[0, 0, 0] = True
    maps = np.round(rng.random((3, 6, 7)) + masks, 1)
    best = pixel_metrics(masks, maps)
    assert mask_metrics(masks, maps, best.f1_threshold).seg_f1 == pytest.approx(best.f1_max)
    assert mask_metrics(masks, maps, rng.random()).seg_f1 <= best.f1_max + 1e-12


def test_mask_metrics_of_one_class() -> None:
    normal = mask_metrics([None], [np.zeros((2, 2))], 0.5)
    assert [math.isnan(v) for v in (normal.seg_f1, normal.class_f1, normal.recall)] == [True] * 3
    assert normal.false_alarms == 0
    anomalous = mask_metrics([np.ones((2, 2))], [np.zeros((2, 2))], 0.5)
    assert (anomalous.seg_f1, anomalous.class_f1, anomalous.recall) == (0, 0, 0)
    assert math.isnan(anomalous.false_alarms)
    with pytest.raises(MetricInputError, match="not nan"):
        mask_metrics([None], [np.zeros((2, 2))], math.nan)
    with pytest.raises(MetricInputError, match="nothing to measure"):
        mask_metrics([], [], 0.5)


def test_paired_bootstrap_is_that_of_resampled_metrics() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 30])
    shared = labels + rng.normal(size=70)
    first, second = shared + 0.1 * rng.normal(size=70), shared + 0.3 * rng.normal(size=70)
    slow = paired_bootstrap(labels, first, second, auroc, 200, 3)
    fast = bootstrap_image_metrics(labels, first, 200, 3)[0] - bootstrap_image_metrics(labels, second, 200, 3)[0]
    assert slow == paired_difference(auroc(labels, first) - auroc(labels, second), fast)
    # What the methods share cancels out: the interval is narrower than that of either method.
    alone = bootstrap_image_metrics(labels, first, 200, 3)[0]
    assert slow.high - slow.low < 0.6 * (np.quantile(alone, 0.975) - np.quantile(alone, 0.025))
    assert slow.low <= slow.value <= slow.high


def test_paired_difference_finds_a_better_method_and_no_difference_from_itself() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    good, poor = labels + 0.4 * rng.normal(size=100), labels + 3 * rng.normal(size=100)
    assert paired_bootstrap(labels, good, poor, average_precision, 300).p_value < 0.01
    same = paired_bootstrap(labels, good, good)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert math.isnan(paired_difference(0.1, [math.nan]).p_value)
    assert paired_difference(0.1, np.full(999, 0.1)) == Difference(0.1, 0.1, 0.1, 2 / 1000)
    with pytest.raises(MetricInputError, match="one row per image"):
        paired_bootstrap(labels, good, poor[1:])
