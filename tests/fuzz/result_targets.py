"""What is fuzzed besides pictures and models: metadata of exported files, and folders of results."""

from __future__ import annotations

import base64
import json
import tempfile
from contextlib import suppress
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image
from target import SIZE, map_seeds, written

from blemish import exporting
from blemish.detection import Provenance
from blemish.errors import BlemishError
from blemish.exporting.backends import Opened
from blemish.exporting.header import Header, from_json
from blemish.outputs.judging import judge
from blemish.roi import Roi

# exported models: what their metadata say


def exports(data: bytes) -> None:
    class Reader:
        """Stands for a backend, whose own reader of graphs is not fuzzed here."""

        name = "onnx"

        def files(self, path: Path) -> tuple[Path, ...]:
            return (path,)

        def load(self) -> Reader:
            return self

        def read(self, path: Path, device: str, precision: str) -> Opened:
            return Opened(from_json(data.decode("utf-8", "replace"), path), lambda *_: [], "float32", "cpu")

    with written(data, "model.onnx") as path, patch.object(exporting, "choose", lambda *_, **__: Reader()):
        detector = exporting.load_exported(path)
        detector.provenance.to_dict()
        detector.engine.preprocess(Image.new("RGB", SIZE))


def export_seeds() -> list[bytes]:
    needed: dict[str, Any] = {field.name: "x" for field in fields(Provenance) if field.default is MISSING}
    provenance = Provenance(**{**needed, "config": {}, "value_range": (0.0, 255.0)})
    roi = base64.b64encode(Roi(np.eye(12, dtype=bool), "x").to_png()).decode()
    plain = Header(provenance, None, 28, (0.0, 1.0), threshold=0.5)
    tiled = replace(plain, object_name="nut", tile=28, overlap=0.25, roi=roi, smoothing=2.0, raw="raw_map")
    return [header.to_json().encode() for header in (plain, tiled)]


# folders of results

RESULT_FILES = ("results.jsonl", "runs.jsonl", "map/a.png.png")


def results(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "out"
        (folder / "map").mkdir(parents=True)
        outside = Path(outer) / "outside.png"
        outside.write_bytes(b"not of the folder")
        for name, content in zip(RESULT_FILES, data.split(b"\0" * 4), strict=False):
            (folder / name).write_bytes(content)
        for options in ({}, {"threshold": 0.5, "kinds": ("mask", "heatmap"), "page": True}):
            with suppress(BlemishError):
                judge(folder, **options)
        assert outside.read_bytes() == b"not of the folder"


def result_seeds() -> list[bytes]:
    source = {"method": "clip", "backbone": "builtin", "weights": None, "value_range": None, "profile": None}
    line = {
        "path": "a.png",
        "score": 0.5,
        "label": None,
        "threshold": None,
        "mask_threshold": None,
        "regions": [],
        "peak": 1.0,
        "size": list(SIZE),
        "map_range": [0.0, 1.0],
        "heatmap_range": [0.0, 1.0],
        "min_area": 1,
        "notes": [],
        "timing": {"total": 0.1},
        "provenance": source,
        "name": "a.png",
        "files": {"map-png": "map/a.png.png", "overlay": "overlay/a.png.png"},
        "key": ["/x/a.png", 1, 1, "0"],
        "run": "1",
        "error": None,
    }
    run = {"run": "1", "date": "2026-01-01", "settings": {}, "provenance": source, "preprocessing": None}
    climbing = {**line, "files": {"map-png": "map/a.png.png", "mask": "../outside.png"}}
    failure = {"path": "b.png", "error": "broken", "key": ["/x/b.png", -1, -1, "0"], "run": "1"}
    journals = [[line], [line, failure], [climbing, {**climbing, "label": 1, "threshold": 0.2, "mask_threshold": 0.4}]]
    runs, one_map = json.dumps(run).encode() + b"\n", map_seeds()[0]
    texts = ["".join(json.dumps(one) + "\n" for one in lines).encode() for lines in journals]
    return [b"\0\0\0\0".join([text, runs, one_map]) for text in texts]
