"""Measure shipped methods on the pictures that the search leaves out, as rows of its table.

    python -m pretraining.search.baseline --sets DIR --cache FOLDER --out FILE [--methods NAME ...]

The maps are measured at the size of the search's, and each method's own image score stands beside the search's rules.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.clip import load_backbone
from blemish.evaluation import load_detectors
from blemish.scoring import Scored, Scorer, Task
from pretraining.search.__main__ import GROUPS
from pretraining.search.cache import MASK_SIZE, Cache, open_cache
from pretraining.search.trial import Predictions, left_out_rows, measure

METHODS = ("clip", "april-gan", "anomalyclip", "clip-ad-sdp-plus", "coop")
#: Side in patches of the built-in model, at which the rules read a map.
GRID = 24


def predictions(scored: dict[int, Scored[int]], rows: np.ndarray) -> Predictions:
    """Return a method's predictions for the rows of a set."""
    maps = torch.stack([scored[row].map.float() for row in rows])
    own = torch.tensor([scored[row].score for row in rows])

    def mean(side: int) -> Tensor:
        return F.adaptive_avg_pool2d(maps, side)

    result = Predictions.of(mean(MASK_SIZE), mean(GRID).flatten(1), {})
    return Predictions({**result.scores, "its own": own.numpy()}, result.maps)


def score(cache: Cache, sets: Path, scorer: Scorer, names: frozenset[str], rows: np.ndarray) -> dict:
    """Return what each method says of each row."""
    found: dict[str, dict[int, Scored[int]]] = {name: {} for name in names}
    tasks = []
    for row in rows.tolist():
        picture = cache.pictures[row]
        path = sets / str(picture["origin"]) / "test" / str(picture["path"])
        tasks.append(Task(row, path, names, str(picture["name"])))
    for result in scorer.run(tasks):
        assert isinstance(result, Scored), result
        found[result.method][result.item] = result
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the features")
    parser.add_argument("--out", type=Path, required=True, help="file of the results")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME")
    args = parser.parse_args()
    cache = open_cache(args.cache)
    detectors, _ = load_detectors(args.methods, load_backbone("builtin"))
    scorer = Scorer({name: detector.torch_engine for name, detector in detectors.items()})
    for name in (name for group in GROUPS for name in group):
        rows = left_out_rows(cache, name)
        for method, found in score(cache, args.sets, scorer, frozenset(detectors), rows).items():
            result = {"design": f"ships: {method}", "seed": 0, "set": name}
            with args.out.open("a") as file:
                file.write(json.dumps(result | measure(predictions(found, rows), cache, rows)) + "\n")
        print(name, flush=True)


if __name__ == "__main__":
    main()
