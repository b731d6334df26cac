"""Files that were made to do harm: each is refused with a sentence, runs nothing, and takes neither time nor memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import datasets
from blemish.clip import state_dict
from blemish.clip.state_dict import read_state_dict
from blemish.datasets.annotations import load_annotations
from blemish.datasets.masks import read_mask
from blemish.draw import save_deep_png
from blemish.errors import BlemishError, ImageError, ProfileError, UsageError, WeightsError
from blemish.files import parse_json
from blemish.image_io import find_images, open_tiff_rows, read_image
from blemish.maps import decode_map
from blemish.methods import checkpoints
from blemish.profile import read_profile
from blemish.roi import read_roi
from helpers import save_picture

#: Bytes that reading a small hostile file may allocate in Python, and seconds that it may take.
MOST_BYTES, MOST_SECONDS = 64 * 2**20, 60.0


@contextmanager
def cheap() -> Iterator[None]:
    tracemalloc.start()
    start = time.monotonic()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        assert time.monotonic() - start < MOST_SECONDS
    finally:
        tracemalloc.stop()


def refused(read: Callable[[], object], kind: type[BlemishError], words: str) -> None:
    with cheap(), pytest.raises(kind, match=words) as caught:
        read()
    assert "\n" not in str(caught.value)


# weights


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def save_archive(path: Path, tree: bytes, more: dict[str, bytes] | None = None, compression: int = 0) -> Path:
    """Write a zip as `torch.jit.save` lays it out."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {"m/data.pkl": tree, "m/constants.pkl": b"\x80\x02).", **(more or {})}.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("reader", [read_state_dict, checkpoints.read_official])
