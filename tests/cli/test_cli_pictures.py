"""`blemish detect` on what people bring: formats, depths, subfolders, videos; what is not read is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import save_picture

RNG = np.random.default_rng(3)


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def scores(outcome) -> dict[str, float]:
    return {Path(row["path"]).name: row["score"] for row in rows(outcome.out) if row["error"] is None}


def scene(size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Grey in [0, 1] with a dark spot."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    spot = np.exp(-((x - 0.6) ** 2 + (y - 0.4) ** 2) / 0.01)
    return np.clip(0.3 + 0.6 * x - 0.3 * spot + RNG.normal(0, 0.01, x.shape), 0, 1)


def test_one_hot_pixel_in_16_bits(detect, tmp_path: Path) -> None:
    """A frame of 12 bits in 16 scores alike with one pixel at full scale; so do colours and float."""
    grey = np.rint(scene() * 4095).astype(np.uint16)
    for name, values, full in (("grey", grey, 65535), ("float", grey.astype(np.float32) / 4095, 60.0)):
        hot = values.copy()
        hot[7, 9] = full
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
        Image.fromarray(hot).save(tmp_path / f"{name}_hot.tif")
    outcome = detect(tmp_path, "--json")
    found = scores(outcome)
    assert abs(found["grey.tif"] - found["grey_hot.tif"]) < 0.01
    assert abs(found["float.tif"] - found["float_hot.tif"]) < 0.01
    notes = {Path(row["path"]).name: row["notes"] for row in rows(outcome.out)}
    assert notes["grey_hot.tif"] == [f"16-bit read as 12 bits, 0..4095; values reach {grey.min()}..65535"]


def test_12_bits_in_16_score_like_8_bits(detect, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    eight = np.rint(np.dstack([scene(), scene() * 0.8, scene() * 0.6]) * 255).astype(np.uint8)
    eight[0, 0] = 255
    deep = np.rint(eight / 255 * 4095).astype(np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb")
    Image.fromarray(eight).save(tmp_path / "eight.png")
    Image.fromarray(deep[..., 1]).save(tmp_path / "grey_deep.png")
    Image.fromarray(eight[..., 1]).save(tmp_path / "grey_eight.png")
    found = scores(detect(tmp_path, "--json"))
    assert found["deep.tif"] == pytest.approx(found["eight.png"], abs=1e-6)
    assert found["grey_deep.png"] == pytest.approx(found["grey_eight.png"], abs=1e-3)


def test_different_depths_in_one_run_are_said(detect, tmp_path: Path) -> None:
    for name, full in (("dark.png", 900), ("bright.png", 4000)):
        Image.fromarray(np.rint(scene() * full).astype(np.uint16)).save(tmp_path / name)
    outcome = detect(tmp_path)
    assert "different bit depths (10 bits: 1, 12 bits: 1)" in outcome.out
    assert "--value-range LOW,HIGH" in outcome.out
    outcome = detect(tmp_path, "--value-range", "0,4095", "--json")
    assert "bit depths" not in outcome.err
    assert {note for row in rows(outcome.out) for note in row["notes"]} == {"16-bit scaled by the given range 0..4095"}
    assert rows(outcome.out)[0]["provenance"]["value_range"] == [0.0, 4095.0]


def test_another_value_range_scores_again(detect, tmp_path: Path) -> None:
    Image.fromarray(np.rint(scene() * 3000).astype(np.uint16)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert detect(tmp_path / "a.png", "--out", out, "--value-range", "0,4095").code == 0
    assert "same settings: skipped" in detect(tmp_path / "a.png", "--out", out, "--value-range", "0,4095").err
    assert "other settings: repeated" in detect(tmp_path / "a.png", "--out", out, "--value-range", "0,1023").err


@pytest.mark.parametrize("text", ["5", "1,1", "9,3", "a,b", "0,nan", "0,1,2", ""])
def test_impossible_value_ranges(detect, pictures: Path, text: str) -> None:
    outcome = detect(pictures, f"--value-range={text}")
    assert outcome.code == 2
    assert "--value-range must be two numbers, the smaller one first, such as 0,4095" in outcome.err
    assert outcome.err.count("\n") == 1


def test_floats_with_missing_values_are_named(detect, tmp_path: Path) -> None:
    for name, bad in (("depth_a.tif", np.nan), ("depth_b.tif", np.inf)):
        values = scene().astype(np.float32)
        values[5, 5] = bad
        Image.fromarray(values).save(tmp_path / name)
    save_picture(tmp_path / "sound.png")
    outcome = detect(tmp_path, "--json")
    assert outcome.code == 1
    assert list(scores(outcome)) == ["sound.png"]
    for name in ("depth_a.tif", "depth_b.tif"):
        assert f"{name}' holds NaN or infinity; replace them" in outcome.err


def test_what_is_not_read_is_counted(detect, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blemish.image_io import find

    monkeypatch.setattr(find, "SUFFIXES", find.SUFFIXES - {".heic", ".dcm"})
    monkeypatch.setattr(find, "_is_installed", lambda module: False)
    names = ["IMG_1.HEIC", "IMG_2.HEIC", "x.CR2", "y.jxl", "clip.mp4", "scan.dcm", "notes.txt", "list.csv", ".hidden"]
    for name in names:
        (pictures / name).write_bytes(b"\0" * 40)
    sentence = (
        "Not read: 1 .CR2 (camera raw: develop it to TIFF or JPEG with the camera's program); 2 .HEIC (pip install "
        "'blemish[heic]'); 1 .dcm (pip install 'blemish[medical]'); 1 .jxl (convert it to PNG); 1 .mp4 (pip install "
        "'blemish[video]'); 2 files without pictures (.csv, .txt); 1 subfolder (sub): --recursive."
    )
    assert sentence in detect(pictures).out
    outcome = detect(pictures, "--json")
    assert sentence in outcome.err
    first, *others = rows(outcome.out)
    assert len(others) == 4
    assert first["skipped"]["files"][".HEIC"] == {"count": 2, "advice": "pip install 'blemish[heic]'"}
    assert first["skipped"]["files"][".txt"] == {"count": 1, "advice": None}
    assert first["skipped"]["subfolders"] == [str(pictures / "sub")]
    assert first["skipped"]["hidden"] == 1
    assert not any("skipped" in row for row in others)
    assert sum(each["count"] for each in first["skipped"]["files"].values()) + 1 == len(names)


def test_all_in_subfolders(detect, tmp_path: Path) -> None:
    save_picture(tmp_path / "pics" / "monday" / "1.png")
    outcome = detect(tmp_path / "pics")
    assert outcome.code == 2
    assert "holds no pictures. Not read: 1 subfolder (monday): --recursive." in outcome.err
    assert detect(tmp_path / "pics", "--recursive").code == 0


def test_a_folder_of_nothing_but_phone_pictures(detect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blemish.image_io import find

    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (64, 64), "teal")).save(tmp_path / "IMG_0.HEIC")
    assert detect(tmp_path, "--json").code == 0
    monkeypatch.setattr(find, "SUFFIXES", find.SUFFIXES - {".heic"})
    monkeypatch.setattr(find, "_is_installed", lambda module: False)
    outcome = detect(tmp_path, "--json")
    assert outcome.code == 2
    assert "1 .HEIC (pip install 'blemish[heic]')" in outcome.err


def test_avif_among_pictures(detect, pictures: Path) -> None:
    Image.new("RGB", (64, 48), "orange").save(pictures / "photo.avif")
    assert "photo.avif" in scores(detect(pictures, "--json"))


def test_pages_as_pictures(detect, tmp_path: Path) -> None:
    first, second = (Image.open(save_picture(tmp_path / f"{n}.png", n)).convert("RGB") for n in (1, 2))
    first.save(tmp_path / "scan.tif", save_all=True, append_images=[second])
    out = tmp_path / "out"
    outcome = detect(tmp_path / "scan.tif", "--pages", "--json", "--out", out)
    assert list(scores(outcome)) == ["scan.tif#1", "scan.tif#2"]
    alone = scores(detect(tmp_path / "2.png", "--json"))
    assert scores(outcome)["scan.tif#2"] == pytest.approx(alone["2.png"], abs=1e-6)
    assert (out / "overlay" / "scan.tif#2.png").is_file()
    assert "2 pictures complete" in detect(tmp_path / "scan.tif", "--pages", "--out", out).err
    assert rows(detect(tmp_path / "scan.tif", "--json").out)[0]["notes"] == ["first of 2 frames"]


def test_frames_of_a_video_have_times(detect, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (tmp_path / "set").mkdir()
    with av.open(str(tmp_path / "set" / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            pixels = np.full((48, 64, 3), 5 * number + 60, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    save_picture(tmp_path / "set" / "a.png")
    outcome = detect(tmp_path / "set" / "clip.mp4", "--every", "8", "--json", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert [(Path(row["path"]).name, row["time"]) for row in rows(outcome.out)] == [
        ("clip.mp4#1", 0.0),
        ("clip.mp4#9", 0.8),
        ("clip.mp4#17", 1.6),
    ]
    assert "clip.mp4: 3 of 20 frames, every 8th." in outcome.err
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8-sig", newline="") as table:
        assert sorted(row["time"] for row in csv.DictReader(table)) == ["0.000", "0.800", "1.600"]
    # In a folder, videos are read where frames are asked for.
    outcome = detect(tmp_path / "set", "--json")
    assert list(scores(outcome)) == ["a.png"]
    assert "1 .mp4 (give the video itself)" in outcome.err
    assert len(scores(detect(tmp_path / "set", "--every", "1s", "--json"))) == 3
    outcome = detect(tmp_path / "set", "--every", "fast")
    assert (outcome.code, "--every must be a number of frames" in outcome.err) == (2, True)


def test_medical_pictures_come_with_a_notice(detect, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = RNG.integers(0, 99, (40, 30, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii.gz")
    outcome = detect(tmp_path, "--pages", "--json")
    assert list(scores(outcome)) == ["a.nii.gz#1", "a.nii.gz#2", "a.nii.gz#3"]
    assert "Blemish is not a medical device: scores of medical pictures are no diagnosis." in outcome.err


def test_every_file_of_a_folder_of_everything_is_accounted_for(detect, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    grey = scene()
    eight = np.rint(grey * 255).astype(np.uint8)
    for suffix in ("png", "jpg", "bmp", "webp", "gif", "ppm", "avif", "jp2", "tif"):
        Image.fromarray(np.dstack([eight] * 3)).save(tmp_path / f"plain.{suffix}")
    Image.fromarray(np.rint(grey * 4095).astype(np.uint16)).save(tmp_path / "deep.png")
    tifffile.imwrite(tmp_path / "colour.tif", np.dstack([grey] * 3).astype(np.float32), photometric="rgb")
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([eight, eight]), photometric="minisblack")
    pytest.importorskip("pillow_heif").from_pillow(Image.fromarray(eight)).save(tmp_path / "phone.HEIC")
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.dstack([eight] * 3), np.eye(4)), tmp_path / "volume.nii.gz")
    for name in ("empty.png", "x.CR2", "x.jxl", "x.psd", "clip.mp4", "notes.txt", "README", ".DS_Store"):
        (tmp_path / name).touch()
    (tmp_path / "text.jpg").write_text("no picture")
    save_picture(tmp_path / "sub" / "1.png")
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    outcome = detect(tmp_path, "--json")
    assert outcome.code == 1
    found = rows(outcome.out)
    skipped = found[0]["skipped"]
    failed = sorted(Path(row["path"]).name for row in found if row.get("error"))
    assert failed == ["empty.png", "text.jpg"]
    counted = sum(each["count"] for each in skipped["files"].values()) + skipped["hidden"]
    assert len(found) + counted == len(files)
    assert len(skipped["subfolders"]) == 1
    values = scores(outcome)
    assert len(values) == 14
    assert max(abs(values[name] - values["plain.png"]) for name in ("deep.png", "colour.tif", "plain.tif")) < 0.01
