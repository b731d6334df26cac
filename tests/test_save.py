"""Files of detections: names, formats, nothing half written."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from blemish import files
from blemish.detection import FILE_KINDS, Detection
from blemish.errors import ImageError, OutputError, UsageError
from blemish.files import common_root, output_name, write_atomically
from helpers import load_pixels

VALUES = np.zeros((6, 8), np.float32)
VALUES[1:5, 1:5] = 0.9
VALUES[2, 2] = 0.1  # a hole
VALUES[0, 7] = 0.7
PICTURE = Image.new("RGB", (8, 6), "grey")


def made(path="in/a.png", threshold=0.5, **change):
    return Detection(
        **{
            "score": 0.8,
            "anomaly_map": VALUES,
            "map_range": (0.0, 1.0),
            "size": (8, 6),
            "path": None if path is None else str(path),
            "threshold": threshold,
            **change,
        }
    )


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_everything_is_written_and_reads_back(tmp_path):
    written = made().save(tmp_path, FILE_KINDS, picture=PICTURE, root="in")
    maps = {f"map/a.png.{suffix}" for suffix in ("npy", "png", "tiff")}
    assert set(tree(tmp_path)) == maps | {f"{kind}/a.png.png" for kind in ("heatmap", "overlay", "mask")}
    assert set(written) == set(FILE_KINDS)
    np.testing.assert_array_equal(np.asarray(load_pixels(written["mask"])), np.where(VALUES >= 0.5, 255, 0))
    raw = np.load(written["map"])
    np.testing.assert_array_equal(raw, VALUES)
    assert raw.dtype == np.float32
    np.testing.assert_array_equal(load_pixels(written["heatmap"]), made().heatmap())
    np.testing.assert_array_equal(load_pixels(written["overlay"]), made().overlay(PICTURE))


def test_the_mask_needs_a_threshold(tmp_path):
    assert set(made(threshold=None).save(tmp_path, ("mask", "map"))) == {"map"}


def test_the_overlay_reads_the_picture_from_its_path(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    detection = made(tmp_path / "a.png")
    np.testing.assert_array_equal(detection.overlay(), detection.overlay(PICTURE))
    assert detection.save(tmp_path / "out", root=tmp_path)["overlay"].name == "a.png.png"
    with pytest.raises(UsageError, match="came from memory; give it to be drawn on"):
        made(None).overlay()
    with pytest.raises(ImageError, match="does not exist"):
        made("gone.png").overlay()


def test_names_do_not_collide():
    names = [output_name(path, "/r") for path in ("/r/a/x.png", "/r/b/x.png", "/r/x.png", "/r/x.jpg", "/r/x.jpg.png")]
    assert [name.as_posix() for name in names] == ["a/x.png", "b/x.png", "x.png", "x.jpg", "x.jpg.png"]
    assert len({output_name(path, "/r") for path in ("/q/x.png", "/p/x.png", "/r/x.png")}) == 3
    assert output_name("/r/../etc/passwd", "/r").parts[0].startswith("passwd-")
    assert output_name("a/b.png") == Path("a/b.png")


@settings(max_examples=200)
@given(
    st.lists(
        st.text(min_size=1, max_size=300).filter(lambda s: s not in (".", "..")), min_size=2, max_size=2, unique=True
    )
)
def test_any_name_is_made_safe_and_stays_apart(names):
    names = [name.replace("/", "∕").replace("\0", "␀") for name in names]
    results = [output_name(f"/r/{name}", "/r") for name in names]
    assert (results[0] == results[1]) == (names[0] == names[1])
    for result in results:
        assert len(result.parts) == 1
        assert len(str(result).encode()) <= 180
        assert output_name(Path("/r") / result, "/r") == result  # safe already
        assert not set(str(result)) & set('<>:"|?*\\\n\r\t')
        assert not str(result).endswith((".", " "))


def test_weird_names_are_really_written(tmp_path):
    names = ["con.png", "a\nb.png", "x" * 250 + ".png", "naïve é.png", "\udcff.png", "dots...", "-rf.png"]
    out = tmp_path / "out"
    places = {made(f"/r/{name}").save(out, "mask", root="/r")["mask"] for name in names}
    assert all(place.is_file() for place in places)
    assert len(places) == len(names)
    named = made(None).save(out, "mask", name="camera 1/frame 7")["mask"]
    assert named.relative_to(out).as_posix() == "mask/camera 1/frame 7.png"
    with pytest.raises(UsageError, match="came from memory; give a name"):
        made(None).save(out, "mask")
    for name in ("../../up", "/", "//a/./b"):
        place = made().save(out, "mask", name=name)["mask"]
        assert place.is_file()
        assert ".." not in place.parts


def test_common_root(tmp_path):
    assert common_root(["/r/a/x.png", "/r/b/x.png"]) == Path("/r")
    assert common_root(["/r/a/x.png"]) == Path("/r/a")
    assert common_root([]) is None


def test_an_interrupted_write_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "new" / "file.bin"
    write_atomically(path, lambda stream: stream.write(b"old"))

    def stop(stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, stop)
    assert path.read_bytes() == b"old"
    assert tree(tmp_path) == ["new/file.bin"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "disk is full; free some space"),
        (errno.EACCES, "check the permissions"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_write_that_fails_is_one_sentence(tmp_path, monkeypatch, number, message):
    def fail(self, *_, **__):
        raise OSError(number, errno.errorcode[number] if number != errno.EIO else "Input/output error")

    monkeypatch.setattr(files.Path, "replace", fail)
    with pytest.raises(OutputError, match=message) as caught:
        made().save(tmp_path, "mask", root="in")
    assert caught.value.path == str(tmp_path / "mask" / "a.png.png")
    assert tree(tmp_path) == []


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "mask").write_text("in the way")
    with pytest.raises(OutputError, match="in the way of"):
        made().save(tmp_path, "mask", root="in")


def test_unknown_choices_are_refused(tmp_path):
    with pytest.raises(
        UsageError, match=r"'heat' \(did you mean heatmap\?\); choose from map, map-png, map-tiff, heatmap"
    ):
        made().save(tmp_path, ["heat"])
    with pytest.raises(UsageError, match="bmp"):
        made().save(tmp_path, image_format="bmp")


def test_jpeg(tmp_path):
    path = made().save(tmp_path, "heatmap", root="in", image_format="jpg")["heatmap"]
    assert path.name == "a.png.jpg"
    with Image.open(path) as image:
        assert image.size == (8, 6)
    long = made(anomaly_map=np.zeros((1, 70_000), np.float32), size=(70_000, 1))
    with pytest.raises(OutputError, match="choose png"):
        long.save(tmp_path, "heatmap", image_format="jpg")


def test_on_the_disk_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    sync, replace = files.os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda number: calls.append("sync") or sync(number))
    monkeypatch.setattr(Path, "replace", lambda self, to: calls.append("replace") or replace(self, to))
    write_atomically(tmp_path / "a", lambda stream: stream.write(b"content"))
    assert calls == ["sync", "replace", "sync"]  # the file, then its name
    calls.clear()
    write_atomically(tmp_path / "b", lambda stream: stream.write(b"content"), durable=False)
    assert calls == ["replace"]
