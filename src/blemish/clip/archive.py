"""Tensors out of a TorchScript archive, without running anything that is in it.

OpenAI publishes CLIP as such archives: a zip with a pickle of the module tree, and one raw record for each storage.
Unpickling calls whatever the pickle names, so the reader here only knows how to build tensors and plain containers;
classes of the archive become inert objects that hold attributes, and any other name ends the reading.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blemish.errors import WeightsError

#: A module tree is a few hundred kilobytes; more is not a CLIP.
_LARGEST_PICKLE = 64 * 2**20

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a zip of the kind that `torch.jit.save` writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return {"data.pkl", "constants.pkl"} <= names


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive. Nothing is executed.

    Args:
        path: archive written by `torch.jit.save`.

    Returns:
        dotted attribute name -> tensor, in the archive's own types, on the CPU.

    Raises:
        WeightsError: if the archive is damaged, or asks for anything but tensors and plain containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            order = archive.read(root + "byteorder") if root + "byteorder" in archive.namelist() else b"little"
            info = archive.getinfo(root + "data.pkl")
            if order != b"little" or info.file_size > _LARGEST_PICKLE:
                raise WeightsError(f"the archive {path.name} is not one of OpenAI's CLIP models", path)
            with archive.open(info) as stream:
                tree = _Reader(stream, archive, root).load()
        out: dict[str, Tensor] = {}
        _collect(tree, "", out)
    except WeightsError:
        raise
    except _Refused as error:
        raise WeightsError(f"the archive {path.name} was refused because {error}", path) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(f"the archive {path.name} is damaged: {error or type(error).__name__}", path) from error
    return out


class _Refused(Exception):
    """The archive asks for something that reading tensors does not need."""


class _Inert:
    """Stands in for every class of the archive: holds attributes, does nothing."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __new__(cls, *_: Any) -> _Inert:
        made = super().__new__(cls)
        made.attributes = {}
        return made

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = state


@dataclass(frozen=True)
class _Storage:
    """One record of raw numbers."""

    values: Tensor


def _rebuild_tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor has no storage")
    if math.prod(size) > storage.values.numel():
        raise _Refused("a tensor is larger than its storage")
    return torch.as_strided(storage.values, tuple(size), tuple(stride), offset)


def _same(value: Any, *_: Any) -> Any:
    return value


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _same,
    ("torch.jit._pickle", "restore_type_tag"): _same,
    ("collections", "OrderedDict"): OrderedDict,
}
_ALLOWED |= {("torch.jit._pickle", f"build_{kind}list"): _same for kind in ("int", "double", "bool", "tensor")}
_ALLOWED |= {("torch", name): dtype for name, dtype in _STORAGES.items()}


class _Reader(pickle.Unpickler):
    def __init__(self, stream: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self._archive, self._root = archive, root
        self._storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module.split(".")[0] == "__torch__":
            return _Inert
        raise _Refused(f"it asks for {module}.{name}, which reading weights does not need")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _Refused("a storage is of an unknown kind")
        if key not in self._storages:
            info = self._archive.getinfo(f"{self._root}data/{key}")
            # torch.jit.save never compresses these; refusing it also refuses zip bombs.
            if info.compress_type != zipfile.ZIP_STORED or not 0 <= count * dtype.itemsize <= info.file_size:
                raise _Refused(f"the storage {key} does not hold the numbers that it should")
            raw = bytearray(self._archive.read(info))
            values = torch.frombuffer(raw, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
            self._storages[key] = _Storage(values)
        return self._storages[key]


def _collect(value: Any, prefix: str, out: dict[str, Tensor]) -> None:
    """Gather the tensors of a module tree under their dotted names."""
    if isinstance(value, Tensor):
        out[prefix] = value
    elif isinstance(value, _Inert):
        for name, child in value.attributes.items():
            _collect(child, f"{prefix}.{name}" if prefix else str(name), out)
