"""Pixel metrics against scikit-learn and brute force, over shapes, dtypes and ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import brute_aupro, sample, stepped_aupro
from sklearn import metrics as sk

from blemish.metrics import (
    ImageMetrics,
    MetricInputError,
    PixelMetrics,
    UndefinedMetricWarning,
    aupro,
    aupro_200,
    auroc,
    average_precision,
    bootstrap_interval,
    class_mean,
    f1_max,
    pixel_metrics,
)
from blemish.metrics.pixel import rank_pixels
from blemish.metrics.ranking import levels

NAMES = ("auroc", "ap", "f1_max", "f1_threshold", "iou", "aupro")


def numbers(metrics):
    return [getattr(metrics, name) for name in NAMES]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 2, 3, 7, 40]), st.sampled_from([0.05, 0.3, 0.77, 1.0]))
def test_agrees_with_sklearn_and_brute_force(seed, distinct, limit):
    masks, maps = sample(seed, levels=distinct, share=(seed % 7 + 1) / 10)
    result = pixel_metrics(masks, maps, fpr_limit=limit)
    flat, scores = masks.ravel(), maps.ravel()
    assert result.auroc == pytest.approx(sk.roc_auc_score(flat, scores), abs=1e-12)
    assert result.ap == pytest.approx(sk.average_precision_score(flat, scores), abs=1e-12)
    predicted = scores >= result.f1_threshold
    assert result.f1_max == pytest.approx(sk.f1_score(flat, predicted), abs=1e-12)
    tried = [scores >= threshold for threshold in np.unique(scores)]
    assert result.f1_max >= max(2 * (flat & hit).sum() / (flat.sum() + hit.sum()) for hit in tried) - 1e-12
    assert result.iou == pytest.approx(sk.jaccard_score(flat, predicted), abs=1e-12)
    assert result.aupro == pytest.approx(brute_aupro(masks, maps, limit), abs=1e-12)
    assert 0.0 <= result.aupro <= 1.0
    assert result.aupro == aupro(masks, maps, fpr_limit=limit)
    assert not result.undefined


@pytest.mark.filterwarnings("ignore::blemish.metrics.UndefinedMetricWarning")
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 5, 30]), st.sampled_from([200, 37]))
def test_steps_agree_with_the_plain_version(seed, distinct, steps):
    masks, maps = sample(seed, levels=distinct)
    normal = maps[masks == 0]
    if np.mean(normal == normal.max()) >= 0.3 or np.unique(normal).size < 3:
        return
    result = aupro_200(masks, maps, steps=steps)
    if math.isnan(result):
        return
    assert result == pytest.approx(stepped_aupro(masks, maps, steps=steps), abs=1e-10)
    assert result == pixel_metrics(masks, maps, steps=steps).aupro


def test_steps_take_float64_maps_as_they_are():
    masks, maps = sample(4, dtype=np.float64)
    assert aupro_200(masks, maps) == pytest.approx(stepped_aupro(masks, maps), abs=1e-10)


@pytest.mark.parametrize("block", [1, 2, 3, 10, 10**6])
@pytest.mark.parametrize("distinct", [None, 4])
def test_blocks_do_not_show(block, distinct):
    ranking = rank_pixels(*sample(11, levels=distinct))
    whole = next(levels(ranking))
    parts = list(levels(ranking, block))
    for name in ("scores", "tp", "fp", "fp_above", "pro"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(joined, getattr(whole, name), rtol=0, atol=1e-13)


def test_only_the_order_counts():
    masks, maps = sample(21, dtype=np.float64, levels=50)
    plain = pixel_metrics(masks, maps)
    for bent in (np.exp(3 * maps), maps**3 - 2, np.sqrt(maps), maps * 1e-300, (maps * 1e4).astype(np.float32)):
        result = pixel_metrics(masks, bent)
        assert [result.auroc, result.ap, result.f1_max, result.iou, result.aupro] == [
            plain.auroc, plain.ap, plain.f1_max, plain.iou, plain.aupro
        ]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_precision_of_the_maps_does_not_matter(dtype):
    masks, maps = sample(22, dtype=dtype)
    assert numbers(pixel_metrics(masks, maps)) == numbers(pixel_metrics(masks, maps.astype(np.float64)))
    assert numbers(pixel_metrics(masks.astype(bool), maps)) == numbers(pixel_metrics(masks.astype(dtype), maps))


def test_every_way_to_pass_images():
    masks, maps = sample(23)
    stacked = numbers(pixel_metrics(masks, maps))
    assert numbers(pixel_metrics(list(masks), tuple(maps))) == stacked
    assert numbers(pixel_metrics(iter(masks), (one for one in maps))) == stacked
    assert numbers(pixel_metrics(masks.tolist(), maps.tolist())) == pytest.approx(stacked, abs=1e-12)
    assert numbers(pixel_metrics(masks, np.asfortranarray(maps))) == stacked
    assert numbers(pixel_metrics(masks[:, ::-1, ::2], maps[:, ::-1, ::2])) == numbers(
        pixel_metrics(masks[:, ::-1, ::2].copy(), maps[:, ::-1, ::2].copy())
    )
    mixed = [maps[0], maps[1].astype(np.float64), maps[2]]
    assert numbers(pixel_metrics(masks, mixed)) == stacked
    assert numbers(pixel_metrics(masks, mixed[::-1])) == numbers(pixel_metrics(masks, maps[::-1]))
    assert numbers(pixel_metrics(masks[0], maps[0])) == numbers(pixel_metrics(masks[:1], maps[:1]))


def test_a_lone_float64_map_without_normal_pixels():
    ones, normal = np.ones((2, 2)), np.zeros((2, 2))
    result = pixel_metrics([ones, None], [ones + 1e-12, normal.astype(np.float32)])
    assert result.auroc == result.aupro == 1.0


def test_the_arguments_are_left_alone():
    masks, maps = sample(24)
    kept = masks.copy(), maps.copy()
    pixel_metrics(masks, maps, steps=200)
    np.testing.assert_array_equal(masks, kept[0])
    np.testing.assert_array_equal(maps, kept[1])


def test_images_of_different_sizes():
    pieces = [sample(seed, shape=(1, 5 + seed, 30 - 2 * seed)) for seed in range(8)]
    masks, maps = [piece[0][0] for piece in pieces], [piece[1][0] for piece in pieces]
    result = pixel_metrics(masks, maps)
    flat, scores = np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps])
    assert result.auroc == auroc(flat, scores)
    assert result.ap == average_precision(flat, scores)
    assert (result.f1_max, result.f1_threshold) == f1_max(flat, scores)
    assert result.aupro == pytest.approx(brute_aupro(masks, maps), abs=1e-12)


def test_many_images_grow_the_buffer():
    masks, maps = sample(25, shape=(40, 64, 64), share=0.01)
    assert numbers(pixel_metrics(iter(masks), iter(maps))) == numbers(pixel_metrics(masks, maps))


def test_corners_join_regions():
    mask = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    scores = np.array([[9, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]])
    # Of two regions (not three) one half is found before the first false positive.
    assert aupro([mask], [scores], fpr_limit=1e-9) == pytest.approx(0.25)


def test_a_region_counts_the_same_whatever_its_size():
    mask, scores = np.zeros((20, 20)), np.zeros((20, 20))
    mask[:10, :10], mask[15, 15] = 1, 1
    scores[15, 15] = 1
    assert aupro(mask, scores, fpr_limit=1e-6) == pytest.approx(0.5, abs=1e-6)


def test_vcp_leaves_out_the_pixels_at_the_threshold():
    masks, maps = sample(26, levels=6)
    plain, variant = pixel_metrics(masks, maps), pixel_metrics(masks, maps, vcp=True)
    assert variant.f1_max == pytest.approx(plain.f1_max, abs=1e-7)
    assert variant.iou == pytest.approx(sk.jaccard_score(masks.ravel(), maps.ravel() > variant.f1_threshold), abs=1e-12)
    assert variant.iou < plain.iou


def test_perfect_and_constant_maps():
    masks, _ = sample(27)
    perfect = pixel_metrics(masks, masks * 1.0)
    assert numbers(perfect) == [1.0] * 6
    constant = pixel_metrics(masks, np.full(masks.shape, 0.4))
    assert (constant.auroc, constant.ap) == (0.5, pytest.approx(masks.mean()))
    assert constant.aupro == pytest.approx(0.15)
    for maps, reason in ((masks * 1.0, "fewer than two"), (np.full(masks.shape, 0.4), "constant")):
        result = pixel_metrics(masks, maps, steps=200)
        assert math.isnan(result.aupro)
        assert reason in result.undefined["aupro"]
        assert result.auroc in (0.5, 1.0)
        with pytest.warns(UndefinedMetricWarning, match=reason):
            aupro_200(masks, maps)
    wide = np.where(masks, 3e38, -3e38).astype(np.float32)
    assert "too wide" in pixel_metrics(masks, wide, steps=200).undefined["aupro"]


def test_without_anomalous_or_without_normal_pixels():
    maps = np.arange(12.0).reshape(1, 3, 4)
    for masks in (np.zeros((1, 3, 4)), [None]):
        result = pixel_metrics(masks, maps)
        assert all(math.isnan(value) for value in numbers(result))
        assert set(result.undefined) == set(NAMES)
        for metric in (aupro, aupro_200):
            with pytest.warns(UndefinedMetricWarning, match="nothing is labelled anomalous"):
                assert math.isnan(metric(masks, maps))
    result = pixel_metrics(np.ones((1, 3, 4)), maps, steps=200)
    assert set(result.undefined) == {"auroc", "aupro"}
    assert (result.ap, result.f1_max, result.iou) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("masks", "maps", "message"),
    [
        (np.zeros((2, 3, 3)), np.zeros((3, 3, 3)), "only 2 masks"),
        (np.zeros((3, 3, 3)), iter(np.zeros((2, 3, 3))), "only 2 maps"),
        (np.zeros((2, 3, 3)), np.zeros((2, 3, 4)), "mask of image 0 must be as large"),
        (np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 3, 3)), "map of image 0 must be .height, width."),
        ([None], [np.zeros((3, 3, 1))], "map of image 0 must be .height, width."),
        (np.full((2, 3, 3), 255), np.zeros((2, 3, 3)), "threshold them first"),
        (np.full((2, 3, 3), 0.5), np.zeros((2, 3, 3)), "hold 0.5"),
        (np.zeros((1, 2, 2)), np.full((1, 2, 2), np.nan), "map of image 0 must be finite, but 4 of 4"),
        ([None] * 3, [*np.zeros((2, 2, 2)), np.array([[0, 1], [np.inf, 2]])], r"image 2 .* first at \[1, 0\]"),
        ([], [], "nothing to measure"),
        (None, np.zeros((2, 3, 3)), "masks must be one array per image, not NoneType"),
        ([None], [[[1.0, 2.0], [3.0]]], "map of image 0 cannot be read as an array"),
        ([None], [np.zeros((0, 4))], "nothing to measure"),
    ],
)
def test_bad_images_are_named(masks, maps, message):
    with pytest.raises(MetricInputError, match=message):
        pixel_metrics(masks, maps)


@pytest.mark.parametrize("options", [{"fpr_limit": 0.0}, {"fpr_limit": 1.1}, {"fpr_limit": math.nan}, {"steps": 0}])
def test_bad_options_are_named(options):
    with pytest.raises(MetricInputError, match="must be"):
        pixel_metrics(*sample(1), **options)


def test_class_mean_is_unweighted_and_names_what_is_missing():
    first, second = pixel_metrics(*sample(1)), pixel_metrics(*sample(2, shape=(9, 5, 5)))
    mean = class_mean({"a": first, "b": second})
    assert isinstance(mean, PixelMetrics)
    assert numbers(mean) == pytest.approx([(x + y) / 2 for x, y in zip(numbers(first), numbers(second), strict=True)])
    lacking = ImageMetrics(math.nan, 1.0, 1.0, 0.2, {"auroc": "everything is labelled anomalous"})
    mean = class_mean({"a": ImageMetrics(0.5, 0.5, 0.5, 0.5), "b": lacking})
    assert math.isnan(mean.auroc)
    assert mean.undefined == {"auroc": "b: everything is labelled anomalous"}
    assert mean.ap == 0.75
    with pytest.raises(MetricInputError):
        class_mean({})


def test_bootstrap_over_images_of_a_pixel_metric():
    masks, maps = sample(28, shape=(12, 10, 10))
    interval = bootstrap_interval(masks, maps, aupro, n=40)
    assert interval.low < aupro(masks, maps) < interval.high
