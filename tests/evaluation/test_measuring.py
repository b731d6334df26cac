"""Measuring: side by side, from maps in memory, as long as there is room."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_trees import evaluate, numbers

from blemish import OutputError, datasets
from blemish.clip import Backbone
from blemish.evaluation import Run, measure, prepared, record, run
from blemish.evaluation.record import Record


@pytest.fixture
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_two_methods_are_measured_side_by_side(data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, met = measure.measured, threading.Barrier(2, timeout=20)

    def together(*told: object) -> object:
        met.wait()  # breaks unless another one is being measured
        return alone(*told)  # type: ignore[arg-type]

    expected = numbers(evaluate(data, backbone))
    monkeypatch.setattr(run, "measured", together)
    assert numbers(evaluate(data, backbone)) == expected


@pytest.mark.usefixtures("two_threads")
def test_no_more_are_measured_together_than_can_be_held(
    data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, most, alone = [0], [0], measure.measured

    def counted(*told: object) -> object:
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        found = alone(*told)  # type: ignore[arg-type]
        busy[0] -= 1
        return found

    monkeypatch.setattr(run, "measured", counted)
    side = 518
    monkeypatch.setattr(measure, "EXACT_PIXELS", 8 * side**2)  # one category
    evaluate(data, backbone)
    assert most == [1]


@pytest.mark.usefixtures("two_threads")
def test_what_goes_wrong_while_measuring_is_told(
    data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object) -> object:
        raise OutputError("the disk is full.", "maps")

    with monkeypatch.context() as broken:
        broken.setattr(run, "measured", fails)
        with pytest.raises(OutputError, match="disk is full"):
            evaluate(data, backbone, out=tmp_path / "out")
    with prepared(data, backbone=backbone, methods=["clip", "clip-ac"], out=tmp_path / "out") as again:
        assert isinstance(again, Run)
        assert again.todo == 16  # of the second category; the scores and maps of the first one are there
        assert numbers(again.execute()) == numbers(evaluate(data, backbone))


def test_windows_have_their_own_precision_in_a_shared_pass(
    data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, passes: list[int]
) -> None:
    monkeypatch.setattr("blemish.loading._has_bfloat16_units", lambda device: True)
    both = evaluate(data, backbone, methods=["clip-ad", "winclip"], categories=["grid"])
    assert passes == [8]
    assert [made["precision"] for made in both.facts["methods"].values()] == ["float32", "float32, windows bfloat16"]
    for name in ("clip-ad", "winclip"):
        alone = evaluate(data, backbone, methods=[name], categories=["grid"])
        for metric in ("image_f1_threshold", "pixel_auroc", "pixel_f1_threshold"):
            found, expected = getattr(both.row(name, "grid"), metric), getattr(alone.row(name, "grid"), metric)
            assert found == pytest.approx(expected, abs=1e-5), metric


def test_maps_are_held_until_they_are_measured(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [np.full((8, 8), number, np.float32) for number in range(3)]
    monkeypatch.setattr(record, "HELD", 2 * values[0].nbytes)
    samples = list(datasets.read("folder", data))[:3]
    with Record(tmp_path / "out", data) as kept:
        for sample, one in zip(samples, values, strict=True):
            kept.write_map("clip", sample, one)
        for sample in samples:
            np.save(kept.map_path("clip", sample), np.full((8, 8), 9, np.float32))
        found = [float(kept.read_map("clip", sample)[0, 0]) for sample in samples]
        assert found == [0, 1, 9]  # there was no room for the third
        kept.write_map("clip", samples[0], values[2])
        assert kept.read_map("clip", samples[0])[0, 0] == 2
        kept.let_go()
        assert [float(kept.read_map("clip", sample)[0, 0]) for sample in samples] == [2, 9, 9]


def test_masks_are_read_once_by_all_threads(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks, read = measure.Masks(), []
    sample = next(one for one in datasets.read("folder", data) if one.label)
    original = measure.Masks.once
    monkeypatch.setattr(measure.Masks, "once", staticmethod(lambda *told: (read.append(told), original(*told))[1]))
    threads = [threading.Thread(target=masks, args=(sample, 64)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 1
