"""Train the methods that learn on real pictures, with whole sets left out in turn, and compare them with what ships.

    python -m pretraining.search.retrain --sets DIR --out FILE [--methods NAME ...] [--mixes NAME ...] [--table]

The methods start at the weights that ship and learn by the schedule that these were learnt with. The sets of a group of
GROUPS are left out together, with all that is painted on them. Damaged pictures without a mask teach only `coop`, which
needs none. Results are lines of FILE; a run continues it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from blemish.clip import Backbone, load_backbone
from blemish.evaluation import load_detectors
from blemish.methods.base import Method
from blemish.metrics import auroc, pixel_metrics
from blemish.training import Features, Sample, train
from pretraining.search.__main__ import GROUPS, Result, mean_of_sets, read_results, worst_set
from pretraining.search.pictures import Numbers, Picture, list_pictures, open_picture
from pretraining.validation.ranking import Products, Ranking, shared_features

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


@dataclass
class Retraining:
    """Pictures and results."""

    examples: Sequence[Example]
    out: Path
    results: list[Result]

    def done(self, name: str, mix: str, group: Sequence[str]) -> bool:
        found = {(r["method"], r["mix"], r["set"]) for r in self.results}
        return all((name, mix, each) in found for each in group)

    def keep(self, method: Method, mix: str, rankings: dict[str, Ranking]) -> None:
        """Measure a method and add the results to the file."""
        found = [
            {"method": method.info.name, "mix": mix, "seed": 0} | measure(method, ranking, each)
            for each, ranking in rankings.items()
        ]
        self.results += found
        with self.out.open("a") as file:
            file.writelines(json.dumps(result) + "\n" for result in found)
        print(method.info.name, mix, *(f"{r['set']} {r['image AUROC']:.3f}" for r in found), flush=True)

    def features(self, method: Method, mix: str, group: Sequence[str]) -> Features:
        """Return the features that a method learns from."""
        assert method.schedule is not None
        chosen = [
            example.sample
            for example in self.examples
            if example.picture.source in MIXES[mix]
            and example.picture.origin not in group
            and (example.has_mask or not method.schedule.masks)
        ]
        return shared_features([method], chosen, scoring=False)

    def run(self, name: str, mixes: Sequence[str], backbone: Backbone, group: Sequence[str]) -> None:
        """Measure what ships on a group of sets, and what is learnt from the other pictures."""
        missing = [mix for mix in (SHIPS, *mixes) if not self.done(name, mix, group)]
        if not missing:
            return
        method = load_detectors([name], backbone)[0][name].torch_engine.method
        start = {key: value.clone() for key, value in method.state_dict().items()}
        rankings = {}
        for each in group:
            own = [e.sample for e in self.examples if e.picture.origin == each and e.picture.source == "real"]
            rankings[each] = Ranking.make([method], Products(own, np.zeros(len(own), int)))
        for mix in missing:
            method.load_state_dict(start)
            if mix != SHIPS:
                train(method, self.features(method, mix, group))
            self.keep(method, mix, rankings)


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
        retraining = Retraining(open_examples(args.sets), args.out, results)
        for group in GROUPS:
            for name in args.methods:
                retraining.run(name, args.mixes, backbone, group)
    print(table(results))


if __name__ == "__main__":
    main()
