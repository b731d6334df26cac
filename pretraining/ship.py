"""Make what ships from the image tower's checkpoints: average, round to 8 bits, train the methods.

    python -m pretraining.ship RUN/step-300 RUN/step-600 RUN/step-793 --out FOLDER [--photos FOLDER ...]

The models are those that `pretraining.training.train` exported; all count alike in the average. FOLDER gets `builtin/`
and METHOD.safetensors for every method that learns: the layout of `src/blemish/weights`, where they replace what ships.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from blemish.clip import load_backbone
from pretraining.training.methods import CONFIG, MethodsConfig, default_methods, run
from pretraining.training.model import export, load_model
from pretraining.training.rounding import round_model
from synthesis.photos import load_photos


def average(models: Sequence[Path], out: Path) -> None:
    """Write the mean of exported models' weights to a folder (model soups; Wortsman et al., 2022)."""
    model = load_model(models[0])
    states = [load_model(folder).state_dict() for folder in models]
    model.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    export(model, out, tokenizer=models[0])


def ship_backbone(models: Sequence[Path], out: Path) -> None:
    """Write the average of exported models, rounded to 8 bits."""
    with tempfile.TemporaryDirectory() as folder:
        average(models, Path(folder))
        round_model(Path(folder), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="exported checkpoint of the image tower")
    parser.add_argument("--out", type=Path, required=True, help="folder of what ships")
    parser.add_argument("--config", type=Path, default=CONFIG, help="settings of the methods' training")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="folders of real pictures")
    args = parser.parse_args()
    ship_backbone(args.models, args.out / "builtin")
    size = (args.out / "builtin" / "model.safetensors").stat().st_size
    print(f"{args.out / 'builtin'}: {size / 1e6:.1f} MB", flush=True)
    config, photos = MethodsConfig.read(args.config), load_photos(args.photos)
    backbone = load_backbone(str(args.out / "builtin"))
    backbone.name = "builtin"  # what the headers of the weights name
    run(backbone, default_methods(), config, photos, args.out)


if __name__ == "__main__":
    main()
