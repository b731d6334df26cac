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


def two(root: Path, lid: str = "img", gt: str = "gt") -> None:
    """Write a normal and an anomalous picture, and the mask of the latter."""
    picture(root / lid / "g.png")
    picture(root / lid / "b.png")
    mask(root / gt / "b.png")


def is_right(root: Path, file: Path) -> bool:
    found = read("csv", file)
    return [(s.path, s.label, s.masks) for s in found] == [
        (root / "img/g.png", 0, ()),
        (root / "img/b.png", 1, (root / "gt/b.png",)),
    ]


TABLES = {
    "plain": b"path,label,mask\nimg/g.png,0,\nimg/b.png,1,gt/b.png\n",
    "tabs": b"path\tlabel\tmask\nimg/g.png\t0\t\nimg/b.png\t1\tgt/b.png\n",
    "semicolons": b"path;label;mask\nimg/g.png;0;\nimg/b.png;1;gt/b.png\n",
    "decimal commas": b"path;label;mask\nimg/g.png;0,0;\nimg/b.png;1,0;gt/b.png\n",
    "bars": b"path|label|mask\nimg/g.png|0|\nimg/b.png|1|gt/b.png\n",
    "blanks": b"path   label  mask\nimg/g.png  0\nimg/b.png  1     gt/b.png\n",
    "quotes": b'"path","label","mask"\n"img/g.png","good",""\n"img/b.png","bad","gt/b.png"\n',
    "whole lines in quotes": b'"path,label,mask"\n"img/g.png,0,"\n"img/b.png,1,gt/b.png"\n',
    "single quotes": b"path,label,mask\n'img/g.png','OK',\n'img/b.png','NG','gt/b.png'\n",
    "old Mac lines": b"path,label,mask\rimg/g.png,0,\rimg/b.png,1,gt/b.png\r",
    "Windows lines": b"path,label,mask\r\nimg/g.png,0,\r\nimg/b.png,1,gt/b.png\r\n",
    "empty rows": b"path,label,mask\n\nimg/g.png,0,\n,,\nimg/b.png,1,gt/b.png\n,,\n,,\n",
    "line of Excel": b"sep=;\npath;label;mask\nimg/g.png;0;\nimg/b.png;1;gt/b.png\n",
    "headings in any case": b"Image Path,LABEL,Mask_Path\nimg/g.png,Normal,\nimg/b.png,Anomaly,gt/b.png\n",
    "more columns": b"id,File Name,Verdict,operator,GT\n1,img/g.png,OK,x,\n2,img/b.png,NG,y,gt/b.png\n",
    "mark": "path,label,mask\nimg/g.png,0,\nimg/b.png,1,gt/b.png\n".encode("utf-8-sig"),
    "UTF-16": "path,label,mask\nimg/g.png,0,\nimg/b.png,1,gt/b.png\n".encode("utf-16"),
    "text of Excel": "path\tlabel\tmask\r\nimg/g.png\t0\t\r\nimg/b.png\t1\tgt/b.png\r\n".encode("utf-16"),
    "UTF-16 without a mark": "path,label,mask\nimg/g.png,0,\nimg/b.png,1,gt/b.png\n".encode("utf-16-le"),
    "backslashes": b"path,label,mask\nimg\\g.png,0,\nimg\\b.png,1,gt\\b.png\n",
    "dots": b"path,label,mask\n.\\img\\g.png,0,\n./img/b.png,1,./gt/b.png\n",
    "drive": b"path,label,mask\nD:\\set\\img\\g.png,0,\nD:\\set\\img\\b.png,1,D:\\set\\gt\\b.png\n",
    "drive and slashes": b"path,label,mask\nD:/set/img/g.png,0,\nD:/set/img/b.png,1,D:/set/gt/b.png\n",
    "share": b"path,label,mask\n\\\\pc\\set\\img\\g.png,OK,\n\\\\pc\\set\\img\\b.png,NG,\\\\pc\\set\\gt\\b.png\n",
    "another machine": b"path,label,mask\n/home/a/img/g.png,0,\n/home/a/img/b.png,1,/home/a/gt/b.png\n",
    "addresses of files": b"path,label,mask\nfile:///C:/s/img/g.png,0,\nfile:///C:/s/img/b.png,1,file:///C:/s/gt/b.png\n",
    "another case": b"path,label,mask\nIMG/G.PNG,0,\nImg/B.png,1,GT/b.PNG\n",
    "as pandas writes what is missing": b",path,label,mask\n0,img/g.png,0,nan\n1,img/b.png,1,gt/b.png\n",
    "German": b"Bild;Urteil;Maske\nimg/g.png;i.O.;\nimg/b.png;n.i.O.;gt/b.png\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_as_programs_save_them(tmp_path: Path, name: str) -> None:
    two(tmp_path)
    (tmp_path / "list.csv").write_bytes(TABLES[name])
    assert is_right(tmp_path, tmp_path / "list.csv")


@pytest.mark.parametrize("name", ["plain", "backslashes", "drive", "share"])
def test_a_table_in_a_folder_of_lists(tmp_path: Path, name: str) -> None:
    two(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_bytes(TABLES[name])
    found = read("csv", tmp_path / "lists" / "list.txt")
    assert [(s.label, bool(s.masks)) for s in found] == [(0, False), (1, True)]


@pytest.mark.parametrize("encoding", ["cp1252", "cp932", "gb18030", "cp1251", "utf-8", "utf-16"])
def test_encodings_are_told_by_the_files(tmp_path: Path, encoding: str) -> None:
    name = {"cp932": "部品", "gb18030": "零件", "cp1251": "деталь"}.get(encoding, "Stück")
    picture(tmp_path / f"{name}.png")
    (tmp_path / "list.csv").write_bytes(f"path,label\n{name}.png,1\n".encode(encoding))
    assert [s.path for s in read("csv", tmp_path)] == [tmp_path / f"{name}.png"]


def test_a_decomposed_name_is_found(tmp_path: Path) -> None:
    picture(tmp_path / "img" / "Stu\u0308ck.png")
    table(tmp_path, "path,label\nimg/St\u00fcck.png,1\n")
    assert len(read("csv", tmp_path)) == 1


def test_the_end_of_a_path_must_be_sure(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        picture(tmp_path / folder / "img" / "a.png")
    with pytest.raises(UsageError, match=r"D:\\x\\img\\a\.png may be .*one.* and .*two"):
        read("csv", table(tmp_path, "path,label\nD:\\x\\img\\a.png,1\n"))
    with pytest.raises(UsageError, match="missing picture"):  # a name alone tells too little
        read("csv", table(tmp_path / "one", "path,label\nD:\\x\\photos\\a.png,1\n"))
    with pytest.raises(UsageError, match="are one picture"):
        read("csv", table(tmp_path / "one", "path,label\nD:\\x\\img\\a.png,1\nD:\\y\\img\\a.png,0\n"))


def test_moved_paths_are_told(tmp_path: Path) -> None:
    two(tmp_path)
    (tmp_path / "list.csv").write_bytes(TABLES["drive"])
    assert any("3 listed paths found by their ends" in note for note in read("csv", tmp_path).notes)


def test_a_mask_that_is_a_listed_picture_is_refused(tmp_path: Path) -> None:
    two(tmp_path)
    with pytest.raises(UsageError, match="as a picture and as a mask"):
        read("csv", table(tmp_path, "path,label,mask\nimg/b.png,1,img/b.png\n"))


def test_several_rows_of_one_picture(tmp_path: Path) -> None:
    two(tmp_path)
    mask(tmp_path / "gt" / "c.png")
    found = read("csv", table(tmp_path, "path,label,mask\nimg/b.png,1,gt/b.png\nimg/b.png,1,gt/c.png\n"))
    assert [s.masks for s in found] == [(tmp_path / "gt/b.png", tmp_path / "gt/c.png")]
    with pytest.raises(UsageError, match=r"lines 2 and 3: .* with different labels"):
        read("csv", table(tmp_path, "path,label\nimg/b.png,1\nimg/b.png,0\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n,1\n", "line 2: the path is empty"),
        ("path,label\na,b.png,1\n", "line 2: 3 cells for 2 columns"),
        ("path,label,split\na.png,1,holdout\n", "line 2: 'holdout' is no split"),
        ("path,label\na.png,-1\n", "line 2: '-1' is no label"),
    ],
)
def test_rows_that_say_nothing_are_named(tmp_path: Path, text: str, message: str) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(UsageError, match=message):
        read("csv", table(tmp_path, text))


def test_spreadsheets_and_several_tables_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "list.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match="is a spreadsheet; save it as CSV"):
        read("csv", tmp_path / "list.xlsx")
    table(tmp_path, "path,label\na.png,1\n")
    (tmp_path / "~$list.csv").write_bytes(b"x")
    assert len(read("csv", tmp_path)) == 1
    table(tmp_path, "path,label\na.png,1\n", "more.csv")
    with pytest.raises(UsageError, match=r"several tables: give one of list\.csv, more\.csv"):
        read("csv", tmp_path)


def test_the_account_of_a_table(tmp_path: Path) -> None:
    from blemish.datasets import check

    two(tmp_path)
    picture(tmp_path / "img" / "forgotten.png")
    (tmp_path / "list.csv").write_bytes(TABLES["plain"])
    account = check("csv", tmp_path / "list.csv").account
    assert sorted(account.read.values()) == ["anomalous picture, test", "list", "mask", "normal picture, test"]
    assert account.left_out == {tmp_path / "img" / "forgotten.png": "not in the list"}
