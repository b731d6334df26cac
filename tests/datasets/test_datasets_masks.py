"""Masks: any positive value, several parts, other sizes, polygons; and the parity case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.datasets import Sample, check, read
from blemish.errors import ImageError
from dataset_trees import SIZE, folders, mask, picture

PARITY = Path(__file__).parents[1] / "data" / "parity" / "anomalyclip" / "dataset-btad"
SQUARE = (slice(2, 5), slice(3, 9))


def expected() -> np.ndarray:
    marked = np.zeros(SIZE[::-1], bool)
    marked[SQUARE] = True
    return marked


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I", "I;16", "F", "CMYK"])
def test_any_positive_value_counts_in_every_mode(tmp_path: Path, mode: str) -> None:
    picture(tmp_path / "a.png")
    values = expected().astype(np.uint8)
    if mode == "P":
        image = Image.fromarray(values * 3)
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 200])
    elif mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    elif mode in ("RGB", "RGBA"):
        pixels = np.zeros((*values.shape, len(mode)), np.uint8)
        pixels[..., 2], pixels[..., 3:] = values, 255
        image = Image.fromarray(pixels)
    elif mode == "LA":
        image = Image.fromarray(np.dstack([values, np.full_like(values, 255)]))
    elif mode == "CMYK":
        image = Image.fromarray(values * 255).convert("RGB").convert("CMYK")
    else:
        image = Image.fromarray(values * 255).convert(mode)
    path = tmp_path / ("a_mask.png" if mode not in ("F", "I", "CMYK") else "a_mask.tif")
    image.save(path)
    found = Sample(tmp_path / "a.png", 1, "x", (path,)).mask()
    assert found is not None
    assert np.array_equal(found, expected())


def test_parts_are_merged(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    parts = (mask(tmp_path / "0.png", rows=slice(2, 3)), mask(tmp_path / "1.png", rows=slice(3, 5)))
    found = Sample(tmp_path / "a.png", 1, "x", parts).mask(SIZE)
    assert found is not None
    assert np.array_equal(found, expected())


def test_wrong_size_names_both_files(tmp_path: Path) -> None:
    folders("cup")(tmp_path)
    wrong = mask(tmp_path / "cup" / "ground_truth" / "bad" / "001_mask.png", size=(8, 12))
    found = read("folder", tmp_path)
    with pytest.raises(
        ImageError, match=r"001_mask.png has 8 x 12 pixels, not 12 x 8 as its picture .*001.png"
    ) as caught:
        [sample.mask() for sample in found]
    assert caught.value.path == str(wrong)
    assert [issue.path for issue in check("folder", tmp_path).issues] == [wrong]


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_unreadable(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a_mask.png"
    if content is not None:
        path.write_bytes(content)
    sample = Sample(picture(tmp_path / "a.png"), 1, "x", (path,))
    with pytest.raises(ImageError, match=r"a_mask\.png cannot be read"):
        sample.mask()
    with pytest.raises(ImageError, match=r"picture .*gone\.png cannot be read"):
        Sample(tmp_path / "gone.png", 0, "x").mask()


def test_a_turned_picture_counts_upright(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(path, exif=exif)
    found = Sample(path, 1, "x", (mask(tmp_path / "a.png", size=SIZE[::-1]),))
    marked = found.mask()
    assert marked is not None
    assert marked.shape == (SIZE[0], SIZE[1])
    assert found.picture().size == SIZE[::-1]


def test_polygons(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    shapes = [
        {"points": [[3, 2], [8, 2], [8, 4], [3, 4]], "shape_type": "polygon"},
        {"points": [[0, 7], [1, 6]], "shape_type": "rectangle"},
    ]
    path.write_text(json.dumps({"shapes": shapes, "imageWidth": SIZE[0], "imageHeight": SIZE[1]}))
    found = Sample(picture(tmp_path / "a.png"), 1, "x", (path,)).mask()
    marked = expected()
    marked[6:8, 0:2] = True
    assert found is not None
    assert np.array_equal(found, marked)
    path.write_text(json.dumps({"shapes": [{"points": [[1, 1]], "shape_type": "point"}]}))
    with pytest.raises(ImageError, match="a point of 1 point, which has no area"):
        Sample(tmp_path / "a.png", 1, "x", (path,)).mask()


@pytest.mark.parametrize("name", ["btad", "meta"])
def test_parity_case(name: str) -> None:
    case = json.loads((PARITY / "case.json").read_text())
    outputs = np.load(PARITY / "expected.npz")
    root = PARITY / case["dataset_root"]
    found = read(name, root)
    assert not found.issues
    assert not found.notes
    names = [sample.path.relative_to(root).as_posix() for sample in found]
    assert sorted(names) == sorted(case["image_files"])
    assert name == "btad" or names == case["image_files"]
    size = case["image_size"]
    for sample, place in zip(found, names, strict=True):
        row = case["image_files"].index(place)
        marked = sample.mask()
        assert marked is not None
        resized = Image.fromarray(marked.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(resized) > 127.5, outputs["masks"][row].reshape(size, size) > 0.5)
        assert sample.label == outputs["labels"][row]
        assert case["class_names"][int(outputs["class_index"][row])] == sample.category
