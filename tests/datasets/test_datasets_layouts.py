"""Every data set is read in every layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.datasets import DATASETS, Dataset, check, info, names, read
from dataset_trees import SIZE, TREES, Tree, folders, picture


def numbers(found: Dataset) -> dict[str, tuple[int, int, int]]:
    """Per category: normal, anomalous, anomalous with a mask."""
    result = {}
    for category in found.categories:
        samples = found.of(category)
        anomalous = [sample for sample in samples if sample.label]
        result[category] = (len(samples) - len(anomalous), len(anomalous), sum(bool(s.masks) for s in anomalous))
    return result


def test_every_data_set_has_a_tree() -> None:
    assert {tree.name for tree in TREES} == set(names())


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_layout(tree: Tree, tmp_path: Path) -> None:
    root = tmp_path / "here"
    tree.build(root)
    expected = {root.name if name == "*" else name: known for name, known in tree.test.items()}
    found = read(tree.name, root)
    assert numbers(found) == expected
    assert not found.issues
    assert (found.name, found.split, found.root) == (tree.name, "test", root)
    assert not [note for note in found.notes if "position" in note]
    entry = info(tree.name)
    assert found.pixel_labels == any(masked for _, _, masked in expected.values())
    assert entry.pixel_labels or not found.pixel_labels
    for sample in found:
        assert sample.object_name == entry.object_names.get(sample.category, sample.category)
        assert sample.picture().size == SIZE
        marked = sample.mask()
        if sample.label and sample.masks:
            assert marked is not None
            assert marked.shape == SIZE[::-1]
            assert 0 < marked.mean() < 1
        else:
            assert marked is None if sample.label else not np.any(marked)
    if tree.train is not None:
        assert numbers(read(tree.name, root, split="train")) == tree.train


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_layout_one_folder_down(tree: Tree, tmp_path: Path) -> None:
    if tree.layout in ("one", "table"):
        pytest.skip("is found anywhere")
    tree.build(tmp_path / "unpacked" / "here")
    expected = {"here" if name == "*" else name: known for name, known in tree.test.items()}
    assert numbers(read(tree.name, tmp_path / "unpacked")) == expected


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_check_counts_every_layout(tree: Tree, tmp_path: Path) -> None:
    tree.build(tmp_path / "here")
    report = check(tree.name, tmp_path / "here")
    assert not report.issues
    of_test = [one for one in report.tallies if one.split == "test" and one.category]
    assert [(one.normal, one.anomalous, one.masked) for one in of_test] == list(tree.test.values())
    assert report.ok == (not any(one.differs for one in report.tallies) and not report.differences)
    assert any("assumed" in note for note in report.notes) == (tree.name in ("gc", "msd", "road"))
    files = [path for path in (tmp_path / "here").rglob("*") if path.is_file()]
    assert len(report.account) == len(files)
    kinds = {reason.split(" (")[0] for reason in report.account.left_out.values()}
    assert kinds <= {"no picture", "no part of this layout", "not in the list"}, report.account.left_out


def test_order_is_natural_and_normal_comes_first(tmp_path: Path) -> None:
    for name in ("10.png", "9.png", "1.png"):
        picture(tmp_path / "test" / "good" / name)
        picture(tmp_path / "test" / "broken" / name)
    found = read("folder", tmp_path)
    assert [(s.defect, s.path.name) for s in found] == [
        (kind, name) for kind in ("good", "broken") for name in ("1.png", "9.png", "10.png")
    ]


def test_categories_are_chosen_in_any_spelling(tmp_path: Path) -> None:
    folders("bottle", "metal_nut")(tmp_path)
    assert read("mvtec", tmp_path, categories=["Metal Nut"]).categories == ("metal_nut",)


def test_one_category_of_a_known_set(tmp_path: Path) -> None:
    folders("metal_nut")(tmp_path)
    assert read("mvtec", tmp_path / "metal_nut").categories == ("metal_nut",)


def test_sets_side_by_side_are_distinguished_by_their_names(tmp_path: Path) -> None:
    for name in ("CVC-ColonDB", "Kvasir"):
        picture(tmp_path / name / "images" / "1.png")
    assert read("colondb", tmp_path).root == tmp_path / "CVC-ColonDB"


def test_unknown_folders_are_named(tmp_path: Path) -> None:
    folders("bottle", "teapot")(tmp_path)
    found = read("mvtec", tmp_path)
    assert found.categories == ("bottle",)
    assert any("teapot" in note for note in found.notes)


def test_a_dataset_is_a_sequence(tmp_path: Path) -> None:
    folders("cup")(tmp_path)
    found = read("folder", tmp_path)
    assert len(found) == 5
    assert found[0] == found.samples[0]
    assert found[1:3] == found.samples[1:3]
    assert list(found) == list(found.samples)
    assert found.image_labels


def test_table_is_complete() -> None:
    for entry in DATASETS.values():
        assert entry.layouts
        if entry.domain == "any":
            continue
        assert entry.use
        assert entry.home_page or entry.assumed
        assert set(entry.object_names) <= set(entry.categories)
        assert not entry.test_counts or set(entry.test_counts) == set(entry.categories)
        if entry.test_counts:
            whole = entry.counts["test"]
            assert whole.normal == sum(one.normal or 0 for one in entry.test_counts.values())
            assert whole.anomalous == sum(one.anomalous or 0 for one in entry.test_counts.values())


@pytest.mark.parametrize(
    ("given", "name"),
    [("MVTec AD", "mvtec"), ("DAGM_KaggleUpload", "dagm"), ("meta.json", "meta"), ("KolektorSDD2", "ksdd2")],
)
def test_aliases(given: str, name: str) -> None:
    assert info(given).name == name
