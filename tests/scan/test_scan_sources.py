"""Sources of each form: which pictures they hold, and that the same pictures get the same scores from each."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from blemish.errors import UsageError
from blemish.image_io.find import PassedOver
from blemish.scan.items import SourceFile
from blemish.scan.sources import SourceOptions, expand_braces, list_files, list_items, read_items
from scan_helpers import pack, rows_of


def items_of(*words: object, **options: Any) -> list:
    return [
        item
        for source in list_files([str(word) for word in words])
        for item in list_items(source, SourceOptions(**options), PassedOver())
    ]


@pytest.fixture
def forms(folder: Path, tmp_path: Path) -> dict[str, list[Any]]:
    """The same pictures in each form."""
    files = sorted(folder.rglob("*.png"))
    data = [(file.relative_to(tmp_path).as_posix(), file.read_bytes()) for file in files]
    (tmp_path / "list.txt").write_text("".join(f"{file}\n" for file in files))
    (tmp_path / "list.csv").write_text("id,file_name\n" + "".join(f"{n},{file}\n" for n, file in enumerate(files)))
    parquet.write_table(pyarrow.table({"path": [str(file) for file in files]}), tmp_path / "paths.parquet")
    structs = [{"bytes": content, "path": None} for _, content in data]
    parquet.write_table(pyarrow.table({"image": structs}), tmp_path / "bytes.parquet", row_group_size=3)
    import fsspec

    store = fsspec.filesystem("memory")
    for name, content in data:
        store.pipe(f"/bucket/{name}", content)
    return {
        "tree": [folder],
        "list": [tmp_path / "list.txt"],
        "csv": [tmp_path / "list.csv"],
        "paths": [tmp_path / "paths.parquet"],
        "bytes": [tmp_path / "bytes.parquet"],
        "tar": [pack(tmp_path / "0.tar", data[:4]).with_name("{0..1}.tar"), pack(tmp_path / "1.tar", data[4:])],
        "tar.gz": [pack(tmp_path / "all.tar.gz", data)],
        "store": ["memory://bucket/photos"],
    }


def test_each_form_gives_the_same_scores(forms: dict[str, list[Any]], begin, tmp_path: Path) -> None:
    scores = {}
    for name, words in forms.items():
        with begin(*words[:1], out=name) as scan:
            scan.execute()
            assert scan.summary()["pictures"] == 10
            assert scan.summary()["failed"] == scan.summary()["copies"] == 1, name
        rows = rows_of(tmp_path / name)
        assert [row["item"] for row in rows] == list(range(10))
        scores[name] = {row["sha256"]: row["score"] for row in rows}
        assert [row["score"] for row in rows if row["error"] is not None] == [None]
    for name, values in scores.items():
        # Other batches, other last digits.
        expected = {key: pytest.approx(score or -1, rel=1e-5) for key, score in scores["tree"].items()}
        assert {key: score or -1 for key, score in values.items()} == expected, name


def test_names(forms: dict[str, list[Any]], tmp_path: Path) -> None:
    assert items_of(*forms["tar"])[0].path == f"{tmp_path}/0.tar/photos/line0/0.png"
    assert items_of(*forms["bytes"])[9].path == f"{tmp_path}/bytes.parquet#10"
    assert items_of(*forms["store"])[0].path == "memory:///bucket/photos/line0/0.png"
    assert items_of(*forms["list"])[0].path == f"{tmp_path}/photos/line0/0.png"


def test_a_file_that_is_named_twice_comes_once(folder: Path) -> None:
    assert len(items_of(folder, folder / "line0", f"{folder}/line0/*.png")) == 10


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{2..0}{x,y}", ["2x", "2y", "1x", "1y", "0x", "0y"]),
        ("plain.tar", ["plain.tar"]),
        ("s3://b/{a,b}/{0..1}.tar", ["s3://b/a/0.tar", "s3://b/a/1.tar", "s3://b/b/0.tar", "s3://b/b/1.tar"]),
    ],
)
def test_braces(word: str, names: list[str]) -> None:
    assert expand_braces(word) == names


def test_too_many_braces() -> None:
    with pytest.raises(UsageError, match="more than 1,000,000"):
        expand_braces("{0..9999999999}.tar")


def test_a_shard_leads_nowhere(tmp_path: Path, folder: Path) -> None:
    """Links, devices and names that climb out of a folder: nothing of them touches the disk."""
    png = (folder / "line0" / "0.png").read_bytes()
    shard = pack(tmp_path / "evil.tar", [("../../up.png", png), ("/etc/abs.png", png), ("x.json", b"{}")])
    with tarfile.open(shard, "a") as tar:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("dev.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    passed_over = PassedOver()
    before = sorted(tmp_path.parent.rglob("*.png"))
    source = SourceFile("tar", "evil.tar", str(shard))
    items = list(_items(source, passed_over))
    assert [item.path for item in items] == ["evil.tar/../../up.png", "evil.tar//etc/abs.png"]
    assert passed_over.files == {".png": 3, ".json": 1}
    assert [picture.error for picture in read_items(items)] == [None, None]
    assert sorted(tmp_path.parent.rglob("*.png")) == before


def _items(source: SourceFile, passed_over: PassedOver) -> list:
    return list(list_items(source, SourceOptions(), passed_over))


@pytest.mark.parametrize("name", ["cut.tar", "cut.tar.gz"])
def test_a_shard_that_is_cut_short_is_an_error_of_its_own(tmp_path: Path, folder: Path, name: str) -> None:
    png = (folder / "line0" / "0.png").read_bytes()
    shard = pack(tmp_path / name, [(f"{n}.png", png + bytes([n]) * 40_000) for n in range(4)])
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size * 2 // 3])
    items = items_of(shard)
    assert items[-1].error is not None
    assert "is cut short or damaged after" in items[-1].error
    fetched = list(read_items(items))
    assert len(fetched) == len(items)
    assert fetched[0].error is None


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    shard = pack(tmp_path / "a.tar", [(f"{n}.png", b"x" * 100) for n in range(3)])
    data = bytearray(shard.read_bytes())
    data[1024:1100] = b"?" * 76  # the second header
    shard.write_bytes(data)
    items = items_of(shard)
    assert [item.error is None for item in items] == [True, False]


def test_a_shard_that_changed_is_an_error_of_each_picture(tmp_path: Path, folder: Path) -> None:
    png = (folder / "line0" / "0.png").read_bytes()
    shard = pack(tmp_path / "a.tar", [("0.png", png), ("1.png", png)])
    items = items_of(shard)
    shard.write_bytes(b"")
    assert all("is not there any more" in (picture.error or "") for picture in read_items(items))
    shard.unlink()
    assert all("cannot be read from its file" in (picture.error or "") for picture in read_items(items))


def test_columns(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"name": ["a.png", None], "size": [1, 2]}), table)
    with pytest.raises(UsageError, match="no column of a known name: give --column, one of name, size"):
        items_of(table)
    with pytest.raises(UsageError, match=r"no column 'nam' \(did you mean name"):
        items_of(table, column="nam")
    with pytest.raises(UsageError, match="holds int64, neither bytes nor paths"):
        items_of(table, column="size")
    first, second = items_of(table, column="name")
    assert (first.path, first.error) == ("a.png", None)
    assert "'" in str(second.error)
    assert "has no path" in str(second.error)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(UsageError, match="no Parquet file"):
        items_of(tmp_path / "x.parquet")


def test_sources_that_do_not_exist(tmp_path: Path) -> None:
    for word in (tmp_path / "no", "s9://bucket/x", "memory://nowhere/"):
        with pytest.raises(UsageError):
            items_of(word)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no pictures"):
        items_of(tmp_path / "empty")


def test_profiles_by_folder_and_by_column(folder: Path, tmp_path: Path) -> None:
    assert {item.profile for item in items_of(folder, profile_from="folder")} == {"line0", "line1"}
    (tmp_path / "t.csv").write_text("path,product\nx/a.png,nut\nb.png,\n")
    assert [item.profile for item in items_of(tmp_path / "t.csv", profile_from="product")] == ["nut", None]
    with pytest.raises(UsageError, match="no column 'produkt'"):
        items_of(tmp_path / "t.csv", profile_from="produkt")
    with pytest.raises(UsageError, match="has no columns"):
        items_of(folder, profile_from="product")
