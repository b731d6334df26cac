"""Masks are paired by name; files without a partner are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish.datasets import read
from blemish.datasets.pairing import pair
from blemish.errors import UsageError
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


def folder_pairs(root: Path) -> dict[str, list[str]]:
    return {
        sample.path.name: [path.name for path in sample.masks or ()] for sample in read("folder", root) if sample.label
    }


@pytest.mark.parametrize(
    ("pictures", "masks", "pairs"),
    [
        ("02,09,10,11", "mask10,mask11,mask2,mask9", "mask2,mask9,mask10,mask11"),
        ("image1,image2,image3,image4", "mask1,mask2,mask4", "mask1,mask2,,mask4"),
        ("part1,part2,part3", "part1-gt,part2-gt", "part1-gt,part2-gt,"),
        ("weld_1,weld_2", "weld_1_pixelmask,weld_2_pixelmask,weld_10_pixelmask", "weld_1_pixelmask,weld_2_pixelmask"),
        ("001,010", "mask_001,mask_010", "mask_001,mask_010"),
        ("IMG_0001,IMG_0002", "0001,0002", "0001,0002"),
        ("a_rgb,b_rgb", "a_mask,b_mask", "a_mask,b_mask"),
        ("cam1_07,cam1_08", "gt_7,gt_8", "gt_7,gt_8"),
        ("7,8", "crack_7_mask,crack_8_mask", "crack_7_mask,crack_8_mask"),
        ("Teil \u00c41", "teil a\u03081_maske", "teil a\u03081_maske"),
        ("A,b", "a_Mask,B_MASK", "a_Mask,B_MASK"),
        ("part-1,part-2", "part_1_mask,part 2 label", "part_1_mask,part 2 label"),
        ("1,10,100", "100_label,10_label,1_label", "1_label,10_label,100_label"),
        ("0,1", "0.jpg_mask,1.png", "0.jpg_mask,1.png"),
        ("x-1,x-2", "x-1_mask_1,x-1_mask_2", "x-1_mask_1+x-1_mask_2,"),
        ("a,b", "c,d", ","),
        ("2,3", "02,20", "02,"),
        ("1,01", "1_mask,01_mask", "1_mask,01_mask"),
    ],
)
def test_masks_by_name_and_number(tmp_path: Path, pictures: str, masks: str, pairs: str) -> None:
    """A mask goes to the picture that its name means and to no other, and all others are told."""
    picture(tmp_path / "test" / "good" / "a.png")
    for name in pictures.split(","):
        picture(tmp_path / "test" / "bad" / f"{name}.jpg")
    for name in masks.split(","):
        mask(tmp_path / "ground_truth" / "bad" / f"{name}.png")
    found = read("folder", tmp_path)
    of_picture = {s.path.stem: "+".join(path.stem for path in s.masks or ()) for s in found if s.label}
    assert of_picture == dict(zip(pictures.split(","), pairs.split(","), strict=True))
    told = {(issue.kind, issue.path.stem) for issue in found.issues}
    used = {name for goal in of_picture.values() for name in goal.split("+")}
    assert told == {("picture without mask", name) for name, goal in of_picture.items() if not goal} | {
        ("mask without picture", name) for name in masks.split(",") if name not in used
    }


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ("bad/1.png bad/01.png masks/mask1.png", "bad/1.png"),
        ("colour/0.png crack/0.png masks/0.png", "crack/0.png"),
        ("bad/0.png masks/0_mask.png masks/0_gt.png", "0_gt.png"),
        ("bad/0.jpg bad/0.bmp masks/0.png", "bad/0.bmp"),
    ],
)
def test_what_fits_twice_is_refused(tmp_path: Path, files: str, named: str) -> None:
    picture(tmp_path / "good" / "a.png")
    for name in files.split():
        (mask if name.startswith("masks") else picture)(tmp_path / name)
    with pytest.raises(UsageError, match=f"{named}.* equally well; rename"):
        read("folder", tmp_path)


def test_position_is_never_used_for_own_folders(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / "test" / "good" / f"{name}.png")
        picture(tmp_path / "test" / "bad" / f"{name}.png")
        mask(tmp_path / "ground_truth" / "bad" / f"x{name}.png")
    found = read("folder", tmp_path)
    assert not found.pixel_labels
    assert len(found.issues) == 4


def test_a_copied_file_is_left_out_if_it_is_one(tmp_path: Path) -> None:
    for kind in ("good", "bad"):
        picture(tmp_path / kind / "part.png")
    twin = tmp_path / "bad" / "part - Copy.png"
    twin.write_bytes((tmp_path / "bad" / "part.png").read_bytes())
    picture(tmp_path / "bad" / "part (1).png")  # another picture of such a name
    found = read("folder", tmp_path)
    assert sorted(sample.path.name for sample in found if sample.label) == ["part (1).png", "part.png"]
    assert found.others == {twin: "copy of a file"}
