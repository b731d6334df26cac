"""Put the page together: `write_page` for a report of any size, `service_page` for the service.

    report.html                         one file, opened from disk, without any request
        head                            policy, style
        blemish-config                  JSON: mode, title, profile
        blemish-entries                 JSON: one short object per picture, for the list, filters and counts
        script                          the files of `SCRIPTS`, one after the other
        picture-0, picture-1, ...       JSON: preview and map of one picture, parsed when it comes into view

The pictures come last, the highest score first, so that the page can be used while the browser still reads them.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import html
import io
import json
import tempfile
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from PIL import Image

from blemish.concurrency import READER_THREADS, prefetch
from blemish.errors import BlemishError, ImageError, OutputError
from blemish.files import output_error, write_atomically
from blemish.image_io import MAX_PIXELS, read_image
from blemish.types import PathLike, ValueRange

Mode: TypeAlias = Literal["report", "service"]

PREVIEW_SIDE = 640
"""Longest side of a preview, in pixels."""
MAP_SIDE = 256
"""Longest side of the maps that a report should hold, in values."""

#: The scripts of the page, in the order of their use.
SCRIPTS = (
    "map.js",
    "regions.js",
    "state.js",
    "store.js",
    "dom.js",
    "viewer.js",
    "list.js",
    "export.js",
    "service.js",
    "feedback.js",
    "drift.js",
    "main.js",
)
#: Fields of an entry that the list, the filters and the exports need. The rest, such as outlines, is made from the map.
_FIELDS = (
    "path",
    "name",
    "size",
    "score",
    "verdict",
    "p_value",
    "threshold",
    "review_threshold",
    "mask_threshold",
    "min_area",
    "map_range",
    "heatmap_range",
    "map_step",
    "peak",
    "notes",
    "time",
    "error",
)
#: Quality of preview JPEGs: artefacts are hard to see, and a photograph takes 2 to 60 kB.
_QUALITY = 80


@dataclass(frozen=True)
class PagePicture:
    """One picture of a report.

    Attributes:
        entry: `Detection.to_dict()` with "error"; of a picture that could not be scored, {"path", "error"}.
        map_png: The map as 16-bit PNG with the chunks `blemish:low`, `blemish:high` and `blemish:step`, at most
            `MAP_SIDE` values a side; None = without a map.
        preview: What `make_preview` returned; None reads the picture from the entry's path.
    """

    entry: Mapping[str, Any]
    map_png: bytes | None = None
    preview: bytes | None = None


@dataclass(frozen=True)
class PageSize:
    """What `write_page` wrote: the number of pictures, of those without a preview, and of bytes."""

    pictures: int
    unreadable: int
    bytes: int


def make_preview(image: Image.Image, side: int = PREVIEW_SIDE) -> bytes:
    """Return an image, of mode L or RGB, as a JPEG whose longer side is at most `side` pixels."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BOX if max(image.size) > 4 * side else Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return stream.getvalue()


