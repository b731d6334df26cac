"""The streaming histogram stays within its own error bounds."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import sample
from sklearn.metrics import f1_score, jaccard_score

from blemish.metrics import MetricInputError, StreamingPixelMetrics, pixel_metrics

BOUNDED = ("auroc", "ap", "f1_max", "iou", "aupro")


def streamed(masks, maps, bits=22):
    stream = StreamingPixelMetrics(bits)
    for mask, scores in zip(masks, maps, strict=True):
        stream.update(mask, scores)
    return stream


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([10, 11, 13, 16]),
    st.sampled_from([None, 3, 30]),
    st.sampled_from([0.02, 0.3, 1.0]),
    st.sampled_from([(0.0, 1.0), (5.0, 1.0), (1.0, 0.001), (-40.0, 7.0)]),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_the_error_never_exceeds_the_bound(seed, bits, distinct, limit, move, dtype):
    masks, maps = sample(seed, levels=distinct, share=(seed % 8 + 1) / 10)
    maps = (maps * move[1] + move[0]).astype(dtype)
    exact = pixel_metrics(masks, maps, fpr_limit=limit)
    result = streamed(masks, maps, bits).compute(fpr_limit=limit)
    for name in BOUNDED:
        assert abs(getattr(result, name) - getattr(exact, name)) <= getattr(result.error, name), name
    assert result.f1_max <= exact.f1_max + 1e-12
    if dtype is not np.float64:
        predicted = maps.ravel() >= np.float32(result.f1_threshold)
        assert f1_score(masks.ravel(), predicted) == pytest.approx(result.f1_max, abs=1e-12)
        assert jaccard_score(masks.ravel(), predicted) == pytest.approx(result.iou, abs=1e-12)


def test_the_bound_is_small_for_ordinary_maps():
    masks, maps = sample(3, shape=(6, 80, 80), share=0.05)
    error = streamed(masks, 1 / (1 + np.exp(-maps))).compute().error
    assert error.auroc < 5e-5
    assert max(error.ap, error.f1_max, error.iou, error.aupro) < 5e-4


def test_the_bound_is_honest_when_bins_hide_the_order():
    masks, maps = sample(4)
    result = streamed(masks, 1000 + maps * 1e-4, bits=10).compute()
    assert result.auroc == 0.5
    assert result.error.auroc == pytest.approx(0.5)


def test_values_on_bin_edges_are_exact():
    masks, maps = sample(5, levels=9)
    maps = np.round(maps * 9) / 16
    exact, result = pixel_metrics(masks, maps), streamed(masks, maps).compute()
    for name in (*BOUNDED, "f1_threshold"):
        assert getattr(result, name) == pytest.approx(getattr(exact, name), abs=1e-12)


def test_merging_shards_changes_nothing():
    masks, maps = sample(6, shape=(5, 9, 11))
    whole = streamed(masks, maps).compute()
    first, second = streamed(masks[:2], maps[:2]), pickle.loads(pickle.dumps(streamed(masks[2:], maps[2:])))
    first.merge(second)
    merged = first.compute()
    for name in BOUNDED:
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), abs=1e-13)
    with pytest.raises(MetricInputError, match="cannot be merged"):
        first.merge(StreamingPixelMetrics(16))


def test_images_without_masks_and_reading_midway():
    masks, maps = sample(7)
    stream = streamed(masks, maps)
    early = stream.compute()
    stream.update(None, np.full((30, 20), 9.0))
    late = stream.compute()
    assert late.auroc < early.auroc
    stacked = [*masks, np.zeros((30, 20))], [*maps, np.full((30, 20), 9.0)]
    assert late.auroc == pytest.approx(pixel_metrics(*stacked).auroc, abs=late.error.auroc)


def test_undefined_and_bad_input():
    stream = StreamingPixelMetrics(12)
    with pytest.raises(MetricInputError, match="nothing to measure"):
        stream.compute()
    stream.update(None, np.zeros((2, 2)))
    result = stream.compute()
    assert math.isnan(result.auroc)
    assert math.isnan(result.error.ap)
    assert result.undefined["iou"] == "nothing is labelled anomalous"
    for mask, scores in ((np.ones((2, 3)), np.ones((2, 2))), (None, np.full((2, 2), 1e300)), (None, np.zeros(3))):
        with pytest.raises(MetricInputError):
            stream.update(mask, scores)
    only = StreamingPixelMetrics(12)
    only.update(np.ones((2, 2)), np.ones((2, 2)))
    result = only.compute()
    assert set(result.undefined) == {"auroc", "aupro"}
    assert result.f1_max == result.ap == 1.0
    with pytest.raises(MetricInputError, match="bits"):
        StreamingPixelMetrics(9)
    with pytest.raises(MetricInputError, match="fpr_limit"):
        only.compute(fpr_limit=0)
