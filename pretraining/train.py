"""Pretrain the built-in model: a small CLIP whose words know normal from damaged, for the picture and for every patch.

    python pretraining/train.py --out runs/embedded --steps 8000 [--photos FOLDER ...]

Stops and resumes at any time: run the same command again. The learning rate is held, then falls to zero over the last
`--cooldown` of all `--steps`, so a run can be ended early by giving a smaller `--steps`. The model that is kept is a
running average. Only pictures made here, and photographs of textures given with --photos, are seen; validation is
synthetic too.
"""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from model import SHAPES, make_model
from objective import (
    CLIP_MEAN,
    CLIP_STD,
    School,
    Texts,
    build_tokenizer,
    step_losses,
    validate,
    validation_set,
    validation_twins,
)
from pool import GRID, Pool, bundled_photos, load_photos
from safetensors.torch import load_file, save_file
from teacher import Pupil, Teacher, weights_file
from tokenizer import remap_tokens, save
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPModel
from variation import twice, vary

#: Sides of windows in patches, from WinCLIP's up.
GLIMPSES = (2, 3, 4, 6, 8, 12)


def parameter_groups(model: CLIPModel, decay: float) -> list[dict[str, object]]:
    """Groups with their weight decay and `scale`, a factor of the learning rate.

    Neighbouring pixels go up and down together, so a step of the usual size in all weights of a patch's filter moves
    its output as far as the output is large; the filters start well (`cosine_patches`) and move slowly instead.
    """
    hidden = {id(p) for p in hidden_matrices(model)}
    filters = [p for n, p in model.named_parameters() if "patch_embedding" in n]
    rest = [(n, p) for n, p in model.named_parameters() if id(p) not in hidden and "patch_embedding" not in n]
    plain = [p for n, p in rest if p.ndim >= 2 and "embedding" not in n]
    other = [p for n, p in rest if p.ndim < 2 or "embedding" in n]
    return [
        {"params": filters, "weight_decay": 0.0, "scale": 0.03},
        {"params": plain, "weight_decay": decay, "scale": 1.0},
        {"params": other, "weight_decay": 0.0, "scale": 1.0},
    ]


def hidden_matrices(model: CLIPModel) -> list[Tensor]:
    """The matrices inside the image tower's blocks; Muon turns their steps into rotations, and they learn faster."""
    return [p for n, p in model.named_parameters() if p.ndim == 2 and "vision_model.encoder" in n and p.requires_grad]


def text_weights(model: CLIPModel) -> list[Tensor]:
    """The parameters of the text tower."""
    return [p for n, p in model.named_parameters() if n.startswith(("text_model", "text_projection"))]


def settled_weights(model: CLIPModel, blocks: int) -> list[Tensor]:
    """The parameters of the image tower up to and with so many blocks; none of them for 0 blocks."""
    vision = model.vision_model
    parts = [vision.embeddings, vision.pre_layrnorm, *vision.encoder.layers[:blocks]] if blocks else []
    return [p for part in parts for p in part.parameters()]


def optimizers(
    model: CLIPModel, lr: float, decay: float, pupil: Pupil | None = None, turn: float = 2.0
) -> list[torch.optim.Optimizer]:
    """Muon for the image tower's matrices, AdamW for the rest; groups carry `scale`, a factor of the learning rate."""
    muon = {"params": hidden_matrices(model), "scale": turn}
    groups = parameter_groups(model, decay)
    if pupil is not None:
        groups.append({"params": list(pupil.parameters()), "weight_decay": 0.0, "scale": 1.0})
    return [
        torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True),
        torch.optim.Muon([muon], lr=lr, weight_decay=decay / 2, adjust_lr_fn="match_rms_adamw"),
    ]


