"""Annotations as masks: labelme, COCO, VIA, CVAT and YOLO files."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.datasets import check
from blemish.datasets.annotations import load_annotations
from blemish.datasets.masks import MaskError, MaskReading, is_marked, read_mask
from blemish.regions import compress_counts, encode_mask, fill_polygon, trace
from dataset_trees import SIZE as TREE_SIZE
from dataset_trees import folders

SIZE = (64, 48)


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], bool)
    mask[top:bottom, left:right] = True
    return mask


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0) -> np.ndarray:
    right, below = np.arange(64)[None] + 0.5 - x, np.arange(48)[:, None] + 0.5 - y
    turn = math.radians(degrees)
    along, aside = right * math.cos(turn) + below * math.sin(turn), below * math.cos(turn) - right * math.sin(turn)
    return (along / across) ** 2 + (aside / down) ** 2 <= 1


def iou(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / (found | true).sum())


def read(path: Path, content: Any, picture: str = "0.png") -> MaskReading:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_mask(path, SIZE, path.parent / picture)


# labelme


def labelme(kind: str | None, points: list[list[float]], **more: Any) -> dict[str, Any]:
    shape = {"label": "defect", "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}
    return {"version": "5.5.0", "shapes": [shape], "imagePath": "0.png", "imageHeight": 48, "imageWidth": 64}


def png(mask: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(mask).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


LABELME: dict[str, tuple[dict[str, Any], np.ndarray, float]] = {
    "polygon": (labelme("polygon", [[17, 31], [28, 31], [28, 41], [17, 41]]), box(17, 31, 29, 42), 1.0),
    "polygon without a kind": (labelme(None, [[17, 31], [28, 31], [28, 41], [17, 41]]), box(17, 31, 29, 42), 1.0),
    "rectangle": (labelme("rectangle", [[28, 41], [17, 31]]), box(17, 31, 29, 42), 1.0),
    "rectangle of four": (labelme("rectangle", [[17, 31], [28, 31], [28, 41], [17, 41]]), box(17, 31, 29, 42), 1.0),
    "circle": (labelme("circle", [[30, 22], [42.0, 22]]), ellipse(30.5, 22.5, 12.5, 12.5), 0.97),
    "line": (labelme("line", [[10, 24], [50, 24]]), box(10, 20, 51, 30), 1.0),
    "linestrip": (labelme("linestrip", [[10, 24], [30, 24], [50, 24]]), box(10, 20, 51, 30), 1.0),
    "mask": (labelme("mask", [[17, 31], [28, 41]], mask=png(np.ones((11, 12), bool))), box(17, 31, 29, 42), 1.0),
}


@pytest.mark.parametrize("kind", LABELME)
def test_labelme_shapes(tmp_path: Path, kind: str) -> None:
    content, true, least = LABELME[kind]
    reading = read(tmp_path / "0_mask.json", content)
    assert iou(reading.mask, true) >= least
    lines = ("has lines, which are 10 pixels wide as in labelme's own masks",)
    assert reading.remarks == (lines if kind.startswith("line") else ())
    assert is_marked(tmp_path / "0_mask.json")


@pytest.mark.parametrize(
    ("kind", "points", "what"),
    [
        ("polygon", [[10, 10], [20, 20]], "polygon of 2 points"),
        ("rectangle", [[10, 10]], "rectangle of 1 point"),
        ("circle", [[10, 10], [10, 10]], "circle of 2 points"),
        ("point", [[10, 10]], "point of 1 point"),
        ("points", [[10, 10], [20, 20], [30, 20]], "points of 3 points"),
        ("line", [[10, 10]], "line of 1 point"),
        ("cube", [[10, 10], [20, 20], [30, 20]], "cube of 3 points"),
    ],
)
def test_a_shape_without_area_is_named(tmp_path: Path, kind: str, points: list[list[float]], what: str) -> None:
    with pytest.raises(MaskError, match=f"1_mask.json has a {what}, which has no area; draw the anomaly as a polygon"):
        read(tmp_path / "1_mask.json", labelme(kind, points))


def test_labels_for_what_is_normal_are_left_out(tmp_path: Path) -> None:
    content = labelme("polygon", [[17, 31], [28, 31], [28, 41], [17, 41]])
    content["shapes"].append({**content["shapes"][0], "label": "Background", "points": [[0, 0], [63, 0], [63, 47]]})
    reading = read(tmp_path / "0_mask.json", content)
    assert np.array_equal(reading.mask, box(17, 31, 29, 42))
    assert reading.remarks == ("has shapes called Background, which are left out",)


def test_points_of_another_size_are_scaled_or_refused(tmp_path: Path) -> None:
    content = labelme("rectangle", [[34, 62], [57, 83]]) | {"imageWidth": 128, "imageHeight": 96}
    reading = read(tmp_path / "0_mask.json", content)
    assert iou(reading.mask, box(17, 31, 29, 42)) > 0.95
    assert reading.remarks == ("is resized from 128 x 96 pixels",)
    with pytest.raises(MaskError, match=r"0_mask\.json has 48 x 64 pixels, not 64 x 48 as its picture .*turn it"):
        read(tmp_path / "0_mask.json", content | {"imageWidth": 48, "imageHeight": 64})
    with pytest.raises(MaskError, match="has 1000000000 x 5 pixels"):  # nothing of that size is allocated
        read(tmp_path / "0_mask.json", content | {"imageWidth": 10**9, "imageHeight": 5})


# COCO


def coco(segmentation: Any, **annotation: Any) -> dict[str, Any]:
    images = [
        {"id": 7, "file_name": "test/bad/0.png", "width": 64, "height": 48},
        {"id": 8, "file_name": "test/good/0.png", "width": 64, "height": 48},
        {"id": 9, "file_name": "test/bad/1.png", "width": 64, "height": 48},
    ]
    entry = {"id": 1, "image_id": 7, "category_id": 1, "segmentation": segmentation, "iscrowd": 0, **annotation}
    return {"images": images, "annotations": [entry], "categories": [{"id": 1, "name": "scratch"}]}


TRUE = box(17, 31, 29, 42)
RUNS = encode_mask(TRUE)
POLYGON = [17, 31, 29, 31, 29, 42, 17, 42]


@pytest.mark.parametrize(
    "segmentation",
    [
        [POLYGON],
        [[17, 31, 20, 31, 20, 42, 17, 42], [20, 31, 29, 31, 29, 42, 20, 42]],
        RUNS,
        {"size": RUNS["size"], "counts": compress_counts(RUNS["counts"])},
    ],
    ids=["polygon", "two polygons", "run lengths", "compressed"],
)
def test_coco(tmp_path: Path, segmentation: Any) -> None:
    (tmp_path / "test" / "bad").mkdir(parents=True)
    file = tmp_path / "coco.json"
    assert np.array_equal(read(file, coco(segmentation), "test/bad/0.png").mask, TRUE)
    assert not read(file, coco(segmentation), "test/good/0.png").mask.any()
    assert not read(file, coco(segmentation), "elsewhere/1.png").mask.any()
    assert not is_marked(file, tmp_path / "test/good/0.png")
    with pytest.raises(MaskError, match=r"coco\.json does not list the picture 2\.png"):
        read(file, coco(segmentation), "test/bad/2.png")
    with pytest.raises(MaskError, match=r"coco\.json lists several pictures called 0\.png"):
        read(file, coco(segmentation), "0.png")
    assert load_annotations(file).lists(Path("bad/1.png"))
    assert not load_annotations(file).lists(Path("bad/2.png"))


def test_the_text_of_run_lengths_is_that_of_pycocotools() -> None:
    mask_tools = pytest.importorskip("pycocotools.mask")
    noise = np.random.default_rng(0).random((48, 64)) > 0.7
    for mask in (TRUE, noise, ~noise, np.ones_like(TRUE), ellipse(30, 20, 12, 7)):
        packed = mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert packed["counts"].decode() == compress_counts(encode_mask(mask)["counts"])


def test_coco_boxes_are_said(tmp_path: Path) -> None:
    reading = read(tmp_path / "a.json", coco([], bbox=[17, 31, 12, 11]), "bad/0.png")
    assert np.array_equal(reading.mask, TRUE)
    assert reading.remarks == ("has boxes, which are taken as anomalous as a whole",)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[17, 31, 29, 31]], "a polygon of 2 points, which has no area"),
        ([[17, 31, 29, 31, 29]], "an odd number of coordinates"),
        ({"size": [48, 64], "counts": [5]}, "is not as COCO writes it .*run lengths of 5 pixels for 48 x 64"),
        ([["a", "b", "c", "d", "e", "f"]], "is not as COCO writes it"),
    ],
)
def test_broken_coco_is_named(tmp_path: Path, segmentation: Any, message: str) -> None:
    with pytest.raises(MaskError, match=rf"a\.json .*{message}"):
        read(tmp_path / "a.json", coco(segmentation), "bad/0.png")


# VIA


def via(*shapes: dict[str, Any]) -> dict[str, Any]:
    regions = [{"shape_attributes": shape, "region_attributes": {"kind": "dent"}} for shape in shapes]
    return {
        "0.png123": {"filename": "0.png", "size": 123, "regions": regions, "file_attributes": {}},
        "1.png55": {"filename": "1.png", "size": 55, "regions": [], "file_attributes": {}},
    }


VIA: dict[str, tuple[dict[str, Any], np.ndarray]] = {
    "polygon": ({"all_points_x": [17, 29, 29, 17], "all_points_y": [31, 31, 42, 42]}, TRUE),
    "rect": ({"x": 17, "y": 31, "width": 12, "height": 11}, TRUE),
    "circle": ({"cx": 30, "cy": 22, "r": 9}, ellipse(30, 22, 9, 9)),
    "ellipse": ({"cx": 30, "cy": 22, "rx": 12, "ry": 6, "theta": 0.5}, ellipse(30, 22, 12, 6, math.degrees(0.5))),
}


@pytest.mark.parametrize("kind", VIA)
@pytest.mark.parametrize("project", [False, True])
def test_via(tmp_path: Path, kind: str, project: bool) -> None:
    shape, true = VIA[kind]
    content: dict[str, Any] = via({"name": kind, **shape})
    if project:
        first = content["0.png123"]
        first["regions"] = dict(enumerate(first["regions"]))  # as version 1 has it
        content = {"_via_settings": {}, "_via_img_metadata": content}
    assert np.array_equal(read(tmp_path / "via.json", content).mask, true)
    assert not read(tmp_path / "via.json", content, "1.png").mask.any()


@pytest.mark.parametrize("kind", ["polyline", "point"])
def test_via_shapes_without_area_are_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(MaskError, match=f"via.json has a {kind}, which has no area"):
        read(tmp_path / "via.json", via({"name": kind, "all_points_x": [1, 9], "all_points_y": [1, 9]}))


# CVAT


def cvat(shapes: str, size: str = 'width="64" height="48"') -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta/>'
        f'<image id="0" name="bad/0.png" {size}>{shapes}<tag label="x"/></image>'
        f'<image id="1" name="bad/1.png" {size}/></annotations>'
    )


CVAT: dict[str, tuple[str, np.ndarray]] = {
    "polygon": ('<polygon label="a" points="17.0,31.0;29.0,31.0;29.0,42.0;17.0,42.0" z_order="0"/>', TRUE),
    "box": ('<box label="a" xtl="17" ytl="31" xbr="29" ybr="42"/>', TRUE),
    "turned box": ('<box label="a" xtl="17.5" ytl="30.5" xbr="28.5" ybr="42.5" rotation="90"/>', TRUE),
    "ellipse": ('<ellipse label="a" cx="30" cy="22" rx="12" ry="6" rotation="20"/>', ellipse(30, 22, 12, 6, 20)),
    "mask": ('<mask label="a" rle="0, 132" left="17" top="31" width="12" height="11"/>', TRUE),
    "mask with gaps": (
        '<mask label="a" rle="6, 12, 6" left="17" top="31" width="6" height="4"/>',
        box(17, 32, 23, 34),
    ),
}


@pytest.mark.parametrize("kind", CVAT)
def test_cvat(tmp_path: Path, kind: str) -> None:
    shapes, true = CVAT[kind]
    assert np.array_equal(read(tmp_path / "annotations.xml", cvat(shapes)).mask, true)
    assert not read(tmp_path / "annotations.xml", cvat(shapes), "1.png").mask.any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cvat('<polyline label="a" points="1,1;9,9"/>'), "has a polyline, which has no area"),
        (cvat('<mask label="a" rle="5" left="60" top="31" width="12" height="11"/>'), "is not as CVAT writes it"),
        (cvat('<mask rle="0, 132" left="60" top="31" width="12" height="11"/>'), "has a mask that is larger than its"),
        (cvat('<polygon label="a"/>'), "is not as CVAT writes it"),
        (cvat("")[:-20], "is no complete XML"),
        ("<annotations><track/></annotations>", "has the tracks of a video"),
        ("<annotation><object/></annotation>", r"is in no known format for \.xml \(CVAT\)"),
    ],
)
def test_broken_cvat_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(MaskError, match=rf"annotations\.xml {message}"):
        read(tmp_path / "annotations.xml", content)


# YOLO


def yolo(*points: tuple[float, float]) -> str:
    return "0 " + " ".join(f"{x / 64} {y / 48}" for x, y in points)


def test_yolo(tmp_path: Path) -> None:
    corners = ((17, 31), (29, 31), (29, 42), (17, 42))
    second = ((2, 2), (10, 2), (10, 6))
    reading = read(tmp_path / "0.txt", f"{yolo(*corners)}\n\n{yolo(*second)}\n")
    assert np.array_equal(reading.mask, TRUE | fill_polygon([second], (48, 64)))
    assert not reading.remarks
    assert not read(tmp_path / "1.txt", "").mask.any()
    boxed = read(tmp_path / "2.txt", f"0 {23 / 64} {36.5 / 48} {12 / 64} {11 / 48}\n")
    assert np.array_equal(boxed.mask, TRUE)
    assert boxed.remarks == ("has boxes, which are taken as anomalous as a whole",)


@pytest.mark.parametrize("content", ["0 17 31 29 31 29 42", "0 0.1 0.2 0.3", "0 0.1 0.1 0.2 0.2 0.3", "0"])
def test_broken_yolo_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(MaskError, match=r"0\.txt has no polygon of fractions in line 1; write a class"):
        read(tmp_path / "0.txt", content)


# All formats


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("0_mask.json", '{"shapes": [{"points": [[10, 10], [20', "is no complete JSON"),
        ("0_mask.json", "{}", r"is in no known format for \.json \(labelme, COCO, VIA\)"),
        ("0_mask.json", '[{"image_id": 1}]', "is in no known format"),
        ("0_mask.json", '{"shapes": [{"points": 5}]}', "is not as labelme writes it"),
        ("0_mask.txt", "a scratch beside the hole", r"is in no known format for \.txt \(YOLO\)"),
    ],
)
def test_what_is_no_annotation_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(MaskError, match=f"{name} {message}"):
        read(tmp_path / name, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r"0_mask\.json cannot be read \(it does not exist\)"):
        read_mask(tmp_path / "0_mask.json", SIZE)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    assert read(tmp_path / "0.txt", yolo((0, 0), (64, 0), (64, 48), (0, 48))).mask.all()
    assert not read(tmp_path / "0.txt", "").mask.any()


def test_the_check_names_broken_annotations(tmp_path: Path) -> None:
    folders("cup")(tmp_path)
    masks = tmp_path / "cup" / "ground_truth" / "bad"
    for number in range(3):
        (masks / f"{number:03}_mask.png").unlink()
        content = labelme("polygon", [[1, 1], [6, 1], [6, 5]])
        content |= {"imageWidth": TREE_SIZE[0], "imageHeight": TREE_SIZE[1]}
        (masks / f"{number:03}_mask.json").write_text(json.dumps(content))
    assert check("folder", tmp_path).ok
    (masks / "001_mask.json").write_text(json.dumps(labelme("polygon", [[1, 1], [6, 1]])))
    text = (masks / "002_mask.json").read_text()
    (masks / "002_mask.json").write_text(text[: len(text) // 2])
    assert [(issue.kind, issue.path.name) for issue in check("folder", tmp_path).issues] == [
        ("mask that has a polygon of 2 points, which has no area", "001_mask.json"),
        ("unreadable mask", "002_mask.json"),
    ]


def test_filling_is_the_inverse_of_tracing() -> None:
    rng = np.random.default_rng(3)
    for mask in (rng.random((13, 17)) > 0.5, np.ones((4, 5), bool), np.zeros((4, 5), bool)):
        assert np.array_equal(fill_polygon(trace(mask), mask.shape), mask)
    assert np.array_equal(fill_polygon([[(-5, -5), (99, -5), (99, 99), (-5, 99)]], (3, 4)), np.ones((3, 4), bool))
    assert not fill_polygon([[(10, 10), (20, 10), (20, 20)]], (3, 4)).any()
