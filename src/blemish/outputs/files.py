"""Files made of detections: heatmaps, overlays, masks, maps and regions.

    out/heatmap/<picture>.png    the map in colours, RGB
    out/overlay/<picture>.png    the same over the picture, RGB
    out/mask/<picture>.png       0 normal, 255 anomalous, L
    out/map/<picture>.npy        raw float32 (H, W); .tiff with map_format="tiff"
    out/regions.jsonl            a line per picture, written as it is done
    out/regions.json             the same as one COCO file, made on closing

<picture> is the picture's path below the root with its own suffix kept, so a/x.png, b/x.png and b/x.jpg stay apart
whatever order they come in. Every file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image

from blemish.detection import Detection, Region
from blemish.errors import OutputError, UsageError
from blemish.files import output_error, output_name, safe_name, write_atomically
from blemish.outputs import png
from blemish.outputs.journal import open_to_append
from blemish.rle import encode_polygon

if TYPE_CHECKING:
    from blemish.image_io import LoadedImage

Kind = Literal["heatmap", "overlay", "mask", "map", "regions"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Writer:
    """Writes the chosen files of one detection after the other, keeping none of them in memory.

    A context manager; closing makes `regions.json`. Not for several threads at once.

    Args:
        out_dir: folder for the results; made when the first is written.
        save: what to write, of "heatmap", "overlay", "mask", "map", "regions".
        root: folder that names are relative to, best `common_root` of all pictures; None = the working directory.
        picture_format: of heatmaps and overlays: "png", "jpg" or "webp". Masks are PNG always.
        map_format: "npy" or "tiff", both raw float32.
        alpha: cover of the overlay at the upper end of the scale.
        legend: draw the colour bar below heatmaps and overlays.
        resume: go on with the regions of an earlier run instead of starting them anew.

    Raises:
        UsageError: an unknown kind or format.
    """

    def __init__(
        self,
        out_dir: str | os.PathLike[str],
        save: Iterable[str] = ("overlay",),
        *,
        root: str | os.PathLike[str] | None = None,
        picture_format: Literal["png", "jpg", "webp"] = "png",
        map_format: Literal["npy", "tiff"] = "npy",
        alpha: float = 0.6,
        legend: bool = False,
        resume: bool = False,
    ) -> None:
        self.out_dir = Path(out_dir)
        self.save = frozenset([save] if isinstance(save, str) else save)
        unknown = sorted(self.save.difference(KINDS))
        if unknown:
            raise UsageError(f"cannot save {unknown[0]!r}; choose among {', '.join(KINDS)}.")
        if picture_format not in ("png", "jpg", "webp"):
            raise UsageError(f"unknown picture format {picture_format!r}; choose png, jpg or webp.")
        if map_format not in ("npy", "tiff"):
            raise UsageError(f"unknown map format {map_format!r}; choose npy or tiff.")
        self.root = Path.cwd() if root is None else Path(root)
        self.picture_format = picture_format
        self.map_format = map_format
        self.alpha = alpha
        self.legend = legend
        self._resume = resume
        self._lines: IO[bytes] | None = None
        self._unnamed = 0

    def write(
        self, detection: Detection, picture: LoadedImage | Image.Image | None = None, *, name: str | None = None
    ) -> dict[str, Path]:
        """Write one detection's files.

        Args:
            detection: what to write. Masks and regions need a threshold and are left out without.
            picture: needed for the overlay, which is left out without.
            name: instead of the picture's path, below the folder of each kind, parts divided by "/"; needed to tell
                pictures from memory apart between runs.

        Returns:
            The files written, by kind.

        Raises:
            OutputError: a file cannot be written.
        """
        stem = self._stem(detection, name)
        written: dict[str, Path] = {}
        suffix = f".{self.picture_format}"
        if "heatmap" in self.save:
            written["heatmap"] = self._picture("heatmap", stem, suffix, detection.heatmap(legend=self.legend))
        if "overlay" in self.save and picture is not None:
            laid = detection.overlay(picture, alpha=self.alpha, legend=self.legend)
            written["overlay"] = self._picture("overlay", stem, suffix, laid)
        if "mask" in self.save and detection.mask is not None:
            mask = Image.fromarray(detection.mask.astype(np.uint8) * np.uint8(255))
            written["mask"] = self._picture("mask", stem, ".png", mask)
        if "map" in self.save:
            if self.map_format == "tiff":
                raw = Image.fromarray(detection.anomaly_map)
                written["map"] = self._picture("map", stem, ".tiff", raw)
            else:
                path = self._place("map", stem, ".npy")
                write_atomically(path, lambda stream: np.save(stream, detection.anomaly_map, allow_pickle=False))
                written["map"] = path
        if "regions" in self.save and detection.mask is not None:
            self._append(stem, detection)
            written["regions"] = self.out_dir / "regions.json"
        return written

    def close(self) -> None:
        """Make `regions.json` of all lines; may be called twice."""
        lines, self._lines = self._lines, None
        path, coco = self.out_dir / "regions.jsonl", self.out_dir / "regions.json"
        try:
            if lines is not None:
                lines.close()
            elif not ("regions" in self.save and self._resume and path.exists() and not coco.exists()):
                return  # nothing new, nor anything left over by a run that was killed
            write_atomically(coco, lambda stream: _assemble(path, stream))
        except OSError as error:
            raise output_error(path, error) from error

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stem(self, detection: Detection, name: str | None) -> Path:
        if name is not None:
            return Path(*[safe_name(part) for part in name.split("/") if part] or ["_"])
        if detection.path is not None:
            return output_name(detection.path, self.root)
        self._unnamed += 1
        return Path(f"picture-{self._unnamed:06d}")

    def _place(self, kind: str, stem: Path, suffix: str) -> Path:
        return self.out_dir / kind / stem.with_name(stem.name + suffix)

    def _picture(self, kind: str, stem: Path, suffix: str, image: Image.Image) -> Path:
        path = self._place(kind, stem, suffix)
        most = {".jpg": 65500, ".webp": 16383}.get(suffix)
        if most is not None and max(image.size) > most:
            raise OutputError(
                f"cannot write {str(path)!r}: {image.width} x {image.height} is more than the {most} pixels a side of "
                f"{self.picture_format}; choose png.",
                path,
            )
        form = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".tiff": "TIFF"}[suffix]
        options: dict[str, Any] = {".jpg": {"quality": 90}, ".webp": {"quality": 90}}
        if form == "PNG" and png.can_write(image):
            write_atomically(path, lambda stream: png.write(image, stream))
        else:
            write_atomically(path, lambda stream: image.save(stream, form, **options.get(suffix, {})))
        return path

    def _append(self, stem: Path, detection: Detection) -> None:
        path = self.out_dir / "regions.jsonl"
        try:
            if self._lines is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                if not self._resume:
                    path.unlink(missing_ok=True)
                self._lines = open_to_append(path)
                self._resume = True  # after a close, go on
            self._lines.write(json.dumps(_coco_line(stem, detection)).encode() + b"\n")
            self._lines.flush()
        except OSError as error:
            raise output_error(path, error) from error


def _coco_line(stem: Path, detection: Detection) -> dict[str, Any]:
    width, height = detection.size
    name = stem.as_posix() if detection.path is None else detection.path
    image = {"file_name": name, "width": width, "height": height, "score": detection.score}
    annotations = [_coco_region(region, (height, width)) for region in detection.regions]
    return {"image": image, "annotations": annotations}


def _coco_region(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    """COCO polygons cannot have holes, so a region with holes is given as run lengths."""
    x0, y0, x1, y1 = region.box
    outline: object = [list(itertools.chain.from_iterable(region.polygon[0]))]
    return {
        "category_id": 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": region.area,
        "segmentation": outline if len(region.polygon) == 1 else encode_polygon(region.polygon, size),
        "iscrowd": 0,
        "score": region.peak,
    }


def _assemble(lines: Path, out: IO[bytes]) -> None:
    """COCO from the lines, holding one at a time; where a picture came twice, its last line counts."""
    last: dict[str, int] = {}
    for number, line in _parsed(lines):
        last[line["image"]["file_name"]] = number
    kept = set(last.values())
    del last
    head = {"info": {"description": "made by blemish"}, "categories": [{"id": 1, "name": "anomaly"}]}
    out.write(json.dumps(head)[:-1].encode() + b', "images": [')
    for image_id, (_, line) in enumerate((pair for pair in _parsed(lines) if pair[0] in kept), 1):
        out.write((b",\n" if image_id > 1 else b"\n") + json.dumps({"id": image_id, **line["image"]}).encode())
    out.write(b'], "annotations": [')
    region_id = 0
    for image_id, (_, line) in enumerate((pair for pair in _parsed(lines) if pair[0] in kept), 1):
        for annotation in line["annotations"]:
            region_id += 1
            entry = {"id": region_id, "image_id": image_id, **annotation}
            out.write((b",\n" if region_id > 1 else b"\n") + json.dumps(entry).encode())
    out.write(b"]}\n")


def _parsed(lines: Path) -> Iterator[tuple[int, Any]]:
    with lines.open("rb") as stream:
        for number, line in enumerate(stream):
            with contextlib.suppress(ValueError):
                yield number, json.loads(line)
