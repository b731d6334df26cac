"""Random edge cases: one label only, masks without an anomaly, scores that are not numbers."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import brute_aupro, sample

from blemish.metrics import (
    MetricInputError,
    StreamingPixelMetrics,
    UndefinedMetricWarning,
    aupro,
    auroc,
    average_precision,
    f1_max,
    image_metrics,
    pixel_metrics,
)

scores = st.lists(st.one_of(st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, 0.5])), min_size=1, max_size=40)
seeds = st.integers(0, 10**6)


@given(scores, st.booleans())
def test_one_label_only(values, anomalous):
    labels = np.full(len(values), int(anomalous))
    result = image_metrics(labels, values)
    assert math.isnan(result.auroc)
    assert math.isnan(result.ap) != anomalous
    assert math.isnan(result.f1_max) != anomalous
    missing = {name for name in ("auroc", "ap", "f1_max", "f1_threshold") if math.isnan(getattr(result, name))}
    assert set(result.undefined) == missing
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the reasons are in `undefined`, so nothing warns
        image_metrics(labels, values)
    with pytest.warns(UndefinedMetricWarning, match="labelled anomalous"):
        auroc(labels, values)


@given(scores, st.data())
def test_a_score_that_is_no_number_is_named(values, data):
    position = data.draw(st.integers(0, len(values) - 1))
    values[position] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    labels = data.draw(st.lists(st.integers(0, 1), min_size=len(values), max_size=len(values)))
    for metric in (image_metrics, auroc, average_precision, f1_max):
        with pytest.raises(MetricInputError, match=rf"finite.* 1 of {len(values)} .* first at \[{position}\]"):
            metric(labels, values)


@given(seeds, st.lists(st.sampled_from(["marked", "none", "zeros"]), min_size=1, max_size=5))
def test_masks_without_an_anomaly(seed, kinds):
    masks, maps = sample(seed, shape=(len(kinds), 7, 8), levels=seed % 9 + 2, share=0.2)
    masks[[kind != "marked" for kind in kinds]] = 0
    given = [None if kind == "none" else mask for kind, mask in zip(kinds, masks, strict=True)]
    result = pixel_metrics(given, maps)
    assert repr(result) == repr(pixel_metrics(masks, maps))
    stream = StreamingPixelMetrics()
    for mask, values in zip(given, maps, strict=True):
        stream.update(mask, values)
    assert stream.compute().auroc == pytest.approx(result.auroc, abs=1e-3, nan_ok=True)
    if masks.any():
        assert result.aupro == pytest.approx(brute_aupro(masks, maps), abs=1e-12)
        return
    assert math.isnan(result.auroc)
    assert set(result.undefined) == {"auroc", "ap", "f1_max", "f1_threshold", "iou", "aupro"}
    with pytest.warns(UndefinedMetricWarning, match="nothing is labelled anomalous"):
        aupro(given, maps)


@given(seeds, st.integers(0, 3), st.integers(0, 6), st.integers(0, 7))
def test_a_map_that_is_no_number_names_its_image(seed, image, row, column):
    masks, maps = sample(seed, shape=(4, 7, 8))
    maps[image, row, column] = math.nan
    with pytest.raises(MetricInputError, match=rf"image {image} must be finite.* first at \[{row}, {column}\]"):
        pixel_metrics(masks, maps)
