"""Compare what is learnt beside frozen blocks, on sets of real pictures that are left out in turn.

    python -m pretraining.search --tower MODEL --cache FOLDER --out FILE [--designs NAME ...] [--seeds 3] [--table]

FOLDER is what `pretraining.search.cache` filled. Every design gets the same pictures, steps and seeds. The sets of a
group of GROUPS are left out together, with all that is painted on them; things of one kind are in one group where that
is possible, so a left-out leaf has no other leaf to learn from. Results are lines of FILE; a run continues it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from blemish.clip import Backbone, load_backbone
from pretraining.search.cache import MASK_SIZE, Cache, open_cache
from pretraining.search.designs import make_designs
from pretraining.search.trial import Budget, Design, embed, left_out_rows, measure, predict, train
from pretraining.search.words import UNSEEN, Words, encode_names

#: Sets that are left out together.
GROUPS = (
    ("coffee_leaf", "soybean_leaf"),
    ("paper_impurities", "lemon"),
    ("fundus_idrid", "weld_seam", "soda_can"),
)
#: The rule whose image AUROC a table shows first.
RULE = "image largest 0.6 %"
UNSEEN_WORDS = "unseen words"

Result = dict[str, str | int | float]


def read_results(path: Path) -> list[Result]:
    """Return the results of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def mean_of_sets(results: Iterable[Result], key: str) -> list[float]:
    """Return the mean over the sets that have a measure, for each seed."""
    seeds: dict[str | int | float, list[float]] = {}
    for result in results:
        if key in result:
            seeds.setdefault(result["seed"], []).append(float(result[key]))
    return [float(np.mean(values)) for values in seeds.values()]


def worst_set(results: Sequence[Result], key: str) -> float:
    """Return the lowest mean over seeds of a set."""
    names = {result["set"] for result in results}
    return min(float(np.mean([float(r[key]) for r in results if r["set"] == name])) for name in names)


def table(results: Sequence[Result]) -> str:
    """Return a table of the designs: means over the left-out sets, with the spread of the seeds."""
    measures = {"image AUROC": RULE, "pixel AUROC": "pixel AUROC", "AUPRO": "pixel AUPRO", UNSEEN_WORDS: UNSEEN_WORDS}
    lines = [f"| design | {' | '.join(measures)} | worst set | seconds |", f"| --- |{' ---: |' * (len(measures) + 2)}"]
    for name in dict.fromkeys(str(result["design"]) for result in results):
        own = [result for result in results if result["design"] == name]
        cells = []
        for key in measures.values():
            values = mean_of_sets(own, key)
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}" if values else "-")
        seconds = np.mean([float(result.get("seconds", 0)) for result in own])
        lines.append(f"| {name} | {' | '.join(cells)} | {worst_set(own, RULE):.2f} | {seconds:.0f} |")
    return "\n".join(lines)


def rules_table(results: Sequence[Result]) -> str:
    """Return a table of the rules for the image score, as means over the left-out sets and seeds."""
    rules = list(dict.fromkeys(key for result in results for key in result if key.startswith("image ")))
    names = list(dict.fromkeys(str(result["design"]) for result in results))
    lines = [f"| rule | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for rule in rules:
        means = [mean_of_sets([r for r in results if r["design"] == name], rule) for name in names]
        cells = " | ".join(f"{np.mean(values):.3f}" if values else "-" for values in means)
        lines.append(f"| {rule.removeprefix('image ')} | {cells} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Search:
    """Features, and text features by the thing's name: of the sentences of training, and of unseen ones (2, E)."""

    cache: Cache
    words: Mapping[str, Words]
    unseen: Mapping[str, Tensor]
    budget: Budget

    def run(self, name: str, design: Design, seed: int, group: Sequence[str]) -> list[Result]:
        """Train a design without a group of sets, and return what it reaches on each of them."""
        start = time.process_time()
        head = train(design, self.cache, self.words, group, seed, self.budget)
        seconds = round(time.process_time() - start, 1)
        results = []
        for each in group:
            rows = left_out_rows(self.cache, each)
            thing = str(self.cache.pictures[rows[0]]["name"])
            embeddings = embed(head, self.cache, rows)
            predictions = predict(embeddings, self.words[thing].mean(), MASK_SIZE, images=design.image_loss)
            other = predict(embeddings, self.unseen[thing], MASK_SIZE, images=False)
            found = measure(predictions, self.cache, rows)
            found[UNSEEN_WORDS] = measure(other, self.cache, rows, pixels=False)[RULE]
            result: Result = {"design": name, "seed": seed, "set": each, "seconds": seconds}
            results.append(result | found)
        return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", type=Path, required=True, help="model whose image blocks are frozen")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the features")
    parser.add_argument("--out", type=Path, required=True, help="file of the results")
    parser.add_argument("--designs", nargs="+", metavar="NAME", help="all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Budget.steps)
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    args = parser.parse_args()
    results = read_results(args.out)
    if not args.table:
        cache, backbone = open_cache(args.cache), load_backbone(str(args.tower))
        assert isinstance(backbone, Backbone)
        words = encode_names(backbone, ["object", *(str(picture["name"]) for picture in cache.pictures)])
        unseen = {name: Words.encode(backbone, name, UNSEEN).mean() for name in words}
        taught = load_backbone("builtin")
        assert isinstance(taught, Backbone)
        search, designs = Search(cache, words, unseen, Budget(args.steps)), make_designs(backbone, taught)
        done = {(result["design"], result["seed"], result["set"]) for result in results}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for name, seed, group in product(args.designs or designs, range(args.seeds), GROUPS):
            if all((name, seed, each) in done for each in group):
                continue
            found = search.run(name, designs[name], seed, group)
            results += found
            with args.out.open("a") as file:
                file.writelines(json.dumps(result) + "\n" for result in found)
            print(f"{name}, seed {seed}:", *(f"{r['set']} {r[RULE]:.3f}" for r in found), flush=True)
    print(table(results), rules_table(results), sep="\n\n")


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    main()
