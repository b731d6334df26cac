"""What is fuzzed: readers of foreign bytes, each with seeds that it reads.

A target takes bytes. A `BlemishError` (of the service a `ServiceError`) is a right answer, any other exception a bug.
The same targets serve the fuzzer (`fuzz.py`) and the replay of the corpus in the tests.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import pickle
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from result_targets import export_seeds, exports, result_seeds, results
from scan_targets import source_seeds, sources, with_sums
from target import SIZE, Target, encoded, map_seeds, suffix_first, written

from blemish import datasets
from blemish.clip.state_dict import read_state_dict
from blemish.datasets.annotations import load_annotations, rasterize
from blemish.datasets.masks import image_size, read_mask
from blemish.draw import save_deep_png
from blemish.errors import BlemishError
from blemish.image_io import read_image
from blemish.image_io.tiff import open_tiff_rows
from blemish.maps import decode_map
from blemish.methods import checkpoints
from blemish.profile import read_profile

# At the top, since only what is imported here is instrumented.
_SERVICE_ERRORS: tuple[type[Exception], ...] = (BlemishError,)
with suppress(ImportError):  # the extra may not be installed
    from starlette.requests import Request

    from blemish.serve import bodies, oip
    from blemish.serve.errors import ServiceError

    _SERVICE_ERRORS = (BlemishError, ServiceError)

MAX_PIXELS = 1_000_000
SUFFIXES = (
    ".png",
    ".tif",
    ".jpg",
    ".bmp",
    ".gif",
    ".webp",
    ".ppm",
    ".jp2",
    ".avif",
    ".heic",
    ".dcm",
    ".nii",
    ".nii.gz",
)


# pictures


def pictures(data: bytes) -> None:
    suffix, content = suffix_first(data, SUFFIXES)
    with suppress(BlemishError):
        read_image(content, max_pixels=MAX_PIXELS)
    with written(content, f"picture{suffix}") as path:
        with suppress(BlemishError):
            read_image(path, max_pixels=MAX_PIXELS, page=2)
        with suppress(BlemishError), open_tiff_rows(path) as rows:
            if rows is not None and rows.size[0] * rows.size[1] <= MAX_PIXELS:
                rows.rows(0, min(3, rows.size[1]))
                rows.rows(rows.size[1] - 1, rows.size[1])
        with suppress(BlemishError):
            image_size(path)
        read_image(path, max_pixels=MAX_PIXELS)


def picture_seeds() -> list[bytes]:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (*SIZE[::-1], 3)).astype(np.uint8))
    formats = {
        ".png": "PNG",
        ".tif": "TIFF",
        ".jpg": "JPEG",
        ".bmp": "BMP",
        ".gif": "GIF",
        ".webp": "WEBP",
        ".ppm": "PPM",
    }
    formats |= {".jp2": "JPEG2000", ".avif": "AVIF"}
    seeds = [_numbered(suffix, encoded(colour, kind)) for suffix, kind in formats.items()]
    deep = rng.integers(0, 65536, SIZE[::-1]).astype(np.uint16)
    stream = io.BytesIO()
    save_deep_png(deep, stream, {})
    seeds.append(_numbered(".png", stream.getvalue()))
    palette = colour.quantize(16)
    seeds += [_numbered(".png", encoded(palette, "PNG")), _numbered(".png", encoded(colour.convert("RGBA"), "PNG"))]
    for array in (deep, deep.astype(np.float32), deep.astype(np.int32)):
        for options in ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}):
            seeds.append(_numbered(".tif", encoded(Image.fromarray(array), "TIFF", **options)))
    seeds.append(_numbered(".tif", encoded(colour, "TIFF", save_all=True, append_images=[colour.convert("L")])))
    nifti = bytearray(348)
    struct.pack_into("<i", nifti, 0, 348)
    struct.pack_into("<8h", nifti, 40, 3, 4, 4, 2, 1, 1, 1, 1)
    struct.pack_into("<hh", nifti, 70, 4, 16)
    struct.pack_into("<f", nifti, 108, 352.0)
    nifti[344:348] = b"n+1\0"
    volume = bytes(nifti) + b"\0" * 4 + bytes(range(64))
    seeds.append(_numbered(".nii", volume))
    seeds.append(_numbered(".dcm", _dicom()))
    return seeds


def _dicom() -> bytes:
    """Return a small DICOM picture: explicit little endian, 16 bits."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2) if kind != b"OW" else b""
        length = struct.pack("<HI", 0, len(value)) if kind in (b"OW", b"OB") else struct.pack("<H", len(value))
        return struct.pack("<HH", group, number) + kind + length + value

    def short(number: int, value: int) -> bytes:
        return element(0x28, number, b"US", struct.pack("<H", value))

    syntax = element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1\0")
    head = element(2, 0, b"UL", struct.pack("<I", len(syntax))) + syntax
    body = [short(2, 1), element(0x28, 4, b"CS", b"MONOCHROME2"), short(0x10, 4), short(0x11, 4), short(0x100, 16)]
    body += [short(0x101, 12), short(0x102, 11), short(0x103, 0)]
    pixels = element(0x7FE0, 0x10, b"OW", bytes(range(32)))
    return b"\0" * 128 + b"DICM" + head + b"".join(body) + pixels


