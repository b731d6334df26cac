"""What a pixel of a mask means: values, palettes, opacity, lossy formats, soft edges, depth, orientation, size."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, TiffImagePlugin

from blemish.datasets import check, read
from blemish.datasets.masks import MaskError, count_vanished, examine_masks, is_marked, read_mask, resize_mask
from dataset_trees import folders, mask

SIZE = (64, 48)
BOX = (slice(31, 42), slice(17, 29))  # 11 x 12 pixels
TRUE = np.zeros(SIZE[::-1], bool)
TRUE[BOX] = True
ELLIPSE = ((np.arange(64) - 34) / 10) ** 2 + ((np.arange(48)[:, None] - 28) / 7) ** 2 <= 1


def iou(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / (found | true).sum())


def grey(marked: np.ndarray = TRUE, value: int = 255) -> Image.Image:
    return Image.fromarray(marked.astype(np.uint8) * np.uint8(value))


def palette(colours: list[int], transparent: int | None = None) -> tuple[Image.Image, dict[str, object]]:
    image = Image.fromarray(TRUE.astype(np.uint8))
    image = image.convert("P") if image.mode == "P" else Image.frombytes("P", SIZE, TRUE.astype(np.uint8).tobytes())
    image.putpalette(colours)
    return image, {} if transparent is None else {"transparency": transparent}


def coloured(ground: tuple[int, ...], defect: tuple[int, ...]) -> Image.Image:
    pixels = np.where(TRUE[..., None], np.uint8(defect), np.uint8(ground))
    return Image.fromarray(pixels)


def stripes(values: tuple[int, ...]) -> Image.Image:
    pixels = np.zeros(TRUE.shape, np.uint8)
    for column in range(12):
        pixels[BOX[0], BOX[1].start + column] = values[column % len(values)]
    return Image.fromarray(pixels)


def white_is_zero(path: Path, seen: np.ndarray) -> None:
    """Write a TIFF whose tag says that 0 is white; `seen` is what a viewer shows."""
    # Pillow inverts 8 bits when it writes, and leaves 16 bits as they are.
    Image.fromarray(seen if seen.dtype == np.uint8 else 65535 - seen).save(path, tiffinfo={262: 0})
    with Image.open(path) as written:
        assert written.tag_v2[262] == 0


LOSSLESS: dict[str, Callable[[Path], None]] = {
    "0 and 1": lambda path: grey(value=1).save(path),
    "0 and 255": lambda path: grey().save(path),
    "0 and 128": lambda path: grey(value=128).save(path),
    "a number per kind": lambda path: stripes((1, 2, 236, 255)).save(path),
    "three kinds": lambda path: stripes((1, 2, 3)).save(path),
    "one bit": lambda path: grey().convert("1").save(path),
    "a colour per kind": lambda path: coloured((0, 0, 0), (0, 0, 3)).save(path),
    "palette": lambda path: palette([0, 0, 0, 255, 0, 0])[0].save(path),
    "palette of black only": lambda path: palette([0, 0, 0, 0, 0, 0])[0].save(path),
    "palette with a transparent white": lambda path: palette([255, 255, 255, 255, 0, 0])[0].save(path, transparency=0),
    "palette with an opaque black": lambda path: palette([255, 255, 255, 0, 0, 0])[0].save(path, transparency=0),
    "opacity of white": lambda path: coloured((255, 0), (255, 255)).save(path),
    "opacity of black": lambda path: coloured((0, 0, 0, 0), (0, 0, 0, 255)).save(path),
    "red on transparent white": lambda path: coloured((255, 255, 255, 0), (255, 0, 0, 255)).save(path),
    "half-transparent red": lambda path: coloured((0, 0, 0, 0), (255, 0, 0, 120)).save(path),
    "white on opaque black": lambda path: coloured((0, 0, 0, 255), (255, 255, 255, 255)).save(path),
    "opacity 0 everywhere": lambda path: coloured((0, 0, 0, 0), (255, 255, 255, 0)).save(path),
    "16 bits": lambda path: Image.fromarray(TRUE.astype(np.uint16) * 65535).save(path),
    "16 bits, 0 and 1": lambda path: Image.fromarray(TRUE.astype(np.uint16)).save(path),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_exact_masks_are_read_exactly(tmp_path: Path, name: str) -> None:
    path = tmp_path / "0_mask.png"
    LOSSLESS[name](path)
    reading = read_mask(path, SIZE)
    assert np.array_equal(reading.mask, TRUE)
    assert reading.remarks == ()
    assert is_marked(path)


def test_a_black_area_beside_a_transparent_one_is_normal(tmp_path: Path) -> None:
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[TRUE] = 255
    pixels[:5] = 255, 255, 255, 0  # a transparent border with white beneath
    Image.fromarray(pixels).save(tmp_path / "0_mask.png")
    assert np.array_equal(read_mask(tmp_path / "0_mask.png", SIZE).mask, TRUE)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero(tmp_path: Path, dtype: type[np.unsignedinteger]) -> None:
    white_is_zero(tmp_path / "0_mask.tif", np.where(TRUE, np.iinfo(dtype).max, 0).astype(dtype))
    assert np.array_equal(read_mask(tmp_path / "0_mask.tif", SIZE).mask, TRUE)
    white_is_zero(tmp_path / "1_mask.tif", np.where(TRUE, np.iinfo(dtype).max - 1, np.iinfo(dtype).max).astype(dtype))
    with pytest.raises(MaskError, match=r"1_mask\.tif has 2 levels, and none is 0"):  # 0 and 1 are stored
        read_mask(tmp_path / "1_mask.tif", SIZE)


def test_one_bit_tiff_with_white_zero(tmp_path: Path) -> None:
    Image.fromarray(~TRUE).save(tmp_path / "0_mask.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "0_mask.tif") as image:
        assert image.tag_v2[262] == 0
        seen = np.asarray(image)
    assert np.array_equal(read_mask(tmp_path / "0_mask.tif", SIZE).mask, seen)


def test_pages_are_merged_without_previews(tmp_path: Path) -> None:
    upper, lower = TRUE.copy(), TRUE.copy()
    upper[36:], lower[:36] = False, False
    grey(upper).save(tmp_path / "0_mask.tif", save_all=True, append_images=[grey(lower)])
    reading = read_mask(tmp_path / "0_mask.tif", SIZE)
    assert np.array_equal(reading.mask, TRUE)
    assert reading.remarks == ("has 2 pages, which are merged",)

    preview = TiffImagePlugin.ImageFileDirectory_v2()
    preview[254] = 1
    small = Image.new("L", (16, 12), 255)
    small.encoderinfo = {"tiffinfo": preview}
    grey().save(tmp_path / "1_mask.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "1_mask.tif") as image:
        image.seek(1)
        assert image.tag_v2.get(254) == 1
    assert np.array_equal(read_mask(tmp_path / "1_mask.tif", SIZE).mask, TRUE)

    grey().save(tmp_path / "2_mask.tif", save_all=True, append_images=[Image.new("L", (16, 12), 255)])
    with pytest.raises(MaskError, match=r"2_mask\.tif has pages of several sizes; keep the page"):
        read_mask(tmp_path / "2_mask.tif", SIZE)
    grey().save(tmp_path / "3_mask.gif", save_all=True, append_images=[grey(~TRUE)])
    with pytest.raises(MaskError, match=r"3_mask\.gif has 2 frames"):
        read_mask(tmp_path / "3_mask.gif", SIZE)


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize(("kind", "value"), [("RGB", 1), ("RGB", 65535), ("RGBA", 7)])
def test_16_bits_per_channel_keep_small_numbers(tmp_path: Path, suffix: str, kind: str, value: int) -> None:
    pixels = np.zeros((*TRUE.shape, len(kind)), np.uint16)
    pixels[TRUE, 1] = value
    if kind == "RGBA":
        pixels[..., 3] = 65535
    path = tmp_path / f"0_mask.{suffix}"
    if suffix == "tif":
        pytest.importorskip("tifffile").imwrite(path, pixels, photometric="rgb", extrasamples=[2] * (kind == "RGBA"))
    else:
        cv2 = pytest.importorskip("cv2")
        assert cv2.imwrite(str(path), pixels[..., [2, 1, 0, 3][: len(kind)]])
    assert np.array_equal(read_mask(path, SIZE).mask, TRUE)


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_masks_are_turned_by_exif(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[turn]
    grey().transpose(stored).save(tmp_path / "0_mask.png", exif=exif)
    assert np.array_equal(read_mask(tmp_path / "0_mask.png", SIZE).mask, TRUE)


@pytest.mark.parametrize("quality", [30, 50, 70, 75, 90, 95])
@pytest.mark.parametrize("kind", ["jpg", "jpg of colour", "webp", "tif", "png of a jpg"])
def test_noise_of_lossy_formats_is_no_defect(tmp_path: Path, kind: str, quality: int) -> None:
    marked = np.zeros((96, 128), bool)
    marked[40:70, 30:80] = True
    suffix = kind.split()[0]
    path, image = tmp_path / f"0_mask.{suffix}", grey(marked)
    if kind == "png of a jpg":
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality)
        Image.open(data).save(path)
    elif suffix == "tif":
        image.save(path, compression="jpeg", quality=quality)
    else:
        (image if kind == "jpg" else image.convert("RGB")).save(path, quality=quality)
    assert iou(read_mask(path, (128, 96)).mask, marked) > 0.99


@pytest.mark.parametrize("kind", ["resized", "blurred", "blurred and 16 bits", "blurred and float", "opacity"])
def test_soft_edges_end_at_half(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "0_mask.png"
    large = Image.fromarray(ELLIPSE).convert("L").resize((256, 192), Image.Resampling.NEAREST)
    image = large.filter(ImageFilter.GaussianBlur(6)).resize(SIZE, Image.Resampling.LANCZOS)
    if kind == "resized":
        image = large.resize(SIZE, Image.Resampling.BILINEAR)
    elif kind == "blurred and 16 bits":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    elif kind == "blurred and float":
        path = tmp_path / "0_mask.tif"
        image = Image.fromarray(np.asarray(image).astype(np.float32) / 255)
    elif kind == "opacity":
        image = Image.merge("LA", (Image.new("L", SIZE, 255), image))
    image.save(path)
    reading = read_mask(path, SIZE)
    assert iou(reading.mask, ELLIPSE) > 0.93
    assert kind == "resized" or reading.remarks == (
        "has levels between black and white and is cut at half of the brightest",
    )


def test_a_thin_line_that_fades_is_said(tmp_path: Path) -> None:
    large = np.zeros((480, 640), bool)
    large[100:200, 100:200] = True
    large[300, 50:600] = True
    Image.fromarray(large).convert("L").filter(ImageFilter.GaussianBlur(1)).save(tmp_path / "0_mask.png")
    assert "has a faint area darker than half" in " ".join(read_mask(tmp_path / "0_mask.png", (640, 480)).remarks)


def noisy(ground: int, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.normal(ground, 30, SIZE[::-1]).clip(0, 255).astype(np.uint8))


UNCLEAR: dict[str, tuple[Callable[[Path], None], str]] = {
    "png": (lambda p: coloured((255, 255, 255), (255, 0, 0)).save(p), "has several colours, and none is black"),
    "a.png": (lambda p: grey(value=1).point(lambda v: v + 1).save(p), "has 2 levels, and none is 0"),
    "b.png": (lambda p: noisy(120, np.random.default_rng(0)).save(p), "has grey areas, such as level"),
    "jpg": (lambda p: grey(value=2).save(p), "is nearly black"),
    "a.jpg": (lambda p: grey(ELLIPSE, 255).point(lambda v: v or 60).save(p), "has grey areas, such as level 6"),
    "b.jpg": (lambda p: noisy(120, np.random.default_rng(0)).save(p), "has grey areas, such as level"),
    "tif": (lambda p: Image.fromarray(np.where(TRUE, np.nan, 0).astype(np.float32)).save(p), "holds NaN or infinity"),
    "a.tif": (lambda p: Image.fromarray(-TRUE.astype(np.float32)).save(p), "holds negative values"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_unclear_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write, message = UNCLEAR[name]
    path = tmp_path / f"0_mask.{name}"
    write(path)
    with pytest.raises(MaskError, match=message) as caught:
        read_mask(path, SIZE)
    assert str(path) in str(caught.value)
    assert "copy it again" not in str(caught.value)


@pytest.mark.parametrize(("factor", "least"), [(2, 1.0), (0.5, 0.98), (1.01, 0.9)])
def test_another_size_of_the_same_shape_is_resized(tmp_path: Path, factor: float, least: float) -> None:
    size = (round(64 * factor), round(48 * factor))
    even = np.zeros_like(TRUE)
    even[20:40, 10:40] = True
    grey(even).resize(size, Image.Resampling.NEAREST).save(tmp_path / "0_mask.png")
    reading = read_mask(tmp_path / "0_mask.png", SIZE)
    assert iou(reading.mask, even) >= least
    assert reading.remarks == (f"is resized from {size[0]} x {size[1]} pixels",)


@pytest.mark.parametrize(("size", "remedy"), [((48, 64), "turn it like its picture"), ((64, 64), "one of the two is")])
def test_another_shape_is_refused(tmp_path: Path, size: tuple[int, int], remedy: str) -> None:
    Image.new("L", size, 255).save(tmp_path / "0_mask.png")
    with pytest.raises(MaskError, match=f"has {size[0]} x {size[1]} pixels, not 64 x 48; {remedy}"):
        read_mask(tmp_path / "0_mask.png", SIZE)


@pytest.mark.parametrize(
    ("share", "remark"), [(0, "marks nothing"), (48, "marks every pixel"), (45, "marks nearly every pixel")]
)
def test_empty_and_full_masks_are_said(tmp_path: Path, share: int, remark: str) -> None:
    marked = np.zeros(SIZE[::-1], bool)
    marked[:share] = True
    grey(marked).save(tmp_path / "0_mask.png")
    (path, said), *others = examine_masks([tmp_path / "0_mask.png"], tmp_path / "0.png", SIZE)[1]
    assert path == tmp_path / "0_mask.png"
    assert said.startswith(remark)
    assert not others


def test_a_white_ground_is_said(tmp_path: Path) -> None:
    grey(~ELLIPSE).save(tmp_path / "0_mask.png")
    ((_, said),) = examine_masks([tmp_path / "0_mask.png"], tmp_path / "0.png", SIZE)[1]
    assert said.startswith("marks nearly every pixel")
    wide = np.ones_like(TRUE)
    wide[10:30, 10:50] = False
    grey(wide).save(tmp_path / "0_mask.png")
    ((_, said),) = examine_masks([tmp_path / "0_mask.png"], tmp_path / "0.png", SIZE)[1]
    assert said.startswith("marks more than half of the picture, up to its border")
    grey(~wide).save(tmp_path / "0_mask.png")
    assert not examine_masks([tmp_path / "0_mask.png"], tmp_path / "0.png", SIZE)[1]


def test_one_empty_part_of_several_is_not_said(tmp_path: Path) -> None:
    grey(np.zeros_like(TRUE)).save(tmp_path / "0.png")
    grey().save(tmp_path / "1.png")
    merged, remarks = examine_masks([tmp_path / "0.png", tmp_path / "1.png"], tmp_path / "p.png", SIZE)
    assert np.array_equal(merged, TRUE)
    assert not remarks


def test_the_check_names_empty_full_and_unclear_masks(tmp_path: Path) -> None:
    folders("cup")(tmp_path)
    masks = tmp_path / "cup" / "ground_truth" / "bad"
    Image.new("L", (12, 8)).save(masks / "000_mask.png")
    Image.new("L", (12, 8), 255).save(masks / "001_mask.png")
    mask(masks / "002_mask.png", value=1)
    Image.open(masks / "002_mask.png").point(lambda value: value + 1).save(masks / "002_mask.png")
    report = check("folder", tmp_path)
    assert [(issue.kind, issue.path.name) for issue in report.issues] == [
        ("mask of an anomalous picture without any mark", "000_mask.png"),
        ("mask that has 2 levels, and none is 0", "002_mask.png"),
    ]
    assert "the mask marks every pixel: bad/001_mask.png" in report.notes
    assert sum(sample.label for sample in read("folder", tmp_path)) == 3


def test_thin_regions_that_vanish_are_counted() -> None:
    marked = np.zeros((900, 1200), bool)
    marked[100:300, 100:400] = True  # stays
    marked[450, 100:1000] = True  # one pixel thin
    marked[600:602, 700:702] = True
    assert count_vanished(marked, resize_mask(marked, 240)) == (2, 3)
    assert count_vanished(marked, resize_mask(marked, 1200)) == (0, 3)
    assert count_vanished(np.zeros((9, 9), bool), np.zeros((3, 3), bool)) == (0, 0)
