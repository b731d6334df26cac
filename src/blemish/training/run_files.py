"""The files of a training run: weights, a checkpoint to resume from, and the losses as lines and as curves."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from blemish.errors import OutputError, UsageError, WeightsError
from blemish.files import parse_json, try_lock
from blemish.methods import checkpoints
from blemish.methods.base import Method
from blemish.outputs import svg

Losses: TypeAlias = dict[str, Any]
"""The losses of one step by name, with "step" and "epoch"; a loss with a value per layer is a list."""

FORMAT = "blemish-checkpoint"
#: Points of a loss curve; longer runs are averaged over equally many steps per point.
_MAX_POINTS = 400


@dataclass(frozen=True)
class RunPaths:
    """The paths of a run's files, in one folder."""

    weights: Path
    checkpoint: Path
    losses: Path
    """JSON lines, one per step."""
    curves: Path
    """The losses as an SVG chart."""

    @classmethod
    def of(cls, out: str | os.PathLike[str]) -> RunPaths:
        """Return the paths for an output folder or weights file.

        A folder gets `weights.safetensors`, `checkpoint.safetensors`, `losses.jsonl` and `losses.svg`. A file
        `x.safetensors` gets `x.checkpoint.safetensors`, `x.losses.jsonl` and `x.losses.svg` beside it.
        """
        path = Path(out)
        if path.suffix == ".safetensors":
            stem = f"{path.stem}."
            folder, weights = path.parent, path
        else:
            stem, folder, weights = "", path, path / "weights.safetensors"
        others = (folder / f"{stem}{name}" for name in ("checkpoint.safetensors", "losses.jsonl", "losses.svg"))
        return cls(weights, *others)

    @property
    def folder(self) -> Path:
        """Folder of all files."""
        return self.weights.parent

    def require_new(self) -> None:
        """Raise OutputError if another run has written its files here."""
        if self.checkpoint.exists():
            raise OutputError(f"{self.checkpoint} is of another run: resume it or choose another name", self.checkpoint)
        if self.weights.exists():
            raise OutputError(f"{self.weights} is there already: choose another name", self.weights)


def save_checkpoint(
    path: str | os.PathLike[str], method: Method, optimizer: torch.optim.Optimizer, step: int, settings: dict[str, Any]
) -> None:
    """Write the learnt parts, the optimizer's state and the number of finished steps to one safetensors file."""
    tensors: dict[str, Tensor] = {f"method/{name}": value for name, value in method.state_dict().items()}
    numbers: dict[str, dict[str, Any]] = {}
    for parameter, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{parameter}/{key}"] = value
            else:
                numbers.setdefault(str(parameter), {})[key] = value
    header = {"step": step, "settings": settings, "optimizer": numbers}
    checkpoints.write_tensors(path, tensors, {"format": FORMAT, "state": json.dumps(header)})


def load_checkpoint(
    path: str | os.PathLike[str], method: Method, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> int:
    """Restore method and optimizer, and return the number of finished steps.

    Raises:
        WeightsError: The file is damaged or not a checkpoint.
        UsageError: The run had other settings.
    """
    tensors, metadata = checkpoints.read_tensors(path)
    try:
        header = parse_json(metadata["state"]) if metadata.get("format") == FORMAT else {}
        step, before, numbers = header["step"], header["settings"], header["optimizer"]
    except (LookupError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} is not a checkpoint of a training run", path) from error
    for key, value in json.loads(json.dumps(settings)).items():
        if before.get(key) != value:
            raise UsageError(f"the run to resume had {key} {before.get(key)!r}, not {value!r}: give the same settings")
    learnt = {name.removeprefix("method/"): v for name, v in tensors.items() if name.startswith("method/")}
    checkpoints.fit(learnt, {k: tuple(v.shape) for k, v in method.state_dict().items()}, path)
    method.load_state_dict(learnt)
    state = {int(parameter): dict(values) for parameter, values in numbers.items()}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, parameter, key = name.split("/")
            state.setdefault(int(parameter), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(step)


@contextlib.contextmanager
def loss_log(paths: RunPaths | None, finished: int, method: str) -> Iterator[Callable[[Losses], object]]:
    """Yield a function that appends the losses of a step to the file; on exit, also after an error, draw the curves.

    The file is locked meanwhile, so that two runs never write to the same files.

    Args:
        paths: The files of the run; None writes nothing.
        finished: Steps of the checkpoint that is resumed; later lines are dropped.
        method: Name of the method, for the heading of the chart.

    Raises:
        OutputError: The files cannot be written, or another run is writing to them.
    """
    if paths is None:
        yield lambda losses: None
        return
    try:
        paths.folder.mkdir(parents=True, exist_ok=True)
        file = paths.losses.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"the run cannot be written to {paths.folder}: {reason}", paths.folder) from error
    with file:
        if not try_lock(file) or (not finished and paths.checkpoint.exists()):
            raise OutputError(
                f"another run is writing to {paths.folder}: wait for it or choose another name", paths.folder
            )
        _keep_lines(paths.losses, finished)
        try:
            yield lambda losses: file.write(json.dumps(losses) + "\n")
        finally:
            if steps := _read_losses(paths.losses):
                _write(paths.curves, draw_losses(steps, f"{method}: losses of {len(steps):,} steps"))


def _keep_lines(path: Path, count: int) -> None:
    """Cut a file after its first lines, and before one that was cut off by a kill."""
    with path.open("r+b") as file:
        end = 0
        for line in itertools.islice(file, count):
            if line.endswith(b"\n"):
                end += len(line)
        file.truncate(end)


def _read_losses(path: Path) -> list[Losses]:
    steps = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):  # damaged; the curves go without
            steps.append(parse_json(line))
    return steps


def loss_scalars(losses: Mapping[str, Any]) -> dict[str, float]:
    """Return one number for each loss of a step, "total" first; a loss with a value per layer is summed."""
    sums = {
        name: math.fsum(value) if isinstance(value, (list, tuple)) else float(value)
        for name, value in losses.items()
        if name not in ("step", "epoch")
    }
    return {"total": sums.pop("total"), **sums} if "total" in sums else sums


def draw_losses(steps: Sequence[Losses], title: str = "") -> str:
    """Return an SVG file with a curve for each loss; the legend gives the last values."""
    length = max(1, math.ceil(len(steps) / _MAX_POINTS))
    points = [_mean(steps[start : start + length]) for start in range(0, len(steps), length)]
    numbers = [number for number, _ in points]
    values = [value for _, losses in points for value in losses.values()]
    low, high = min([0.0, *values]), max(values, default=1.0)
    lines = []
    for style, name in enumerate(points[0][1] if points else ()):
        curve = [losses[name] for _, losses in points]
        lines.append(svg.Line(f"{name} {curve[-1]:.4g}", numbers, curve, style))
    return svg.standalone(
        svg.line_chart(
            lines,
            title,
            "step",
            x_range=(numbers[0], numbers[-1]) if points else (0, 1),
            y_range=(low, high if high > low else low + 1),
            legend=True,
            size=(506, 332),
        )
    )


def _mean(steps: Sequence[Losses]) -> tuple[float, dict[str, float]]:
    """Return the middle step and the mean of each loss."""
    scalars = [loss_scalars(losses) for losses in steps]
    means = {name: math.fsum(losses[name] for losses in scalars) / len(scalars) for name in scalars[0]}
    return math.fsum(losses["step"] for losses in steps) / len(steps), means


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
