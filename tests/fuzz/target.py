"""What the targets of the fuzzer share."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blemish.draw import save_deep_png
from blemish.errors import BlemishError

#: A mask and a picture of the fuzzed data sets have this size.
SIZE = (12, 10)


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        run: Reads the bytes; returns, or raises.
        seeds: Returns inputs that it reads.
        expected: Exceptions that are correct answers.
        repair: Mends what a mutation breaks and no reader looks beyond, such as checksums.
    """

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    expected: tuple[type[Exception], ...] = (BlemishError,)
    repair: Callable[[bytes], bytes] = bytes


@contextmanager
def written(data: bytes, name: str) -> Iterator[Path]:
    """Yield the path of a file with these bytes, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        yield path


def suffix_first(data: bytes, suffixes: tuple[str, ...]) -> tuple[str, bytes]:
    """Take the first byte as the number of a suffix."""
    return (suffixes[data[0] % len(suffixes)], data[1:]) if data else (suffixes[0], b"")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def map_seeds() -> list[bytes]:
    seeds = []
    for size in (None, "24 20"):
        stream = io.BytesIO()
        text = {"blemish:low": "0.0", "blemish:high": "1.0", "blemish:step": "1"} | (
            {"blemish:size": size} if size else {}
        )
        save_deep_png(np.arange(120, dtype=np.uint16).reshape(10, 12), stream, text)
        seeds.append(stream.getvalue())
    return seeds
