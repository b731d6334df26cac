"""Average the weights of runs that went on from one another, and keep the mixture that validates best.

    python pretraining/average.py RUN RUN ... --out FOLDER [--steps 4 | --alike] [--photos FOLDER ...]

RUN is a checkpoint of `train.py`, whose running average counts, or an exported model. Every mixture with weights in
`--steps`-ths is tried, the runs themselves among them (model soups; Wortsman and others, 2022). The best is exported to
FOLDER. With `--alike` only the one mixture is made to which all runs give as much.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from model import SHAPES, make_model
from objective import Texts, build_tokenizer, validate, validation_set, validation_twins
from pool import bundled_photos, load_photos
from torch import Tensor
from train import begin, export, load_checkpoint

#: What decides, all alike: whole pictures by the class token and by the largest patch, patches, and twins.
DECIDES = tuple(
    f"{what}/{read}"
    for what, reads in (
        ("image", ("cls", "last_max", "value_max")),
        ("patch", ("last", "value")),
        ("twins", ("cls", "last", "value")),
    )
    for read in reads
)


def shares(count: int, steps: int) -> Iterator[tuple[float, ...]]:
    """All weights of `count` parts in `steps`-ths that sum to 1."""
    for cuts in itertools.combinations(range(steps + count - 1), count - 1):
        edges = (-1, *cuts, steps + count - 1)
        yield tuple((b - a - 1) / steps for a, b in itertools.pairwise(edges))


def mixed(runs: list[dict[str, Tensor]], weights: tuple[float, ...]) -> dict[str, Tensor]:
    return {k: torch.stack([w * run[k] for w, run in zip(weights, runs, strict=True)]).sum(0) for k in runs[0]}


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("runs", type=Path, nargs="+")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--shape", choices=SHAPES, default="ours", help="of the image towers")
    a.add_argument("--steps", type=int, default=4)
    a.add_argument("--alike", action="store_true")
    a.add_argument("--photos", type=Path, nargs="*", default=[])
    o = a.parse_args()
    runs = []
    tok = build_tokenizer()
    for run in o.runs:
        one = make_model(SHAPES[o.shape])
        if run.is_dir():
            begin(one, run, tok)
        else:
            load_checkpoint(run, {"ema": one}, [])
        runs.append(one.state_dict())
    photos = load_photos(o.photos) + bundled_photos()
    pictures, twins = validation_set(photos), validation_twins(photos)
    model = make_model(SHAPES[o.shape]).eval()
    texts = Texts(tok, ())
    best, kept = -1.0, runs[0]
    for weights in [(1 / len(runs),) * len(runs)] if o.alike else shares(len(runs), o.steps):
        mixture = mixed(runs, weights)
        model.load_state_dict(mixture)
        found = validate(model, texts, pictures, twins)
        mean = sum(found[k] for k in DECIDES) / len(DECIDES)
        told = " ".join(f"{k}={found[k]:.3f}" for k in DECIDES)
        print(f"{' '.join(f'{w:.2f}' for w in weights)}: mean {mean:.4f} {told}", flush=True)
        if mean > best:
            best, kept = mean, mixture
    model.load_state_dict(kept)
    export(o.out, model, tok)
    print(f"kept {best:.4f}: {o.out}")


if __name__ == "__main__":
    main()
