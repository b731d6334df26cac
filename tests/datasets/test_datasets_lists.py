"""Lists: CSV in its varieties, meta.json of other machines, and the errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blemish.datasets import read
from blemish.errors import UsageError
from dataset_trees import folders, mask, picture


def table(root: Path, text: str, name: str = "list.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8-sig")
    return root / name


def test_csv_by_its_path_with_categories_and_splits(tmp_path: Path) -> None:
    for name in "abcd":
        picture(tmp_path / f"{name}.png")
    mask(tmp_path / "m.png")
    text = (
        "Path , Label,mask,object,category,split,defect\n"
        "a.png,good,,metal nut,nuts,test,\n"
        "b.png,ANOMALY,m.png,metal nut,nuts,test,scratch\n"
        "c.png,1,,bolt,bolts,test,\n"
        "d.png,0,,bolt,bolts,train,\n"
    )
    found = read("csv", table(tmp_path, text))
    assert [(s.category, s.object_name, s.label, s.defect) for s in found] == [
        ("nuts", "metal nut", 0, ""),
        ("nuts", "metal nut", 1, "scratch"),
        ("bolts", "bolt", 1, ""),
    ]
    assert [s.masks for s in found] == [(), (tmp_path / "m.png",), None]
    assert len(read("csv", tmp_path, split="train")) == 1


def test_csv_missing_files_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    found = read("csv", table(tmp_path, "path,label,mask\na.png,1,gone.png\nalso.png,0,\n"))
    assert {(i.kind, i.path.name) for i in found.issues} == {
        ("missing mask", "gone.png"),
        ("missing picture", "also.png"),
    }
    assert [s.masks for s in found] == [None]
    assert found.categories == ("list",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,truth\na.png,1\n", "columns path and label"),
        ("path,label\n", "columns path and label"),
        ("path,label\na.png,perhaps\n", "line 2: 'perhaps' is no label"),
    ],
)
def test_csv_errors(tmp_path: Path, text: str, message: str) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(UsageError, match=message):
        read("csv", table(tmp_path, text))


def test_csv_of_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"\xff\xfep\x00a")
    with pytest.raises(UsageError, match="cannot be read as a table"):
        read("csv", tmp_path)


def meta(root: Path, items: list[dict[str, object]], key: str = "test", name: str = "meta.json") -> Path:
    (root / name).write_text(json.dumps({key: {"cup": items}}))
    return root / name


def test_meta_of_another_machine(tmp_path: Path) -> None:
    folders("cup")(tmp_path)
    item = {"cls_name": "cup", "specie_name": "bad", "anomaly": 1}
    item |= {
        "img_path": "/home/someone/data/set/cup/test/bad/000.png",
        "mask_path": "/home/someone/data/set/cup/ground_truth/bad/000_mask.png",
    }
    windows = item | {"img_path": "cup\\test\\bad\\001.png", "mask_path": "cup"}
    gone = item | {"img_path": "cup/test/bad/999.png"}
    found = read("meta", meta(tmp_path, [item, windows, gone], key="Test"))
    assert [s.path.relative_to(tmp_path).as_posix() for s in found] == ["cup/test/bad/000.png", "cup/test/bad/001.png"]
    assert [s.masks for s in found] == [(tmp_path / "cup/ground_truth/bad/000_mask.png",), None]
    assert [issue.kind for issue in found.issues] == ["missing picture"]


def test_meta_of_vcp_clip(tmp_path: Path) -> None:
    folders("cup")(tmp_path)
    item = {"img_path": "cup/test/good/000.png", "mask_path": "", "cls_name": "cup", "anomaly": 0}
    meta(tmp_path, [item], name="meta_cups.json")
    assert len(read("meta", tmp_path)) == 1


@pytest.mark.parametrize("text", ["[1]", '{"test": {"cup": [{"anomaly": 0}]}}', '{"test": [1]}', "{"])
def test_meta_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(UsageError, match=r"meta\.json"):
        read("meta", tmp_path)


def test_unknown_names_and_paths(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean mvtec"):
        read("mvtek", tmp_path)
    with pytest.raises(UsageError, match="no file or folder"):
        read("mvtec", tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"not laid out like MVTec AD: expected .* found no folders"):
        read("mvtec", tmp_path)
    folders("bottle")(tmp_path)
    with pytest.raises(UsageError, match="no category 'grid' there; it has bottle"):
        read("mvtec", tmp_path, categories=["grid"])
    with pytest.raises(UsageError, match="in the split 'validation'"):
        read("mvtec", tmp_path, split="validation")


def test_several_that_fit_are_not_guessed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        picture(tmp_path / name / "images" / "1.png")
    with pytest.raises(UsageError, match=r"several folders .* one, two"):
        read("kvasir", tmp_path)


def test_the_room_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, blemish.datasets; print('torch' in sys.modules or 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_progress_is_reported(tmp_path: Path) -> None:
    from blemish.datasets import check

    folders("cup")(tmp_path)
    calls: list[tuple[int, int]] = []
    check("folder", tmp_path, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(number, 6) for number in range(1, 7)]


def test_a_known_set_by_its_list(tmp_path: Path) -> None:
    folders("01", normal="ok", bad="ko")(tmp_path)
    item = {"img_path": "01/test/ko/000.png", "mask_path": "", "cls_name": "01", "anomaly": 1}
    found = read("btad", meta(tmp_path, [item]))
    assert [(s.label, s.object_name, s.masks) for s in found] == [(1, "metal1", None)]


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(".")(tmp_path / "cup")
    monkeypatch.chdir(tmp_path / "cup")
    assert read("folder", ".").categories == ("cup",)
