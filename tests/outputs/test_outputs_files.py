"""Files of detections: names, formats, nothing half written."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from blemish.detection import Detection
from blemish.errors import OutputError, UsageError
from blemish.files import common_root, output_name, write_atomically
from blemish.outputs import files
from blemish.outputs.files import KINDS, Writer
from blemish.rle import decode_mask

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
            "path": path,
            "threshold": threshold,
            **change,
        }
    )


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("map_format", "suffix"), [("npy", "npy"), ("tiff", "tiff")])
def test_everything_is_written_and_reads_back(tmp_path, map_format, suffix):
    with Writer(tmp_path, KINDS, root="in", map_format=map_format) as writer:
        written = writer.write(made(), PICTURE)
    pictures = {f"{kind}/a.png.png" for kind in ("heatmap", "overlay", "mask")}
    assert set(tree(tmp_path)) == pictures | {f"map/a.png.{suffix}", "regions.json", "regions.jsonl"}
    assert set(written) == set(KINDS)
    mask = np.asarray(Image.open(written["mask"]))
    np.testing.assert_array_equal(mask, np.where(VALUES >= 0.5, 255, 0))
    raw = np.load(written["map"]) if map_format == "npy" else np.asarray(Image.open(written["map"]))
    np.testing.assert_array_equal(raw, VALUES)
    assert raw.dtype == np.float32
    np.testing.assert_array_equal(Image.open(written["heatmap"]), made().heatmap())
    np.testing.assert_array_equal(Image.open(written["overlay"]), made().overlay(PICTURE))


def test_without_threshold_or_picture_what_needs_them_is_left_out(tmp_path):
    with Writer(tmp_path, KINDS, root="in") as writer:
        assert set(writer.write(made(threshold=None))) == {"heatmap", "map"}
    assert not (tmp_path / "regions.json").exists()


def test_coco(tmp_path):
    with Writer(tmp_path, "regions") as writer:
        writer.write(made("in/a.png"))
        writer.write(made("in/clean.png", threshold=1.0))
        writer.write(made("in/ü\n.png", mask_threshold=0.8))
        writer.write(made("in/a.png"))  # scored again: counts once
    coco = json.loads((tmp_path / "regions.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["in/clean.png", "in/ü\n.png", "in/a.png"]
    assert [image["id"] for image in coco["images"]] == [1, 2, 3]
    assert [(entry["id"], entry["image_id"]) for entry in coco["annotations"]] == [(1, 2), (2, 3), (3, 3)]
    holed, plain = coco["annotations"][1:]
    np.testing.assert_array_equal(decode_mask(holed["segmentation"]), (VALUES >= 0.5) & (VALUES > 0.8))
    assert holed["bbox"] == [1, 1, 4, 4]
    assert holed["area"] == 15
    corners = list(zip(plain["segmentation"][0][::2], plain["segmentation"][0][1::2], strict=True))
    assert set(corners) == {(7, 0), (8, 0), (8, 1), (7, 1)}
    assert coco["categories"] == [{"id": 1, "name": "anomaly"}]


def test_regions_survive_a_crash_and_go_on(tmp_path):
    writer = Writer(tmp_path, "regions")
    writer.write(made("a.png"))
    with (tmp_path / "regions.jsonl").open("ab") as stream:
        stream.write(b'{"image": {"file_na')  # killed in the middle of a line
    writer._lines.close()
    Writer(tmp_path, "regions", resume=True).close()  # nothing left to do but this
    assert len(json.loads((tmp_path / "regions.json").read_text())["images"]) == 1
    with Writer(tmp_path, "regions", resume=True) as again:
        again.write(made("b.png"))
    coco = json.loads((tmp_path / "regions.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b.png"]
    with Writer(tmp_path, "regions") as fresh:
        fresh.write(made("c.png"))
    coco = json.loads((tmp_path / "regions.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["c.png"]
    assert len(coco["annotations"]) == 2


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
    with Writer(tmp_path / "out", "mask", root="/r") as writer:
        places = {writer.write(made(f"/r/{name}"))["mask"] for name in names}
        unnamed = [writer.write(made(None))["mask"].name for _ in range(2)]
        named = writer.write(made(None), name="camera 1/frame 7")["mask"]
    assert all(place.is_file() for place in places)
    assert len(places) == len(names)
    assert unnamed == ["picture-000001.png", "picture-000002.png"]
    assert named.relative_to(tmp_path / "out").as_posix() == "mask/camera 1/frame 7.png"
    with Writer(tmp_path / "out", "mask") as writer:
        for name in ("../../up", "/", "//a/./b"):
            place = writer.write(made(None), name=name)["mask"]
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
        Writer(tmp_path, "mask", root="in").write(made())
    assert caught.value.path == str(tmp_path / "mask" / "a.png.png")
    assert tree(tmp_path) == []


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "mask").write_text("in the way")
    with pytest.raises(OutputError, match="in the way of"):
        Writer(tmp_path, "mask", root="in").write(made())


def test_unknown_choices_are_refused(tmp_path):
    with pytest.raises(UsageError, match="'heat'; choose among heatmap"):
        Writer(tmp_path, ["heat"])
    with pytest.raises(UsageError, match="bmp"):
        Writer(tmp_path, picture_format="bmp")
    with pytest.raises(UsageError, match="exr"):
        Writer(tmp_path, map_format="exr")


def test_other_picture_formats(tmp_path):
    for form in ("jpg", "webp"):
        path = Writer(tmp_path, "heatmap", root="in", picture_format=form).write(made())["heatmap"]
        assert path.name == f"a.png.{form}"
        with Image.open(path) as image:
            assert image.size == (8, 6)
    long = made(anomaly_map=np.zeros((1, 17000), np.float32), size=(17000, 1))
    with pytest.raises(OutputError, match="choose png"):
        Writer(tmp_path, "heatmap", root="in", picture_format="webp").write(long)
