"""Train the last blocks of the image tower on synthetic pictures; the text tower stays as it is.

    python -m pretraining.training.train --start MODEL --out FOLDER [--config FILE] [--photos FOLDER ...]

MODEL is what `pretraining.training.init_from_dinov2` writes. A run can be stopped and resumed with the same command. It
exports the running average of the weights to FOLDER/step-N, at every validation and at the end.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPModel

from pretraining.training.augmentation import augment, repeat_first
from pretraining.training.batches import GRID, PicturePool
from pretraining.training.model import TextEncoder, export, load_model, load_tokenizer
from pretraining.training.objective import step_losses
from pretraining.validation.synthetic import validate, validation_pairs, validation_pictures
from synthesis.photos import load_photos

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "image-tower.toml"
#: Sides of small crops in patches; the smallest are WinCLIP's windows.
SMALL_CROPS = (2, 3, 4, 6, 8, 12)
#: Steps between lines of the log.
LOG_EVERY = 50


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run, as they stand in its file."""

    seed: int
    """Stream of the pictures, and seed of everything that is drawn."""
    steps: int
    """Optimizer steps in all."""
    warmup: int
    """First steps, in which the learning rate rises."""
    cooldown: int
    """Last steps, in which the learning rate falls to zero."""
    batch_size: int
    """Pictures of a step."""
    repeats: int
    """Pictures of a step that are in it twice, augmented differently."""
    reuse: int
    """How often a picture is used on average."""
    capacity: int
    """Pairs of pictures that are at hand at a time."""
    crop_until: float
    """Fraction of the run whose pictures are cropped."""
    crop_side: int
    """Side of these crops in patches."""
    small_crop_probability: float
    """Probability that a batch is cropped to one of `SMALL_CROPS` instead."""
    freeze_blocks: int
    """First blocks of the image tower that stay as they are, with the embeddings."""
    lr: float
    """Learning rate."""
    matrix_lr_scale: float
    """Factor of the learning rate for the matrices of the image tower, which Muon trains."""
    weight_decay: float
    ema: float
    """Decay of the running average of the weights, per step."""
    validate_every: int
    """Steps between validations, checkpoints and exports."""

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """Read a TOML file."""
        return cls(**tomllib.loads(path.read_text()))


def frozen_weights(model: CLIPModel, blocks: int) -> list[Tensor]:
    """Return the parameters of the text tower, and of the image tower up to and with so many blocks."""
    text = [p for name, p in model.named_parameters() if name.startswith(("text_model", "text_projection"))]
    vision = model.vision_model
    parts = [vision.embeddings, vision.pre_layrnorm, *vision.encoder.layers[:blocks]] if blocks else []
    return text + [p for part in parts for p in part.parameters()]


def make_optimizers(model: CLIPModel, lr: float, weight_decay: float, matrix_lr_scale: float) -> list:
    """Return Muon for the matrices of the image tower's blocks, and AdamW for all else.

    Every group carries `scale`, a factor of the learning rate.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim == 2 and "vision_model.encoder" in name]
    other = [(name, p) for name, p in trained if not (p.ndim == 2 and "vision_model.encoder" in name)]
    decayed = [p for name, p in other if p.ndim >= 2 and "embedding" not in name]
    plain = [p for name, p in other if p.ndim < 2 or "embedding" in name]
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "scale": 1.0},
        {"params": plain, "weight_decay": 0.0, "scale": 1.0},
    ]
    muon = {"params": matrices, "scale": matrix_lr_scale}
    return [
        torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True),
        torch.optim.Muon([muon], lr=lr, weight_decay=weight_decay / 2, adjust_lr_fn="match_rms_adamw"),
    ]


def optimizer_step(model: CLIPModel, optimizers: list[torch.optim.Optimizer], lr: float) -> None:
    """Clip the gradients, take a step along them and clear them."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def save_checkpoint(path: Path, parts: dict[str, nn.Module], optimizers: list, step: int) -> None:
    """Write everything that a resumed run needs, atomically."""
    tensors = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{i}.{key}": value for key, value in state.items()}
    temporary = path.with_suffix(".tmp")
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, temporary, {"step": str(step)})
    temporary.replace(path)


