"""Regions in the formats of other tools: COCO results, YOLO, labelme, CVAT and Label Studio, from journal lines.

`REGION_FORMATS` lists the formats. Each takes journal lines (`Detection.to_dict()` with "error" and "name") and writes
those of pictures that were scored with a threshold into the run's folder. Every region is an annotation "anomaly".
Points are pixel corners, as in `blemish.regions`. Tools whose polygons cannot have holes get one ring that reaches the
holes through a cut without width; filled by the even-odd rule, it gives the same pixels.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeAlias
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from blemish.files import write_atomically
from blemish.outputs.tables import coco_box, write_coco
from blemish.regions import compress_counts, encode_polygon, fill_polygon

Line: TypeAlias = Mapping[str, Any]
Lines: TypeAlias = Callable[[], Iterable[Line]]
"""Returns the journal lines; may be called more than once, since only one line at a time is in memory."""
Point: TypeAlias = tuple[float, float]

LABEL = "anomaly"

LABEL_STUDIO_CONFIG = f"""<View>
  <Image name="image" value="$image"/>
  <PolygonLabels name="label" toName="image"><Label value="{LABEL}"/></PolygonLabels>
</View>
"""
"""Labelling interface of Label Studio that the predictions fit."""


def with_threshold(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield the lines of pictures that were scored with a threshold, so that they have regions or none."""
    return (line for line in lines if line["error"] is None and line["mask_threshold"] is not None)


def one_ring(polygon: Sequence[Sequence[Point]]) -> list[Point]:
    """Return a polygon with holes as one ring: each hole is joined to its nearest corner so far, there and back."""
    ring = [(x, y) for x, y in polygon[0]]
    for hole in polygon[1:]:
        pairs = ((math.dist(a, b), i, j) for i, a in enumerate(ring) for j, b in enumerate(hole))
        _, start, entry = min(pairs)
        around = [(x, y) for x, y in (*hole[entry:], *hole[: entry + 1])]
        ring = [*ring[: start + 1], *around, *ring[start:]]
    return ring


def write_coco_results(folder: Path, lines: Lines) -> None:
    """Write `regions.json` (images and annotations) and `coco_results.json`, the list of results that COCO's API loads.

    Both have the same image ids. Results are masks as compressed run lengths with a box and the peak as score.
    """
    write_coco(folder / "regions.json", lines)

    def results() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(with_threshold(lines()), 1):
            width, height = line["size"]
            for region in line["regions"]:
                runs = encode_polygon(region["polygon"], (height, width))
                segmentation = {"size": runs["size"], "counts": compress_counts(runs["counts"])}
                place = {"bbox": coco_box(region), "segmentation": segmentation}
                yield {"image_id": number, "category_id": 1, **place, "score": region["peak"]}

    _write_list(folder / "coco_results.json", results())


def write_yolo(folder: Path, lines: Lines) -> None:
    """Write `yolo/labels/<picture>.txt`, a line per region: the class 0 and a polygon as fractions of the sides."""
    for line, path in _files(folder / "yolo" / "labels", lines, ".txt"):
        width, height = line["size"]
        rows = []
        for region in line["regions"]:
            points = (f"{x / width:.6g} {y / height:.6g}" for x, y in one_ring(region["polygon"]))
            rows.append(f"0 {' '.join(points)}\n")
        _write(path, "".join(rows))
    _write(folder / "yolo" / "classes.txt", f"{LABEL}\n")


def write_labelme(folder: Path, lines: Lines) -> None:
    """Write `labelme/<picture>.json`: a polygon per region, or a mask where it has holes.

    labelme fills a polygon together with its outline, so its points are the outermost pixels.
    """
    for line, path in _files(folder / "labelme", lines, ".json"):
        width, height = line["size"]
        shapes = []
        for region in line["regions"]:
            x0, y0, x1, y1 = region["box"]
            inner = [[(x - x0, y - y0) for x, y in ring] for ring in region["polygon"]]
            pixels = fill_polygon(inner, (y1 - y0, x1 - x0))
            points = _outermost_pixels(pixels, inner)
            shape: dict[str, Any] = {"label": LABEL, "group_id": None, "description": "", "flags": {}}
            shape["mask"] = None
            if points is None:
                png = io.BytesIO()
                Image.fromarray(pixels).save(png, "PNG")
                shape |= {"shape_type": "mask", "points": [[x0, y0], [x1 - 1, y1 - 1]]}
                shape["mask"] = base64.b64encode(png.getvalue()).decode("ascii")
            else:
                shape |= {"shape_type": "polygon", "points": [[x + x0, y + y0] for x, y in points]}
            shapes.append(shape)
        content: dict[str, Any] = {"version": "5.5.0", "flags": {"anomalous": bool(line["label"])}, "shapes": shapes}
        content |= {"imagePath": str(line["path"]), "imageData": None, "imageHeight": height, "imageWidth": width}
        _write(path, json.dumps(content, indent=1))


