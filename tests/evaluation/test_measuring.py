"""Measuring: several methods at once, from maps in memory, as far as they fit."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_trees import evaluate, numbers, options

from blemish import OutputError, datasets
from blemish.clip import Backbone
from blemish.evaluation import EvaluationFolder, folder, measure, prepare, run
from blemish.evaluation import options as option_module


@pytest.fixture
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_two_methods_are_measured_at_once(data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    original, barrier = measure.measure_category, threading.Barrier(2, timeout=60)

    def together(*args: object) -> object:
        barrier.wait()  # breaks unless another method is being measured
        return original(*args)  # type: ignore[arg-type]

    expected = numbers(evaluate(data, backbone))
    monkeypatch.setattr(run, "measure_category", together)
    assert numbers(evaluate(data, backbone)) == expected


@pytest.mark.usefixtures("two_threads")
def test_no_more_are_measured_at_once_than_fit_into_memory(
    data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, maximum, original = [0], [0], measure.measure_category

    def counted(*args: object) -> object:
        busy[0] += 1
        maximum[0] = max(maximum[0], busy[0])
        result = original(*args)  # type: ignore[arg-type]
        busy[0] -= 1
        return result

    monkeypatch.setattr(run, "measure_category", counted)
    side = 518
    monkeypatch.setattr(option_module, "MAX_EXACT_PIXELS", 8 * side**2)  # one category
    evaluate(data, backbone)
    assert maximum == [1]


@pytest.mark.usefixtures("two_threads")
def test_errors_while_measuring_are_raised(
    data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object) -> object:
        raise OutputError("the disk is full.", "maps")

    with monkeypatch.context() as broken:
        broken.setattr(run, "measure_category", fails)
        with pytest.raises(OutputError, match="disk is full"):
            evaluate(data, backbone, out=tmp_path / "out")
    with prepare(options(data, backbone, out=tmp_path / "out")) as prepared:
        assert prepared.todo == 16  # of the second category; scores and maps of the first one are there
        assert numbers(prepared.execute()) == numbers(evaluate(data, backbone))


def test_windows_have_their_own_precision_in_a_shared_pass(
    data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, passes: list[int]
) -> None:
    monkeypatch.setattr("blemish.loading.has_bfloat16_units", lambda device: True)
    both = evaluate(data, backbone, methods=["clip-ad", "winclip"], categories=["grid"])
    assert passes == [8]
    assert [method["precision"] for method in both.facts["methods"].values()] == [
        "float32",
        "float32, windows bfloat16",
    ]
    for name in ("clip-ad", "winclip"):
        alone = evaluate(data, backbone, methods=[name], categories=["grid"])
        for metric in ("image_f1_threshold", "pixel_auroc", "pixel_f1_threshold"):
            found, expected = getattr(both.row(name, "grid"), metric), getattr(alone.row(name, "grid"), metric)
            assert found == pytest.approx(expected, abs=1e-5), metric


def test_maps_stay_in_memory_until_they_are_measured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [np.full((8, 8), number, np.float32) for number in range(3)]
    monkeypatch.setattr(folder, "MAP_CACHE_BYTES", 2 * values[0].nbytes)
    samples = list(datasets.read("folder", data))[:3]
    with EvaluationFolder(tmp_path / "out", data) as kept:
        for sample, anomaly_map in zip(samples, values, strict=True):
            kept.write_map("clip", sample, anomaly_map)
        for sample in samples:
            np.save(kept.map_path("clip", sample), np.full((8, 8), 9, np.float32))
        assert [float(kept.read_map("clip", sample)[0, 0]) for sample in samples] == [0, 1, 9]  # the third did not fit
        kept.write_map("clip", samples[0], values[2])
        assert kept.read_map("clip", samples[0])[0, 0] == 2
        kept.clear_map_cache()
        assert [float(kept.read_map("clip", sample)[0, 0]) for sample in samples] == [2, 9, 9]


def test_masks_are_read_once_by_all_threads(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, calls = measure.MaskCache(), []
    sample = next(sample for sample in datasets.read("folder", data) if sample.label)
    original = measure.read_mask
    monkeypatch.setattr(measure, "read_mask", lambda *args: (calls.append(args), original(*args))[1])
    threads = [threading.Thread(target=masks, args=(sample, 64)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
