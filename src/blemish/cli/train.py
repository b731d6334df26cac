"""`blemish train`, also as `torchrun --nproc-per-node 2 -m blemish train`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.cli.console import config_changes, count, note
from blemish.errors import OutputError, UsageError

if TYPE_CHECKING:
    from blemish.methods.base import Method
    from blemish.training import FileSamples, Progress, RunPaths, Sample
    from blemish.training.augment import Augmentation
    from blemish.training.features import Cache

#: Without --cache, features are kept in memory up to this many bytes.
MAX_BYTES_IN_MEMORY = 2 * 2**30


def train(
    method: str,
    *,
    data: Path,
    out: Path,
    dataset: str = "folder",
    categories: str | None = None,
    split: str = "test",
    backbone: str = "builtin",
    config: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    mosaic: float | None = None,
    augment: bool | None = None,
    cache: str | None = None,
    resume: bool = False,
    trained_on: str | None = None,
    tensorboard: Path | None = None,
    device: str = "auto",
) -> int:
    """Train the learnt parts of a method on pictures with masks; the backbone stays frozen.

    Args:
        method: A method with learnt parts; `blemish methods` lists them.
        data: Folder of the data set, or the table for --dataset csv (path,label,mask,object).
        out: Weights file to write (x.safetensors); x.checkpoint.safetensors, x.losses.jsonl and x.losses.svg are
            written beside it. A folder gets all four.
        dataset: Layout of the data: folder for [CLASS/]test/good, [CLASS/]test/DEFECT and [CLASS/]ground_truth/DEFECT,
            csv for a table, or the name of a public data set (`blemish datasets`).
        categories: Comma list of the classes to use. [default: all]
        split: Split of the data set; the papers train on the test split of another data set than they test on.
        backbone: `builtin`, or any CLIPModel: a hub id, a folder, a checkpoint file.
        config: Fields of the method's config to change, as JSON: '{"size": 336}'.
        epochs: Passes over the pictures. [default: the paper's; on the built-in backbone often fewer]
        steps: Optimizer steps in all, in place of epochs.
        batch_size: Pictures per step, of all processes together. [default: the paper's]
        lr: Learning rate. [default: the paper's; on the built-in backbone often another]
        seed: Seed of initial values, order and augmentation.
        mosaic: Probability that a mosaic of four pictures replaces a picture. [default: the paper's for this method and
            data set, mostly 0]
        augment: Rotate, brighten and blur pictures at random. [default: the paper's] Features are then not cached.
        cache: Where the backbone's features are kept: a folder, `memory`, or `off` to compute them in every epoch.
            [default: memory up to 2 GiB, else off]
        resume: Continue a stopped run from its last checkpoint.
        trained_on: Description of the data for the header of the weights. [default: its name and counts]
        tensorboard: Folder for TensorBoard; needs pip install 'blemish[tensorboard]'.
        device: auto, cpu, cuda, cuda:1, ... Processes of torchrun get a GPU each.
    """
    changes = _check(config, epochs, steps, batch_size, lr, tensorboard)

    from blemish.methods import info, list_methods, load_class

    if not info(method).trainable:
        trainable = ", ".join(name for name in list_methods() if info(name).trainable)
        raise UsageError(f"{method} has nothing to train; these methods have: {trainable}")

    from blemish.datasets import read
    from blemish.training import FileSamples, RunPaths, joined
    from blemish.training import train as run_training

    paths = RunPaths.of(out)
    with joined(device) as (processes, own_device), _silence_unless(processes.is_first):
        read_set = read(dataset, data, categories=categories.split(",") if categories else None, split=split)
        for remark in read_set.notes:
            note(f"{data}: {remark}.")
        if not resume:
            try:
                paths.require_new()
            except OutputError as error:
                raise UsageError(f"{error} (give --resume or another --out)") from error
        schedule = load_class(method).TRAINING
        samples = FileSamples(read_set, masks=schedule is None or schedule.masks)
        augmented = _augment(samples, _augmentation(method, read_set.name, mosaic, augment), seed, cache)
        learner = _create(method, backbone, changes, seed, own_device)
        learner.check_objects(samples.object_names)
        feature_cache = _cache(learner, samples, cache) if augmented is samples else False

        watch = _Watch(paths, ignores_interrupts=not processes.is_first)
        with watch.watching(tensorboard if processes.is_first else None):
            history = run_training(
                learner,
                augmented,
                epochs=epochs,
                steps=steps,
                batch_size=batch_size,
                lr=lr,
                seed=seed,
                out=out,
                resume=resume,
                cache=feature_cache,
                trained_on=trained_on or f"{data.resolve().name} ({dataset}, {split}): {_counts(samples)}",
                on_progress=watch.on_progress,
            )
        _print_result(history, paths, samples, learner)
    return 0


@contextlib.contextmanager
def _silence_unless(speaks: bool) -> Iterator[None]:
    """Drop what is printed inside the block, unless this process speaks for all."""
    if speaks:
        yield
        return
    with Path(os.devnull).open("w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        yield


def _check(
    config: str | None,
    epochs: int | None,
    steps: int | None,
    batch_size: int | None,
    lr: float | None,
    tensorboard: Path | None,
) -> dict[str, Any]:
    """Check what needs no model, and return the changes to the config."""
    for option, value in (("--epochs", epochs), ("--steps", steps), ("--batch-size", batch_size)):
        if value is not None and value < 1:
            raise UsageError(f"{option} is at least 1, not {value}")
    if epochs is not None and steps is not None:
        raise UsageError("give --epochs or --steps, not both")
    if lr is not None and not lr > 0:
        raise UsageError(f"--lr is more than 0, not {lr:g}")
    if tensorboard is not None and importlib.util.find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs TensorBoard; run: pip install 'blemish[tensorboard]'")
    return config_changes(config)


def _augmentation(method: str, dataset: str, mosaic: float | None, vary: bool | None) -> Augmentation:
    """Return the paper's augmentation for this data set, with the given changes."""
    from blemish.training.augment import paper_augmentation

    paper = paper_augmentation(method, dataset)
    return dataclasses.replace(
        paper, mosaic=paper.mosaic if mosaic is None else mosaic, vary=paper.vary if vary is None else vary
    )


def _augment(samples: FileSamples, augmentation: Augmentation, seed: int, cache: str | None) -> Sequence[Sample]:
    """Return the samples, augmented if the augmentation changes anything."""
    if not augmentation.mosaic and not augmentation.vary:
        return samples
    if cache not in (None, "off"):
        raise UsageError(
            "features of augmented pictures cannot be cached: leave --cache out, or give --mosaic 0 --no-augment"
        )
    from blemish.training.augment import Augmented

    ways = [f"mosaics {augmentation.mosaic:g}"] * bool(augmentation.mosaic) + ["augmented"] * augmentation.vary
    note(f"Pictures are varied ({', '.join(ways)}), so their features are not cached.")
    return Augmented(samples, augmentation, seed=seed, sources=samples.sources)


def _create(name: str, backbone: str, changes: dict[str, Any], seed: int, device: str) -> Method:
    from blemish.clip import load_backbone
    from blemish.methods import create
    from blemish.types import resolve_device

    torch_device = resolve_device(device)
    method = create(name, load_backbone(backbone).to(torch_device), changes or None)
    method.reset(seed)
    return method.to(torch_device)


def _cache(method: Method, samples: FileSamples, cache: str | None) -> Cache:
    """Return where the features are kept, and print it."""
    from blemish.training import Features

    if cache == "off":
        return False
    size = Features(method, samples, cache=False).size()
    amount = f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
    sentence = f"The features of {count(len(samples), 'picture')} take {amount}"
    if cache is None and size > MAX_BYTES_IN_MEMORY:
        note(f"{sentence}; they are computed anew in every epoch. --cache DIR keeps them on a disk.")
        return False
    if cache in (None, "memory"):
        note(f"{sentence}; they are kept in memory.")
        return None
    note(f"{sentence}; they are kept in {cache}.")
    return cache


def _counts(samples: FileSamples) -> str:
    return f"{count(len(samples), 'picture')}, {samples.anomalous:,} anomalous"


class _Watch:
    """Shows the progress of a run and stops it on Ctrl-C."""

    def __init__(self, paths: RunPaths, *, ignores_interrupts: bool = False) -> None:
        self._paths, self._ignores_interrupts = paths, ignores_interrupts
        self._done = self._total = 0
        self._stopped = False
        self._displays: list[Callable[[Progress], object]] = []

    def on_progress(self, progress: Progress) -> None:
        """Show progress; the training loop calls it after each step, where it can be stopped without a loss."""
        if progress.stage == "steps":
            self._done, self._total = progress.done, progress.total
        for display in self._displays:
            display(progress)
        if self._stopped:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def watching(self, tensorboard: Path | None) -> Iterator[None]:
        """Show progress inside the block; Ctrl-C waits for the end of the step, a second Ctrl-C stops at once."""
        with contextlib.ExitStack() as stack:
            if sys.stderr.isatty():
                self._displays.append(stack.enter_context(_bars()))
            if tensorboard is not None:
                self._displays.append(stack.enter_context(_tensorboard(tensorboard)))
            if threading.current_thread() is threading.main_thread():
                # Ctrl-C reaches all processes of a run; the first saves and leaves, which ends the others.
                before = signal.signal(signal.SIGINT, signal.SIG_IGN if self._ignores_interrupts else self._stop)
                stack.callback(signal.signal, signal.SIGINT, before)
            try:
                yield
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self._interrupted()) from None

    def _stop(self, number: int, frame: types.FrameType | None) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True
        note("Stopping after this step; Ctrl-C again stops at once.")

    def _interrupted(self) -> str:
        checkpoint = self._paths.checkpoint
        if not checkpoint.exists():
            return "interrupted before the first step: nothing is saved but the --cache; run the same command again."
        steps = f"{self._done:,} of {count(self._total, 'step')} done" if self._total else "at the start"
        return (
            f"interrupted: {steps}, saved in {checkpoint}; the same command with --resume continues from the last "
            "checkpoint."
        )


def _print_result(history: list[dict[str, Any]], paths: RunPaths, samples: FileSamples, method: Method) -> None:
    name, backbone = method.info.name, method.backbone
    if history:
        first, last = history[0], history[-1]
        change = f"loss {first['total']:.4g} at step {first['step']:,}, {last['total']:.4g} at step {last['step']:,}"
        print(f"Trained {name} on {_counts(samples)}: {change}.")
    else:
        print(f"All steps were done already; {name} is unchanged.")
    print(f"  {paths.weights}  the weights, for the backbone {backbone.name} ({backbone.fingerprint})")
    print(f"  {paths.curves}, {paths.losses}  the losses of each step")
    print(f"  {paths.checkpoint}  the checkpoint for --resume")
    print(f"Use it: blemish detect PICTURES --method {name} --weights {paths.weights}", end="")
    print("" if backbone.name == "builtin" else f" --backbone {backbone.name}")


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[Progress], object]]:
    """Yield a function that moves two bars on the terminal: features, then steps with their losses."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from blemish.training.run_files import loss_scalars

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Bars(*columns, TextColumn("{task.fields[losses]}"), console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total, losses="")
            losses = "  ".join(f"{name} {value:.4g}" for name, value in loss_scalars(progress.losses).items())
            bars.update(tasks[progress.stage], completed=progress.done, losses=losses)

        yield show


@contextlib.contextmanager
def _tensorboard(folder: Path) -> Iterator[Callable[[Progress], object]]:
    """Yield a function that writes losses for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    from blemish.training.run_files import loss_scalars

    writer = SummaryWriter(str(folder))

    def show(progress: Progress) -> None:
        for name, value in loss_scalars(progress.losses).items():
            writer.add_scalar(f"loss/{name}", value, progress.done)

    try:
        yield show
    finally:
        writer.close()
