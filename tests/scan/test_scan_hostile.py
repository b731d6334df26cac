"""Sources that a stranger made: each is refused with one sentence, and costs little."""

from __future__ import annotations

import gzip
import struct
import sys
import tarfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from blemish.errors import OutputError, UsageError
from blemish.image_io.find import PassedOver
from blemish.scan import tars
from blemish.scan.items import Item
from blemish.scan.plan import Plan
from blemish.scan.sources import SourceOptions, list_files, list_items, read_items
from helpers import save_picture
from scan_helpers import pack, rows_of

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def items_of(path: Path) -> list[Item]:
    return [item for file in list_files([str(path)]) for item in list_items(file, SourceOptions(), PassedOver())]


def header(name: str, kind: bytes, size: int) -> bytes:
    """Return the header of a member that states any size."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def pax(name: str, value: str) -> bytes:
    """Return an entry of pax for the next member."""
    record = f" {name}={value}\n".encode()
    length = next(number for number in range(1, 9999) if len(str(number)) + len(record) == number)
    data = f"{length}".encode() + record
    return header("x", tarfile.XHDTYPE, len(data)) + data.ljust(-(-len(data) // 512) * 512, b"\0")


MEMBER = header("a.png", tarfile.REGTYPE, 5) + b"bytes".ljust(512, b"\0")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize(
    ("content", "count"),
    [
        (header("x", tarfile.XHDTYPE, 2**50), 0),
        (header("x", tarfile.GNUTYPE_LONGNAME, 2**40), 0),
        (header("a.png", tarfile.REGTYPE, 2**62), 1),
        (header("a.png", tarfile.REGTYPE, 2**80), 1),
        (pax("size", "-512"), 0),
        (pax("size", "-5"), 0),
        (pax("size", str(2**70)), 1),
        (pax("GNU.sparse.map", "1,x"), 0),
    ],
)
def test_a_shard_that_states_what_it_does_not_hold(tmp_path: Path, suffix: str, content: bytes, count: int) -> None:
    """Sizes that no memory holds, sizes below zero (the next header is then an earlier one), tables that are none."""
    shard = tmp_path / f"evil{suffix}"
    data = content + MEMBER + bytes(1024)
    shard.write_bytes(gzip.compress(data) if suffix == ".tar.gz" else data)
    items = items_of(shard)
    assert f"is cut short or damaged after {count} files" in str(items[-1].error)
    assert len(items) == count + 1
    assert all(item.error is not None and "\n" not in item.error for item in items)


def test_a_compressed_shard_that_unpacks_to_much_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large headers end the list; large members are not read. Both take next to no bytes in the file."""
    monkeypatch.setattr(tars, "MAX_COMPRESSED_MEMBER", 2**20)
    shard = pack(tmp_path / "bomb.tar.gz", [("big.png", bytes(2**24)), ("a.png", b"bytes")])
    assert shard.stat().st_size < 30_000
    big, small = items_of(shard)
    assert big.error == f"'{shard}/big.png' is larger than 1 MiB; make it smaller."
    assert [picture.size for picture in read_items([big, small])] == [None, 5]
    shard.write_bytes(gzip.compress(header("x", tarfile.XHDTYPE, 2**24) + bytes(2**24) + MEMBER + bytes(1024)))
    assert ["damaged after 0 files" in str(item.error) for item in items_of(shard)] == [True]


def test_a_table_that_states_more_rows_than_bytes(tmp_path: Path) -> None:
    table = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"image": pyarrow.nulls(1_000_000, pyarrow.binary())}), table)
    assert table.stat().st_size < 20_000
    with pytest.raises(UsageError, match="states more rows than it has bytes"):
        items_of(table)


@pytest.mark.parametrize("length", [2**31, 2**32 - 1, 0, 7])
def test_a_footer_of_any_length(tmp_path: Path, length: int) -> None:
    table = tmp_path / "footer.parquet"
    parquet.write_table(pyarrow.table({"path": ["a.png"]}), table)
    data = table.read_bytes()
    table.write_bytes(data[:-8] + struct.pack("<I", length) + b"PAR1")
    with pytest.raises(UsageError, match="is missing, damaged, or no Parquet file") as caught:
        items_of(table)
    assert "\n" not in str(caught.value)


