"""Journals: what survives a kill, what counts, and who may write."""

from __future__ import annotations

import errno
import json
from operator import itemgetter
from pathlib import Path

import pytest

from blemish.errors import OutputError
from blemish.outputs.journal import Journal, RunFolder, file_key, settings_fingerprint

NAME = "results.jsonl"


def open_journal(folder: RunFolder) -> Journal[str, float]:
    return folder.journal(NAME, itemgetter("path"), itemgetter("score"))


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / NAME).read_text().splitlines()]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with two results and a failure; the first result was replaced."""
    with RunFolder(tmp_path / "out") as folder:
        journal = open_journal(folder)
        for path, score in (("a", 0.1), ("b", 0.2), ("a", 0.3)):
            journal.append({"path": path, "score": score, "error": None})
        journal.append({"path": "c", "error": "it is damaged"})
    return tmp_path / "out"


def test_the_newest_line_of_a_key_counts(written: Path) -> None:
    with RunFolder(written) as folder:
        journal = open_journal(folder)
        assert list(journal.values.items()) == [("b", 0.2), ("a", 0.3)]
        assert journal.failures == {"c": {"path": "c", "error": "it is damaged"}}
        assert journal.line("a")["score"] == 0.3
        assert [line["path"] for line in journal.lines()] == ["b", "a", "c"]
        journal.append({"path": "a", "error": "it is gone"})
        journal.append({"path": "c", "score": 0.5})
        assert list(journal.values) == ["b", "c"]
        assert list(journal.failures) == ["a"]


@pytest.mark.parametrize("rest", [b'{"path": "b", "sco', b"no JSON\n", b'{"score": 1}\n', b"[1, 2]\n", b"\xff\n"])
def test_damaged_lines_are_ignored(written: Path, rest: bytes) -> None:
    with (written / NAME).open("ab") as stream:
        stream.write(rest)
    for _ in range(2):
        with RunFolder(written) as folder:
            journal = open_journal(folder)
            assert list(journal.values) == ["b", "a"]
            journal.append({"path": "b", "score": 0.2})
            journal.append({"path": "a", "score": 0.3})
            assert journal.line("a")["score"] == 0.3


def test_compacting_keeps_the_newest_lines(written: Path) -> None:
    assert len(lines(written)) == 4
    with RunFolder(written) as folder:
        journal = open_journal(folder)
        journal.compact()
        assert [line["path"] for line in lines(written)] == ["b", "a", "c"]
        assert journal.line("a")["score"] == 0.3
        journal.append({"path": "d", "score": 0.4})
        assert journal.line("d")["score"] == 0.4
    assert [line["path"] for line in lines(written)] == ["b", "a", "c", "d"]


def test_discarded_keys_go_with_the_next_compaction(written: Path) -> None:
    with RunFolder(written) as folder:
        journal = open_journal(folder)
        journal.discard("b")
        assert list(journal.values) == ["a"]
        assert len(lines(written)) == 4
        journal.compact()
    assert [line["path"] for line in lines(written)] == ["a", "c"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with RunFolder(tmp_path), pytest.raises(OutputError, match="another run is writing"):
        RunFolder(tmp_path)
    RunFolder(tmp_path).close()


def test_temporary_files_of_killed_runs_are_removed(tmp_path: Path) -> None:
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / ".123-4.part").write_bytes(b"half")
    (tmp_path / "overlay" / "a.png").write_bytes(b"whole")
    with RunFolder(tmp_path):
        assert [path.name for path in (tmp_path / "overlay").iterdir()] == ["a.png"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        RunFolder(tmp_path / "file" / "out")


def test_file_keys_change_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert file_key(path) is None
    assert file_key("a\0b") is None
    path.write_bytes(b"one")
    before = file_key(path)
    assert before is not None
    assert (before.path, before.size) == (str(path), 3)
    path.write_bytes(b"three")
    assert file_key(path) != before


def test_settings_fingerprints_ignore_the_order() -> None:
    assert settings_fingerprint({"a": 1, "b": 2}) == settings_fingerprint({"b": 2, "a": 1})
    assert settings_fingerprint({"a": 1}) != settings_fingerprint({"a": 2})


def test_no_changed_byte_is_read_as_a_value(written: Path) -> None:
    whole = (written / NAME).read_bytes()
    right = {"a": 0.3, "b": 0.2}
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1
        (written / NAME).write_bytes(changed)
        with RunFolder(written) as folder:
            values = open_journal(folder).values
        # Where the newest line of a is damaged, the one before counts.
        assert all(value in (right[key], 0.1 if key == "a" else None) for key, value in values.items()), at


def test_lines_of_earlier_versions_have_no_checksum(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"path": "a", "score": 0.25}\n')
    with RunFolder(tmp_path) as folder:
        assert open_journal(folder).values == {"a": 0.25}


def test_nothing_is_left_of_a_line_that_could_not_be_written(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (written / NAME).read_bytes()
    with RunFolder(written) as folder:
        journal = open_journal(folder)
        inner = journal._file

        class Full:
            """A file on a disk that is full after ten bytes."""

            def __getattr__(self, name: str) -> object:
                return getattr(inner, name)

            def write(self, data: bytes) -> int:
                inner.write(data[:10])
                inner.flush()
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(journal, "_file", Full())
        with pytest.raises(OutputError, match="the disk is full"):
            journal.append({"path": "d", "score": 0.5})
    assert (written / NAME).read_bytes() == whole
