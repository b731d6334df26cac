"""The training loop: one function, top to bottom."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from blemish.errors import BlemishError, UsageError
from blemish.methods import checkpoints, configs
from blemish.methods.base import Method
from blemish.training.augment import Augmented
from blemish.training.features import Cache, Features
from blemish.training.processes import current
from blemish.training.run_files import Losses, RunPaths, load_checkpoint, loss_log, save_checkpoint
from blemish.training.samples import Sample


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    stage: Literal["features", "steps"]
    """What `done` and `total` count: images whose features are computed, or steps."""
    done: int
    total: int
    losses: Mapping[str, Any] = field(default_factory=dict)
    """Losses of the step."""
    bytes: int = 0
    """Size of all features."""


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
    on_progress: Callable[[Progress], object] | None = None,
) -> list[Losses]:
    """Train the learnt parts of a method from their present values (`method.reset(seed)` initialises them).

    The same method, samples, settings and seed give the same bits on the same machine, also when a run is stopped and
    resumed: order and random numbers of a step follow from the seed and the step's number alone.

    In a group of processes (`torch.distributed`) each calls this with the same arguments, computes its part of every
    batch, and gets the same losses and weights. They are those of one process but for the rounding of sums, and but for
    dropout, which draws other numbers. Process 0 alone writes files and calls `on_progress`. A run may be resumed by
    another number of processes.

    Args:
        method: A trainable method.
        samples: The samples, or their features where several runs share them.
        epochs: Passes over the samples; None for the method's `schedule`, which is the paper's. Or give `steps`.
        steps: Optimizer steps in all.
        batch_size: Samples per step, of all processes together; the last batch of an epoch may be smaller. None for
            the paper's.
        lr: Learning rate; None for the paper's.
        betas: Betas of Adam; None for the paper's.
        seed: Seed of the order of the samples and of what a method draws (dropout).
        out: Folder of the run or its weights file, see `RunPaths`; files are written after every epoch, every
            `checkpoint_every` steps and at the end. None writes nothing.
        resume: Continue from the checkpoint in `out`, or start if there is none.
        cache: Where features are kept, see `Features`.
        checkpoint_every: Steps between two checkpoints.
        trained_on: Description of the data, for the header of the weights.
        on_progress: Called after each batch of features and each step. If it raises KeyboardInterrupt after a step,
            that step is saved.

    Returns:
        The losses of each step of this call, with "step" and "epoch" counted from 1.

    Raises:
        UsageError: The method has nothing to train, the settings contradict each other or those of the resumed run, or
            a cache is asked for augmented samples.
        OutputError: `out` holds another run or cannot be written.
        BlemishError: The loss is not finite, or another process ended or was started with other arguments.
    """
    schedule = method.schedule
    if schedule is None:
        raise UsageError(f"{method.info.name} has nothing to train")
    if epochs is not None and steps is not None:
        raise UsageError("give epochs or steps, not both")
    batch_size = batch_size or schedule.batch_size
    processes = current()
    if on_progress is None or not processes.is_first:
        on_progress = lambda progress: None  # noqa: E731
    augmented = samples if isinstance(samples, Augmented) else None
    if augmented is not None and cache is not False:
        raise UsageError("features of augmented images cannot be cached: train with cache=False")
    if isinstance(samples, Features):
        features = samples
        features.check(method)
    else:
        features = Features(
            method,
            samples,
            cache=cache,
            batch_size=batch_size,
            on_progress=lambda done, total, size: on_progress(Progress("features", done, total, bytes=size)),
        )
    steps_per_epoch = math.ceil(len(features) / batch_size)
    total = steps if steps is not None else (schedule.epochs if epochs is None else epochs) * steps_per_epoch

    optimizer = method.optimizer(lr=lr, betas=betas)
    initial_rates = [float(group["lr"]) for group in optimizer.param_groups]
    settings = {
        "method": method.info.name,
        "config": configs.to_json(method.config),
        "backbone": method.backbone.fingerprint,
        "samples": len(features),
        "batch_size": batch_size,
        "lr": initial_rates,
        "betas": betas or schedule.betas,
        "seed": seed,
        "augmentation": None if augmented is None else str(augmented.augmentation),
    }
    paths = None if out is None else RunPaths.of(out)
    start = _start(paths, resume, method, optimizer, settings)
    processes.require_equal(
        json.dumps([settings, start, total, [p.double().sum().item() for p in method.parameters()]])
    )
    if not processes.is_first:
        paths = None
    spare = processes.part(len(features)).start  # what a process computes, with weight 0, if a batch has nothing for it
    history: list[Losses] = []
    was_training = method.training
    method.train()
    try:
        with loss_log(paths, start, method.info.name) as log:
            for step in range(start, total):
                epoch, batch = divmod(step, steps_per_epoch)
                if augmented is not None:
                    augmented.epoch = epoch
                order = np.random.default_rng([seed, epoch]).permutation(len(features))
                for group, rate in zip(optimizer.param_groups, initial_rates, strict=True):
                    group["lr"] = method.learning_rate(rate, epoch, math.ceil(total / steps_per_epoch))
                rows = order[batch * batch_size : (batch + 1) * batch_size].tolist()
                own = features.own(rows)
                with _seeded(method, seed, step, processes.rank):
                    drawn = own or [spare]
                    if len(drawn) == 1 < len(rows):
                        drawn = 2 * drawn  # some losses treat a batch of one image differently
                    losses = method.loss(*features.batch(drawn, method.training_request))
                optimizer.zero_grad()
                losses["total"].backward()  # type: ignore[no-untyped-call]
                losses = processes.average(losses, list(method.parameters()), len(own) / len(rows))
                optimizer.step()

                record: Losses = {"step": step + 1, "epoch": epoch + 1}
                record |= {name: value.detach().tolist() for name, value in losses.items()}
                if not math.isfinite(record["total"]):
                    raise BlemishError(f"the loss at step {step + 1} is not finite: lower the learning rate")
                history.append(record)
                log(record)
                save = (step + 1) % steps_per_epoch == 0 or (step + 1) % checkpoint_every == 0 or step + 1 == total
                try:
                    on_progress(Progress("steps", step + 1, total, record))
                except KeyboardInterrupt:
                    save = True
                    raise
                finally:
                    if save and paths is not None:
                        checkpoints.save(method, paths.weights, trained_on=trained_on, source="trained with blemish")
                        save_checkpoint(paths.checkpoint, method, optimizer, step + 1, settings)
    finally:
        method.train(was_training)
    return history


def _start(
    paths: RunPaths | None, resume: bool, method: Method, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> int:
    """Return the number of finished steps; restores the checkpoint of a run that is resumed."""
    if paths is None:
        if resume:
            raise UsageError("resuming needs the files of the run: give out")
        return 0
    if not resume:
        paths.require_new()
    return load_checkpoint(paths.checkpoint, method, optimizer, settings) if paths.checkpoint.exists() else 0


@contextlib.contextmanager
def _seeded(method: Method, seed: int, step: int, rank: int) -> Iterator[None]:
    """Seed PyTorch's random numbers by seed, step and process inside the block, and restore their state afterwards."""
    numbers = [seed, step, rank] if rank else [seed, step]
    devices = [method.device] if method.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield
