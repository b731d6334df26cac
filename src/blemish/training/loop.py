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
from blemish.methods import checkpoints, configs
from blemish.methods.base import Method
from blemish.training import checkpoint
from blemish.training.augment import Augmented
from blemish.training.curves import draw
from blemish.training.places import Places
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
        epochs: passes over the samples; default: the method's `schedule`, which is the paper's. Or give `steps`.
        steps: optimizer steps in all.
        batch_size: samples per step, the last batch of an epoch may be smaller; default: the paper's, as for
            `lr` and `betas`.
        seed: of the order of the samples, and of what a method draws (dropout).
        out: a folder, or the name of the weights file: where weights, checkpoint and losses are kept (see `Places`),
            written after every epoch, every `checkpoint_every` steps, and at the end. None writes nothing.
        resume: goes on from the checkpoint in `out`, or starts if there is none.
        cache: where features are kept, see `Features`.
        trained_on: the data in words, for the header of the weights.
        progress: called after each batch of features and each step. If it raises KeyboardInterrupt after a step, that
            step is kept.

    Returns:
        The losses of each step of this call, with "step" and "epoch" counted from 1.

    Raises:
        UsageError: the method has nothing to train, settings that do not fit together or to the run that is resumed,
            features are to be kept of pictures that are varied.
        OutputError: `out` holds another run, or cannot be written.
        BlemishError: the loss is not finite.
    """
    paper = method.schedule
    if paper is None:
        raise UsageError(f"{method.info.name} has nothing to train")
    if epochs is not None and steps is not None:
        raise UsageError("give epochs or steps, not both")
    batch = batch_size or paper.batch_size
    report = progress or (lambda _: None)
    varied = samples if isinstance(samples, Augmented) else None
    if varied is not None and cache is not False:
        raise UsageError("features of pictures that are varied cannot be kept: train with the cache off")
    if isinstance(samples, Features):
        features = samples
        features.check(method)
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
        "config": configs.to_json(method.config),
        "backbone": method.backbone.fingerprint,
        "samples": len(features),
        "batch_size": batch,
        "lr": initial,
        "betas": betas or paper.betas,
        "seed": seed,
        "augmentation": None if varied is None else str(varied.augmentation),
    }
    places = None if out is None else Places.of(out)
    start = _prepare(places, resume, method, optimizer, settings)
    history: list[Losses] = []
    training = method.training
    method.train()
    try:
        with _log(places, start, method.info.name) as log:
            for step in range(start, last):
                epoch, place = divmod(step, per_epoch)
                if varied is not None:
                    varied.epoch = epoch
                order = np.random.default_rng([seed, epoch]).permutation(len(features))
                for group, rate in zip(optimizer.param_groups, initial, strict=True):
                    group["lr"] = method.learning_rate(rate, epoch, math.ceil(last / per_epoch))
                with _drawing(method, seed, step):
                    rows = order[place * batch : (place + 1) * batch].tolist()
                    losses = method.loss(*features.batch(rows, method.training_request))
                optimizer.zero_grad()
                losses["total"].backward()  # type: ignore[no-untyped-call]
                optimizer.step()

                record = {"step": step + 1, "epoch": epoch + 1, **{name: _plain(v) for name, v in losses.items()}}
                if not math.isfinite(record["total"]):
                    raise BlemishError(f"the loss at step {step + 1} is not finite: lower the learning rate")
                history.append(record)
                log(record)
                keep = (step + 1) % per_epoch == 0 or (step + 1) % checkpoint_every == 0 or step + 1 == last
                try:
                    report(Progress("steps", step + 1, last, record))
                except KeyboardInterrupt:
                    keep = True
                    raise
                finally:
                    if keep:
                        _keep(places, method, optimizer, step + 1, settings, trained_on)
    finally:
        method.train(training)
    return history


def _prepare(
    places: Places | None, resume: bool, method: Method, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> int:
    """The number of steps already done."""
    if places is None:
        if resume:
            raise UsageError("resuming needs the files of the run: give out")
        return 0
    if not resume and places.checkpoint.exists():
        raise OutputError(f"{places.checkpoint} is of another run: resume it or choose another name", places.checkpoint)
    if not resume and places.weights.exists():
        raise OutputError(f"{places.weights} is there already: choose another name", places.weights)
    return checkpoint.load(places.checkpoint, method, optimizer, settings) if places.checkpoint.exists() else 0


def _keep(
    places: Places | None,
    method: Method,
    optimizer: torch.optim.Optimizer,
    step: int,
    settings: dict[str, Any],
    trained_on: str,
) -> None:
    if places is not None:
        checkpoints.save(method, places.weights, trained_on=trained_on, source="trained with blemish")
        checkpoint.save(places.checkpoint, method, optimizer, step, settings)


@contextlib.contextmanager
def _log(places: Places | None, start: int, name: str) -> Iterator[Callable[[Losses], object]]:
    """A function that appends a line to the losses; lines after the checkpoint that is resumed are dropped.

    In the end, also after an error, their curves are drawn.
    """
    if places is None:
        yield lambda _: None
        return
    try:
        places.folder.mkdir(parents=True, exist_ok=True)
        kept = places.losses.read_text(encoding="utf-8").splitlines()[:start] if places.losses.exists() else []
        _write(places.losses, "".join(f"{line}\n" for line in kept))
        file = places.losses.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise _unwritable(places, error) from error
    with file:
        try:
            yield lambda record: file.write(json.dumps(record) + "\n")
        finally:
            records = [json.loads(line) for line in places.losses.read_text(encoding="utf-8").splitlines()]
            if records:
                _write(places.curves, draw(records, f"{name}: losses of {len(records):,} steps"))


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _unwritable(places: Places, error: OSError) -> OutputError:
    return OutputError(f"the run cannot be written to {places.folder}: {error.strerror or error}", places.folder)


@contextlib.contextmanager
def _drawing(method: Method, seed: int, step: int) -> Iterator[None]:
    """Inside, PyTorch's random numbers follow from seed and step; outside nothing is changed."""
    cuda = [method.device] if method.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield


def _plain(value: Tensor) -> Any:
    return value.detach().tolist()
