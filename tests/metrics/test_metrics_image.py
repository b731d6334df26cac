"""Image metrics and curves against scikit-learn, and edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from blemish.errors import UsageError
from blemish.metrics import (
    MetricInputError,
    UndefinedMetricWarning,
    auroc,
    average_precision,
    f1_max,
    fpr_at_tpr,
    image_metrics,
    precision_recall_curve,
    roc_curve,
    tpr_at_fpr,
)

finite = st.floats(-1e6, 1e6, width=32)


@st.composite
def labelled(draw, values=finite):
    scores = draw(st.lists(values, min_size=2, max_size=60))
    labels = draw(st.lists(st.integers(0, 1), min_size=len(scores), max_size=len(scores)))
    labels[0], labels[1] = 0, 1
    return np.array(labels), np.array(scores, dtype=np.float64)


def sklearn_f1(labels, scores):
    precision, recall, thresholds = sk.precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        f1 = (2 * precision * recall / (precision + recall))[:-1]
    best = np.nanmax(f1)
    return best, thresholds[np.flatnonzero(np.isclose(f1, best, rtol=0, atol=1e-14))[0]]


@settings(max_examples=80, deadline=None)
@given(st.one_of(labelled(), labelled(st.sampled_from([-1.0, 0.0, -0.0, 0.5, 2.0]))))
def test_agrees_with_sklearn_with_and_without_ties(data):
    labels, scores = data
    result = image_metrics(labels, scores)
    assert result.auroc == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert result.ap == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)
    best, threshold = sklearn_f1(labels, scores)
    assert result.f1_max == pytest.approx(best, abs=1e-12)
    assert result.f1_threshold == threshold
    predicted = scores >= result.f1_threshold
    assert sk.f1_score(labels, predicted) == pytest.approx(result.f1_max, abs=1e-12)
    assert (result.auroc, result.ap) == (auroc(labels, scores), average_precision(labels, scores))
    assert (result.f1_max, result.f1_threshold) == f1_max(labels, scores)
    assert not result.undefined


@settings(max_examples=30, deadline=None)
@given(labelled(st.integers(-40, 40).map(float)))
def test_only_the_order_counts(data):
    labels, scores = data
    plain = image_metrics(labels, scores)
    for bent in (np.exp(scores / 10), scores**3 - 7, np.float32(scores) * 1e-30, 1 - 1 / (scores + 100)):
        result = image_metrics(labels, bent)
        assert (result.auroc, result.ap, result.f1_max) == (plain.auroc, plain.ap, plain.f1_max)
    assert auroc(labels, -scores) == pytest.approx(1 - plain.auroc, abs=1e-12)


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4", np.int8, np.uint16, np.int64, bool]
)
def test_every_real_dtype(dtype):
    rng = np.random.default_rng(3)
    labels, scores = rng.integers(0, 2, 300), (rng.normal(size=300) * 20).clip(-100, 100)
    scores = (scores > 0).astype(dtype) if dtype is bool else np.abs(scores).astype(dtype)
    assert auroc(labels, scores) == pytest.approx(sk.roc_auc_score(labels, scores.astype(float)), abs=1e-12)


def test_values_beyond_the_unit_interval_are_not_squashed():
    labels, scores = [0, 0, 1, 1], [50.0, 100.0, 200.0, 270.0]
    assert auroc(labels, scores) == 1.0


def test_float64_differences_survive():
    scores = 1.0 + np.array([0, 1, 2, 3]) * 2.0**-50
    assert auroc([0, 1, 0, 1], scores) == 0.75


def test_only_normal_images_is_nan_with_a_reason():
    result = image_metrics([0, 0], [0.1, 0.2])
    assert all(math.isnan(value) for value in (result.auroc, result.ap, result.f1_max, result.f1_threshold))
    assert result.undefined["ap"] == "nothing is labelled anomalous"
    for metric in (auroc, average_precision, f1_max):
        with pytest.warns(UndefinedMetricWarning, match="nothing is labelled anomalous"):
            metric([0, 0], [0.1, 0.2])


def test_only_anomalous_images_leaves_the_precision_metrics():
    result = image_metrics([1, 1], [0.1, 0.2])
    assert math.isnan(result.auroc)
    assert (result.ap, result.f1_max, result.f1_threshold) == (1.0, 1.0, pytest.approx(0.1))
    assert set(result.undefined) == {"auroc"}
    with pytest.warns(UndefinedMetricWarning, match="everything is labelled anomalous"):
        auroc([1, 1], [0.1, 0.2])


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1, 0], [0.1, math.nan, 1.0], r"scores must be finite.* 1 of 3 .* first at \[1\]"),
        ([0, 1], [0.1, math.inf], "finite"),
        ([0, 1, 1], [0.1, 0.2], "one shape"),
        ([0, 255], [0.1, 0.2], "hold 255"),
        ([-1, 1], [0.1, 0.2], "hold -1"),
        ([0, math.nan], [0.1, 0.2], "hold nan"),
        (["a", "b"], [0.1, 0.2], "0 or 1"),
        ([0, 1], ["a", "b"], "real numbers"),
        ([0, 1], [1j, 2j], "real numbers"),
        ([], [], "empty"),
        ([0, 1], [[0.1], [0.2, 0.3]], "cannot be read"),
    ],
)
def test_bad_input_is_named(labels, scores, message):
    for metric in (image_metrics, auroc, average_precision, f1_max):
        with pytest.raises(MetricInputError, match=message) as caught:
            metric(labels, scores)
    assert isinstance(caught.value, UsageError)
    assert isinstance(caught.value, ValueError)


@settings(max_examples=40, deadline=None)
@given(st.one_of(labelled(), labelled(st.sampled_from([-1.0, 0.0, 0.5, 2.0]))))
def test_curves_agree_with_sklearn_and_the_metrics(data):
    labels, scores = data
    roc = roc_curve(labels, scores)
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc, (fpr, tpr), rtol=0, atol=1e-12)
    assert sk.auc(*roc) == pytest.approx(auroc(labels, scores), abs=1e-12)
    curve = precision_recall_curve(labels, scores)
    assert sk.auc(*curve) == pytest.approx(average_precision(labels, scores), abs=1e-12)
    for share in (0.0, 0.1, 0.5, 1.0):
        assert tpr_at_fpr(labels, scores, share) == max(tpr[fpr <= share])
        assert fpr_at_tpr(labels, scores, share) == min(fpr[tpr >= share])


def test_curves_with_one_label():
    roc = roc_curve([0, 0], [0.1, 0.2])
    assert (roc.x.tolist(), roc.y.tolist()) == ([0, 0.5, 1], [0, 0, 0])
    assert precision_recall_curve([0, 0], [0.1, 0.2]).x.size == 0
    assert math.isnan(fpr_at_tpr([0, 0], [0.1, 0.2], 0.9))
    assert tpr_at_fpr([1, 1], [0.1, 0.2], 0.0) == 1
