"""HEIC, AVIF, JPEG 2000, PNG and PPM of 16 bits, camera raw, pages and videos; medical pictures."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.errors import ImageError, UsageError
from blemish.image_io import Every, expand, find, in_order, read_image

RNG = np.random.default_rng(2)
SMOOTH = np.dstack([np.tile(np.linspace(20, 230, 64), (48, 1)), np.full((48, 64), 90), np.full((48, 64), 160)])
SMOOTH = SMOOTH.astype(np.uint8)


def close(image: Image.Image, expected: np.ndarray, within: float = 6) -> bool:
    return image.mode == "RGB" and np.abs(np.asarray(image, float) - expected).mean() < within


def test_avif_and_jpeg_2000(tmp_path: Path) -> None:
    for name in ("a.avif", "a.jp2"):
        Image.fromarray(SMOOTH).save(tmp_path / name)
        assert close(read_image(tmp_path / name).image, SMOOTH)
        assert close(read_image((tmp_path / name).read_bytes()).image, SMOOTH)
        assert find.is_picture(name)


def test_heic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(SMOOTH)).save(tmp_path / "IMG_1.HEIC", quality=95)
    assert close(read_image(tmp_path / "IMG_1.HEIC").image, SMOOTH)
    monkeypatch.setattr(find, "_is_installed", lambda module: False)
    with pytest.raises(ImageError, match=r"is HEIC, which needs an optional part: pip install 'blemish\[heic\]'"):
        read_image(tmp_path / "IMG_1.HEIC")


def png_of_16_bits(values: np.ndarray, colour_type: int) -> bytes:
    """A PNG whose rows use the filters 0, 1 and 2, which are simple to write."""
    height = len(values)
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    step, data = 2 * values.shape[2], b""
    for number, row in enumerate(rows):
        kind = number % 3
        if kind == 1:
            row = np.concatenate([row[:step], row[step:] - row[:-step]])
        elif kind == 2:
            row = row - rows[number - 1]
        data += bytes([kind]) + row.tobytes()

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    header = values.shape[1].to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, colour_type, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_png_of_16_bits_in_several_channels(colour_type: int, channels: int) -> None:
    values = RNG.integers(0, 4096, (30, 40, channels)).astype(np.uint16)
    values[0, 0] = 4095
    if channels in (2, 4):
        values[..., -1] = 65535
    picture = read_image(png_of_16_bits(values, colour_type))
    colour = values[..., 0] if channels == 2 else values[..., :3]
    np.testing.assert_array_equal(picture.image, np.rint(colour / 4095 * 255))
    assert picture.notes == ("16-bit read as 12 bits, 0..4095",)


def test_pgm_says_its_range_itself() -> None:
    values = RNG.integers(0, 200, (30, 40)).astype(">u2")
    picture = read_image(b"P5 40 30 4095\n" + values.tobytes())
    np.testing.assert_allclose(np.asarray(picture.image, float), values / 4095 * 255, atol=0.51)
    assert picture.notes == ("16-bit scaled by its file's range 0..65535",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.CR2", b"II*\0\x10\0\0\0CR\2\0" + bytes(200)),
        ("a.cr3", b"\0\0\0\x18ftypcrx " + bytes(200)),
        ("a.RAF", b"FUJIFILMCCD-RAW 0201" + bytes(200)),
        ("a.orf", b"IIRO\x08\0\0\0" + bytes(200)),
        ("a.arw", b"II*\0\x08\0\0\0" + bytes(200)),
    ],
)
def test_camera_raw_is_refused_in_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=r"is camera raw: develop it to TIFF or JPEG with the camera's program\.$"):
        read_image(tmp_path / name)
    if name != "a.arw":  # only its suffix tells
        with pytest.raises(ImageError, match="camera raw"):
            read_image(content)


# Several pictures in one file.


def pages(path: Path) -> Path:
    first, *others = [Image.new("L", (5, 4), value) for value in (10, 20, 30)]
    first.save(path, save_all=True, append_images=others)
    return path


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.png"])
def test_pages(name: str, tmp_path: Path) -> None:
    path = pages(tmp_path / name)
    assert expand([path]).paths == (path,)
    found = expand([path], pages=True).paths
    assert [Path(one).name for one in found] == [f"{name}#1", f"{name}#2", f"{name}#3"]
    read = [read_image(one) for one in found]
    assert [np.asarray(one.image).max() for one in read] == [10, 20, 30]
    assert [one.notes for one in read] == [("first of 3 frames",), ("frame 2 of 3",), ("frame 3 of 3",)]
    assert read[1].path == f"{path}#2"
    assert np.asarray(read_image(path.read_bytes(), page=3).image).max() == 30
    assert [Path(one).name for one in expand([path], pages=True, every=Every(2)).paths] == [f"{name}#1", f"{name}#3"]
    for missing in (f"{path}#4", f"{path}#99999999"):
        with pytest.raises(ImageError, match="has no picture"):
            read_image(missing)
    with pytest.raises(UsageError, match="page must be a number from 1"):
        read_image(path, page=0)


def test_pages_of_16_bits_and_in_bands(tmp_path: Path) -> None:
    from blemish.image_io import open_tiff_rows

    tifffile = pytest.importorskip("tifffile")
    stack = RNG.integers(0, 65536, (3, 40, 50)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    whole = read_image(f"{tmp_path}/stack.tif#2")
    np.testing.assert_array_equal(whole.image, np.rint(stack[1] / 65535 * 255))
    with open_tiff_rows(f"{tmp_path}/stack.tif#2") as bands:
        assert bands is not None
        np.testing.assert_array_equal(bands.rows(5, 9), whole.image.crop((0, 5, 50, 9)))
        assert set(bands.notes) == set(whole.notes)


def test_a_name_with_a_number_sign_is_a_file_first(tmp_path: Path) -> None:
    pages(tmp_path / "a.tif")
    Image.new("L", (5, 4), 77).save(tmp_path / "a.tif#2", "PNG")
    assert np.asarray(read_image(tmp_path / "a.tif#2").image).max() == 77


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds at 10 frames a second: grey that jumps at the frames 15 and 30, with its number as a stripe."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 2_000_000
        for number in range(40):
            pixels = np.full((48, 64, 3), 60 + 50 * (number >= 15) + 50 * (number >= 30), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbers(expanded) -> list[int]:
    return [int(str(path).rpartition("#")[2]) for path in expanded.paths]


def test_frames_of_a_video(clip: Path) -> None:
    assert numbers(expand([clip])) == [1, 11, 21, 31]  # one a second
    assert numbers(expand([clip], every=Every.parse("--every", "15"))) == [1, 16, 31]
    assert numbers(expand([clip], every=Every.parse("--every", "0.5s"))) == [1, 6, 11, 16, 21, 26, 31, 36]
    assert numbers(expand([clip], every=Every.parse("--every", "motion"))) == [1, 16, 31]
    expanded = expand([clip], every=Every(15))
    assert expanded.times == {f"{clip}#1": 0.0, f"{clip}#16": 1.5, f"{clip}#31": 3.0}
    assert expanded.notes == (f"{clip}: 3 of 40 frames, every 15th.",)
    alone = [read_image(path) for path in expanded.paths]
    together = [read_image(source) for source in in_order(map(str, expanded.paths), max_pixels=10**6)]
    for one, two, grey in zip(alone, together, (60, 110, 160), strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        assert abs(np.asarray(one.image, float).mean() - grey) < 4
        assert (one.path, one.notes) == (two.path, two.notes)
    assert alone[1].notes == ("frame 16 of 40", "at 1.500 s")
    assert read_image(clip).notes == ("first of 40 frames", "at 0.000 s")


def test_videos_that_are_none(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:300])
    assert expand([tmp_path / "cut.mp4"]).paths == (tmp_path / "cut.mp4",)
    with pytest.raises(ImageError, match=r"cut\.mp4' is no video that can be read"):
        read_image(tmp_path / "cut.mp4")
    with pytest.raises(ImageError, match="has no frame 41; it has 40"):
        read_image(f"{clip}#41")
    assert list(in_order([f"{clip}#40", f"{clip}#41"], max_pixels=10**6))[1] == f"{clip}#41"
    assert list(in_order([f"{clip}#1", f"{clip}#2"], max_pixels=100)) == [f"{clip}#1", f"{clip}#2"]
    for text in ("0", "-3", "x", "0s", "infs", ""):
        with pytest.raises(UsageError, match="--every must be a number of frames"):
            Every.parse("--every", text)


def test_a_video_without_its_optional_part(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "_is_installed", lambda module: False)
    with pytest.raises(ImageError, match=r"is video, which needs an optional part: pip install 'blemish\[video\]'"):
        read_image(clip)


# Medical pictures.


def dicom(path: Path, values: np.ndarray, **attributes) -> Path:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.Rows, data.Columns = values.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in attributes.items():
        setattr(data, name, value)
    data.PixelData = values.tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def test_dicom(tmp_path: Path) -> None:
    values = RNG.integers(0, 4096, (20, 30)).astype(np.uint16)
    stored = read_image(dicom(tmp_path / "a.dcm", values))
    np.testing.assert_array_equal(stored.image, np.rint(values / 4095 * 255))
    assert "not a medical device" in stored.notes[0]
    units = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    window = read_image(dicom(tmp_path / "b.dcm", values, **units))
    expected = np.clip(np.rint((values * 2.0 - 1024 - (39.5 - 199.5)) / 399 * 255), 0, 255)
    np.testing.assert_array_equal(window.image, expected)
    inverse = read_image(dicom(tmp_path / "c.dcm", values, PhotometricInterpretation="MONOCHROME1", **units))
    np.testing.assert_array_equal(inverse.image, 255 - expected)
    np.testing.assert_array_equal(
        read_image(tmp_path / "b.dcm", value_range=(-1024, 3071)).image,
        np.clip(np.rint((values * 2.0) / 4095 * 255), 0, 255),
    )
    assert read_image((tmp_path / "b.dcm").read_bytes()).notes == window.notes


def test_dicom_compressed_and_of_several_frames(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    values = RNG.integers(0, 4096, (3, 20, 30)).astype(np.uint16)
    path = dicom(tmp_path / "a.dcm", values, NumberOfFrames=3)
    data = pydicom.dcmread(path)
    data.compress(pydicom.uid.RLELossless)
    data.save_as(path)
    found = expand([path], pages=True).paths
    assert len(found) == 3
    for name, frame in zip(found, values, strict=True):
        np.testing.assert_array_equal(read_image(name).image, np.rint(frame / 4095 * 255))
    assert read_image(path).notes[0] == "first of 3 frames"
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    data.save_as(path)
    with pytest.raises(ImageError, match="compressed as JPEG Lossless"):
        read_image(path)


def test_dicom_without_pixels_or_without_the_optional_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dicom(tmp_path / "a.dcm", np.zeros((4, 5), np.uint16))
    (tmp_path / "b.dcm").write_bytes(b"nothing of the kind, but long enough" * 9)
    with pytest.raises(ImageError, match=r"is DICOM without a picture|damaged"):
        read_image(tmp_path / "b.dcm")
    monkeypatch.setattr(find, "_is_installed", lambda module: False)
    with pytest.raises(ImageError, match=r"is DICOM, which needs an optional part: pip install 'blemish\[medical\]'"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti(suffix: str, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = RNG.integers(0, 2000, (30, 20, 7)).astype(np.int16)
    volume[3, 4, 2] = 32000  # decides nothing
    path = tmp_path / f"scan{suffix}"
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1, 1, 2, 1])), path)
    found = expand([path], pages=True).paths
    assert len(found) == 7
    picture = read_image(found[2])
    assert picture.size == (30, 20)
    assert picture.notes[0] == "slice 3 of 7"
    assert "not a medical device" in picture.notes[1]
    pixels = np.asarray(picture.image).astype(float)
    expected = np.clip(volume[:, :, 2].T[::-1, ::-1] / 2000 * 255, 0, 255)  # front up, right side on the left
    assert np.abs(pixels - expected).max() <= 2
    assert read_image(path).notes[0] == "slice 4 of 7"
    with pytest.raises(ImageError, match="has no slice 8; it has 7"):
        read_image(f"{path}#8")


def test_medical_packages_are_loaded_only_where_needed() -> None:
    import subprocess

    code = (
        "import sys, blemish.image_io; print({'pydicom', 'nibabel', 'av', 'pillow_heif', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
