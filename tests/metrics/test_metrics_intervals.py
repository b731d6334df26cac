"""Bootstrap intervals of pixel metrics: those of the exact metrics, resample by resample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import sample

from blemish.metrics import MetricInputError, PixelBootstrap, aupro, auroc, bootstrap_interval


def gathered(masks, maps, **options):
    boot = PixelBootstrap(**options)
    for mask, scores in zip(masks, maps, strict=True):
        boot.update(mask, scores)
    return boot


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 5, 40]), st.sampled_from([0.05, 0.3, 1.0]))
def test_is_the_bootstrap_of_the_exact_metrics(seed, distinct, limit):
    masks, maps = sample(seed, shape=(9, 10, 11), levels=distinct, share=(seed % 4 + 1) / 10)
    found = gathered(masks, maps, seed=seed).intervals(60, fpr_limit=limit)
    exact = bootstrap_interval(masks, maps, auroc, 60, seed)
    assert found.auroc == pytest.approx(exact, abs=2e-3)
    exact = bootstrap_interval(masks, maps, lambda m, s: aupro(m, s, fpr_limit=limit), 60, seed)
    assert found.aupro == pytest.approx(exact, abs=1e-2 if limit == 0.05 else 3e-3)


def test_few_pixels_of_each_picture_tell_nearly_the_same():
    masks, maps = sample(3, shape=(20, 90, 80), share=0.0)
    masks[:10, 20:60, 30:70] = 1
    maps += masks * np.linspace(0, 2, 20)[:, None, None]  # some pictures are easy, some are not
    whole, some = gathered(masks, maps, pixels=10**6).intervals(), gathered(masks, maps, pixels=400).intervals()
    np.testing.assert_allclose(some.auroc, whole.auroc, rtol=0, atol=0.015)
    np.testing.assert_allclose(some.aupro, whole.aupro, rtol=0, atol=0.03)
    assert whole.auroc.high - whole.auroc.low > 0.1
    assert some == gathered(masks, maps, pixels=400).intervals()
    assert some != gathered(masks, maps, pixels=400, seed=1).intervals()


def test_pictures_are_drawn_not_pixels():
    # Two kinds of pictures, each all right or all wrong: however many pixels, little is known from four pictures.
    mask = np.zeros((50, 50))
    mask[10:20, 10:20] = 1
    found = gathered([mask] * 4, [mask, 1 - mask] * 2).intervals()
    assert found.auroc == pytest.approx((0, 1), abs=1e-6)


def test_small_regions_count_like_large_ones():
    mask, scores = np.zeros((60, 60)), np.zeros((60, 60))
    mask[:40, :40], mask[50, 50] = 1, 1
    scores[50, 50] = 1
    found = gathered([mask], [scores], pixels=100).intervals(3, fpr_limit=1e-6)
    assert found.aupro == pytest.approx((0.5, 0.5), abs=1e-6)


def test_undefined_and_bad_input():
    maps = np.arange(12.0).reshape(3, 4)
    for masks in ([None, None], [np.ones((3, 4)), np.ones((3, 4))]):
        found = gathered(masks, [maps, maps]).intervals()
        assert all(math.isnan(end) for interval in found for end in interval)
    # Resamples without the one anomalous picture are left out.
    found = gathered([None, maps > 10], [maps, maps]).intervals(50)
    assert not any(math.isnan(end) for interval in found for end in interval)
    with pytest.raises(MetricInputError, match="finite"):
        PixelBootstrap().update(None, maps * np.nan)
    for wrong in ({"n": 0}, {"level": 1.0}, {"fpr_limit": 0.0}):
        with pytest.raises(MetricInputError, match="must be"):
            gathered([maps > 10], [maps]).intervals(**wrong)
