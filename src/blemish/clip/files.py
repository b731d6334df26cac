"""One checkpoint file to a state dict. Nothing in a file is executed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blemish.clip.archive import is_torchscript, read_torchscript
from blemish.errors import WeightsError


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Read the tensors of a checkpoint file.

    Args:
        path: `.safetensors`, a TorchScript archive, or a file of `torch.save` that holds tensors only. A wrapping
            "state_dict" and a "module." in front of all keys are taken off.

    Returns:
        key -> tensor, and whether the file is a TorchScript archive (as OpenAI's are).

    Raises:
        WeightsError: if the file is missing, damaged, or holds anything but tensors in plain containers.
    """
    refuse_pointer(path)
    if path.suffix == ".safetensors":
        return _unwrap(_read_safetensors(path), path), False
    if is_torchscript(path):
        return _unwrap(read_torchscript(path), path), True
    return _unwrap(_read_torch(path), path), False


def refuse_pointer(path: Path) -> None:
    """Refuse a Git LFS pointer, which is what a clone without LFS leaves in place of weights.

    Raises:
        WeightsError: if the file is one, or cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise WeightsError(f"{path} cannot be opened: {error.strerror}", path) from error
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path.name} is only a Git LFS pointer: fetch the weights with 'git lfs pull'", path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path.name} is damaged or not a safetensors file: {error}", path) from error
    return found


def _read_torch(path: Path) -> Any:
    import pickle

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path.name} is damaged, or holds more than tensors, and blemish runs no code from a file", path
        ) from error
    except Exception as error:  # a damaged file can raise anything
        raise WeightsError(f"{path.name} is damaged or not a checkpoint of PyTorch", path) from error


def _unwrap(found: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise WeightsError(f"{path.name} holds a {type(found).__name__}, not a state dict", path)
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path.name} holds no tensors", path)
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    if any(key.startswith("vision_model.") for key in tensors):
        raise WeightsError(f"{path.name} is part of a folder written by transformers: name the folder instead", path)
    return tensors
