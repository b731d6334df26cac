"""Where a training run stands, in one safetensors file: tensors as tensors, the rest as JSON in its header."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from torch import Tensor

from blemish.errors import UsageError, WeightsError
from blemish.methods import checkpoints
from blemish.methods.base import Method

FORMAT = "blemish-checkpoint"


def save(
    path: str | os.PathLike[str], method: Method, optimizer: torch.optim.Optimizer, step: int, settings: dict[str, Any]
) -> None:
    """Writes the learnt parts, the optimizer's state and the number of steps done, whole or not at all."""
    tensors: dict[str, Tensor] = {f"method/{name}": value for name, value in method.state_dict().items()}
    plain: dict[str, dict[str, Any]] = {}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{number}/{key}"] = value
            else:
                plain.setdefault(str(number), {})[key] = value
    header = {"step": step, "settings": settings, "optimizer": plain}
    checkpoints.write_tensors(path, tensors, {"format": FORMAT, "state": json.dumps(header)})


def load(
    path: str | os.PathLike[str], method: Method, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> int:
    """Puts method and optimizer back to where they stood. Returns the number of steps done.

    Raises:
        WeightsError: the file is damaged or no checkpoint.
        UsageError: the run had other settings.
    """
    tensors, metadata = checkpoints.read_tensors(path)
    try:
        header = json.loads(metadata["state"]) if metadata.get("format") == FORMAT else None
        step, before, plain = (header or {})["step"], (header or {})["settings"], (header or {})["optimizer"]
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not a checkpoint of a training run", path) from error
    for key, value in json.loads(json.dumps(settings)).items():
        if before.get(key) != value:
            raise UsageError(f"the run to resume had {key} {before.get(key)!r}, not {value!r}: give the same settings")
    learnt = {name.removeprefix("method/"): v for name, v in tensors.items() if name.startswith("method/")}
    checkpoints.fit(learnt, {k: tuple(v.shape) for k, v in method.state_dict().items()}, path)
    method.load_state_dict(learnt)
    state = {int(number): dict(values) for number, values in plain.items()}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, number, key = name.split("/")
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(step)
