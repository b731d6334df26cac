"""Regions in other tools' formats, opened by those tools' own libraries where they are installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from blemish.datasets.masks import read_mask
from blemish.detection import Detection
from blemish.errors import UsageError
from blemish.outputs.region_files import LABEL_STUDIO_CONFIG, REGION_FORMATS, one_ring
from blemish.regions import fill_polygon, trace

SIZE = (40, 30)


def detection(path: str = "in/a.png", seed: int = 0, **change: Any) -> Detection:
    rng = np.random.default_rng(seed)
    values = rng.random((30, 40)).astype(np.float32) * 0.1
    values[5:15, 5:20] = 0.9
    values[8:11, 9:14] = 0.1  # a hole
    values[20:28, 30:38] = np.tril(np.full((8, 8), 0.8))
    values[25, 3:20] = 0.7  # one pixel thin
    values[29, 39] = 0.6  # a corner
    settings: dict[str, Any] = {"score": 0.7, "anomaly_map": values, "map_range": (0.0, 1.0), "size": SIZE}
    return Detection(**{**settings, "path": path, "threshold": 0.5, **change})


def lines(*detections: Detection) -> list[dict[str, Any]]:
    results = []
    for each in detections:
        line = {**each.to_dict(), "error": None, "name": str(each.path).partition("/")[2]}
        results.append(json.loads(json.dumps(line)))
    return [*results, {"path": "in/broken.png", "error": "broken"}]


@pytest.fixture
def found() -> Detection:
    return detection()


@pytest.fixture
def folder(tmp_path: Path, found: Detection) -> Path:
    """A folder with every format of a picture with regions, one without, one without a threshold, and a broken one."""
    clean = detection("in/b.png", threshold=0.99)
    ranked = detection("in/c.png", threshold=None)
    for write, files in REGION_FORMATS.values():
        write(tmp_path, lambda: lines(found, clean, ranked))
        for name in files:
            assert (tmp_path / name).exists()
    return tmp_path


def mask_of(found: Detection) -> np.ndarray:
    assert found.mask is not None
    return np.asarray(found.mask)


@pytest.mark.parametrize("file", ["regions.json", "yolo/labels/a.txt", "labelme/a.json", "cvat.xml"])
def test_every_format_gives_the_same_pixels_again(folder: Path, found: Detection, file: str) -> None:
    reading = read_mask(folder / file, SIZE, Path("in/a.png"))
    assert np.array_equal(reading.mask, mask_of(found))
    assert not reading.remarks
    clean = file.replace("a.", "b.") if file[0] in "yl" else file
    assert not read_mask(folder / clean, SIZE, Path("in/b.png")).mask.any()
    assert len(list((folder / "labelme").iterdir())) == 2


@pytest.mark.parametrize("seed", range(4))
def test_holes_are_kept_in_one_ring(seed: int) -> None:
    from scipy import ndimage

    noise = np.random.default_rng(seed).random((16, 16)) > 0.35
    labels, _ = ndimage.label(noise, np.ones((3, 3)))
    mask = labels == np.bincount(labels[labels > 0]).argmax()
    rings = sorted(trace(mask), key=lambda ring: min(x for x, _ in ring))
    assert len(rings) > 2
    assert np.array_equal(fill_polygon([one_ring(rings)], mask.shape), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
def test_coco_is_loaded_by_pycocotools(folder: Path, found: Detection, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    truth = coco.COCO(str(folder / "regions.json"))
    results = truth.loadRes(str(folder / "coco_results.json"))
    capsys.readouterr()
    for loaded, polygons in ((results, False), (truth, True)):
        entries = loaded.imgToAnns[1]
        assert len(entries) == len(found.regions) == 4
        assert not loaded.imgToAnns[2]
        merged = np.logical_or.reduce([loaded.annToMask(entry).astype(bool) for entry in entries])
        if polygons:  # pycocotools draws outlines by a rule of its own
            assert (merged != mask_of(found)).sum() <= 0.1 * mask_of(found).sum()
        else:
            assert np.array_equal(merged, mask_of(found))
    assert [entry["score"] for entry in results.imgToAnns[1]] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert sorted(truth.imgs) == [1, 2]


def test_yolo_is_loaded_by_supervision(folder: Path, found: Detection) -> None:
    supervision = pytest.importorskip("supervision")
    (folder / "in").mkdir()
    for name in "ab":
        Image.new("RGB", SIZE).save(folder / "in" / f"{name}.png")
    (folder / "data.yaml").write_text("names: [anomaly]\n")
    dataset = supervision.DetectionDataset.from_yolo(
        str(folder / "in"), str(folder / "yolo" / "labels"), str(folder / "data.yaml"), force_masks=True
    )
    by_name = {Path(path).name: detections for path, _, detections in dataset}
    assert len(by_name["a.png"]) == 4
    assert not len(by_name["b.png"])
    merged = by_name["a.png"].mask.any(axis=0)
    assert (merged & mask_of(found)).sum() / mask_of(found).sum() > 0.95  # supervision draws outlines, too


def test_detections_of_supervision(found: Detection, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("supervision")
    detections = found.to_supervision()
    assert len(detections) == 4
    assert np.array_equal(detections.mask.any(axis=0), mask_of(found))
    assert np.array_equal(detections.area, [region.area for region in found.regions])
    assert np.array_equal(detections.xyxy[0], found.regions[0].box)
    assert detections.confidence.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert set(detections["class_name"]) == {"anomaly"}
    assert len(detection(threshold=None).to_supervision()) == 0


def test_without_supervision_it_is_said(found: Detection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(UsageError, match="supervision is not installed; run: pip install"):
        found.to_supervision()


def test_label_studio_takes_the_predictions(folder: Path) -> None:
    tasks = json.loads((folder / "label_studio.json").read_text())
    assert [task["data"]["image"] for task in tasks] == ["in/a.png", "in/b.png"]
    (prediction,) = tasks[0]["predictions"]
    assert len(prediction["result"]) == 4
    assert tasks[1]["predictions"][0]["result"] == []
    for entry in prediction["result"]:
        assert all(0 <= value <= 100 for point in entry["value"]["points"] for value in point)
    assert (folder / "label_studio.xml").read_text() == LABEL_STUDIO_CONFIG
    if importlib.util.find_spec("label_studio_sdk") is None:
        pytest.skip("label-studio-sdk is not installed")
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface(LABEL_STUDIO_CONFIG)
    for task in tasks:
        assert interface.validate_prediction(task["predictions"][0])


def test_cvat_and_labelme_have_the_fields_of_their_tools(folder: Path, found: Detection) -> None:
    root = ElementTree.parse(folder / "cvat.xml").getroot()
    assert root.findtext("version") == "1.1"
    first, second = root.findall("image")
    assert (first.get("name"), first.get("width"), first.get("height")) == ("a.png", "40", "30")
    assert sorted(shape.tag for shape in first) == ["mask", "polygon", "polygon", "polygon"]
    assert not len(second)
    content = json.loads((folder / "labelme" / "a.json").read_text())
    assert (content["imageWidth"], content["imageHeight"], content["imagePath"]) == (40, 30, "in/a.png")
    assert sorted(shape["shape_type"] for shape in content["shapes"]) == ["mask", "polygon", "polygon", "polygon"]


def test_pictures_of_one_name_and_two_suffixes_stay_apart(tmp_path: Path) -> None:
    REGION_FORMATS["yolo"][0](tmp_path, lambda: lines(detection("in/a.png"), detection("in/a.jpg")))
    assert {path.name for path in (tmp_path / "yolo" / "labels").iterdir()} == {"a.txt", "a.jpg.txt"}


def test_maps_as_16_bit_png_and_float_tiff(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    found = detection(map_range=(0.0, 0.8))
    files = found.save(tmp_path, ["map", "map-png", "map-tiff"], name="a.png")
    assert [files[kind].name for kind in ("map", "map-png", "map-tiff")] == ["a.png.npy", "a.png.png", "a.png.tiff"]
    with Image.open(files["map-png"]) as image:
        assert image.mode == "I;16"
    assert np.array_equal(tifffile.imread(files["map-tiff"]), found.anomaly_map)
    assert np.array_equal(np.load(files["map"]), found.anomaly_map)
