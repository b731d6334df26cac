"""Random cases at the edges: one label only, masks without an anomaly, scores that are no numbers."""

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
    found = image_metrics(labels, values)
    assert math.isnan(found.auroc)
    assert math.isnan(found.ap) != anomalous
    assert math.isnan(found.f1_max) != anomalous
    missing = {name for name in ("auroc", "ap", "f1_max", "f1_threshold") if math.isnan(getattr(found, name))}
    assert set(found.undefined) == missing
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is undefined is said beside the numbers, so nothing warns here
        image_metrics(labels, values)
    with pytest.warns(UndefinedMetricWarning, match="labelled anomalous"):
        auroc(labels, values)


@given(scores, st.data())
def test_a_score_that_is_no_number_is_named(values, data):
    place = data.draw(st.integers(0, len(values) - 1))
    values[place] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    labels = data.draw(st.lists(st.integers(0, 1), min_size=len(values), max_size=len(values)))
    for metric in (image_metrics, auroc, average_precision, f1_max):
        with pytest.raises(MetricInputError, match=rf"finite.* 1 of {len(values)} .* first at \[{place}\]"):
            metric(labels, values)


@given(seeds, st.lists(st.sampled_from(["marked", "none", "zeros"]), min_size=1, max_size=5))
def test_masks_without_an_anomaly(seed, kinds):
    masks, maps = sample(seed, shape=(len(kinds), 7, 8), levels=seed % 9 + 2, share=0.2)
    masks[[kind != "marked" for kind in kinds]] = 0
    told = [None if kind == "none" else mask for kind, mask in zip(kinds, masks, strict=True)]
    found = pixel_metrics(told, maps)
    assert repr(found) == repr(pixel_metrics(masks, maps))
    stream = StreamingPixelMetrics()
    for mask, values in zip(told, maps, strict=True):
        stream.update(mask, values)
    assert stream.compute().auroc == pytest.approx(found.auroc, abs=1e-3, nan_ok=True)
    if masks.any():
        assert found.aupro == pytest.approx(brute_aupro(masks, maps), abs=1e-12)
        return
    assert math.isnan(found.auroc)
    assert set(found.undefined) == {"auroc", "ap", "f1_max", "f1_threshold", "iou", "aupro"}
    with pytest.warns(UndefinedMetricWarning, match="nothing is labelled anomalous"):
        aupro(told, maps)


@given(seeds, st.integers(0, 3), st.integers(0, 6), st.integers(0, 7))
def test_a_map_that_is_no_number_names_its_picture(seed, picture, row, column):
    masks, maps = sample(seed, shape=(4, 7, 8))
    maps[picture, row, column] = math.nan
    with pytest.raises(MetricInputError, match=rf"picture {picture} must be finite.* first at \[{row}, {column}\]"):
        pixel_metrics(masks, maps)
