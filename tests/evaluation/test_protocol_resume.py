"""Protocols that are interrupted go on where they stopped, and a method that fails leaves the others alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluation_trees import add_category

import blemish
from blemish.clip import Backbone
from blemish.detector import Detector
from blemish.errors import UsageError
from blemish.evaluation.batches import evaluate_batches
from blemish.evaluation.shots import evaluate_shots
from helpers import save_picture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for category in ("grid", "lid"):
        add_category(tmp_path / "data", category, normal=6, anomalous=3)
    return tmp_path / "data"


def stop_after(steps: int) -> Callable[[], None]:
    left = [steps]

    def step() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return step


def test_shots_go_on(backbone: Backbone, data: Path, tmp_path: Path, passes: list[int]) -> None:
    detectors = {"winclip": blemish.load("winclip", backbone=backbone, device="cpu")}
    wishes = {"shots": (1, 2), "seeds": 2}
    with pytest.raises(KeyboardInterrupt, match=r"4 of 8 rows are finished; they are kept in .*out, and"):
        evaluate_shots(detectors, data, out=tmp_path / "out", on_progress=stop_after(12), **wishes)  # type: ignore[arg-type]
    passes.clear()
    totals: list[int] = []
    steps: list[None] = []
    again = evaluate_shots(
        detectors, data, out=tmp_path / "out", on_total=totals.append, on_progress=lambda: steps.append(None), **wishes
    )  # type: ignore[arg-type]
    second = sum(passes)
    passes.clear()
    fresh = evaluate_shots(detectors, data, **wishes)  # type: ignore[arg-type]
    assert [row.to_dict() for row in again.rows] == [row.to_dict() for row in fresh.rows]
    assert 0 < second < sum(passes)
    assert totals == [len(steps)] == [18]
    # All is there now; one more seed computes its own rows only, and a changed picture those that it is in.
    passes.clear()
    evaluate_shots(detectors, data, out=tmp_path / "out", **wishes)  # type: ignore[arg-type]
    assert not passes
    more = evaluate_shots(detectors, data, out=tmp_path / "out", shots=(1, 2), seeds=3)
    assert len(more.rows) == 12
    save_picture(data / "lid" / "test" / "good" / "000.png", seed=999)
    passes.clear()
    changed = evaluate_shots(detectors, data, out=tmp_path / "out", **wishes)  # type: ignore[arg-type]
    assert passes
    assert [row for row in changed.rows if row.category == "grid"] == [r for r in again.rows if r.category == "grid"]


def test_without_a_folder_nothing_is_kept(backbone: Backbone, data: Path) -> None:
    detectors = {"winclip": blemish.load("winclip", backbone=backbone, device="cpu")}
    with pytest.raises(KeyboardInterrupt, match="0 of 2 rows are finished; nothing is kept without --out"):
        evaluate_shots(detectors, data, shots=(2,), seeds=1, on_progress=stop_after(3))


def test_sets_go_on_one_by_one(backbone: Backbone, data: Path, tmp_path: Path) -> None:
    detectors = {"musc": blemish.load("musc", backbone=backbone, device="cpu", config={"grids": 1, "turns": 1})}
    with pytest.raises(KeyboardInterrupt, match="2 of 4 rows are finished"):
        evaluate_batches(detectors, data, shares=(0.3,), seeds=2, out=tmp_path / "out", on_progress=stop_after(2))
    lines = (tmp_path / "out" / "batches.jsonl").read_text().splitlines()
    assert len(lines) == 2
    again = evaluate_batches(detectors, data, shares=(0.3,), seeds=2, out=tmp_path / "out")
    assert again.rows == evaluate_batches(detectors, data, shares=(0.3,), seeds=2).rows
    assert (tmp_path / "out" / "batches.jsonl").read_text().splitlines()[:2] == lines


def test_a_method_that_fails_leaves_the_others_alone(
    backbone: Backbone, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detectors = {name: blemish.load("winclip", backbone=backbone, device="cpu") for name in ("first", "second")}
    fit = Detector.fit

    def fail(self: Detector, *rest: object, **named: object) -> Detector:
        if self.engine is detectors["first"].engine:
            raise UsageError("there is nothing to fit")
        return fit(self, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Detector, "fit", fail)
    steps: list[None] = []
    result = evaluate_shots(
        detectors, data, shots=(2,), seeds=1, out=tmp_path / "out", on_progress=lambda: steps.append(None)
    )
    assert [(row.method, row.category) for row in result.rows] == [("second", "grid"), ("second", "lid")]
    assert result.failures == tuple(f"first cannot do {name}: there is nothing to fit" for name in ("grid", "lid"))
    assert len(steps) == 2 * 18
    result.write(tmp_path / "out", {})
    assert "there is nothing to fit" in json.loads((tmp_path / "out" / "few_shot.json").read_text())["notes"][-1]