def write_cvat(folder: Path, lines: Lines) -> None:
    """Write `cvat.xml`, "CVAT for images 1.1": a polygon per region, or a mask where it has holes."""

    def fill(stream: IO[bytes]) -> None:
        def put(text: str) -> None:
            stream.write(text.encode("utf-8", "backslashreplace"))

        put('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        for number, line in enumerate(with_threshold(lines())):
            width, height = line["size"]
            put(f'<image id="{number}" name={quoteattr(_name(line))} width="{width}" height="{height}">\n')
            for region in line["regions"]:
                common = f'label="{LABEL}" source="auto" occluded="0" z_order="0"'
                if len(region["polygon"]) == 1:
                    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in region["polygon"][0])
                    put(f'  <polygon {common} points="{points}"/>\n')
                else:
                    x0, y0, x1, y1 = region["box"]
                    # Row by row from the left, starting with the zeros: COCO's runs of the mask on its side.
                    transposed = [[(y - y0, x - x0) for x, y in ring] for ring in region["polygon"]]
                    runs = encode_polygon(transposed, (x1 - x0, y1 - y0))["counts"]
                    box = f'left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}"'
                    put(f'  <mask {common} rle="{", ".join(map(str, runs))}" {box}/>\n')
            put("</image>\n")
        put("</annotations>\n")

    write_atomically(folder / "cvat.xml", fill)


def write_label_studio(folder: Path, lines: Lines) -> None:
    """Write `label_studio.json`, tasks with predictions, and `label_studio.xml`, the interface that they fit."""

    def tasks() -> Iterator[dict[str, Any]]:
        for line in with_threshold(lines()):
            width, height = line["size"]
            result = []
            for number, region in enumerate(line["regions"]):
                points = [[100 * x / width, 100 * y / height] for x, y in one_ring(region["polygon"])]
                result.append(
                    {
                        "id": f"region{number}",
                        "type": "polygonlabels",
                        "from_name": "label",
                        "to_name": "image",
                        "original_width": width,
                        "original_height": height,
                        "image_rotation": 0,
                        "value": {"points": points, "closed": True, "polygonlabels": [LABEL]},
                    }
                )
            source = line["provenance"] or {}
            version = f"blemish {source.get('method', '')}".strip()
            prediction = {"model_version": version, "score": line["score"], "result": result}
            yield {"data": {"image": str(line["path"])}, "predictions": [prediction]}

    _write_list(folder / "label_studio.json", tasks())
    _write(folder / "label_studio.xml", LABEL_STUDIO_CONFIG)


REGION_FORMATS: dict[str, tuple[Callable[[Path, Lines], None], tuple[str, ...]]] = {
    "coco": (write_coco_results, ("regions.json", "coco_results.json")),
    "yolo": (write_yolo, ("yolo/",)),
    "labelme": (write_labelme, ("labelme/",)),
    "cvat": (write_cvat, ("cvat.xml",)),
    "label-studio": (write_label_studio, ("label_studio.json", "label_studio.xml")),
}
"""What writes each format, and what it writes below the run's folder."""


def _outermost_pixels(pixels: npt.NDArray[np.bool_], polygon: Sequence[Sequence[Point]]) -> list[Point] | None:
    """Return the polygon through a region's outermost pixels; None if it does not give the region when it is filled.

    Args:
        pixels: The region within its box, (H, W).
        polygon: Rings along pixel edges, relative to the box. The region lies to the right of each side.
    """
    ring = polygon[0]
    points: list[Point] = []
    for (x0, y0), (x, y), (x1, y1) in zip((ring[-1], *ring[:-1]), ring, (*ring[1:], ring[0]), strict=True):
        goes_left, goes_down = x1 < x or x < x0, y1 > y or y > y0
        points.append((x - 1 if goes_down else x, y - 1 if goes_left else y))
    canvas = Image.new("1", (pixels.shape[1], pixels.shape[0]))
    ImageDraw.Draw(canvas).polygon(points, fill=1, outline=1)
    return points if np.array_equal(np.asarray(canvas), pixels) else None


def _files(folder: Path, lines: Lines, suffix: str) -> Iterator[tuple[Line, Path]]:
    """Yield each line with a file of its own: the picture's name with another suffix, or appended if that is taken."""
    taken = set()
    for line in with_threshold(lines()):
        name = PurePosixPath(_name(line))
        path = folder / name.with_suffix(suffix)
        if path in taken:
            path = folder / f"{name}{suffix}"
        taken.add(path)
        yield line, path


def _name(line: Line) -> str:
    """Return the name of a picture's files in the run, or its path."""
    return str(line.get("name") or line["path"])


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda stream: stream.write(text.encode("utf-8", "backslashreplace")), durable=False)


def _write_list(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON list, one entry per line."""

    def fill(stream: IO[bytes]) -> None:
        stream.write(b"[")
        for index, entry in enumerate(entries):
            stream.write((b",\n" if index else b"\n") + json.dumps(entry).encode())
        stream.write(b"\n]\n")

    write_atomically(path, fill)