def test_lists_with_names_that_are_none(begin, tmp_path: Path) -> None:
    """Bytes that no path has, paths that are too long, a cell without an end: a row with an error for each."""
    (tmp_path / "list.txt").write_bytes(b"a\0b.png\n" + b"x" * 9000 + b".png\n\xff\xfe.png\n=cmd()|'x'.png\n")
    with begin(tmp_path / "list.txt") as scan:
        scan.execute()
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 4
    assert all(row["error"] and "\n" not in row["error"] for row in rows)
    assert "=cmd()|'x'.png" in rows[3]["path"], "Parquet is no spreadsheet: names stay as they are"
    (tmp_path / "list.csv").write_bytes(b"path\n" + b'"' + b"x" * 200_000)
    with pytest.raises(UsageError, match="is no CSV file"):
        items_of(tmp_path / "list.csv")


@pytest.mark.skipif(sys.platform == "win32", reason="such names are not possible there")
def test_names_stay_names(begin, folder: Path, tmp_path: Path) -> None:
    """Names in a shard and on the disk lead to no file outside, and files of pictures are named by numbers."""
    png = (folder / "line0" / "0.png").read_bytes()
    evil = "../../a\x1b[2J\nblemish: all is well<script>.png"
    save_picture(folder / "line0" / evil.rpartition("/")[2])
    (tmp_path / "in").mkdir()
    pack(tmp_path / "in" / "evil.tar", [(evil, png)])
    before = set(tmp_path.rglob("*"))
    with begin(folder, tmp_path / "in" / "evil.tar", kinds=("overlay",)) as scan:
        scan.execute()
    new = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert all(path.is_relative_to(tmp_path / "out") for path in new)
    assert all(path.stem.isdecimal() for path in new if path.suffix == ".png")
    assert [row["path"].endswith("well<script>.png") for row in rows_of(tmp_path / "out")].count(True) == 2


def test_a_picture_that_is_also_a_page_and_a_shard(begin, tmp_path: Path) -> None:
    """Only the picture counts, and nothing of the rest gets into what is written."""
    picture = save_picture(tmp_path / "in" / "both.png")
    page = b"<html><script>alert(1)</script></html>"
    picture.write_bytes(picture.read_bytes() + page + pack(tmp_path / "x.tar", [("a.png", page)]).read_bytes())
    (tmp_path / "in" / "page.png").write_bytes(page)
    with begin(tmp_path / "in", kinds=("overlay", "heatmap")) as scan:
        scan.execute()
    both, alone = rows_of(tmp_path / "out")
    assert both["error"] is None
    assert "is in no format that blemish reads" in alone["error"]
    written = list((tmp_path / "out").rglob("*.png"))
    assert len(written) == 2
    assert all(b"<script>" not in path.read_bytes() for path in written)
    assert all(path.read_bytes().endswith(PNG_END) for path in written)
    (tmp_path / "both.tar").write_bytes(picture.read_bytes())
    assert "is cut short or damaged after 0 files" in str(items_of(tmp_path / "both.tar")[0].error)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_folders_that_hold_themselves(folder: Path) -> None:
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "line0" / "self.png").symlink_to(folder / "line0" / "self.png")
    items = items_of(folder)
    assert len(items) == 11
    assert [Path(picture.item.path).name for picture in read_items(items) if picture.sha256 is None] == ["self.png"]


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[3]", b"null", b"\xff"])
def test_settings_that_are_none(begin, folder: Path, tmp_path: Path, content: bytes) -> None:
    with begin(folder):
        pass
    (tmp_path / "out" / "settings.json").write_bytes(content)
    with pytest.raises(OutputError, match=r"settings.json' is damaged; scan into another folder"):
        begin(folder)


def test_a_plan_of_other_columns(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder):
        pass
    file = tmp_path / "out" / "plan.parquet"
    metadata = {b"blemish-plan": parquet.read_metadata(file).metadata[b"blemish-plan"]}
    with parquet.ParquetWriter(file, pyarrow.schema([("evil", pyarrow.string())]).with_metadata(metadata)) as writer:
        writer.write_table(pyarrow.table({"evil": ["x"]}).cast(writer.schema))
    with pytest.raises(OutputError, match=r"plan.parquet' is damaged"):
        Plan(file).items(0)