def _numbered(suffix: str, data: bytes) -> bytes:
    return bytes([SUFFIXES.index(suffix)]) + data


def with_checksums(data: bytes) -> bytes:
    """Mend the checksums of the chunks of a PNG, wherever it begins."""
    start = data.find(b"\x89PNG\r\n\x1a\n")
    if start < 0:
        return data
    fixed, at = bytearray(data), start + 8
    while at + 12 <= len(fixed):
        length = int.from_bytes(fixed[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = zlib.crc32(fixed[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(fixed)


def with_length(data: bytes) -> bytes:
    """Write the length of a safetensors header again, wherever its JSON ends now."""
    start = data.find(b"{", 0, 10)
    if start < 8:
        return data
    text = data[start:].decode("latin-1")
    try:
        end = json.JSONDecoder(strict=False).raw_decode(text)[1]
    except (ValueError, RecursionError):
        return data
    return data[: start - 8] + end.to_bytes(8, "little") + data[start:]


# masks and annotations

MASK_SUFFIXES = (".json", ".xml", ".txt", ".png", ".tif", ".gif")


def masks(data: bytes) -> None:
    suffix, content = suffix_first(data, MASK_SUFFIXES)
    with written(content, f"a{suffix}") as path:
        if suffix in (".json", ".xml", ".txt"):
            with suppress(BlemishError):
                rasterize(load_annotations(path).of(Path("a.png")), SIZE)
        read_mask(path, SIZE, Path("a.png"))


def mask_seeds() -> list[bytes]:
    points = [[1, 1], [8, 1], [8, 8]]
    flat = [number for point in points for number in point]
    shapes = [
        {"label": "hole", "shape_type": kind, "points": points[:count]}
        for kind, count in (("polygon", 3), ("rectangle", 2), ("circle", 2), ("line", 2), ("point", 1))
    ]
    labelme = {"version": "5", "imagePath": "a.png", "imageWidth": 12, "imageHeight": 10, "shapes": shapes[:3]}
    image = {"id": 1, "file_name": "a.png", "width": 12, "height": 10}
    areas: list[Any] = [[flat], {"size": [10, 12], "counts": [5, 7, 108]}, {"size": [10, 12], "counts": "57"}]
    coco = {
        "images": [image],
        "categories": [{"id": 1, "name": "hole"}],
        "annotations": [{"id": n, "image_id": 1, "category_id": 1, "segmentation": s} for n, s in enumerate(areas[:2])],
    }
    packed = {**coco, "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": areas[2]}]}
    boxes = {**coco, "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}]}
    regions = [
        {"shape_attributes": {"name": "polygon", "all_points_x": [1, 8, 8], "all_points_y": [1, 1, 8]}},
        {"shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": 3, "height": 3}},
        {"shape_attributes": {"name": "circle", "cx": 4, "cy": 4, "r": 2}},
        {"shape_attributes": {"name": "ellipse", "cx": 4, "cy": 4, "rx": 2, "ry": 1, "theta": 0.3}},
    ]
    via = {"a.png123": {"filename": "a.png", "size": 123, "regions": regions}}
    cvat = (
        '<annotations><image id="0" name="a.png" width="12" height="10">'
        '<polygon label="hole" points="1,1;8,1;8,8"/><box label="hole" xtl="1" ytl="1" xbr="4" ybr="4"/>'
        '<ellipse label="hole" cx="4" cy="4" rx="2" ry="1"/>'
        '<mask label="hole" rle="1, 2, 1" left="1" top="1" width="2" height="2"/></image></annotations>'
    )
    texts = [json.dumps(content) for content in (labelme, coco, packed, boxes, via)]
    seeds = [b"\0" + text.encode() for text in texts] + [b"\1" + cvat.encode()]
    seeds += [b"\2" + b"0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.5 0.5 0.2 0.2\n"]
    grey = Image.fromarray((np.arange(120).reshape(10, 12) > 80).astype(np.uint8) * 255)
    colours = grey.convert("RGBA")
    for number, kind in ((3, "PNG"), (4, "TIFF"), (5, "GIF")):
        images = [grey, grey.convert("1"), grey.quantize(2)] + [colours] * (kind == "PNG")
        seeds += [bytes([number]) + encoded(one, kind) for one in images]
    return seeds


# lists of data sets

LISTS = ("list.csv", "meta.json", "plate.json")


def lists(data: bytes) -> None:
    name, content = suffix_first(data, LISTS)
    place = f"realiad_jsons/{name}" if name == "plate.json" else name
    with written(content, place) as path:
        root = path.parent.parent if name == "plate.json" else path.parent
        for picture in ("good/a.png", "good/b.png", "realiad_512/plate/OK/S1/a.png"):
            (root / picture).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", SIZE).save(root / picture)
        kind = {"list.csv": "csv", "meta.json": "meta", "plate.json": "real-iad"}[name]
        read_set = datasets.read(kind, path if name == "list.csv" else root)
        for sample in read_set:
            str(sample)


def list_seeds() -> list[bytes]:
    tables = [
        "path,label,mask,object\ngood/a.png,0,,plate\ngood/b.png,1,realiad_512/plate/OK/S1/a.png,plate\n",
        "image;anomaly;split\n./good/a.png;normal;test\ngood\\b.png;defect;train\n",
        "path\tlabel\n/home/x/good/a.png\tok\n",
        '"path","label"\n"good/a.png","1"\n',
    ]
    item = {"img_path": "good/a.png", "mask_path": "", "cls_name": "plate", "specie_name": "good", "anomaly": 0}
    meta = json.dumps({"test": {"plate": [item, {**item, "img_path": "good/b.png", "anomaly": 1}]}, "train": {}})
    part = {"image_path": "OK/S1/a.png", "mask_path": None, "category": "plate", "anomaly_class": "OK"}
    real = json.dumps({"meta": {"prefix": "", "normal_class": "OK"}, "test": [part], "train": [part]})
    utf16 = tables[0].encode("utf-16")
    return [b"\0" + table.encode() for table in tables] + [b"\0" + utf16, b"\1" + meta.encode(), b"\2" + real.encode()]


# weights

WEIGHT_SUFFIXES = (".safetensors", ".pt")


def weights(data: bytes) -> None:
    suffix, content = suffix_first(data, WEIGHT_SUFFIXES)
    with written(content, f"weights{suffix}") as path:
        for read in (checkpoints.read_tensors, checkpoints.read_header, checkpoints.is_official):
            with suppress(BlemishError):
                read(path)
        with suppress(BlemishError):
            state = checkpoints.read_official(path)
            name = checkpoints.identify(state)
            if name is not None:
                checkpoints.official_config(name, state, _default_config(name))
        read_state_dict(path)


def _default_config(name: str) -> Any:
    from blemish.methods import load_class

    return load_class(name).Config()


def weight_seeds() -> list[bytes]:
    tensors = {"visual.a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}
    metadata = {
        "format": "blemish",
        "method": "clip",
        "config": "{}",
        "backbone": "builtin",
        "trained_on": "",
        "source": "",
    }
    blemish_file = checkpoints.to_bytes(tensors, {**metadata, "backbone_fingerprint": "0"})
    april = {"state_dict": {"trainable_linearlayer": tensors}}
    contents = [tensors, {"model": tensors}, {"prompt_learner": {"ctx_pos": torch.ones(1, 1, 2, 4)}}, april]
    seeds = [b"\0" + blemish_file]
    for content in contents:
        for options in ({}, {"_use_new_zipfile_serialization": False}):
            stream = io.BytesIO()
            torch.save(content, stream, **options)
            seeds.append(b"\1" + stream.getvalue())
    return [*seeds, b"\1" + _torchscript()]


def _torchscript() -> bytes:
    """Return an archive as `torch.jit.save` lays it out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({"a": 1}, protocol=2))
        archive.writestr("m/constants.pkl", pickle.dumps((), protocol=2))
        archive.writestr("m/byteorder", "little")
        archive.writestr("m/data/0", bytes(16))
    return stream.getvalue()


# profiles, maps, journals


def profiles(data: bytes) -> None:
    with written(data, "part.profile") as path:
        read_profile(path).summary()


def profile_seeds() -> list[bytes]:
    return []  # making one takes seconds; the corpus has one


def maps(data: bytes) -> None:
    decode_map(data)


# requests of the service


def requests(data: bytes) -> None:
    head, _, body = data.partition(b"\n")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    def request() -> Request:
        headers = [(b"content-type", head)]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"name=a", "headers": headers}
        return Request(scope, receive)

    async def read() -> None:
        with suppress(bodies.ServiceError):
            content = await bodies.read_json(request())
            oip._outputs(content)
            oip._pictures(content, 4)
        for upload in await bodies.read_pictures(request(), 4):
            with suppress(BlemishError):
                read_image(upload.data, max_pixels=MAX_PIXELS)

    with ThreadPoolExecutor(1) as pool:  # the browser of other tests leaves a loop running in this thread
        pool.submit(lambda: asyncio.run(read())).result()


def request_seeds() -> list[bytes]:
    png = encoded(Image.new("L", SIZE), "PNG")
    form = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        + png
        + b"\r\n--x--\r\n"
    )
    picture = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(png).decode()]}
    pixels = {"name": "image", "datatype": "UINT8", "shape": [2, 2], "data": [[0, 1], [2, 255]]}
    bodies = [{"inputs": [picture], "outputs": [{"name": "score"}]}, {"inputs": [pixels], "id": "1"}]
    return [
        b"multipart/form-data; boundary=x\n" + form,
        b"image/png\n" + png,
        *(b"application/json\n" + json.dumps(body).encode() for body in bodies),
    ]


TARGETS = {
    "pictures": Target(pictures, picture_seeds, repair=with_checksums),
    "masks": Target(masks, mask_seeds, repair=with_checksums),
    "lists": Target(lists, list_seeds),
    "weights": Target(weights, weight_seeds, repair=with_length),
    "profiles": Target(profiles, profile_seeds, repair=with_length),
    "maps": Target(maps, map_seeds, repair=with_checksums),
    "requests": Target(requests, request_seeds, _SERVICE_ERRORS),
    "exports": Target(exports, export_seeds),
    "results": Target(results, result_seeds),
    "sources": Target(sources, source_seeds, repair=with_sums),
}