def descend(model: CLIPModel, opts: list[torch.optim.Optimizer], lr: float) -> None:
    """One step along the gradients that have gathered, clipped; they are gone afterwards."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for opt in opts:
        for group in opt.param_groups:
            group["lr"] = lr * group["scale"]
        opt.step()
        opt.zero_grad(set_to_none=True)


def save_checkpoint(
    path: Path, parts: dict[str, nn.Module], opts: list[torch.optim.Optimizer], step: int, seconds: float
) -> None:
    """Everything a resumed run needs, as safetensors, written aside and then moved into place."""
    tensors = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
    for which, opt in enumerate(opts):
        for i, s in opt.state_dict()["state"].items():
            tensors |= {f"opt.{which}.{i}.{k}": v for k, v in s.items()}
    facts = {"step": str(step), "seconds": str(seconds)}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, path.with_suffix(".tmp"), facts)
    path.with_suffix(".tmp").replace(path)


def load_checkpoint(path: Path, parts: dict[str, nn.Module], opts: list[torch.optim.Optimizer]) -> tuple[int, float]:
    """The step and the seconds it was written after. A part that the checkpoint does not have stays as it is."""
    from safetensors import safe_open

    tensors = load_file(path)
    for name, part in parts.items():
        state = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
        if state:
            part.load_state_dict(state)
    for which, opt in enumerate(opts):
        state = opt.state_dict()
        for k, v in tensors.items():
            if k.startswith(f"opt.{which}."):
                _, _, i, name = k.split(".")
                state["state"].setdefault(int(i), {})[name] = v
        opt.load_state_dict(state)
    with safe_open(path, "pt") as f:
        facts = f.metadata()
        return int(facts["step"]), float(facts.get("seconds", 0))


def begin(model: CLIPModel, folder: Path, tok: Tokenizer, *, words_only: bool = False) -> None:
    """Start from the exported model in `folder`, or from its text tower alone.

    Positions are stretched, tokens carried over where they are known.
    """
    state = CLIPModel.from_pretrained(folder).float().state_dict()
    known = torch.tensor(remap_tokens(folder, tok))
    tokens = state["text_model.embeddings.token_embedding.weight"]
    fresh = model.text_model.embeddings.token_embedding.weight.detach().cpu()
    state["text_model.embeddings.token_embedding.weight"] = torch.where(known[:, None] >= 0, tokens[known], fresh)
    if words_only:
        kept = ("text_model", "text_projection", "logit_scale")
        model.load_state_dict({k: v for k, v in state.items() if k.startswith(kept)}, strict=False)
        return
    place = "vision_model.embeddings.position_embedding.weight"
    grid = round((len(state[place]) - 1) ** 0.5)
    wanted = round((len(model.state_dict()[place]) - 1) ** 0.5)
    patches = state[place][1:].T.unflatten(1, (1, grid, grid)).transpose(0, 1)
    patches = F.interpolate(patches, (wanted, wanted), mode="bicubic", align_corners=False)
    state[place] = torch.cat([state[place][:1], patches[0].flatten(1).T])
    model.load_state_dict({k: v for k, v in state.items() if not k.endswith("position_ids")}, strict=False)


def export(folder: Path, ema: CLIPModel, tok: Tokenizer) -> None:
    """The running average as a CLIPModel folder in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    deepcopy(ema).half().save_pretrained(folder)
    save(tok, folder)
    size = ema.config.vision_config.image_size
    config = {"image_processor_type": "CLIPImageProcessor", "crop_size": size, "size": size, "resample": 3}
    config |= {"do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=1) + "\n")


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--start", type=Path, help="checkpoint or exported model to go on from, with a new schedule")
    a.add_argument("--shape", choices=SHAPES, default="ours", help="of the image tower")
    a.add_argument("--steps", type=int, default=8000, help="steps in all, cooldown included")
    a.add_argument("--cooldown", type=int, default=1500)
    a.add_argument("--seconds", type=float, help="end after so long instead; --steps is then only a guess of how many")
    a.add_argument("--warmup", type=int, default=100)
    a.add_argument("--batch", type=int, default=32, help="pictures that go through the model together")
    a.add_argument("--accumulate", type=int, default=1, help="batches of a step")
    a.add_argument("--reuse", type=int, default=3, help="how often a picture is shown (as another view) on average")
    a.add_argument("--lr", type=float, default=1e-3)
    a.add_argument("--turn", type=float, default=2.0, help="factor of the rate for the matrices of the image tower")
    a.add_argument("--decay", type=float, default=0.05)
    a.add_argument("--average", type=float, default=0.998, help="how much of the running average stays each step")
    a.add_argument("--windows-until", type=float, default=0.75, help="part of the run that sees windows")
    a.add_argument("--window", type=int, default=15, help="their side in patches")
    a.add_argument("--glimpses", type=float, default=0.0, help="part of the batches seen through windows of any side")
    a.add_argument("--pairs", type=int, default=8, help="pictures of a step that are seen in two views")
    a.add_argument("--taught", type=int, default=16, help="pictures of a step that the teacher looks at too; 0 = none")
    a.add_argument("--words-stay", action="store_true", help="the text tower does not learn: words mean what they did")
    a.add_argument("--stay", type=int, default=0, help="so many blocks of the image tower do not learn")
    a.add_argument("--focus", type=float, default=0.0, help="of the patches' loss: 2 makes it a focal loss")
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--workers", type=int, default=1)
    a.add_argument("--stock", type=int, default=1536, help="scenes that are at hand at a time")
    a.add_argument("--validate", type=int, default=250, help="steps between validations and checkpoints")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a.add_argument("--photos", type=Path, nargs="*", default=[])
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)  # they are slow, and mean nothing here
    torch.manual_seed(o.seed)
    o.out.mkdir(parents=True, exist_ok=True)
    photos = load_photos(o.photos) + bundled_photos()
    tok = build_tokenizer()
    model = make_model(SHAPES[o.shape]).to(o.device)
    for p in (text_weights(model) if o.words_stay else []) + settled_weights(model, o.stay):
        p.requires_grad_(False)
    ema = deepcopy(model).requires_grad_(False)
    weights, school = weights_file(), None
    parts: dict[str, nn.Module] = {"model": model, "ema": ema}
    if weights is not None and o.taught:
        school = School(Teacher(weights).to(o.device), Pupil(SHAPES[o.shape].width).to(o.device), o.taught)
        parts["pupil"] = school.pupil
    opts = optimizers(model, o.lr, o.decay, None if school is None else school.pupil, o.turn)
    checkpoint, log = o.out / "checkpoint.safetensors", o.out / "log.jsonl"
    first, spent = 0, 0.0
    if checkpoint.exists():
        first, spent = load_checkpoint(checkpoint, parts, opts)
    elif o.start is not None and o.start.is_dir():
        for part in (model, ema):
            begin(part, o.start, tok)
    elif o.start is not None:
        load_checkpoint(o.start, parts, opts)
    told = "no teacher" if school is None else f"{school.count} pictures of a step taught"
    print(f"{len(photos)} photographs; {told}; starting at step {first} of {o.steps}", flush=True)
    running: dict[str, Tensor] = {}
    fresh = o.batch // o.reuse // 2
    settings = {"fresh": fresh, "capacity": o.stock, "workers": o.workers, "photos": photos, "device": o.device}
    with Pool(o.seed, first * o.accumulate, **settings) as pool:
        held_out, held_out_twins = validation_set(photos), validation_twins(photos)
        texts = Texts(tok, tuple(sorted({w[0] for w in held_out.words})))
        step, seen, clock = first - 1, 0, time.time()
        begun = clock - spent
        last = step + 1 >= o.steps
        while not last:
            step += 1
            done = step / o.steps if o.seconds is None else (time.time() - begun) / o.seconds
            lr = o.lr * min(1, (step + 1) / o.warmup) * max(0, min(1, (1 - done) * o.steps / o.cooldown))
            side = o.window if done < o.windows_until else GRID
            last = step + 1 == o.steps if o.seconds is None else done >= 1
            for part in range(step * o.accumulate, (step + 1) * o.accumulate):
                rng = np.random.default_rng([o.seed, part, 1])
                generator = torch.Generator().manual_seed(o.seed * 1_000_003 + part)
                glimpse = int(rng.choice(GLIMPSES)) if o.glimpses and rng.random() < o.glimpses else side
                batch, frames = vary(twice(pool.batch(part, o.batch, rng), o.pairs), rng)
                losses = step_losses(model, batch, frames, o.pairs, texts, rng, glimpse, generator, school, o.focus)
                (losses["total"] / o.accumulate).backward()
                for k, v in losses.items():  # read seldom: a GPU would have to stop for it
                    running[k] = running[k].lerp(v.detach(), 0.02) if k in running else v.detach()
            descend(model, opts, lr)
            with torch.no_grad():
                m = min(o.average, (step + 1) / (step + 10))
                torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - m)
            seen += o.batch * o.accumulate
            if (step + 1) % 50 == 0:
                told = {k: v.item() for k, v in running.items()}
                row = {"step": step + 1, "lr": lr, "pictures_per_s": seen / (time.time() - clock)}
                row |= {"waited_s": pool.waited} | told
                clock, seen = time.time(), 0
                print(" ".join(f"{k}={v:.4g}" for k, v in row.items()), flush=True)
                with log.open("a") as f:
                    f.write(json.dumps(row) + "\n")
            if (step + 1) % o.validate == 0 or last:
                save_checkpoint(checkpoint, parts, opts, step + 1, time.time() - begun)
                row = {"step": step + 1, "validation": validate(ema, texts, held_out, held_out_twins)}
                print(" ".join(f"{k}={v:.3f}" for k, v in row["validation"].items()), flush=True)  # type: ignore[attr-defined]
                with log.open("a") as f:
                    f.write(json.dumps(row) + "\n")
                export(o.out / "builtin", ema, tok)
    print(f"done: {o.out / 'embedded'}")


if __name__ == "__main__":
    main()