def test_a_pickle_that_runs_code(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    path, made = tmp_path / "evil.pt", tmp_path / "made"
    torch.save({"weight": Evil(made)}, path)
    refused(lambda: reader(path), WeightsError, "more than tensors")
    assert not made.exists()


def test_a_profile_that_runs_code(tmp_path: Path) -> None:
    path, made = tmp_path / "evil.profile", tmp_path / "made"
    torch.save({"memory": Evil(made)}, path)
    refused(lambda: read_profile(path), ProfileError, "is no profile")
    path.write_bytes(pickle.dumps(Evil(made)))
    refused(lambda: read_profile(path), ProfileError, "is no profile|is cut short")
    assert not made.exists()


def test_a_torchscript_archive_that_runs_code(tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = save_archive(tmp_path / "evil.pt", pickle.dumps(Evil(made), protocol=2))
    refused(lambda: read_state_dict(path), WeightsError, "it asks for .*mkdir, which reading weights does not need")
    assert not made.exists()


def nested(leaf: Any, make: Callable[[Any], Any], depth: int = 60) -> Any:
    for _ in range(depth):
        leaf = make(leaf)
    return leaf


@pytest.mark.parametrize("reader", [read_state_dict, checkpoints.read_official])
def test_dictionaries_that_share_their_parts(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    path = tmp_path / "shared.pt"
    torch.save(nested({"x": torch.ones(1)}, lambda part: {"model": part, "net": part}), path)
    with cheap(), suppress(WeightsError):
        reader(path)


def test_dictionaries_that_hold_themselves(tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    state["model"] = state["net"] = state
    torch.save(state, tmp_path / "cycle.pt")
    refused(lambda: read_state_dict(tmp_path / "cycle.pt"), WeightsError, "holds no tensors")
    with cheap():
        assert checkpoints.identify(checkpoints.read_official(tmp_path / "cycle.pt")) is None


def test_a_module_tree_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dict, "_MAX_NODES", 10_000)
    # A class of the archive with the state {"a": part, "b": part}, 60 deep: 2^60 nodes in a few kilobytes.
    tree, empty = b"\x80\x02", b"c__torch__\nM\n)\x81"
    tree += empty + b"q\x00"
    for number in range(60):
        part = bytes([ord("h"), number])
        tree += (
            empty
            + b"}(X\x01\x00\x00\x00a"
            + part
            + b"X\x01\x00\x00\x00b"
            + part
            + b"ub"
            + bytes([ord("q"), number + 1])
        )
    path = save_archive(tmp_path / "tree.pt", tree + b".")
    refused(lambda: read_state_dict(path), WeightsError, "module tree does not end")


@pytest.mark.parametrize("reader", [read_state_dict, checkpoints.read_official])
def test_an_archive_that_unpacks_to_much_more(
    tmp_path: Path, monkeypatch: Any, reader: Callable[[Path], object]
) -> None:
    monkeypatch.setattr(state_dict, "_MAX_UNPACKED", 2**20)
    path = save_archive(tmp_path / "bomb.pt", b"\x80\x02}.", {"m/byteorder": bytes(2**23)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    refused(lambda: reader(path), WeightsError, "unpacks to 8,388,")


@pytest.mark.parametrize("reader", [read_state_dict, checkpoints.read_official])
def test_a_tensor_of_more_numbers_than_the_file(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    path = tmp_path / "wide.pt"
    torch.save(OrderedDict(x=torch.ones(1).expand(1_000_000, 1_000_000)), path)
    refused(lambda: reader(path), WeightsError, "numbers are not in the file")


def test_an_archive_writes_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    outside = tmp_path / "outside"
    names = ("../../outside", str(outside), "m/../../outside")
    path = save_archive(inside / "a.pt", b"\x80\x02}.", dict.fromkeys(names, b"x"))
    refused(lambda: read_state_dict(path), WeightsError, "holds a dict|holds no tensors")
    assert [one.name for one in tmp_path.rglob("*") if one.is_file()] == ["a.pt"]
    assert not outside.exists()


def test_a_picture_that_is_also_an_archive(tmp_path: Path) -> None:
    path, made = save_picture(tmp_path / "a.png"), tmp_path / "made"
    archive = save_archive(tmp_path / "evil.pt", pickle.dumps(Evil(made), protocol=2)).read_bytes()
    both = path.read_bytes() + archive
    path.write_bytes(both)
    assert read_image(path).size == (40, 30)
    for name in ("both.pt", "both.safetensors"):
        (tmp_path / name).write_bytes(both)
        with pytest.raises(WeightsError):
            read_state_dict(tmp_path / name)
    (tmp_path / "both.profile").write_bytes(both)
    with pytest.raises(ProfileError, match="is no profile"):
        read_profile(tmp_path / "both.profile")
    assert not made.exists()


# headers


@pytest.mark.parametrize("length", [2**63 - 1, 2**40, 99_999_999])
def test_a_header_longer_than_the_file(tmp_path: Path, length: int) -> None:
    data = struct.pack("<Q", length) + b'{"__metadata__": {"format": "blemish-profile"}}'
    for name in ("x.safetensors", "x.profile"):
        (tmp_path / name).write_bytes(data)
    refused(lambda: read_state_dict(tmp_path / "x.safetensors"), WeightsError, "damaged or not a safetensors file")
    refused(lambda: checkpoints.read_header(tmp_path / "x.safetensors"), WeightsError, "header is longer than the file")
    refused(lambda: read_profile(tmp_path / "x.profile"), ProfileError, "is cut short|is no profile")


DEEP = "[" * 100_000


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(DEEP)
    header = f'{{"__metadata__": {DEEP}'.encode()
    for name in ("x.safetensors", "x.profile"):
        (tmp_path / name).write_bytes(struct.pack("<Q", len(header)) + header)
    for name in ("roi.json", "meta.json", "a.json"):
        (tmp_path / name).write_text(DEEP)
    refused(lambda: checkpoints.read_header(tmp_path / "x.safetensors"), WeightsError, "nested too deeply")
    refused(lambda: read_profile(tmp_path / "x.profile"), ProfileError, "is no profile")
    refused(lambda: read_roi(str(tmp_path / "roi.json"), (10, 10)), UsageError, "is not JSON .it is nested too deeply")
    refused(lambda: datasets.read("meta", tmp_path), UsageError, "cannot be read as JSON")
    refused(lambda: load_annotations(tmp_path / "a.json"), BlemishError, "is no complete JSON")


def test_xml_whose_entities_multiply_or_read_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    (tmp_path / "a.xml").write_text(f'<!DOCTYPE x [<!ENTITY e0 "ten">{entities}]><annotations>&e11;</annotations>')
    (tmp_path / "b.xml").write_text(f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret}">]><annotations>&e;</annotations>')
    for name in ("a.xml", "b.xml"):
        refused(lambda name=name: load_annotations(tmp_path / name), BlemishError, "is no complete XML")


# pictures, masks, maps


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of any stated size, with next to no pixels in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = b"".join(chunk(*each) for each in chunks) + chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def test_pictures_that_state_more_pixels_than_memory_holds(tmp_path: Path) -> None:
    refused(lambda: read_image(png(60_000, 60_000)), ImageError, "more than max_pixels")
    bmp = bytearray(io_bytes(Image.new("L", (4, 4)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 2**30, 2**30)
    tiff = bytearray(io_bytes(Image.new("I;16", (4, 4)), "TIFF"))
    for at in (10, 22):  # width and height, the first entries of the directory
        assert tiff[at : at + 2] in (b"\x00\x01", b"\x01\x01")
        tiff[at + 2 : at + 4], tiff[at + 8 : at + 12] = b"\x04\x00", struct.pack("<I", 2**31 - 1)
    for data in (bytes(bmp), bytes(tiff)):
        refused(lambda data=data: read_image(data), ImageError, "too large|more than max_pixels|damaged")
    path = tmp_path / "mask.png"
    path.write_bytes(png(12, 2**28))
    refused(lambda: read_mask(path, (12, 10)), ImageError, "12 x 268435456 pixels, which is too large")


def test_rows_of_a_tiff_that_states_billions_of_them(tmp_path: Path) -> None:
    """One row a strip, of which there is one: nothing is made for each row before that is noticed."""
    entries = [(256, 4, 12), (257, 4, 2**32 - 6), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    entries += [(273, 4, 8), (278, 4, 1), (279, 4, 9)]
    path = tmp_path / "rows.tif"
    body = b"".join(struct.pack("<HHLL", tag, kind, 1, value) for tag, kind, value in entries)
    path.write_bytes(struct.pack("<2sHLH", b"II", 42, 8, len(entries)) + body + bytes(16))

    def read() -> None:
        with open_tiff_rows(path):
            pass

    refused(read, ImageError, "is cut short")


def test_text_in_a_picture_that_unpacks_to_much_more() -> None:
    bomb = b"x\0\0" + zlib.compress(bytes(2**26))
    with cheap(), suppress(ImageError):
        read_image(png(10, 10, (b"zTXt", bomb)))


def io_bytes(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("size", ["1000000 1000000", "-1 5", "0 0"])
def test_a_map_that_enlarges_without_limit(size: str) -> None:
    stream = io.BytesIO()
    text = {"blemish:low": "0.0", "blemish:high": "1.0", "blemish:step": "1", "blemish:size": size}
    save_deep_png(np.zeros((4, 4), np.uint16), stream, text)
    refused(lambda: decode_map(stream.getvalue()), ImageError, "this is no anomaly map")


# paths


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="there are no links here")
def test_links_in_circles(tmp_path: Path) -> None:
    save_picture(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos", target_is_directory=True)
    for one, other in (("x.png", "y.png"), ("y.png", "x.png")):
        (tmp_path / "photos" / one).symlink_to(tmp_path / "photos" / other)
    with cheap():
        found = [Path(path).name for path in find_images(tmp_path / "photos")]
        assert found.count("a.png") == 1
    refused(lambda: read_image(tmp_path / "photos" / "x.png"), ImageError, "cannot be opened")


def test_paths_that_no_file_system_allows(tmp_path: Path) -> None:
    long = "x" * 5000
    (tmp_path / "list.csv").write_text(f"path,label\n{long}.png,0\n/{long}/{long}.png,1\n")
    (tmp_path / "meta.json").write_text(
        json.dumps(
            {"test": {"a": [{"img_path": long, "mask_path": long, "cls_name": "a", "specie_name": "", "anomaly": 1}]}}
        )
    )
    refused(lambda: datasets.read("csv", tmp_path / "list.csv"), UsageError, "has no pictures")
    refused(lambda: datasets.read("meta", tmp_path), UsageError, "has no pictures")
    refused(lambda: read_image(tmp_path / long), ImageError, "cannot be opened|does not exist")


def test_a_polygon_is_longer_than_a_file_name() -> None:
    corners = " ".join(
        f"{round(50 + 40 * np.cos(a), 2)},{round(50 + 40 * np.sin(a), 2)}" for a in np.linspace(0, 6, 100)
    )
    assert 0.3 < read_roi(corners, (100, 100)).share < 0.6
