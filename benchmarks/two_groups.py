"""How often a fit says that its good pictures look like two groups: of one product, and of two.

    python benchmarks/two_groups.py DIR [DIR ...] --cache FILE [--products SET=REGEX ...] [--drawn 60] [--seed 7]

Each DIR holds sets in MVTec AD's layout, of which the good pictures are used (up to 40 of a product). `--products`
finds the product in the file's name, for sets that have several; `--various SET` names sets whose pictures all show
different things, which are listed apart. Besides, scenes of the generator in `synthesis/` are photographed 12 times
each, half of them turned by any angle. Vectors of all pictures stay in FILE.

Pictures are drawn from one product, or from two in the shares given, and `blemish.calibration.two_groups` looks at
them. Intervals are 95 % (Clopper and Pearson), as if all draws were independent, which draws from one product are not.
"""

from __future__ import annotations

import argparse
import io
import itertools
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from few_shot import interval
from PIL import Image, ImageEnhance, ImageFilter

from blemish.calibration import two_groups
from blemish.clip import Request, Tap
from blemish.datasets import Sample, read
from blemish.fitting.pictures import whole_tap
from blemish.loading import load
from synthesis.scenes import Rng, Scene, make_scene

PICTURES, DRAWN_PICTURES = 40, 12
SIZES, SHARES = (8, 12, 20, 40, 60), (0.1, 0.2, 0.35, 0.5)


class Encoder:
    """The vector of a whole picture, as `fit` takes it."""

    def __init__(self, layer: int | None) -> None:
        self.engine = load("joint").torch_engine
        self.tap = whole_tap(self.engine.method) if layer is None else Tap(layer)

    def __call__(self, picture: Image.Image) -> npt.NDArray[np.float32]:
        request = Request(frozenset({self.tap}), class_token=False)
        token = self.engine.encode(self.engine.preprocess(picture), request).taps[self.tap][0, 0].float()
        return torch.nn.functional.normalize(token, dim=0).numpy()


def photograph(rng: Rng, scene: Scene, rotated: bool) -> Image.Image:
    """Photograph a scene with one camera: a little moved, or turned by any angle, with a little other light."""
    side = len(scene.image)
    border = side // 2
    wide = np.pad(scene.image, ((border, border), (border, border), (0, 0)), mode="reflect")
    angle = rng.uniform(0, 360) if rotated else rng.normal(0, 2)
    moved = tuple(float(step) for step in rng.normal(0, 0.02 * side, 2))
    image = Image.fromarray(wide).rotate(float(angle), Image.Resampling.BICUBIC, translate=moved)
    image = image.crop((border, border, border + side, border + side))
    image = ImageEnhance.Brightness(image).enhance(float(np.exp(rng.normal(0, 0.08))))
    image = ImageEnhance.Contrast(image).enhance(float(np.exp(rng.normal(0, 0.05))))
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.8))))
    noisy = np.asarray(image) + rng.normal(0, rng.uniform(0.5, 4), (side, side, 1))
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(70, 96)))
    return Image.open(file).convert("RGB")


def encoded(folders: Sequence[Path], rules: dict[str, str], drawn: int, layer: int | None) -> dict[str, np.ndarray]:
    """Return the vectors of all products: "SET/PRODUCT", and "drawn/NUMBER" for still and turned ones in turns."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    for sample in (sample for folder in folders for sample in read("folder", folder).samples):
        if sample.label == 0:
            match = re.search(rules[sample.category], sample.path.name) if sample.category in rules else None
            samples[f"{sample.category}/{match.group() if match else ''}"].append(sample)
    encode, vectors = Encoder(layer), {}
    for name, own in samples.items():
        chosen = random.Random(0).sample(own, min(PICTURES, len(own)))
        vectors[name] = np.stack([encode(sample.picture().image) for sample in chosen])
    for number in range(drawn):
        rng = np.random.default_rng([8808, number])
        scene = make_scene(rng, 384, ())
        pictures = [photograph(rng, scene, bool(number % 2)) for _ in range(DRAWN_PICTURES)]
        vectors[f"drawn/{number}"] = np.stack([encode(picture) for picture in pictures])
    return vectors


def report(name: str, called: Sequence[bool]) -> None:
    if called:
        low, high = interval(sum(called), len(called))
        print(f"| {name} | {sum(called)} of {len(called)} | {sum(called) / len(called):.1%} [{low:.1%}, {high:.1%}] |")


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    a.add_argument("--cache", type=Path, required=True, help="file (.npz) for the vectors")
    a.add_argument("--products", nargs="*", default=[], metavar="SET=REGEX")
    a.add_argument("--various", nargs="*", default=[], metavar="SET")
    a.add_argument("--drawn", type=int, default=60, help="drawn products")
    a.add_argument("--layer", type=int, help="block whose class token stands for a picture; default: that of fit")
    a.add_argument("--seed", type=int, default=7)
    o = a.parse_args()
    if not o.cache.exists():
        rules = dict(rule.split("=", 1) for rule in o.products)
        np.savez(o.cache, **encoded(o.folders, rules, o.drawn, o.layer))
    vectors = dict(np.load(o.cache))
    rng = random.Random(o.seed)

    def looks_like_two(*parts: tuple[str, int]) -> bool:
        chosen = [vectors[name][rng.sample(range(len(vectors[name])), count)] for name, count in parts]
        return two_groups(np.concatenate(chosen)) is not None

    def kind(name: str) -> str:
        return name.partition("/")[0]

    drawn = [name for name in vectors if kind(name) == "drawn"]
    various = [name for name in vectors if kind(name) in o.various]
    real = [name for name in vectors if name not in drawn and name not in various]
    print("| one product | called two | share |\n| --- | --- | --- |")
    groups = {"real": (real, 5), "drawn, still": (drawn[::2], 1), "drawn, turned": (drawn[1::2], 1)}
    for title, (names, times) in groups.items():
        for size in SIZES:
            called = [looks_like_two((n, size)) for n in names if len(vectors[n]) >= size for _ in range(times)]
            report(f"{title}, {size} pictures", called)
    for name in various:
        sizes = [size for size in SIZES if len(vectors[name]) >= size]
        report(f"different things: {name}", [looks_like_two((name, size)) for size in sizes for _ in range(5)])
    print("\n| two products | called two | share |\n| --- | --- | --- |")
    pairs = list(itertools.permutations(real, 2))
    mixtures = {
        "two sets": [pair for pair in pairs if kind(pair[0]) != kind(pair[1])],
        "two products of one set": [pair for pair in pairs if kind(pair[0]) == kind(pair[1])],
        "two drawn ones": [tuple(rng.sample(drawn, 2)) for _ in range(60)] if len(drawn) > 1 else [],
    }
    for title, chosen in mixtures.items():
        everything: list[bool] = []
        for size, share in itertools.product(SIZES, SHARES):
            few = round(share * size)
            fitting = [(x, y) for x, y in chosen if len(vectors[x]) >= size - few and len(vectors[y]) >= few >= 2]
            by_kinds: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
            for pair in fitting:  # each pair of sets counts once, however many products they have
                by_kinds[kind(pair[0]), kind(pair[1])].append(pair)
            times = 2 if len(by_kinds) > 1 else 30
            drawn_pairs = [rng.choice(same) for same in by_kinds.values() for _ in range(times)]
            called = [looks_like_two((x, size - few), (y, few)) for x, y in drawn_pairs]
            report(f"{title}, {few} of {size}", called)
            everything += called
        report(f"**{title}, all**", everything)


if __name__ == "__main__":
    main()
