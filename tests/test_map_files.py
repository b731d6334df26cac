"""Maps as 16-bit PNG: what is lost, what is enlarged, what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import blemish
from blemish.detection import Detection
from blemish.draw import save_deep_png
from blemish.errors import ImageError, UsageError
from blemish.maps import _chunks, _read_own, decode_map, encode_map
from helpers import save_picture

SIZE = (37, 23)


def detection(values, map_range=(0.0, 1.0), size=SIZE, **more) -> Detection:
    return Detection(score=0.5, anomaly_map=values.astype(np.float32), map_range=map_range, size=size, **more)


def noise(low=0.0, high=1.0, size=SIZE):
    return np.random.default_rng(0).uniform(low, high, size[::-1])


@pytest.mark.parametrize(
    ("values", "map_range"),
    [
        (noise(), (0.0, 1.0)),
        (noise(-3, 5), (0.0, 1.0)),  # both ends are beyond the scale
        (noise(0.2, 0.3), (0.0, 2.0)),
        (np.full(SIZE[::-1], 7.0), (0.0, 1.0)),
        (np.zeros(SIZE[::-1]), (0.0, 1.0)),
    ],
)
def test_nothing_is_lost_but_the_rounding(values, map_range) -> None:
    found = detection(values, map_range)
    data = encode_map(found)
    decoded = decode_map(data)
    assert decoded.values.dtype == np.float32
    assert decoded.low <= min(map_range[0], found.anomaly_map.min())
    assert decoded.high >= max(map_range[1], found.anomaly_map.max())
    half = (decoded.high - decoded.low) / 65535 / 2
    assert np.abs(decoded.values - found.anomaly_map).max() <= half * 1.001 + 1e-7
    assert decoded.step == 1


def test_any_program_reads_it() -> None:
    with Image.open(io.BytesIO(encode_map(detection(noise())))) as image:
        assert (image.mode, image.size) == ("I;16", SIZE)
        assert set(image.text) == {"blemish:low", "blemish:high", "blemish:step"}
        grey = np.asarray(image)
    assert np.abs(grey / 65535 - noise()).max() < 1e-5


def test_a_reduced_map_keeps_every_peak() -> None:
    values = noise(0, 0.5)
    values[22, 36] = 0.9
    decoded = decode_map(encode_map(detection(values), max_side=10))
    assert decoded.step == 4
    assert decoded.values.shape == (6, 10)
    assert decoded.values[5, 9] == pytest.approx(0.9, abs=1e-5)
    assert decoded.values[1, 2] == pytest.approx(values[4:8, 8:12].max(), abs=1e-5)
    large = detection(values, size=(74, 46), map_step=2)
    assert decode_map(encode_map(large, max_side=10)).step == 8
    assert decode_map(encode_map(large, max_side=1000)).step == 2
    with pytest.raises(UsageError, match="max_side"):
        encode_map(large, max_side=0)


def test_a_small_file_is_enlarged_as_the_model_does(tiny_backbone, tmp_path) -> None:
    path = save_picture(tmp_path / "a.png", size=(700, 560))
    found = blemish.load("clip", backbone=tiny_backbone, device="cpu")(path)
    assert found.model_map is not None
    small, full = encode_map(found, small=True), encode_map(found)
    assert len(small) < len(full)
    decoded = decode_map(small)
    assert decoded.values.shape == (560, 700)
    assert np.abs(decoded.values - found.anomaly_map).max() < 1.1 / 65535


def test_maps_with_more_to_them_are_kept_whole(tiny_backbone, tmp_path) -> None:
    small = save_picture(tmp_path / "a.png", size=(60, 50))  # smaller than the model's map
    large = save_picture(tmp_path / "b.png", size=(700, 560))
    detector = blemish.load("clip", backbone=tiny_backbone, device="cpu", tile=400)
    smoothing = blemish.load("anomalydino", backbone=tiny_backbone, device="cpu", references=[small])
    for found in (detector(small), detector(large), smoothing(large)):
        assert found.model_map is None
        assert np.abs(decode_map(encode_map(found, small=True)).values - found.anomaly_map).max() < 1 / 65535


@pytest.mark.parametrize("damage", ["cut", "other", "plain", "text"])
def test_what_is_no_map_is_one_sentence(damage: str) -> None:
    data = encode_map(detection(noise()))
    plain = io.BytesIO()
    Image.new("L", (4, 4)).save(plain, "PNG")
    broken = {
        "cut": data[: len(data) // 2],
        "other": b"no picture",
        "plain": plain.getvalue(),
        "text": data.replace(b"blemish:step\x001", b"blemish:step\x00x"),
    }
    with pytest.raises(ImageError, match="no anomaly map"):
        decode_map(broken[damage])


@pytest.mark.parametrize("size", [(1, 1), (37, 23), (700, 400)])
def test_own_files_are_read_as_pillow_reads_them(size) -> None:
    data = encode_map(detection(noise(-3, 5, size), size=size))
    own = _read_own(_chunks(data))
    assert own is not None
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(own[0], np.asarray(image))
        assert own[1] == image.text
        again = io.BytesIO()
        image.save(again, "PNG", pnginfo=_texts(image.text), compress_level=9)  # with filters of its own
    assert _read_own(_chunks(again.getvalue())) is None or size == (1, 1)
    assert np.array_equal(decode_map(again.getvalue()).values, decode_map(data).values)


def test_a_changed_byte_never_changes_a_map_unnoticed() -> None:
    data = encode_map(detection(noise()))
    for place in range(len(data)):
        with pytest.raises(ImageError, match="no anomaly map"):
            decode_map(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


def test_values_are_those_of_a_table_to_the_bit() -> None:
    grey = np.arange(65536).reshape(256, 256)
    low, high = -0.3, 1.7
    stream = io.BytesIO()
    text = {"blemish:low": repr(low), "blemish:high": repr(high), "blemish:step": "1"}
    save_deep_png(grey.astype(np.uint16), stream, text)
    expected = (low + np.arange(65536) * ((high - low) / 65535)).astype(np.float32)
    assert np.array_equal(decode_map(stream.getvalue()).values.ravel(), expected)


def _texts(entries) -> PngInfo:
    info = PngInfo()
    for name, words in entries.items():
        info.add_text(name, words)
    return info


def test_no_changed_byte_is_read_as_a_map() -> None:
    whole = encode_map(detection(noise()))
    for at in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[at] ^= 1
        with pytest.raises(ImageError):
            decode_map(bytes(changed))
