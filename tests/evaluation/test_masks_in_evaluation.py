"""Masks in an evaluation: what is said of them, small defects that vanish, and full masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_trees import evaluate, options
from PIL import Image

import blemish
from blemish.clip import Backbone
from blemish.errors import UsageError
from blemish.evaluation import MetricOptions, literature, prepare, recompute
from blemish.evaluation import options as evaluation_options
from blemish.evaluation.result import Evaluation
from blemish.metrics import pixel_metrics
from blemish.tiling import resize
from helpers import save_picture


def notes(result: Evaluation) -> str:
    return "\n".join(result.facts["mask_notes"])


@pytest.fixture
def thin(tmp_path: Path) -> Path:
    """Pictures of 300 x 240 pixels; two of three defects are lines one pixel wide."""
    root = tmp_path / "thin"
    for number in range(3):
        save_picture(root / "test/good" / f"{number}.png", size=(300, 240), seed=number)
        save_picture(root / "test/scratch" / f"{number}.png", size=(300, 240), seed=number + 9)
        mask = np.zeros((240, 300), np.uint8)
        mask[(slice(20, 200), 101, 150)[number], 40:260] = 255
        target = root / "ground_truth/scratch" / f"{number}_mask.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(target)
    return root


def test_small_defects_that_vanish_are_said(thin: Path, backbone: Backbone, tmp_path: Path) -> None:
    result = evaluate(thin, backbone, methods=["clip"], out=tmp_path / "out")
    side = result.facts["passes"][0]["size"]
    sentence = (
        f"2 of 3 anomalous regions are too small or too thin for maps of {side} x {side} pixels and vanish from the "
        "pixel metrics; full masks would count them: scratch/1.png, scratch/2.png"
    )
    assert result.facts["mask_notes"] == [sentence]
    assert sentence in (tmp_path / "out" / "results.md").read_text()
    again = evaluate(thin, backbone, methods=["clip"], out=tmp_path / "out")
    assert again.facts["mask_notes"] == [sentence]


@pytest.mark.parametrize("streamed", [False, True])
def test_full_masks_are_measured_in_the_size_of_the_pictures(
    thin: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    out = tmp_path / "out"
    reduced = evaluate(thin, backbone, methods=["clip"], out=out, maps=True).row("clip")
    if streamed:
        monkeypatch.setattr(evaluation_options, "MAX_EXACT_PIXELS", 1000)
    result = evaluate(thin, backbone, methods=["clip"], masks="full")
    row = result.row("clip")
    samples = list(blemish.datasets.read("folder", thin))
    maps = [
        resize(torch.from_numpy(np.load(out / "maps/clip" / "thin" / f"{s.path.relative_to(thin)}.npy")), 240, 300)
        for s in samples
    ]
    exact = pixel_metrics([sample.mask() for sample in samples], [anomaly_map.numpy() for anomaly_map in maps])
    assert row.pixel_auroc == pytest.approx(exact.auroc, abs=row.pixel_error or 1e-12)
    assert row.pixel_aupro == pytest.approx(exact.aupro, abs=row.pixel_error or 1e-12)
    assert (row.pixel_error > 0) == streamed
    assert row.pixel_auroc != reduced.pixel_auroc
    assert "vanish" not in notes(result)
    assert "masks have the size of each picture" in result.to_markdown()
    assert np.isnan(row.pixel_auroc_low) == streamed


def test_recomputing_with_full_masks_needs_the_maps(thin: Path, backbone: Backbone, tmp_path: Path) -> None:
    evaluate(thin, backbone, methods=["clip"], out=tmp_path / "kept", maps=True)
    full = evaluate(thin, backbone, methods=["clip"], masks="full").row("clip")
    assert recompute(tmp_path / "kept", masks="full").row("clip").pixel_auroc == full.pixel_auroc
    evaluate(thin, backbone, methods=["clip"], out=tmp_path / "kept", masks="full", maps=True)
    again = recompute(tmp_path / "kept")  # as it was evaluated
    assert again.row("clip").pixel_auroc == full.pixel_auroc
    evaluate(thin, backbone, methods=["clip"], out=tmp_path / "gone")
    assert "maps were not kept" in recompute(tmp_path / "gone", masks="full").row("clip").undefined["pixel_auroc"]


def test_stored_numbers_of_reduced_masks_are_not_taken_for_full_ones(
    thin: Path, backbone: Backbone, tmp_path: Path, passes: list[int]
) -> None:
    reduced = evaluate(thin, backbone, methods=["clip"], out=tmp_path / "out").row("clip")
    passes.clear()
    with prepare(options(thin, backbone, methods=["clip"], out=tmp_path / "out", masks="full")) as run:
        full = run.execute().row("clip")
    assert full.pixel_auroc != reduced.pixel_auroc
    assert full.image_auroc == reduced.image_auroc


def test_masks_are_map_or_full() -> None:
    with pytest.raises(UsageError, match="masks must be 'map' or 'full', not 'half'"):
        MetricOptions(masks="half")  # type: ignore[arg-type]


def test_no_difference_to_published_numbers_of_reduced_masks(data: Path, backbone: Backbone) -> None:
    rows = evaluate(data, backbone, methods=["clip"]).rows
    facts = {"backbone": "clip-vit-large-patch14-336", "dataset_names": ["MVTec AD"]}
    rows = tuple(type(row)(**{**vars(row), "method": "anomalyclip"}) for row in rows)
    for masks, gone in (("map", False), ("full", True)):
        found = [c for c in literature.compare(rows, {**facts, "masks": masks}) if c.same_backbone]
        pixel = [c for c in found if c.metric.startswith("pixel")]
        assert pixel
        assert all(np.isnan(c.difference) == gone for c in pixel)
        assert not any(np.isnan(c.difference) for c in found if c.metric.startswith("image"))


def test_what_masks_do_not_say_is_said(data: Path, backbone: Backbone) -> None:
    masks = data / "grid" / "ground_truth" / "scratch"
    with Image.open(masks / "000_mask.png") as image:
        size = image.size
    Image.new("L", size).save(masks / "000_mask.png")
    Image.new("L", size, 255).save(masks / "001_mask.png")
    with Image.open(masks / "002_mask.png") as image:
        image.resize((size[0] * 2, size[1] * 2), Image.Resampling.NEAREST).save(masks / "002_mask.png")
    result = evaluate(data, backbone, methods=["clip"])
    assert result.facts["mask_notes"] == [
        "the mask marks nothing: scratch/000_mask.png",
        "the mask marks every pixel: scratch/001_mask.png",
        f"the mask is resized from {size[0] * 2} x {size[1] * 2} pixels: scratch/002_mask.png",
    ]
    assert not result.failed


def test_an_unclear_mask_leaves_no_pixel_metrics(data: Path, backbone: Backbone) -> None:
    path = data / "grid" / "ground_truth" / "scratch" / "000_mask.png"
    with Image.open(path) as image:
        image.point(lambda value: 100 if value else 50).save(path)
    result = evaluate(data, backbone, methods=["clip"])
    assert [(failure.kind, failure.path) for failure in result.failed] == [("mask", str(path))]
    assert "has 2 levels, and none is 0; make what is normal black" in result.failed[0].reason
    assert np.isnan(result.row("clip", "grid").pixel_auroc)
    assert not np.isnan(result.row("clip", "metal_nut").pixel_auroc)


def test_a_coco_file_may_mark_all_pictures(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    expected = evaluate(data, backbone, methods=["clip"]).row("clip", "grid")
    samples = [s for s in blemish.datasets.read("folder", data) if s.category == "grid" and s.label]
    images, annotations = [], []
    for number, sample in enumerate(samples):
        mask = sample.mask()
        assert mask is not None
        rows, columns = np.nonzero(mask)
        x0, y0, x1, y1 = (int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        images.append({"id": number, "file_name": sample.path.name, "width": mask.shape[1], "height": mask.shape[0]})
        polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "segmentation": [polygon]})
    content = json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "scratch"}]})
    folder = data / "grid" / "ground_truth" / "scratch"
    for path in folder.iterdir():
        path.unlink()
    for sample in samples:
        (folder / f"{sample.path.stem}_mask.json").write_text(content)
    found = evaluate(data, backbone, methods=["clip"])
    assert found.row("clip", "grid").pixel_auroc == expected.pixel_auroc
