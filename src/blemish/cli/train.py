"""`blemish train`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from blemish.cli.console import config_changes, count, note
from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.methods.base import Method
    from blemish.training import Places, Progress
    from blemish.training.augment import Augmentation
    from blemish.training.files import FileSamples
    from blemish.training.samples import Cache, Sample

#: Features are kept in memory up to this many bytes, if --cache does not say otherwise.
IN_MEMORY = 2 * 2**30


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
    """Train what a method learns, on pictures with masks; the backbone stays frozen.

    Args:
        method: One that learns; `blemish methods` lists them.
        data: The data set's folder, or the table for --dataset csv (path,label,mask,object).
        out: The weights file to write (x.safetensors). Beside it go x.checkpoint.safetensors, x.losses.jsonl and
            x.losses.svg. A folder takes all four.
        dataset: How the data is laid out: folder is [CLASS/]test/good, [CLASS/]test/DEFECT and
            [CLASS/]ground_truth/DEFECT; csv is a table; the names of public data sets are known too.
        categories: Comma list: only these classes. [default: all]
        split: Of the data set; the papers train on the test split of another data set than they test on.
        backbone: `builtin`, or any CLIPModel: a hub id, a folder, a checkpoint file.
        config: Fields of the method's config that differ from its default, as JSON: '{"size": 336}'.
        epochs: Passes over the pictures. [default: the paper's; on the built-in backbone often fewer]
        steps: Optimizer steps in all, in place of epochs.
        batch_size: Pictures per step. [default: the paper's]
        lr: Learning rate. [default: the paper's; on the built-in backbone often another]
        seed: Of the first values, the order and all else that is drawn.
        mosaic: Share of pictures that mosaics of four of their class take the place of. [default: the paper's for this
            method and data set, mostly none]
        augment: Turn, light, blur pictures at random. [default: the paper's] Features of such pictures cannot be kept.
        cache: Where the backbone's features are kept: a folder, `memory`, or `off` to compute them in every epoch.
            [default: memory up to 2 GiB, else off]
        resume: Go on with the run that was stopped, from its last checkpoint.
        trained_on: The data in words, for the header of the weights. [default: names and numbers]
        tensorboard: Folder for TensorBoard; needs pip install 'blemish[tensorboard]'.
        device: auto, cpu, cuda, cuda:1, ...
    """
    changes = _check(config, epochs, steps, batch_size, lr, tensorboard)

    from blemish.methods import info, list_methods, load_class

    if not info(method).trainable:
        learners = ", ".join(name for name in list_methods() if info(name).trainable)
        raise UsageError(f"{method} has nothing to train; these learn: {learners}")

    from blemish.datasets import read

    found = read(dataset, data, categories=categories.split(",") if categories else None, split=split)
    for remark in found.notes:
        note(f"{data}: {remark}.")

    from blemish.training.places import Places

    places = Places.of(out)
    _check_places(places, resume)

    from blemish.training.files import FileSamples

    paper = load_class(method).TRAINING
    samples = FileSamples(found, masks=paper is None or paper.masks)
    drawn = _varied(samples, _augmentation(method, found.name, mosaic, augment), seed, cache)
    learner = _learner(method, backbone, changes, seed, device)
    learner.check_objects(samples.objects)
    kept = _cache(learner, samples, cache) if drawn is samples else False
    words = trained_on or f"{data.resolve().name} ({dataset}, {split}): {_counted(samples)}"

    run = _Run(places, samples, learner)
    with run.watching(tensorboard):
        from blemish.training import train as learn

        run.finish(
            learn(
                learner,
                drawn,
                epochs=epochs,
                steps=steps,
                batch_size=batch_size,
                lr=lr,
                seed=seed,
                out=out,
                resume=resume,
                cache=kept,
                trained_on=words,
                progress=run.told,
            ),
        )
    return 0


def _check(
    config: str | None,
    epochs: int | None,
    steps: int | None,
    batch_size: int | None,
    lr: float | None,
    tensorboard: Path | None,
) -> dict[str, Any]:
    """Checks what needs no model. Returns the config's changes."""
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


def _check_places(places: Places, resume: bool) -> None:
    """Refuses before anything is computed what the run itself would refuse after."""
    if resume:
        return
    if places.checkpoint.exists():
        raise UsageError(f"{places.checkpoint} is of another run: go on with it by --resume, or give another --out")
    if places.weights.exists():
        raise UsageError(f"{places.weights} is there already: give another --out")


def _augmentation(method: str, dataset: str, mosaic: float | None, vary: bool | None) -> Augmentation:
    """What the paper does with this data set, with what was asked for."""
    from blemish.training.augment import PAPERS, Augmentation

    tiles: Literal["anomalous", "kinds"] = "kinds" if method == "april-gan" else "anomalous"
    paper = PAPERS.get((method, dataset), Augmentation(tiles=tiles))
    return dataclasses.replace(
        paper, mosaic=paper.mosaic if mosaic is None else mosaic, vary=paper.vary if vary is None else vary
    )


def _varied(samples: FileSamples, augmentation: Augmentation, seed: int, cache: str | None) -> Sequence[Sample]:
    """The samples as they are, or varied."""
    if not augmentation.mosaic and not augmentation.vary:
        return samples
    if cache not in (None, "off"):
        raise UsageError(
            "features of pictures that are varied cannot be kept: leave --cache out, or give --mosaic 0 --no-augment"
        )
    from blemish.training.augment import Augmented

    ways = [f"mosaics {augmentation.mosaic:g}" if augmentation.mosaic else "", "augmented" if augmentation.vary else ""]
    note(f"Pictures are varied ({', '.join(filter(None, ways))}): nothing of them is kept.")
    return Augmented(samples, augmentation, seed=seed, sources=samples.sources)


def _learner(name: str, backbone: str, changes: dict[str, Any], seed: int, device: str) -> Method:
    from blemish.clip import load_backbone
    from blemish.methods import create
    from blemish.types import resolve_device

    place = resolve_device(device)
    method = create(name, load_backbone(backbone).to(place), changes or None)
    method.reset(seed)
    return method.to(place)


def _cache(method: Method, samples: FileSamples, asked: str | None) -> Cache:
    """Where the features stay, said before anything is written."""
    from blemish.training import Features

    if asked == "off":
        return False
    size = Features(method, samples, cache=False).size()
    of = f"The features of {count(len(samples), 'picture')} take {_gigabytes(size)}"
    if asked is None and size > IN_MEMORY:
        note(f"{of}: computed anew in every epoch; --cache DIR keeps them on a disk.")
        return False
    if asked in (None, "memory"):
        note(f"{of}: kept in memory.")
        return None
    note(f"{of}: kept in {asked}.")
    return asked


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _counted(samples: FileSamples) -> str:
    return f"{count(len(samples), 'picture')}, {samples.anomalous:,} anomalous"


class _Run:
    """What is shown of a run, and how it is stopped."""

    def __init__(self, places: Places, samples: FileSamples, method: Method) -> None:
        self.places, self.samples, self.method = places, samples, method
        self.done = self.total = 0
        self._stopped = False
        self._shown: list[Callable[[Progress], object]] = []

    def told(self, progress: Progress) -> None:
        """Called by the loop after each step, where it can be stopped with nothing lost."""
        if progress.stage == "steps":
            self.done, self.total = progress.done, progress.total
        for show in self._shown:
            show(progress)
        if self._stopped:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def watching(self, tensorboard: Path | None) -> Iterator[None]:
        """Inside, progress is shown, and Ctrl-C waits for the end of the step; a second one does not."""
        with contextlib.ExitStack() as stack:
            if sys.stderr.isatty():
                self._shown.append(stack.enter_context(_bar()))
            if tensorboard is not None:
                self._shown.append(stack.enter_context(_board(tensorboard)))
            if threading.current_thread() is threading.main_thread():
                before = signal.signal(signal.SIGINT, self._stop)
                stack.callback(signal.signal, signal.SIGINT, before)
            try:
                yield
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self._state()) from None

    def finish(self, history: list[dict[str, Any]]) -> None:
        """Says what came of it."""
        name, backbone = self.method.info.name, self.method.backbone
        if history:
            first, last = history[0], history[-1]
            change = (
                f"loss {first['total']:.4g} at step {first['step']:,}, {last['total']:.4g} at step {last['step']:,}"
            )
            print(f"Trained {name} on {_counted(self.samples)}: {change}.")
        else:
            print(f"All steps were done already: {name} is as it was.")
        print(f"  {self.places.weights}  what it learnt, for the backbone {backbone.name} ({backbone.fingerprint})")
        print(f"  {self.places.curves}, {self.places.losses}  the losses of each step")
        print(f"  {self.places.checkpoint}  to go on with --resume; not needed for anything else")
        print(f"Use it: blemish detect PICTURES --method {name} --weights {self.places.weights}", end="")
        print("" if backbone.name == "builtin" else f" --backbone {backbone.name}")

    def _stop(self, number: int, frame: types.FrameType | None) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True
        note("stopping after this step; Ctrl-C again stops at once.")

    def _state(self) -> str:
        if not self.places.checkpoint.exists():
            return (
                "interrupted before the first step: nothing is kept but what --cache keeps; run the same command again."
            )
        steps = f"{self.done:,} of {count(self.total, 'step')} done" if self.total else "at the start"
        return (
            f"interrupted: {steps}, kept in {self.places.checkpoint}; the same command with --resume goes on from the "
            "last checkpoint."
        )


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Progress], object]]:
    """Two bars on the terminal: features, then steps with their losses."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Bars(*columns, TextColumn("{task.fields[losses]}"), console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(progress: Progress) -> None:
            from blemish.training.curves import scalars

            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total, losses="")
            losses = "  ".join(f"{name} {value:.4g}" for name, value in scalars(progress.losses).items())
            bars.update(tasks[progress.stage], completed=progress.done, losses=losses)

        yield show


@contextlib.contextmanager
def _board(folder: Path) -> Iterator[Callable[[Progress], object]]:
    """Scalars for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    from blemish.training.curves import scalars

    writer = SummaryWriter(str(folder))

    def show(progress: Progress) -> None:
        for name, value in scalars(progress.losses).items():
            writer.add_scalar(f"loss/{name}", value, progress.done)

    try:
        yield show
    finally:
        writer.close()
