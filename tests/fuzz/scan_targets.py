"""What is fuzzed of scans: lists, tables, Parquet files and tar shards."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from itertools import islice

from PIL import Image
from target import SIZE, encoded, suffix_first, written

from blemish.image_io.find import PassedOver
from blemish.scan.sources import SourceOptions, list_files, list_items, read_items

# sources of scans

SOURCE_FILES = ("a.txt", "a.csv", "a.parquet", "a.tar", "a.tar.gz")
#: More pictures are not asked for.
_MOST_ITEMS = 300


def sources(data: bytes) -> None:
    name, content = suffix_first(data, SOURCE_FILES)
    if b"://" in content:  # nothing is fetched
        return
    with written(content, name) as path:
        found = (
            item
            for source in list_files([str(path)])
            for item in list_items(source, SourceOptions(profile_from="folder"), PassedOver())
        )
        items = list(islice(found, _MOST_ITEMS))
        for picture in read_items(items):
            assert picture.error is None or "\n" not in picture.error


def source_seeds() -> list[bytes]:
    import tarfile

    import pyarrow
    from pyarrow import parquet

    png = encoded(Image.new("L", SIZE), "PNG")
    seeds = [b"\0a.png\nb/c.png\n", b'\1id,path\n1,a.png\n2,"b,c.png"\n']
    structs = [{"bytes": png, "path": None}, {"bytes": None, "path": "x"}]
    for column in ({"image": [png, None, png]}, {"path": ["a.png", None]}, {"image": structs}):
        stream = io.BytesIO()
        parquet.write_table(pyarrow.table(column), stream, row_group_size=2)
        seeds.append(b"\2" + stream.getvalue())
    for number, mode in ((3, "w"), (4, "w:gz")):
        for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode=mode, format=form) as shard:  # type: ignore[call-overload]
                for name in ("a.png", "folder/" + "b" * 120 + ".png", "../c.png"):
                    member = tarfile.TarInfo(name)
                    member.size = len(png)
                    shard.addfile(member, io.BytesIO(png))
            seeds.append(bytes([number]) + stream.getvalue())
    return seeds


def with_sums(data: bytes) -> bytes:
    """Mend the checksums of tar headers in a row, and compress what a compressed shard holds."""
    if not data or data[0] % len(SOURCE_FILES) not in (3, 4):
        return data
    packed = data[0] % len(SOURCE_FILES) == 4
    content = bytearray(data[1:])
    if packed:
        with suppress(Exception):
            content = bytearray(zlib.decompressobj(31).decompress(bytes(content), 2**20))
    at = 0
    while at + 512 <= len(content) and any(content[at : at + 512]):
        content[at + 148 : at + 156] = b" " * 8
        content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
        try:
            size = int(content[at + 124 : at + 135].strip(b" \0") or b"0", 8)
        except ValueError:
            break
        at += 512 + (-(-size // 512) * 512 if size >= 0 else 0)
    if packed:
        squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
        return data[:1] + squeeze.compress(bytes(content)) + squeeze.flush()
    return data[:1] + bytes(content)
