"""Scans: parts, what a killed one leaves, failures, shards, settings, profiles."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from pyarrow import parquet

import blemish
from blemish.errors import OutputError, UsageError
from blemish.scan import DetectorOptions, Shard
from blemish.scan import detectors as detectors_module
from blemish.scan.detectors import profile_files
from blemish.scan.items import Item
from blemish.scan.plan import split
from blemish.scan.rows import SCAN_COLUMNS, part_path
from helpers import save_picture
from scan_helpers import pack, rows_of


class Killed(BaseException):
    """Ends a scan in its middle, as a signal does."""


def test_rows(begin, folder: Path, tmp_path: Path, detector_options: DetectorOptions) -> None:
    with begin(folder, kinds=("map-png",)) as scan:
        assert (len(scan.plan), scan.new, scan.todo) == (3, True, [0, 1, 2])
        scan.execute()
        assert (scan.todo, scan.scored) == ([], 10)
    rows = rows_of(tmp_path / "out")
    assert list(rows[0]) == [name for name in SCAN_COLUMNS if name not in ("seconds", "run", "date")]
    assert [Path(row["path"]).name for row in rows] == [
        "0.png", "2.png", "4.png", "6.png", "8-broken.png", "1.png", "3.png", "5.png", "7.png", "9-copy.png"
    ]  # fmt: skip
    broken, original, copy = rows[4], rows[8], rows[9]
    assert (broken["score"], broken["label"], broken["bytes"]) == (None, None, 10)
    assert "8-broken.png' is in no format" in broken["error"]
    assert copy["same_as"] == original["path"]
    assert (copy["score"], copy["sha256"], copy["files"]) == tuple(original[n] for n in ("score", "sha256", "files"))
    assert (original["width"], original["height"], original["threshold"]) == (40, 30, 0.5)
    assert json.loads(original["provenance"])["method"] == "clip"
    assert json.loads(original["region_list"]) == [] or original["regions"] > 0
    file = tmp_path / "out" / json.loads(original["files"])["map-png"]
    assert file.is_file()
    # The score loop of a part is the detector's own.
    detector = blemish.load(**detector_options.load)
    first = [detection.score for detection in detector([str(row["path"]) for row in rows[:4]], batch_size=3)]
    assert [row["score"] for row in rows[:4]] == first


def test_identical_pictures_are_scored_once_within_a_part(begin, folder: Path, tmp_path: Path) -> None:
    calls = []
    with begin(folder, part_size=9) as scan:
        scan.execute(on_progress=lambda: calls.append(1))
        assert scan.summary()["copies"] == 0
    assert len(calls) == 10
    assert all(row["same_as"] is None for row in rows_of(tmp_path / "out"))


def test_two_broken_copies(begin, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"no")
    with begin(tmp_path / "in") as scan:
        scan.execute()
    first, second = rows_of(tmp_path / "out")
    assert f"{'a.png'!r}"[1:] in first["error"]
    assert second["error"] == first["error"].replace("a.png", "b.png")


@pytest.mark.parametrize("at", [1, 4, 5, 9])
def test_a_killed_scan_ends_with_the_rows_of_an_unbroken_one(begin, folder: Path, tmp_path: Path, at: int) -> None:
    with begin(folder, out="unbroken") as scan:
        scan.execute()
    count = 0

    def kill() -> None:
        nonlocal count
        count += 1
        if count == at:
            raise Killed

    with pytest.raises(Killed), begin(folder) as scan:
        scan.execute(on_progress=kill)
    finished = len(list((tmp_path / "out").glob("parts/*.parquet")))
    assert finished == (at - 1) // 4
    with begin(folder) as scan:
        assert len(scan.finished) == finished
        scan.execute()
        assert scan.summary()["pictures"] == 10
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "unbroken")


def test_a_finished_scan_does_nothing(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder) as scan:
        scan.execute()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    with begin(folder) as scan:
        assert (scan.new, scan.todo, scan.change()) == (False, [], None)
        scan.execute()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}


def test_a_damaged_part_is_scored_again(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder) as scan:
        scan.execute()
    before = rows_of(tmp_path / "out")
    file = part_path(tmp_path / "out", 1)
    file.write_bytes(file.read_bytes()[:-50])
    part_path(tmp_path / "out", 2).unlink()
    (tmp_path / "out" / "parts" / ".123-0.part").write_bytes(b"of a killed process")
    with begin(folder) as scan:
        assert scan.todo == [1, 2]
        assert not list((tmp_path / "out" / "parts").glob(".*"))
        scan.execute()
    assert rows_of(tmp_path / "out") == before


def test_a_part_that_cannot_be_written(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder) as scan:
        (tmp_path / "out" / "parts").mkdir()
        (tmp_path / "out" / "parts" / "part-000001.parquet").mkdir()
        with pytest.raises(OutputError):
            scan.execute()
        assert list(scan.finished) == [0]


def test_failures_are_retried_alone(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder) as scan:
        scan.execute()
        assert [Path(path).name for path, _ in scan.failures(5)] == ["8-broken.png"]
    before = rows_of(tmp_path / "out")
    save_picture(folder / "line0" / "8-broken.png", 8)
    with begin(folder) as scan:
        assert "changed since this scan began" in (scan.change() or "")
        scan.retry_failed()
        assert scan.scored == 1
        assert scan.summary()["failed"] == 0
    after = rows_of(tmp_path / "out")
    assert [row for row in after if row["item"] != 4] == [row for row in before if row["item"] != 4]
    assert after[4]["score"] is not None


def test_the_plan_stays_when_the_source_grows(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder):
        pass
    save_picture(folder / "line0" / "new.png", 99)
    with begin(folder) as scan:
        assert "it had 10 files and has 11" in (scan.change() or "")
        scan.execute()
    assert len(rows_of(tmp_path / "out")) == 10


def test_results_are_no_sources(begin, folder: Path, tmp_path: Path) -> None:
    with begin(tmp_path, kinds=("overlay",)) as scan:
        scan.execute()
    assert list((tmp_path / "out" / "overlay").rglob("*.png"))
    with begin(tmp_path, kinds=("overlay",)) as scan:
        assert scan.change() is None


def test_shards_share_a_folder(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder, out="unbroken", part_size=2) as scan:
        scan.execute()
    with (
        begin(folder, part_size=2, shard=Shard(1, 3)) as first,
        begin(folder, part_size=2, shard=Shard(2, 3)) as second,
    ):
        assert first.todo == [0, 3]
        assert second.todo == [1, 4]
        with pytest.raises(OutputError, match="another run is writing"):
            begin(folder, part_size=2, shard=Shard(2, 3))
        with pytest.raises(UsageError, match="3 processes are scanning"):
            begin(folder, part_size=2, shard=Shard(2, 2))
        with pytest.raises(UsageError, match="3 processes are scanning"):
            begin(folder, part_size=2)
        threads = [threading.Thread(target=scan.execute) for scan in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with begin(folder, part_size=2) as rest:
        assert rest.todo == [2]
        rest.execute()
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "unbroken")


@pytest.mark.parametrize("text", ["3", "0/2", "3/2", "a/b", "1/", "-1/2"])
def test_shards_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError):
        Shard.parse(text)


def test_other_settings_are_refused(begin, folder: Path, detector_options: DetectorOptions) -> None:
    with begin(folder):
        pass
    with pytest.raises(UsageError, match=r"with other settings \(threshold was 0.5 and is 0.6 here"):
        begin(folder, detectors=DetectorOptions({**detector_options.load, "threshold": 0.6}))
    with pytest.raises(UsageError, match="batch_size was 3 and is 2 here"):
        begin(folder, batch_size=2)
    with pytest.raises(UsageError, match=r"of other sources or parts \(part_size was 4 and is 5"):
        begin(folder, part_size=5)
    with pytest.raises(UsageError, match=r"of other sources or parts \(sources was"):
        begin(folder / "line0")


def test_a_store_that_fails_stops_the_scan(begin, folder: Path, tmp_path: Path, monkeypatch) -> None:
    """No picture is blamed for a network that is down."""
    import fsspec

    from blemish.scan.stores import StoreError

    store = fsspec.filesystem("memory")
    for file in sorted(folder.rglob("*.png")):
        store.pipe(f"/down/{file.name}", file.read_bytes())
    with begin("memory://down") as scan:
        original = type(store).cat
        calls = []

        def cat(self, names, **options):
            calls.append(names)
            if len(calls) == 2:
                return {name: OSError("connection reset") for name in names}
            return original(self, names, **options)

        monkeypatch.setattr(type(store), "cat", cat)
        with pytest.raises(StoreError, match="connection reset"):
            scan.execute()
        assert list(scan.finished) == [0]
        store.rm("/down/9-copy.png")
        scan.execute()
    rows = rows_of(tmp_path / "out")
    assert [row["item"] for row in rows] == list(range(10))
    assert "does not exist" in rows[-1]["error"]


def test_parts() -> None:
    def parts(items: list[Item], size: int) -> list[str]:
        return ["".join(item.path for item in part) for part in split(items, size)]

    assert parts([Item(name, "") for name in "abcde"], 2) == ["ab", "cd", "e"]
    assert parts([Item(name, "", profile=str(name in "ace")) for name in "abcdef"], 2) == ["ac", "bd", "e", "f"]
    shards = [Item(name, f"{name.lower()}.tar.gz", "tar", 0, 1) for name in "AAABB"]
    assert parts([*shards, Item("c", "")], 2) == ["AAA", "BB", "c"]


@pytest.fixture(scope="module")
def profiles(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiles")
    detector = blemish.load("winclip", backbone=tiny_backbone, device="cpu", precision="float32")
    for number, name in enumerate(("line0", "line1")):
        good = [save_picture(folder / name / f"{seed}.png", 10 * number + seed) for seed in range(3)]
        profile = detector.fit(good).profile
        assert profile is not None
        profile.save(folder / f"{name}.profile")
    return folder


def test_each_folder_has_its_profile(
    begin, folder: Path, tmp_path: Path, profiles: Path, tiny_backbone: Path, monkeypatch
) -> None:
    save_picture(folder / "line2" / "x.png", 3)
    reads = []
    original = detectors_module.Detectors._load
    monkeypatch.setattr(
        detectors_module.Detectors, "_load", lambda self, name: reads.append(name) or original(self, name)
    )
    options = DetectorOptions({"backbone": str(tiny_backbone), "device": "cpu"}, profile_files([str(profiles)]))
    with begin(folder, profile_from="folder", detectors=options, part_size=3) as scan:
        scan.execute()
        first, second = (scan.detectors.get(name) for name in ("line0", "line1"))
        assert first.torch_engine.backbone is second.torch_engine.backbone
    assert reads == ["line0", "line1"], "each memory bank is loaded once"
    rows = rows_of(tmp_path / "out")
    assert {row["profile"] for row in rows} == {"line0", "line1", "line2"}
    for name, detector in (("line0", first), ("line1", second)):
        own = [row for row in rows if row["profile"] == name and row["error"] is None]
        for row in own[:2]:
            detection = detector(row["path"])
            assert row["score"] == pytest.approx(detection.score, rel=1e-5)
            assert row["threshold"] == detector.threshold
            assert row["p_value"] == detection.p_value
    (orphan,) = [row for row in rows if row["profile"] == "line2"]
    assert "there is no profile 'line2'" in orphan["error"]


def test_profile_files(tmp_path: Path) -> None:
    (tmp_path / "a.profile").write_bytes(b"x")
    file = str(tmp_path / "a.profile")
    assert profile_files([str(tmp_path)]) == profile_files([file]) == {"a": file}
    assert profile_files([f"nut={file}"]) == {"nut": file}
    for words in (["no.profile"], [f"a={file}", file], [str(tmp_path / "..")]):
        with pytest.raises(UsageError):
            profile_files(words)


def test_no_pictures(begin, tmp_path: Path) -> None:
    pack(tmp_path / "empty.tar", [("a.json", b"{}")])
    with pytest.raises(UsageError, match="hold no pictures"):
        begin(tmp_path / "empty.tar")
    assert not (tmp_path / "out" / "plan.parquet").exists()


def test_names_that_are_not_utf8(begin, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "in" / "a.png")
    odd = str(picture).encode() + b"\xff.png"
    (tmp_path / "in" / "a.png").rename(odd.decode("utf-8", "surrogateescape"))
    with begin(tmp_path / "in") as scan:
        scan.execute()
        assert scan.summary()["failed"] == 0
    (row,) = rows_of(tmp_path / "out")
    assert row["path"].endswith("a.png\\udcff.png") or row["path"].endswith("a.png\\xff.png")


def test_parts_are_plain_parquet(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder) as scan:
        scan.execute()
    assert parquet.read_table(tmp_path / "out" / "parts").num_rows == 10


def test_no_changed_byte_of_a_part_is_kept(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder) as scan:
        scan.execute()
    before, file = rows_of(tmp_path / "out"), part_path(tmp_path / "out", 1)
    whole = bytearray(file.read_bytes())
    for at in range(0, len(whole), len(whole) // 20):
        changed = whole.copy()
        changed[at] ^= 1
        file.write_bytes(changed)
        with begin(folder) as scan:
            assert scan.todo == [1], at
    with begin(folder) as scan:
        scan.execute()
    assert rows_of(tmp_path / "out") == before


def test_a_part_of_a_process_that_was_killed_before_its_journal_is_kept(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder) as scan:
        scan.execute()
    shutil.rmtree(tmp_path / "out" / "runs")
    with begin(folder) as scan:
        assert scan.todo == []
    part_path(tmp_path / "out", 1).write_bytes(part_path(tmp_path / "out", 1).read_bytes() + b"x")
    with begin(folder) as scan:
        assert scan.todo == [1]


def test_a_changed_plan_is_refused(begin, folder: Path, tmp_path: Path) -> None:
    with begin(folder):
        pass
    file = tmp_path / "out" / "plan.parquet"
    changed = bytearray(file.read_bytes())
    changed[40] ^= 1
    file.write_bytes(changed)
    with pytest.raises(OutputError, match="is damaged; scan into another folder"):
        begin(folder)
