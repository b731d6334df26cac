"""Which layers, which distance and which words the joint method takes: a search on sets that measure nothing else.

    python benchmarks/few_shot_search.py DIR [DIR ...] --cache CACHE [--designs NAME ...] [--limit 30] [--seeds 5]

Each DIR holds sets in MVTec AD's layout. Never give it pictures that measure the finished method. Every picture goes
through the built-in tower once, and its patches stay in CACHE (float16, 3.5 MB for each picture). Then each patch of a
picture is compared with those of every good picture of a pool, so that any draw of references is a minimum over some of
these distances. References are not scored, nor is another picture of their group: `--groups SET=REGEX` finds the group
in the file's name (a photograph of which there are several windows), `--products SET=REGEX` the product, of which a set
may have several. Each set counts once in the mean.

A design is a name of `DESIGNS`; docs/joint.md has the results.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from blemish.clip import Request, Tap
from blemish.datasets import Sample, read
from blemish.loading import load
from blemish.methods.ops import as_grid, mean_of_largest, normalise
from blemish.metrics import auroc

LAYERS = (4, 5, 6, 7, 8)
SHOTS = (1, 4, 16)
POOL = 20


@dataclass(frozen=True)
class Product:
    """Pictures of one product with their features."""

    labels: np.ndarray
    groups: tuple[str, ...]
    layers: Mapping[int, Tensor]
    """(n, N, D) float16, patches of each layer."""
    patch_words: Tensor
    """(n, N) in [0, 1]: scores of the patches by words (`clip`)."""
    image_words: Tensor
    """(n,) in [0, 1]: scores of the pictures by words."""

    @property
    def pool(self) -> list[int]:
        """Numbers of the good pictures that references are drawn from."""
        return np.flatnonzero(self.labels == 0)[:POOL].tolist()

    def draw(self, count: int, seed: int) -> tuple[list[int], list[int]]:
        """Return places in the pool, of one picture of each group, and the numbers of the pictures that are scored."""
        good = int((self.labels == 0).sum())
        order = random.Random(1000 * count + seed).sample(range(len(self.pool)), len(self.pool))
        chosen: dict[str, int] = {}
        for place in order:
            if len(chosen) < min(count, good - 7):
                chosen.setdefault(self.groups[self.pool[place]], place)
        return list(chosen.values()), [n for n, group in enumerate(self.groups) if group not in chosen]


Patches = Callable[[Product], Tensor]


def layer_mean(*layers: int, side: int = 1) -> Patches:
    """Return the mean of the unit vectors of some layers, averaged over side x side neighbours, of length 1."""

    def patches(product: Product) -> Tensor:
        units = normalise(torch.stack([normalise(product.layers[layer]) for layer in layers]).sum(0))
        if side == 1:
            return units
        rows = int(units.shape[1] ** 0.5)
        grid = as_grid(units.mT.flatten(0, 1), (rows, rows)).unflatten(0, (len(units), -1))
        means = functional.avg_pool2d(grid, side, stride=1, padding=side // 2, count_include_pad=False)
        return normalise(means.flatten(2).mT)

    return patches


@dataclass(frozen=True)
class Design:
    """A score: distances of one or more kinds of patches, each with its own nearest reference, and words."""

    patches: tuple[Patches, ...]
    top: float = 0.006
    patch_words: float = 0.0
    image_words: float = 0.0

    def scores(self, product: Product, distances: Sequence[Tensor], references: list[int], test: list[int]) -> Tensor:
        """Return scores (len(test),), given each kind's distances (n, N, pool)."""
        nearest = torch.stack([each[test][:, :, references].float().amin(2) for each in distances]).mean(0)
        usual = product.patch_words[[product.pool[place] for place in references]].max()
        excess = (product.patch_words[test] - usual).clamp_min(0)
        image = mean_of_largest(nearest + self.patch_words * excess, self.top)
        return image + self.image_words * product.image_words[test]


_6, _7, _8, _67 = layer_mean(6), layer_mean(7), layer_mean(8), layer_mean(6, 7)
DESIGNS: dict[str, Design] = {
    "layer 4": Design((layer_mean(4),)),
    "layer 6": Design((_6,)),
    "layer 7": Design((_7,)),
    "layer 8": Design((_8,)),
    "layer 6, 3 x 3 neighbours": Design((layer_mean(6, side=3),)),
    "layers 6 and 7": Design((_67,)),
    "layers 6 and 7 apart": Design((_6, _7)),
    "layers 6, 7 and 8 apart": Design((_6, _7, _8)),
    "layers 6 and 7, both words": Design((_67,), patch_words=0.5, image_words=0.1),
    "layer 7, maximum": Design((_7,), top=1e-9),
    "layer 7, largest 3 %": Design((_7,), top=0.03),
    "layer 7, image words 0.1": Design((_7,), image_words=0.1),
    "layer 7, image words 0.3": Design((_7,), image_words=0.3),
    "layer 7, patch words 0.5": Design((_7,), patch_words=0.5),
    "layer 8, both words": Design((_8,), patch_words=0.5, image_words=0.1),
    "layers 7 and 8 apart, both words": Design((_7, _8), patch_words=0.5, image_words=0.1),
    "both words, maximum": Design((_7,), top=1e-9, patch_words=0.5, image_words=0.1),
    "both words, largest 1 %": Design((_7,), top=0.01, patch_words=0.5, image_words=0.1),
    "both words, largest 3 %": Design((_7,), top=0.03, patch_words=0.5, image_words=0.1),
    "both words, largest 10 %": Design((_7,), top=0.1, patch_words=0.5, image_words=0.1),
    "both words, mean of the map": Design((_7,), top=1.0, patch_words=0.5, image_words=0.1),
    "patch words 1.0, image words 0.1": Design((_7,), patch_words=1.0, image_words=0.1),
    "patch words 0.5, image words 0.2": Design((_7,), patch_words=0.5, image_words=0.2),
    "layer 7, both words (ships)": Design((_7,), patch_words=0.5, image_words=0.1),
}