def load_checkpoint(path: Path, parts: dict[str, nn.Module], optimizers: list) -> int:
    """Restore a checkpoint in place and return its step."""
    tensors = load_file(path)
    for name, part in parts.items():
        part.load_state_dict({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
    for number, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        for key, value in tensors.items():
            if key.startswith(f"optimizer.{number}."):
                _, _, i, name = key.split(".")
                state["state"].setdefault(int(i), {})[name] = value
        optimizer.load_state_dict(state)
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def run(
    config: TrainConfig, start: Path, out: Path, photos: list[np.ndarray], *, device: str = "cpu", workers: int = 1
) -> None:
    """Train, from `start` or from the checkpoint in `out`; see the module."""
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    model = load_model(start).to(device).train()
    encode_text = TextEncoder(load_tokenizer(start))
    for parameter in frozen_weights(model, config.freeze_blocks):
        parameter.requires_grad_(False)
    average = deepcopy(model).requires_grad_(False)
    parts = {"model": model, "average": average}
    optimizers = make_optimizers(model, config.lr, config.weight_decay, config.matrix_lr_scale)
    checkpoint, log = out / "checkpoint.safetensors", out / "log.jsonl"
    first = load_checkpoint(checkpoint, parts, optimizers) if checkpoint.exists() else 0
    print(f"{len(photos)} photos; starting at step {first} of {config.steps}", flush=True)

    def write(row: dict[str, float]) -> None:
        print(" ".join(f"{key}={value:.4g}" for key, value in row.items()), flush=True)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")

    running: dict[str, Tensor] = {}
    fresh = config.batch_size // config.reuse // 2
    with PicturePool(config.seed, first, fresh=fresh, capacity=config.capacity, workers=workers, photos=photos) as pool:
        pictures, pairs = validation_pictures(photos).to(device), validation_pairs(photos).to(device)
        clock = time.time()
        for step in range(first, config.steps):
            rng = np.random.default_rng([config.seed, step, 1])
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            side = config.crop_side if step < config.crop_until * config.steps else GRID
            if config.small_crop_probability and rng.random() < config.small_crop_probability:
                side = int(rng.choice(SMALL_CROPS))
            batch = repeat_first(pool.batch(step, config.batch_size, rng), config.repeats)
            batch, frames = augment(batch.to(device), rng)
            losses = step_losses(model, encode_text, batch, frames, config.repeats, side, rng, generator)
            losses["total"].backward()
            rise, fall = (step + 1) / config.warmup, (config.steps - step) / config.cooldown
            optimizer_step(model, optimizers, config.lr * min(1, rise, fall))
            decay = min(config.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
            for name, value in losses.items():  # not read here: a GPU would have to stop for it
                running[name] = running[name].lerp(value.detach(), 0.02) if name in running else value.detach()
            if (step + 1) % LOG_EVERY == 0:
                speed = LOG_EVERY * config.batch_size / (time.time() - clock)
                clock = time.time()
                row = {"step": step + 1, "pictures_per_s": speed, "waited_s": pool.waited}
                write(row | {name: value.item() for name, value in running.items()})
            if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
                save_checkpoint(checkpoint, parts, optimizers, step + 1)
                export(average, out / f"step-{step + 1}", tokenizer=start)
                write({"step": step + 1, **validate(average, encode_text, pictures, pairs)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="model to start from")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", type=Path, default=CONFIG, help="settings of the run")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="folders of real pictures")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw pictures")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # numbers too small for float32's normal range are slow, and mean nothing here
    config, photos = TrainConfig.read(args.config), load_photos(args.photos)
    run(config, args.start, args.out, photos, device=args.device, workers=args.workers)


if __name__ == "__main__":
    main()
