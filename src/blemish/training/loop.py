"""The training loop: one function, top to bottom."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from blemish.errors import BlemishError, OutputError, UsageError
from blemish.methods import recipes, weights
from blemish.methods.base import Method
from blemish.training import checkpoint
from blemish.training.samples import Cache, Features, Sample

Losses = dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """Where a run is: `stage` "features" counts pictures (bytes: of all their features), "steps" counts steps."""

    stage: Literal["features", "steps"]
    done: int
    total: int
    losses: Mapping[str, Any] = field(default_factory=dict)
    bytes: int = 0


def train(
    method: Method,
    samples: Sequence[Sample] | Features,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    betas: tuple[float, float] | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    cache: Cache = None,
    checkpoint_every: int = 200,
    trained_on: str = "",
    progress: Callable[[Progress], object] | None = None,
) -> list[Losses]:
    """Trains the learnt parts of a method, from where they are (`method.reset(seed)` starts them anew).

    The same method, samples, settings and seed give the same bits on the same machine, also when a run is stopped and
    resumed: order and randomness of a step follow from the seed and the step's number alone.

    Args:
        method: a trainable one.
        samples: what to learn from, or their features where several runs share them.
        epochs: passes over the samples; default: the paper's. Or give `steps`.
        steps: optimizer steps in all.
        batch_size: samples per step, the last batch of an epoch may be smaller; default: the paper's, as for
            `lr` and `betas`.
        seed: of the order of the samples, and of what a method draws (dropout).
        out: a folder for `weights.safetensors`, `checkpoint.safetensors` and `losses.jsonl` (a line per step); written
            after every epoch, every `checkpoint_every` steps, and at the end. None writes nothing.
        resume: goes on from the checkpoint in `out`, or starts if there is none.
        cache: where features are kept, see `Features`.
        trained_on: the data in words, for the header of the weights.
        progress: called after each batch of features and each step.

    Returns:
        The losses of each step of this call, with "step" and "epoch" counted from 1.

    Raises:
        UsageError: the method has nothing to train, settings that do not fit together or to the run that is resumed.
        OutputError: `out` holds another run, or cannot be written.
        BlemishError: the loss is not finite.
    """
    paper = method.TRAINING
    if paper is None:
        raise UsageError(f"{method.info.name} has nothing to train")
    if epochs is not None and steps is not None:
        raise UsageError("give epochs or steps, not both")
    batch = batch_size or paper.batch_size
    report = progress or (lambda _: None)
    if isinstance(samples, Features):
        features = samples
    else:
        features = Features(
            method,
            samples,
            cache=cache,
            batch_size=batch,
            told=lambda done, total, size: report(Progress("features", done, total, bytes=size)),
        )
    per_epoch = math.ceil(len(features) / batch)
    last = steps if steps is not None else (paper.epochs if epochs is None else epochs) * per_epoch

    optimizer = method.optimizer(lr=lr, betas=betas)
    initial = [float(group["lr"]) for group in optimizer.param_groups]
    settings = {
        "method": method.info.name,
        "recipe": recipes.to_json(method.recipe),
        "backbone": method.backbone.fingerprint,
        "samples": len(features),
        "batch_size": batch,
        "lr": initial,
        "betas": betas or paper.betas,
        "seed": seed,
    }
    folder = None if out is None else Path(out)
    start = _prepare(folder, resume, method, optimizer, settings)
    history: list[Losses] = []
    training = method.training
    method.train()
    try:
        with _log(folder, start) as log:
            for step in range(start, last):
                epoch, place = divmod(step, per_epoch)
                order = np.random.default_rng([seed, epoch]).permutation(len(features))
                for group, rate in zip(optimizer.param_groups, initial, strict=True):
                    group["lr"] = method.learning_rate(rate, epoch, math.ceil(last / per_epoch))
                with _drawing(method, seed, step):
                    losses = method.loss(*features.batch(order[place * batch : (place + 1) * batch].tolist()))
                optimizer.zero_grad()
                losses["total"].backward()  # type: ignore[no-untyped-call]
                optimizer.step()

                record = {"step": step + 1, "epoch": epoch + 1, **{name: _plain(v) for name, v in losses.items()}}
                if not math.isfinite(record["total"]):
                    raise BlemishError(f"the loss at step {step + 1} is not finite: lower the learning rate")
                history.append(record)
                log(record)
                report(Progress("steps", step + 1, last, record))
                if (step + 1) % per_epoch == 0 or (step + 1) % checkpoint_every == 0 or step + 1 == last:
                    _keep(folder, method, optimizer, step + 1, settings, trained_on)
    finally:
        method.train(training)
    return history


def _prepare(
    folder: Path | None, resume: bool, method: Method, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> int:
    """The number of steps already done."""
    if folder is None:
        if resume:
            raise UsageError("resuming needs the folder of the run: give out")
        return 0
    path = folder / "checkpoint.safetensors"
    if path.exists() and not resume:
        raise OutputError(f"{folder} already holds a training run: resume it or give another folder", folder)
    return checkpoint.load(path, method, optimizer, settings) if path.exists() else 0


def _keep(
    folder: Path | None,
    method: Method,
    optimizer: torch.optim.Optimizer,
    step: int,
    settings: dict[str, Any],
    trained_on: str,
) -> None:
    if folder is not None:
        weights.save(method, folder / "weights.safetensors", trained_on=trained_on, source="trained with blemish")
        checkpoint.save(folder / "checkpoint.safetensors", method, optimizer, step, settings)


@contextlib.contextmanager
def _log(folder: Path | None, start: int) -> Iterator[Callable[[Losses], object]]:
    """A function that appends a line to losses.jsonl; lines after the checkpoint that is resumed are dropped."""
    if folder is None:
        yield lambda _: None
        return
    path = folder / "losses.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = path.read_text(encoding="utf-8").splitlines()[:start] if start and path.exists() else []
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        file = path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise OutputError(f"the run cannot be written to {folder}: {error.strerror or error}", folder) from error
    with file:
        yield lambda record: file.write(json.dumps(record) + "\n")


@contextlib.contextmanager
def _drawing(method: Method, seed: int, step: int) -> Iterator[None]:
    """Inside, PyTorch's random numbers follow from seed and step; outside nothing is changed."""
    cuda = [method.device] if method.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield


def _plain(value: Tensor) -> Any:
    return value.detach().tolist()
