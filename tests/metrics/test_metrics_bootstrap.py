"""Bootstrap intervals: the fast ones equal those that are computed resample by resample."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import sample

from blemish.metrics import (
    MetricInputError,
    PixelBootstrap,
    UndefinedMetricWarning,
    aupro,
    auroc,
    average_precision,
    bootstrap,
    bootstrap_image_metrics,
    bootstrap_interval,
    percentile_interval,
)


def gathered(masks, maps, **options):
    boot = PixelBootstrap(**options)
    for mask, scores in zip(masks, maps, strict=True):
        boot.update(mask, scores)
    return boot


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 5, 40]), st.sampled_from([0.05, 0.3, 1.0]))
def test_is_the_bootstrap_of_the_exact_metrics(seed, distinct, limit):
    masks, maps = sample(seed, shape=(9, 10, 11), levels=distinct, share=(seed % 4 + 1) / 10)
    result = gathered(masks, maps, seed=seed).intervals(60, fpr_limit=limit)
    exact = bootstrap_interval(masks, maps, auroc, 60, seed)
    assert result.auroc == pytest.approx(exact, abs=2e-3)
    exact = bootstrap_interval(masks, maps, lambda m, s: aupro(m, s, fpr_limit=limit), 60, seed)
    assert result.aupro == pytest.approx(exact, abs=1e-2 if limit == 0.05 else 3e-3)


def test_few_pixels_of_each_image_give_nearly_the_same_interval():
    masks, maps = sample(3, shape=(20, 90, 80), share=0.0)
    masks[:10, 20:60, 30:70] = 1
    maps += masks * np.linspace(0, 2, 20)[:, None, None]  # some images are easy, some are not
    whole, some = gathered(masks, maps, pixels=10**6).intervals(), gathered(masks, maps, pixels=400).intervals()
    np.testing.assert_allclose(some.auroc, whole.auroc, rtol=0, atol=0.015)
    np.testing.assert_allclose(some.aupro, whole.aupro, rtol=0, atol=0.03)
    assert whole.auroc.high - whole.auroc.low > 0.1
    assert some == gathered(masks, maps, pixels=400).intervals()
    assert some != gathered(masks, maps, pixels=400, seed=1).intervals()


def test_images_are_drawn_not_pixels():
    # Two kinds of images, all right or all wrong: four images say little, however many pixels they have.
    mask = np.zeros((50, 50))
    mask[10:20, 10:20] = 1
    result = gathered([mask] * 4, [mask, 1 - mask] * 2).intervals()
    assert result.auroc == pytest.approx((0, 1), abs=1e-6)


def test_small_regions_count_like_large_ones():
    mask, scores = np.zeros((60, 60)), np.zeros((60, 60))
    mask[:40, :40], mask[50, 50] = 1, 1
    scores[50, 50] = 1
    result = gathered([mask], [scores], pixels=100).intervals(3, fpr_limit=1e-6)
    assert result.aupro == pytest.approx((0.5, 0.5), abs=1e-6)


def test_undefined_and_bad_input():
    maps = np.arange(12.0).reshape(3, 4)
    for masks in ([None, None], [np.ones((3, 4)), np.ones((3, 4))]):
        result = gathered(masks, [maps, maps]).intervals()
        assert all(math.isnan(end) for interval in result for end in interval)
    # Resamples without the one anomalous image are left out.
    result = gathered([None, maps > 10], [maps, maps]).intervals(50)
    assert not any(math.isnan(end) for interval in result for end in interval)
    with pytest.raises(MetricInputError, match="finite"):
        PixelBootstrap().update(None, maps * np.nan)
    for wrong in ({"n": 0}, {"level": 1.0}, {"fpr_limit": 0.0}):
        with pytest.raises(MetricInputError, match="must be"):
            gathered([maps > 10], [maps]).intervals(**wrong)


def test_bootstrap_covers_and_repeats():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = labels + rng.normal(size=200)
    interval = bootstrap_interval(labels, scores, n=200, seed=5)
    assert interval.low < auroc(labels, scores) < interval.high
    assert interval == bootstrap_interval(labels, scores, auroc, 200, 5)
    assert interval != bootstrap_interval(labels, scores, auroc, 200, 6)
    wider = bootstrap_interval(labels, scores, n=200, seed=5, level=0.99)
    assert wider.low <= interval.low < interval.high <= wider.high
    narrow = bootstrap_interval(np.tile(labels, 16), np.tile(scores, 16), average_precision, n=200)
    assert narrow.high - narrow.low < interval.high - interval.low


def test_bootstrap_leaves_out_undefined_resamples_silently():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bootstrap_interval([0, 0, 1], [0.1, 0.2, 0.3], n=50) == (1.0, 1.0)
    with pytest.warns(UndefinedMetricWarning, match="every resample"):
        assert math.isnan(bootstrap_interval([1, 1], [0.1, 0.2], n=5).low)


@pytest.mark.parametrize("bad", [{"n": 0}, {"level": 1.0}])
def test_bootstrap_options_are_checked(bad):
    with pytest.raises(MetricInputError):
        bootstrap_interval([0, 1], [0.1, 0.2], **bad)
    with pytest.raises(MetricInputError, match="one row per image"):
        bootstrap_interval([0, 1], [0.1])


@pytest.mark.filterwarnings("ignore::blemish.metrics.UndefinedMetricWarning")
@pytest.mark.parametrize("seed", [0, 1])
def test_resampled_image_metrics_are_those_of_the_metrics(seed, monkeypatch):
    monkeypatch.setattr(bootstrap, "_CELLS", 500)  # several chunks
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 9)
    scores = (labels + rng.normal(0, 1, 9)).round(seed)  # with ties
    resamples = bootstrap_image_metrics(labels, scores, 200, seed)
    expected = {auroc: [], average_precision: []}
    for metric, values in zip(expected, resamples, strict=True):

        def recorded(*data, metric=metric):
            expected[metric].append(metric(*data))
            return expected[metric][-1]

        interval = bootstrap_interval(labels, scores, recorded, 200, seed)
        np.testing.assert_allclose(values, expected[metric], rtol=0, atol=1e-12)
        assert percentile_interval(values) == pytest.approx(interval, abs=1e-12)


def test_percentile_interval_leaves_out_nan():
    values = np.append(np.arange(101.0), math.nan)
    assert percentile_interval(values) == (2.5, 97.5)
    assert percentile_interval(values, 0.1, 0.5) == (10, 50)
    assert all(math.isnan(end) for end in percentile_interval([math.nan]))


@pytest.mark.parametrize("bad", [([0, 1], [0.1]), ([[0, 1]], [[0.1, 0.2]]), ([], []), ([0, 2], [0.1, 0.2])])
def test_resampled_image_metrics_check_their_input(bad):
    with pytest.raises(MetricInputError):
        bootstrap_image_metrics(*bad)