def encode(samples: Sequence[Sample], cache: Path) -> tuple[dict[int, Tensor], Tensor, Tensor]:
    """Return patches, patch words and image words, from the cache if they are there."""
    if cache.exists():
        stored: tuple[dict[int, Tensor], Tensor, Tensor] = torch.load(cache)
        return stored
    engine = load("joint").torch_engine
    method, text = engine.method, engine.text(["object"])
    request = method.memory_request | Request(frozenset(Tap(layer) for layer in LAYERS))
    rows: dict[int, list[Tensor]] = defaultdict(list)
    patch_words, image_words = [], []
    for sample in samples:
        features = engine.encode(engine.preprocess(sample.picture().image), request)
        for layer in LAYERS:
            rows[layer].append(features.taps[Tap(layer)][:, 1:].half())
        with torch.inference_mode():
            patch_words.append(method.words(method.patch_embeddings(features), text))
            image_words.append(method.words(method.image_embedding(features), text))
    joined = {layer: torch.cat(parts) for layer, parts in rows.items()}, torch.cat(patch_words), torch.cat(image_words)
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save(joined, cache)
    return joined


def distances(patches: Tensor, pool: list[int]) -> Tensor:
    """Return 1 - cosine of each patch to the nearest one of each picture of the pool: (n, N, D) to (n, N, pool)."""
    rows = patches[pool].bfloat16().flatten(0, 1)
    minus_one = rows.new_full((len(rows),), -1.0)
    products = [functional.linear(own.bfloat16(), rows, minus_one).unflatten(1, (len(pool), -1)) for own in patches]
    return torch.stack([-each.amax(2) for each in products]).clamp_min(0).half()


def named(text: str, sample: Sample, rules: Mapping[str, str]) -> str:
    """Return what the set's rule finds in the file's name."""
    match = re.search(rules[sample.category], sample.path.name) if sample.category in rules else None
    return match.group() if match else text


def products(folders: Sequence[Path], limit: int, rules: Mapping[str, str]) -> dict[tuple[str, str], list[Sample]]:
    """Return up to `limit` good and as many bad pictures of each product of each set; a set needs both."""
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in (sample for folder in folders for sample in read("folder", folder).samples):
        groups[sample.category, named("", sample, rules)].append(sample)
    out = {}
    for key, samples in groups.items():
        kinds = [[s for s in samples if s.label == label] for label in (0, 1)]
        if all(kinds):
            out[key] = [s for kind in kinds for s in random.Random(0).sample(kind, min(limit, len(kind)))]
    return out


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    a.add_argument("--cache", type=Path, required=True, help="folder for features")
    a.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=DESIGNS, metavar="NAME")
    a.add_argument("--limit", type=int, default=30, help="good pictures of a product, and bad ones")
    a.add_argument("--seeds", type=int, default=5)
    a.add_argument("--groups", nargs="*", default=[], metavar="SET=REGEX")
    a.add_argument("--products", nargs="*", default=[], metavar="SET=REGEX")
    o = a.parse_args()
    groups, kinds = (dict(rule.split("=", 1) for rule in rules) for rules in (o.groups, o.products))
    results: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (category, kind), samples in products(o.folders, o.limit, kinds).items():
        layers, patch_words, image_words = encode(samples, o.cache / f"{category} {kind}.pt")
        labels = np.array([sample.label for sample in samples])
        names = tuple(named(sample.path.name, sample, groups) for sample in samples)
        product = Product(labels, names, layers, patch_words, image_words)
        near: dict[Patches, Tensor] = {}
        for name in o.designs:
            design = DESIGNS[name]
            for patches in design.patches:
                if patches not in near:
                    near[patches] = distances(patches(product), product.pool)
            for count in SHOTS:
                runs = []
                for seed in range(o.seeds):
                    references, test = product.draw(count, seed)
                    scores = design.scores(product, [near[patches] for patches in design.patches], references, test)
                    runs.append(auroc(labels[test], scores.numpy()))
                results[name, count][category].append(float(np.mean(runs)))
    print("| design |", " | ".join(f"{count} good: mean | worst" for count in SHOTS), "|")
    print("| --- |", " ---: |" * (2 * len(SHOTS)))
    for name in o.designs:
        sets = [[np.mean(values) for values in results[name, count].values()] for count in SHOTS]
        print(f"| {name} |", " | ".join(f"{np.mean(values):.3f} | {min(values):.3f}" for values in sets), "|")


if __name__ == "__main__":
    main()