def write_page(
    path: PathLike,
    pictures: Iterable[PagePicture],
    *,
    title: str,
    profile: Mapping[str, Any] | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int | None = MAX_PIXELS,
) -> PageSize:
    """Write a report: one HTML file that needs no network, whatever the number of pictures.

    Only a few pictures are in memory at a time. A picture whose file is missing or unreadable keeps its map and its
    numbers, and the page says why there is no picture.

    Args:
        path: The file; it appears whole or not at all.
        pictures: Pictures in any order, each consumed once; the page sorts them.
        title: Heading of the page.
        profile: The profile that gave the thresholds: "name", "object_name", "promise".
        value_range: The values that are black and white in pictures of more than 8 bits.
        max_pixels: Larger pictures get no preview.

    Raises:
        OutputError: The file cannot be written.
    """
    target = Path(path)

    def prepare(picture: PagePicture) -> Generator[tuple[dict[str, Any], bytes, bool], None, None]:
        entry = {name: picture.entry[name] for name in _FIELDS if picture.entry.get(name) is not None}
        block = _block(picture, value_range, max_pixels)
        yield entry, _json(block).encode("ascii"), "problem" in block

    entries: list[str] = []
    parts: list[tuple[float, int, int]] = []  # score, beginning and length of each block
    unreadable = 0
    identity = hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        blocks = tempfile.TemporaryFile(dir=target.parent)  # noqa: SIM115 - closed below
    except OSError as error:
        raise output_error(target, error) from error
    with blocks, contextlib.closing(prefetch(pictures, prepare, 2 * READER_THREADS)) as prepared:
        for item in prepared:
            if isinstance(item, BaseException):
                raise item
            entry, block, failed = item
            block = b'<script type="application/json" id="picture-%d">' % len(entries) + block + b"</script>\n"
            parts.append((entry.get("score", -1.0), blocks.tell(), len(block)))
            try:
                blocks.write(block)
            except OSError as error:
                raise output_error(target, error) from error
            entries.append(_json(entry))
            unreadable += failed
            identity.update(str(entry.get("path")).encode("utf-8", "surrogatepass") + b"\0")
        config = {"mode": "report", "title": title, "id": identity.hexdigest()[:16], "profile": profile}
        joined = ",\n".join(entries)
        head, tail = _document("report", title, config, f"[{joined}]")

        def fill(stream: IO[bytes]) -> None:
            stream.write(head.encode("utf-8", "replace"))
            for _, start, length in sorted(parts, key=lambda place: -place[0]):
                blocks.seek(start)
                stream.write(blocks.read(length))
            stream.write(tail.encode("utf-8"))

        write_atomically(target, fill)
    try:
        size = target.stat().st_size
    except OSError as error:
        raise OutputError(f"{str(target)!r} was removed while it was being written; run again.", target) from error
    return PageSize(len(entries), unreadable, size)


def service_page(config: Mapping[str, Any]) -> str:
    """Return the page of the service.

    Args:
        config: "title", "concurrency" (requests at a time), "max_bytes", "max_pictures" (of a request); all optional.
    """
    title = str(config.get("title", "blemish"))
    head, tail = _document("service", title, {**config, "mode": "service", "title": title}, "[]")
    return head + tail


@functools.cache
def content_security_policy(mode: Mode) -> str:
    """Return the policy that the page of a mode has in its head, for the header of the same name.

    Only the page's own style and script run, nothing is loaded from elsewhere, and only the service's page sends
    requests, to its own server.
    """
    rules = {
        "default-src": "'none'",
        "script-src": f"'sha256-{_digest(_script())}'",
        "style-src": f"'sha256-{_digest(_asset('page.css'))}'",
        "img-src": "data: blob:",
        "connect-src": "'self'" if mode == "service" else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _block(picture: PagePicture, value_range: ValueRange | None, max_pixels: int | None) -> dict[str, str]:
    """Return what the page needs to show one picture; "problem" says why there is no preview."""
    block: dict[str, str] = {}
    if picture.map_png is not None:
        block["map"] = base64.b64encode(picture.map_png).decode("ascii")
    preview = picture.preview
    if preview is None:
        try:
            image = read_image(str(picture.entry["path"]), max_pixels=max_pixels, value_range=value_range).image
            preview = make_preview(image)
        except (ImageError, KeyError) as error:
            block["problem"] = str(error) if isinstance(error, BlemishError) else "The picture has no file."
            return block
    block["preview"] = base64.b64encode(preview).decode("ascii")
    return block


def _document(mode: Mode, title: str, config: Mapping[str, Any], entries: str) -> tuple[str, str]:
    """Return the page before and after the blocks of its pictures."""
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{content_security_policy(mode)}">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_asset('page.css')}</style>"
    )
    data = (
        f'<script type="application/json" id="blemish-config">{_json(config)}</script>\n'
        f'<script type="application/json" id="blemish-entries">{entries}</script>\n'
        f"<script>{_script()}</script>\n"
    )
    text = _asset("page.html").replace("<!-- head -->", head)
    before, _, after = text.partition("<!-- data -->")
    return before + data, after


@functools.cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _script() -> str:
    """Return all scripts as one block, so that their names do not become those of the window."""
    return '"use strict";\n{\n' + "\n".join(_asset(name) for name in SCRIPTS) + "}\n"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _json(value: Any) -> str:
    """Return JSON that can stand in a script element: ASCII only, and nothing in it ends the element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
