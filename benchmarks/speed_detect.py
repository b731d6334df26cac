"""Detection against the published computation and against the bare matrix products."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from statistics import median

import numpy as np
import reference
import torch
from interleaved import Contender, middle, ratio, turns
from PIL import Image
from rows import Row
from towers import products, random_vit_l

from blemish.clip import Backbone, load_backbone
from blemish.engine import TorchEngine
from blemish.methods import create, load_class
from blemish.tiling import resize

METHODS = ("anomalyclip", "clip", "april-gan")
PRECISIONS = ("float32", "bfloat16")


def detect(rounds: int, sizes: str) -> Iterator[Row]:
    """Seconds a picture, of each method and precision.

    Args:
        rounds: of turns.
        sizes: "large" is ViT-L/14@336 at 518 pixels, batch 1; "builtin" the built-in model at batch 16.
    """
    large = sizes == "large"
    backbone, batch = (random_vit_l(), 1) if large else (load_backbone("builtin"), 16)
    for name in METHODS:
        yield from _method(name, backbone, batch, rounds, large)


def _method(name: str, backbone: Backbone, batch: int, rounds: int, large: bool) -> Iterator[Row]:
    method = create(name, backbone, config=load_class(name).default_config(backbone))
    engines = {kind: TorchEngine(method, precision=kind) for kind in PRECISIONS}
    tower = reference.Tower(backbone, method)
    pixels = torch.randn(batch, 3, method.computation.size, method.computation.size)
    bare = {kind: products(method, batch, getattr(torch, kind)) for kind in PRECISIONS}
    contenders: dict[str, Contender] = {kind: partial(engine.run, pixels, "object") for kind, engine in engines.items()}
    with torch.inference_mode():
        text = method.text_features(["object"])[0]
        contenders["reference"] = partial(reference.run, method, tower, pixels, text)
        contenders |= {f"products {kind}": compute for kind, (compute, _) in bare.items()}
        seconds = {key: [s / batch for s in values] for key, values in turns(contenders, rounds).items()}
    where = f"{'ViT-L/14, 518 px' if large else 'built-in, 336 px'}, batch {batch}: {name}"
    times = middle(seconds)
    for kind in PRECISIONS:
        gigas = bare[kind][1] / batch / times[f"products {kind}"]
        yield Row(
            "detection", f"{where}, {kind}", times[kind], "s", ratio(seconds, "reference", kind),
            f"times as fast as the published computation in float32 ({times['reference']:.3g} s)",
            asked=5.0 if kind == "bfloat16" else None,
        )  # fmt: skip
        yield Row(
            "roofline", f"{where}, {kind}", times[kind], "s", ratio(seconds, kind, f"products {kind}"),
            f"times as long as its matrix products alone ({times[f'products {kind}']:.3g} s, {gigas:,.0f} GFLOP/s)",
        )  # fmt: skip
    yield from _outside(where, engines["bfloat16"], batch)


def _outside(where: str, engine: TorchEngine, batch: int) -> Iterator[Row]:
    """The shares of a detection that are not the backbone, one step after the other."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (1024, 1024, 3), np.uint8)) for _ in range(batch)]
    after, outside = [], []
    for _ in range(5):
        start = time.perf_counter()
        run = engine.run(torch.cat([engine.preprocess(picture) for picture in pictures]), "object")
        for anomaly_map in run.prediction.map:
            resize(anomaly_map, 1024, 1024)
        after.append(run.score / (run.encode + run.score))
        outside.append(1 - run.encode / (time.perf_counter() - start))
    what = f"{where}, bfloat16"
    yield Row("outside the backbone", what, median(after), "", None, "of the engine's time is the method's")
    note = "of all, resizing pictures of 1024 x 1024 and maps to their size included, if nothing overlapped"
    yield Row("outside the backbone", f"{what}, 1 megapixel", median(outside), "", None, note)
