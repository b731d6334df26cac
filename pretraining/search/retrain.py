"""Train the methods that learn on real pictures, with whole sets left out in turn, and compare them with what ships.

    python -m pretraining.search.retrain --sets DIR --out FILE [--methods NAME ...] [--mixes NAME ...] [--table]

The methods start at the weights that ship and learn by the schedule that these were learnt with. The sets of a group of
GROUPS are left out together, with all that is painted on them. Damaged pictures without a mask teach only `coop`, which
needs none. Results are lines of FILE; a run continues it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from blemish.clip import Backbone, Computation, ImageFeatures, Request, load_backbone
from blemish.datasets.masks import resize_mask
from blemish.evaluation import load_detectors
from blemish.methods.base import Method
from blemish.metrics import auroc, pixel_metrics
from blemish.scoring import effective
from blemish.training import Features, Sample, train
from pretraining.search.__main__ import GROUPS, Result, mean_of_sets, read_results, worst_set
from pretraining.search.pictures import Numbers, Picture, list_pictures, open_picture
from pretraining.validation.ranking import Products, Ranking

METHODS = ("anomalyclip", "april-gan", "clip-ad-sdp-plus", "coop", "vcp-clip")
SHIPS = "ships"
#: Sources of the pictures that are learnt from, by name.
MIXES: dict[str, tuple[str, ...]] = {"real": ("real",), "real, painted and drawn": ("real", "painted", "drawn")}
NUMBERS = Numbers(real=40, painted=16, drawn=160)


@dataclass(frozen=True)
class Example:
    """A picture with what is known of it."""

    picture: Picture
    sample: Sample

    @property
    def has_mask(self) -> bool:
        return self.sample.label == 0 or self.sample.mask is not None


def open_examples(sets: Path) -> list[Example]:
    """Open the fixed pictures."""
    examples = []
    for picture in list_pictures(sets, NUMBERS):
        pixels, mask = open_picture(picture, sets)
        label = picture.label if mask is None else int(mask.any())
        image = Image.fromarray(pixels)
        examples.append(Example(picture, Sample(image, mask if label else None, label, "object")))
    return examples


def measure(method: Method, ranking: Ranking, name: str) -> Result:
    """Return the image AUROC of a left-out set by the rule that ships, and AUROC and AUPRO of its pixels."""
    samples = ranking.products.samples
    scores, maps = ranking.predict(method, 1)
    labels = np.array([sample.label for sample in samples])
    result: Result = {"set": name, "image AUROC": auroc(labels, scores[method.config.image_score])}
    if all(sample.label == 0 or sample.mask is not None for sample in samples):
        pixel = pixel_metrics(list(ranking.masks), list(maps))
        result |= {"pixel AUROC": pixel.auroc, "AUPRO": pixel.aupro}
    return result


class Part(Features):
    """Some rows of features that are shared."""

    def __init__(self, whole: Features, rows: Sequence[int]) -> None:
        self._whole, self._rows = whole, rows
        self.request = whole.request

    def __len__(self) -> int:
        return len(self._rows)

    def own(self, rows: Sequence[int]) -> list[int]:
        return list(rows)

    def check(self, method: Method) -> None:
        self._whole.check(method)

    def batch(
        self, rows: Sequence[int], request: Request | None = None
    ) -> tuple[ImageFeatures, Tensor, Tensor, list[str]]:
        return self._whole.batch([self._rows[row] for row in rows], request)


@dataclass
class Retraining:
    """Methods that share the features of the pictures, and results."""

    examples: Sequence[Example]
    methods: Sequence[Method]
    out: Path
    results: list[Result]

    def __post_init__(self) -> None:
        requests = [method.training_request | method.request | Request() for method in self.methods]
        samples = [example.sample for example in self.examples]
        self.features = Features(self.methods[0], samples, request=reduce(or_, requests), batch_size=16)

    def rows(self, wanted: Callable[[Example], bool]) -> list[int]:
        """Return the numbers of the examples that are wanted."""
        return [number for number, example in enumerate(self.examples) if wanted(example)]

    def ranking(self, method: Method, name: str) -> Ranking:
        """Return the real pictures of a set, ready to be scored."""
        rows = self.rows(lambda e: e.picture.origin == name and e.picture.source == "real")
        samples = [self.examples[row].sample for row in rows]
        masks = np.stack([resize_mask(sample.mask, method.computation.size) for sample in samples])
        return Ranking(Products(samples, np.zeros(len(rows), int)), Part(self.features, rows), masks)

    def run(self, method: Method, mixes: Sequence[str], group: Sequence[str]) -> None:
        """Measure what ships on a group of sets, and what is learnt from the other pictures."""
        name, schedule = method.info.name, method.schedule
        assert schedule is not None
        done = {(r["mix"], r["set"]) for r in self.results if r["method"] == name}
        start = {key: value.clone() for key, value in method.state_dict().items()}
        for mix in (SHIPS, *mixes):
            if all((mix, each) in done for each in group):
                continue
            if mix != SHIPS:
                wanted = partial(self.teaches, sources=MIXES[mix], group=group, masks=schedule.masks)
                train(method, Part(self.features, self.rows(wanted)))
            found = [
                {"method": name, "mix": mix, "seed": 0} | measure(method, self.ranking(method, each), each)
                for each in group
            ]
            method.load_state_dict(start)
            self.results += found
            with self.out.open("a") as file:
                file.writelines(json.dumps(result) + "\n" for result in found)
            print(name, mix, *(f"{r['set']} {r['image AUROC']:.3f}" for r in found), flush=True)

    @staticmethod
    def teaches(example: Example, sources: Sequence[str], group: Sequence[str], masks: bool) -> bool:
        """Return whether a picture may be learnt from."""
        picture = example.picture
        return picture.source in sources and picture.origin not in group and (example.has_mask or not masks)


def table(results: Sequence[Result]) -> str:
    """Return a table of means over the left-out sets."""
    lines = [
        "| method | learnt from | image AUROC | worst set | pixel AUROC | AUPRO |",
        f"| --- | --- |{' ---: |' * 4}",
    ]
    for name in dict.fromkeys(result["method"] for result in results):
        for mix in dict.fromkeys(result["mix"] for result in results):
            own = [result for result in results if (result["method"], result["mix"]) == (name, mix)]
            if own:
                image, pixel, aupro = (mean_of_sets(own, key)[0] for key in ("image AUROC", "pixel AUROC", "AUPRO"))
                worst = worst_set(own, "image AUROC")
                lines.append(f"| `{name}` | {mix} | {image:.3f} | {worst:.2f} | {pixel:.3f} | {aupro:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True, help="file of the results")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME")
    parser.add_argument("--mixes", nargs="+", default=list(MIXES), choices=MIXES, metavar="NAME")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    args = parser.parse_args()
    results = read_results(args.out)
    if not args.table:
        backbone = load_backbone("builtin")
        assert isinstance(backbone, Backbone)
        examples = open_examples(args.sets)
        shared: dict[Computation, list[Method]] = {}
        for name, detector in load_detectors(args.methods, backbone)[0].items():
            method = detector.torch_engine.method
            assert method.info.name == name
            shared.setdefault(effective(method.computation, backbone), []).append(method)
        for methods in shared.values():
            retraining = Retraining(examples, methods, args.out, results)
            for method in methods:
                for group in GROUPS:
                    retraining.run(method, args.mixes, group)
    print(table(results))


if __name__ == "__main__":
    main()
