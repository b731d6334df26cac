"""Which shape of image tower learns most: small runs from nothing, all on the same pictures in the same order.

    python pretraining/ablate.py --out FOLDER [--only NAME ...] [--pictures 6000] [--steps 500] [--photos FOLDER ...]

Each shape sees the same part of a picture at a time, through windows, and is then asked about whole pictures that it
has not seen. Prints a table; what is done already (FOLDER/NAME.json) is not done again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from model import Shape, image_views, make_model
from objective import Texts, answers, build_tokenizer, normalise, stack, step_losses, validation_set
from pool import SIZE, Batch, Made, bundled_photos, load_photos, make_product
from torch import Tensor
from train import descend, optimizers
from transformers import CLIPModel
from variation import vary

from blemish.metrics import auroc

SHAPES = {
    "8 blocks of 256": Shape(size=256),
    "depth 4": Shape(depth=4, size=256),
    "depth 12": Shape(depth=12, size=256),
    "width 192": Shape(width=192, size=256),
    "width 384": Shape(width=384, size=256),
    "patch 32": Shape(patch=32, size=256),
    "128 px": Shape(size=128),
    "128 px, patch 8": Shape(size=128, patch=8),
}
SEED = 60_606
WINDOW = 0.5  # side of the part of a picture that is shown
FINE = 64  # grid on which all shapes are compared pixel by pixel


def learn(shape: Shape, stock: Batch, texts: Texts, steps: int, batch: int, lr: float) -> tuple[CLIPModel, Tensor]:
    """The model after `steps`, and the last fifth's mean loss of patches."""
    torch.manual_seed(SEED)
    model = make_model(shape)
    opts = optimizers(model, lr, 0.05)
    late = []
    for step in range(steps):
        rng, generator = np.random.default_rng([SEED, step]), torch.Generator().manual_seed(SEED + step)
        rate = lr * min(1, (step + 1) / 50, 3 * (steps - step) / steps)
        twins = 2 * rng.choice(len(stock.words) // 2, batch // 2, replace=False)
        rows = np.stack([twins, twins + 1], 1).ravel()
        at = torch.from_numpy(rows)
        some = Batch(stock.images[at], stock.masks[at], [stock.words[i] for i in rows])
        seen, frames = vary(some, rng)
        losses = step_losses(model, seen, frames, 0, texts, rng, round(WINDOW * shape.grid), generator)
        losses["total"].backward()
        descend(model, opts, rate)
        late.append(losses["last"].detach())
        if (step + 1) % 50 == 0:
            print(f"{step + 1} last {losses['last'].item():.3f} cls {losses['cls'].item():.3f}", flush=True)
    return model.eval(), torch.stack(late[4 * steps // 5 :]).mean()


def judge(model: CLIPModel, texts: Texts, batch: Batch) -> dict[str, float]:
    """Image AUROC of the largest patch and of the class token, and AUROC of all pixels, read from the V-V path."""
    label = batch.masks.any(2).any(1).numpy()
    known = np.array([w[2] != "lost" for w in batch.words])
    found = answers(model, texts, batch)
    value = torch.from_numpy(found["value"])
    grid = round(value.shape[1] ** 0.5)
    fine = F.interpolate(value.view(-1, 1, grid, grid), FINE, mode="bilinear")[:, 0].numpy()
    return {
        "image AUROC": auroc(label[known], found["value"][known].max(1)),
        "class token": auroc(label[known], found["cls"][known]),
        "pixel AUROC": auroc(batch.coverage(FINE).numpy()[known].ravel() > 0.25, fine[known].ravel()),
    }


@torch.inference_mode()
def milliseconds(model: CLIPModel, rounds: int = 9) -> float:
    """Of the image tower, a picture, in batches of 16: the median."""
    pixels, took = normalise(torch.zeros(16, SIZE, SIZE, 3, dtype=torch.uint8), model), []
    for _ in range(rounds):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            image_views(model, pixels)
        took.append(1000 * (time.perf_counter() - start) / len(pixels))
    return float(np.median(took))


def make(photos: list[np.ndarray], index: int) -> list[Made]:
    return make_product(SEED, index, photos)


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--only", nargs="*", choices=SHAPES, default=list(SHAPES))
    a.add_argument("--pictures", type=int, default=6000)
    a.add_argument("--steps", type=int, default=500)
    a.add_argument("--batch", type=int, default=32)
    a.add_argument("--lr", type=float, default=1e-3)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--photos", type=Path, nargs="*", default=[])
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    o.out.mkdir(parents=True, exist_ok=True)
    todo = [name for name in o.only if not (o.out / f"{name}.json").exists()]
    if todo:
        photos = load_photos(o.photos) + bundled_photos()
        with mp.Pool(o.threads) as pool:
            stock = stack([m for two in pool.imap(partial(make, photos), range(o.pictures // 2), 20) for m in two])
        held_out = validation_set(photos)
        texts = Texts(build_tokenizer(), tuple(sorted({w[0] for w in held_out.words})))
    for name in todo:
        clock = time.perf_counter()
        model, loss = learn(SHAPES[name], stock, texts, o.steps, o.batch, o.lr)
        row = {"parameters": sum(p.numel() for p in model.vision_model.parameters()), "patch loss": loss.item()}
        row |= judge(model, texts, held_out)
        row |= {"ms a picture": milliseconds(model), "seconds": time.perf_counter() - clock}
        (o.out / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
        print(name, row, flush=True)
    rows = {name: json.loads((o.out / f"{name}.json").read_text()) for name in o.only}
    print("| shape | " + " | ".join(next(iter(rows.values()))) + " |")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{v:.3f}" if v < 10 else f"{v:,.0f}" for v in row.values()) + " |")


if __name__ == "__main__":
    main()
