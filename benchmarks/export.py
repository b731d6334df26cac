"""Exported files next to PyTorch: seconds a picture from prepared pixels to score and map, and how far apart they are.

    python benchmarks/export.py --files DIR [--large] [--batch 1 16] [--rounds 5] [--only NAME ...] [--out FILE]

The detector is AnomalyCLIP on the built-in model at 336 pixels, or with --large on ViT-L/14 with random weights at 518.
"published" is the reference of `speed.py`, PyTorch in float32.
Files that DIR lacks are made first; --make-only stops there, so that they can be measured on a quieter machine.
Contenders take turns; see `interleaved`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import reference
import torch
from interleaved import Contender, middle, ratio, report, turns
from torch import Tensor
from towers import random_vit_l

from blemish import exporting as export
from blemish import methods
from blemish.clip import Backbone, load_backbone
from blemish.detector import Detector
from blemish.engine import Engine, TorchEngine
from blemish.exporting.parity import textures
from blemish.loading import shipped

#: Pictures that int8 is fitted to: textures made at random. Its speed does not depend on them.
FITTED = 8
FILES = {"onnx": "float32.onnx", "onnx int8": "int8.onnx", "openvino": "float32.xml", "openvino int8": "int8.xml"}
BASE = "torch float32"
PUBLISHED = "published"


def large() -> Backbone:
    """ViT-L/14@336 with random weights, no two alike: exporters would store equal ones once."""
    backbone = random_vit_l()
    for number, weight in enumerate(backbone.parameters()):
        weight.add_(1e-6 * number)
    return backbone


def engine(backbone: Backbone, precision: str) -> TorchEngine:
    """AnomalyCLIP; with what it learnt on the built-in model, else as it is drawn."""
    learnt = shipped("anomalyclip", backbone.fingerprint)
    return TorchEngine(methods.create("anomalyclip", backbone, weights=learnt), precision=precision)  # type: ignore[arg-type]


def make(folder: Path, source: TorchEngine, names: list[str]) -> None:
    """Write the files that are not there yet."""
    for name, file in FILES.items():
        if name in names and not (folder / file).exists():
            start = time.perf_counter()
            fitted = list(textures(FITTED)) if "int8" in name else []
            exported = export.export(Detector(source), folder / file, calibrate=fitted)
            size = sum(file.stat().st_size for file in exported.files) / 1e6
            print(f"{file}: {size:.1f} MB in {time.perf_counter() - start:.0f} s, {exported.parity}", flush=True)


def contenders(folder: Path, backbone: Backbone, names: list[str]) -> dict[str, Engine]:
    """What is compared, by name."""
    opened: dict[str, Callable[[], Engine]] = {
        BASE: partial(engine, backbone, "float32"),
        "torch bfloat16": partial(engine, backbone, "bfloat16"),
        "openvino bfloat16": lambda: export.load_exported(folder / FILES["openvino"], precision="bfloat16").engine,
    }
    for name, file in FILES.items():
        opened[name] = lambda file=file: export.load_exported(folder / file).engine  # type: ignore[misc]
    loaded = {}
    for name in (name for name in names if name != PUBLISHED):
        start = time.perf_counter()
        loaded[name] = opened[name]()
        print(f"{name}: ready in {time.perf_counter() - start:.1f} s", flush=True)
    return loaded


def published(backbone: Backbone) -> Callable[[Tensor], object]:
    """The published computation of prepared pixels."""
    method = engine(backbone, "float32").method
    tower = reference.Tower(backbone, method)
    with torch.inference_mode():
        text = method.text_features(["object"])[0]

    @torch.inference_mode()
    def run(pixels: Tensor) -> object:
        return reference.run(method, tower, pixels, text)

    return run


def measure(
    engines: dict[str, Engine], slow: Callable[[Tensor], object] | None, batch: int, rounds: int
) -> dict[str, object]:
    """Seconds, ratios and differences for one batch size; `slow` is the published computation."""
    size = next(iter(engines.values())).size
    pictures = [picture.image for picture in textures(batch)]
    runs: dict[str, Contender] = {}
    for name, engine in engines.items():
        pixels = torch.cat([engine.preprocess(picture) for picture in pictures])
        runs[name] = partial(engine.run, pixels, "object")
    base = BASE if BASE in runs else next(iter(runs))
    expected = runs[base]().prediction  # type: ignore[attr-defined]
    if slow is not None:
        base, runs[PUBLISHED] = PUBLISHED, partial(slow, pixels)
    seconds = turns(runs, rounds)
    ratios = {name: ratio(seconds, base, name) for name in runs}
    print(f"\n{size} pixels, batch {batch}: milliseconds a picture, times as fast as {base}, differences from PyTorch")
    apart = {}
    for name, value in middle(seconds).items():
        if name == PUBLISHED:
            print(f"  {name:18} {1000 * value / batch:9.1f}", flush=True)
            continue
        prediction = runs[name]().prediction  # type: ignore[attr-defined]
        apart[name] = [
            float((getattr(prediction, what) - getattr(expected, what)).abs().max()) for what in ("score", "map")
        ]
        score, anomaly_map = apart[name]
        print(
            f"  {name:18} {1000 * value / batch:9.1f}   {ratios[name]!s:24} {score:.1e} {anomaly_map:.1e}", flush=True
        )
    return {**report(seconds, ratios), "batch": batch, "size": size, "differences": apart}


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [PUBLISHED, BASE, "torch bfloat16", "onnx", "onnx int8", "openvino", "openvino bfloat16", "openvino int8"]
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--make-only", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    backbone = large() if given.large else load_backbone("builtin")
    given.files.mkdir(parents=True, exist_ok=True)
    needed = [name.replace(" bfloat16", "") for name in given.only]
    make(given.files, engine(backbone, "float32"), needed)
    if given.make_only:
        return
    engines = contenders(given.files, backbone, given.only)
    slow = published(backbone) if PUBLISHED in given.only else None
    results = [measure(engines, slow, batch, given.rounds) for batch in given.batch]
    if given.out is not None:
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
