"""Masks are paired by name; files without a partner are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish.datasets import read
from blemish.datasets.pairing import pair
from dataset_trees import folders, mask, picture

KINDS = ["_mask", "_label", "_GT", "_Segmentation", "-mask", "_masks", "_ground_truth", ""]


@pytest.mark.parametrize("word", KINDS)
def test_words_for_masks(tmp_path: Path, word: str) -> None:
    pictures = [tmp_path / f"{n}.jpg" for n in ("1", "10", "2")]
    masks = [tmp_path / f"{n}{word}.png" for n in ("10", "2", "1")]
    found = pair(pictures, masks)
    assert {key.stem: value[0].stem for key, value in found.masks.items()} == {n: n + word for n in ("1", "10", "2")}
    assert not found.unused
    assert not found.by_position


def test_a_picture_called_mask_keeps_its_own() -> None:
    found = pair([Path("a.png"), Path("a_mask.png")], [Path("gt/a.png"), Path("gt/a_mask.png")])
    assert found.masks == {Path("a.png"): (Path("gt/a.png"),), Path("a_mask.png"): (Path("gt/a_mask.png"),)}


def test_unpaired_are_reported_and_never_guessed(tmp_path: Path) -> None:
    folders("cup")(tmp_path)
    masks = tmp_path / "cup" / "ground_truth"
    (masks / "bad" / "001_mask.png").rename(masks / "bad" / "777_mask.png")
    orphan = mask(masks / "dent" / "000_mask.png")
    found = read("folder", tmp_path)
    assert {(issue.kind, issue.path.name) for issue in found.issues} == {
        ("picture without mask", "001.png"),
        ("mask without picture", "777_mask.png"),
        ("mask without picture", orphan.name),
    }
    lonely = next(sample for sample in found if sample.defect == "bad" and sample.path.name == "001.png")
    assert (lonely.label, lonely.masks, lonely.mask()) == (1, None, None)
    assert [bool(s.masks) for s in found if s.label] == [True, False, True]


def test_position_only_where_no_name_fits(tmp_path: Path) -> None:
    for name in ("b", "a"):
        picture(tmp_path / "images" / f"{name}.png")
    for name in ("x1", "x2"):
        mask(tmp_path / "masks" / f"{name}.png")
    found = read("kvasir", tmp_path)
    assert {s.path.stem: s.masks[0].stem for s in found if s.masks} == {"a": "x1", "b": "x2"}
    assert any("by position" in note and "images" in note for note in found.notes)
    mask(tmp_path / "masks" / "x3.png")
    unequal = read("kvasir", tmp_path)
    assert not unequal.pixel_labels
    assert len(unequal.issues) == 5


def test_a_kind_without_masks_among_kinds_with_masks(tmp_path: Path) -> None:
    folders("cup")(tmp_path)
    picture(tmp_path / "cup" / "test" / "dent" / "000.png")
    found = read("folder", tmp_path)
    assert [(issue.kind, issue.path.parent.name) for issue in found.issues] == [("picture without mask", "dent")]


def test_no_masks_at_all_is_noted_once(tmp_path: Path) -> None:
    for kind in ("good", "bad"):
        picture(tmp_path / "test" / kind / "0.png")
    found = read("folder", tmp_path)
    assert not found.issues
    assert not found.pixel_labels
    assert len(found.notes) == 1


def test_masks_of_the_training_pictures_are_not_orphans(tmp_path: Path) -> None:
    folders("electrical commutators", bad="defect", masks="")(tmp_path)
    picture(tmp_path / "electrical commutators" / "train" / "defect" / "900.png")
    mask(tmp_path / "electrical commutators" / "ground_truth" / "defect" / "900.png")
    assert not read("sdd", tmp_path).issues
    train = read("sdd", tmp_path, split="train")
    assert not train.issues
    assert [bool(s.masks) for s in train if s.label] == [True]


def test_label_by_content_needs_the_mask(tmp_path: Path) -> None:
    for name in ("Part0", "Part1", "Part2"):
        picture(tmp_path / "kos01" / f"{name}.jpg")
    mask(tmp_path / "kos01" / "Part0_label.bmp")
    (tmp_path / "kos01" / "Part1_label.bmp").write_bytes(b"broken")
    found = read("ksdd", tmp_path)
    assert [(sample.path.stem, sample.label) for sample in found] == [("Part0", 1)]
    assert {(i.kind, i.path.name) for i in found.issues} == {
        ("unreadable mask", "Part1_label.bmp"),
        ("picture without mask", "Part2.jpg"),
    }


def test_pictures_without_annotation_are_left_out_and_counted(tmp_path: Path) -> None:
    from dataset_trees import TREES

    next(tree for tree in TREES if str(tree) == "bsd-release").build(tmp_path)
    assert "2 pictures without annotation are left out" in read("bsd", tmp_path).notes
