"""What many methods cost together: one pass of the backbone for all that ask for the same computation.

    python benchmarks/one_pass.py [--pictures 120] [--rounds 3] [--precision auto] [--out FILE]
    python benchmarks/one_pass.py --papers [--pictures 24]

A folder in MVTec AD's layout is drawn (700 x 700 pixels, half of the pictures with a marked defect) and evaluated by
`blemish.evaluate` from files to tables: every method on its own once, then in turns the dearest of them and all
together. What is asked: all together take at most 1.25 times as long as the dearest alone.

`--papers` does the same with the papers' configs, which ask for several computations, on a tower of 12 blocks of width
384 with random weights. There, all together are compared with the sum over the computations of the dearest of each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from interleaved import Contender, middle, ratio, report, turns
from PIL import Image
from transformers import CLIPConfig, CLIPModel

import blemish
from blemish.clip import Backbone, load_backbone
from blemish.loading import load
from blemish.scoring import plan

#: Those that run on the built-in model out of the box, and those that need no weights of their own.
SHIPPED = ("clip", "clip-ac", "clip-ad", "clip-ad-sdp", "anomalyclip", "winclip")
UNTRAINED = ("clip", "clip-ac", "clip-ad", "clip-ad-sdp", "winclip")
TOGETHER, LIMIT = "all together", 1.25


def draw(root: Path, count: int, side: int = 700) -> None:
    """Plates of a grainy material; every other one has a bright or dark hole, which its mask marks."""
    rng = np.random.default_rng(0)
    folders = {name: root / "plate" / name for name in ("test/good", "test/hole", "ground_truth/hole")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(90, 150, (side // 20, side // 20, 3)).astype(np.uint8))
        pixels = np.array(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int16)
        pixels += rng.integers(-9, 10, (side, side, 1), np.int16)
        if number % 2:
            mask = np.zeros((side, side), np.uint8)
            height, width = rng.integers(side // 20, side // 4, 2)
            top, left = rng.integers(0, side - height), rng.integers(0, side - width)
            mask[top : top + height, left : left + width] = 255
            pixels[mask > 0] += 60 if number % 4 == 1 else -60
            Image.fromarray(mask).save(folders["ground_truth/hole"] / f"{number:03}_mask.png")
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folders["test/hole" if number % 2 else "test/good"] / f"{number:03}.png", compress_level=1)


def evaluate(data: Path, methods: Sequence[str], backbone: Backbone, precision: str) -> None:
    """From files to tables, into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as out:
        blemish.evaluate(data, methods=methods, backbone=backbone, out=out, precision=precision)  # type: ignore[arg-type]


def random_backbone() -> Backbone:
    """A tower of 12 blocks, so that the papers' layers exist; the text tower is as small as the built-in model's."""
    like = load_backbone("builtin")
    text = like.model.config.text_config.to_dict()
    vision = {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "num_hidden_layers": 12,
        "intermediate_size": 1536,
        "image_size": 240,
        "patch_size": 16,
        "hidden_act": "gelu",
    }
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=256))
    return Backbone(model.eval().requires_grad_(False), like.tokenizer, name="random")


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--papers", action="store_true")
    a.add_argument("--pictures", type=int, default=120)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--precision", default="auto")
    a.add_argument("--methods", help="others than the usual ones, with commas between")
    a.add_argument("--dearest", help="the dearest of each pass, if that is known, with commas between")
    a.add_argument("--out", type=Path, help="JSON file")
    o = a.parse_args()
    backbone = random_backbone() if o.papers else load_backbone("builtin")
    usual = UNTRAINED if o.papers else SHIPPED
    methods = tuple(o.methods.split(",")) if o.methods else usual
    detectors = {name: load(name, backbone=backbone, precision=o.precision) for name in methods}
    passes = [p.methods for p in plan({name: detector.engine for name, detector in detectors.items()})]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        draw(data, o.pictures)
        run = partial(evaluate, data, backbone=backbone, precision=o.precision)
        known = o.dearest.split(",") if o.dearest else None
        run(methods[:1])
        asked = [name for name in methods if known is None or name in known]
        alone = turns({name: partial(run, [name]) for name in asked}, 1, warm=False)
        dearest = [max((name for name in methods if name in alone), key=lambda name: alone[name]) for methods in passes]
        contenders: dict[str, Contender] = {name: partial(run, [name]) for name in dearest}
        seconds = turns({**contenders, TOGETHER: partial(run, methods)}, o.rounds, warm=False)
    seconds["the dearest of each pass"] = [sum(values) for values in zip(*(seconds[n] for n in dearest), strict=True)]
    together = ratio(seconds, TOGETHER, "the dearest of each pass")
    print(f"{o.pictures} pictures, precision {o.precision}; passes: {'; '.join(', '.join(one) for one in passes)}")
    for name, value in {**middle(alone), **middle(seconds)}.items():
        print(f"{name:>26}  {value:7.2f} s")
    print(f"{TOGETHER} / the dearest of each pass: {together} (asked: at most {LIMIT})")
    if o.out:
        facts = {"pictures": o.pictures, "precision": o.precision, "alone": alone}
        o.out.write_text(json.dumps({**facts, **report(seconds, {TOGETHER: together})}, indent=1) + "\n")


if __name__ == "__main__":
    main()
