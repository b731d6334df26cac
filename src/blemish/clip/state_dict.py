"""Checkpoint files to state dicts. Nothing in a file is executed.

OpenAI publishes CLIP as TorchScript archives: a zip with a pickle of the module tree and one raw record per storage.
Unpickling calls whatever the pickle names, so the reader for them only builds tensors and plain containers; classes of
the archive become inert objects that hold attributes, and any other name is refused.
"""

from __future__ import annotations

import itertools
import math
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blemish.errors import WeightsError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file.

    Args:
        path: `.safetensors`, a TorchScript archive, or a file of `torch.save` that holds tensors only. What training
            scripts put around a state dict is removed: see `unwrap` and `strip_prefixes`.

    Returns:
        Tensors by key, in the file's own types, on the CPU.

    Raises:
        WeightsError: The file is missing, damaged, or holds anything but tensors in plain containers.
    """
    refuse_pointer(path)
    refuse_bomb(path)
    if path.suffix == ".safetensors":
        content: Any = _read_safetensors(path)
    elif is_torchscript(path):
        content = read_torchscript(path)
    else:
        content = _read_torch(path)
    content = unwrap(content)
    if not isinstance(content, dict):
        raise WeightsError(f"{path.name} holds a {type(content).__name__}, not a state dict", path)
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(repr(str(key)) for key in list(content)[:5])
        raise WeightsError(f"{path.name} holds no tensors{f', only {keys}' if keys else ''}", path)
    check_stored(tensors.values(), path)
    return strip_prefixes(tensors)


WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "teacher",
    "net",
    "network",
    "weights",
    "params",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema",
)
"""Keys under which training scripts put a state dict, in order of preference: trained weights before their averages."""

#: Beginnings of names that wrappers of modules add: parallel training, compilation, DeepSpeed, FSDP.
_ADDED = ("module.", "_orig_mod.", "_forward_module.", "_fsdp_wrapped_module.")
#: The same, but they may also be a model's own names: removed only where all names begin so.
_SHARED = ("model.", "net.", "network.", "clip.", "clip_model.", "backbone.")
_MAX_WRAPPERS = 8


def unwrap(content: Any) -> Any:
    """Return the state dict inside the dictionaries that training scripts put around it (`{"model": state}`)."""
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(content, dict) or any(isinstance(value, Tensor) for value in content.values()):
            break
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict) and content[key]), None)
        if inner is None:
            break
        content = inner
    return content


def strip_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under their own names, without what parallel training, compilation and wrapping classes add.

    `module.`, `_orig_mod.` and the like are removed wherever a name's part begins with them; `model.`, `clip.` and the
    like only where all names begin with them.
    """
    names = list(tensors)
    for added in _ADDED:
        names = [name.removeprefix(added).replace(f".{added}", ".") for name in names]
    while shared := next((p for p in _SHARED if names and all(name.startswith(p) for name in names)), ""):
        names = [name.removeprefix(shared) for name in names]
    if len(set(names)) < len(names):  # two would become one: the names are the model's own
        return dict(tensors)
    return dict(zip(names, tensors.values(), strict=True))


def refuse_pointer(path: Path) -> None:
    """Refuse a Git LFS pointer, which a clone without LFS has in place of weights.

    Raises:
        WeightsError: The file is a pointer or cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise WeightsError(f"{path} cannot be opened: {error.strerror}", path) from error
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path.name} is only a Git LFS pointer: fetch the weights with 'git lfs pull'", path)


def refuse_bomb(path: Path) -> None:
    """Refuse a zip archive that unpacks to more than its own size: PyTorch never compresses weights.

    Raises:
        WeightsError: The archive is compressed beyond what may be text in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    except Exception:  # no zip, or a damaged one, which its reader will refuse
        return
    if unpacked > path.stat().st_size + _MAX_UNPACKED:
        raise WeightsError(
            f"{path.name} unpacks to {unpacked:,} bytes, which weights never do: get it again from its authors", path
        )


def check_stored(tensors: Iterable[Tensor], path: Path) -> None:
    """Raise WeightsError unless the numbers of all tensors are in the file: a stride of 0 can make trillions of one."""
    for tensor in tensors:
        stored = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not stored or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise WeightsError(f"{path.name} has a tensor whose numbers are not in the file: get it again", path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path.name} is damaged or not a safetensors file: {error}", path) from error
    return tensors


def _read_torch(path: Path) -> Any:
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


# TorchScript archives


#: In bytes. The module tree of a CLIP takes a few hundred kilobytes.
_MAX_PICKLE = 64 * 2**20

#: Bytes that the text in an archive may grow by when it is unpacked.
_MAX_UNPACKED = 64 * 2**20
#: Nodes of a module tree. Shared parts, which count each time, could make a small file an endless tree.
_MAX_NODES = 1_000_000

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
    """Return whether a file is a zip as `torch.jit.save` writes it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except Exception:  # a damaged zip can raise anything; whoever reads it will say so
        return False
    return {"data.pkl", "constants.pkl"} <= names


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive. Nothing is executed.

    Args:
        path: Archive written by `torch.jit.save`.

    Returns:
        Tensors by dotted attribute name, in the archive's own types, on the CPU.

    Raises:
        WeightsError: The archive is damaged, or asks for anything but tensors and plain containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            order = archive.read(root + "byteorder") if root + "byteorder" in archive.namelist() else b"little"
            info = archive.getinfo(root + "data.pkl")
            if order != b"little" or info.file_size > _MAX_PICKLE:
                raise WeightsError(f"the archive {path.name} is not one of OpenAI's CLIP models", path)
            with archive.open(info) as stream:
                tree = _Reader(stream, archive, root).load()
        out: dict[str, Tensor] = {}
        _collect(tree, "", out, itertools.count())
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
    """Stand-in for every class of the archive: it holds attributes and does nothing."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __new__(cls, *_: Any) -> _Inert:
        inert = super().__new__(cls)
        inert.attributes = {}
        return inert

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = state


@dataclass(frozen=True)
class _Storage:
    """Numbers of one record, flat."""

    values: Tensor


def _rebuild_tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor has no storage")
    if math.prod(size) > storage.values.numel():
        raise _Refused("a tensor is larger than its storage")
    return torch.as_strided(storage.values, tuple(size), tuple(stride), offset)


def _first_argument(value: Any, *_: Any) -> Any:
    return value


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _first_argument,
    ("torch.jit._pickle", "restore_type_tag"): _first_argument,
    ("collections", "OrderedDict"): OrderedDict,
}
_ALLOWED |= {
    ("torch.jit._pickle", f"build_{kind}list"): _first_argument for kind in ("int", "double", "bool", "tensor")
}
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
            # torch.jit.save never compresses records; refusing compression also refuses zip bombs.
            if info.compress_type != zipfile.ZIP_STORED or not 0 <= count * dtype.itemsize <= info.file_size:
                raise _Refused(f"the storage {key} does not hold as many numbers as it should")
            raw = bytearray(self._archive.read(info))
            values = torch.frombuffer(raw, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
            self._storages[key] = _Storage(values)
        return self._storages[key]


def _collect(value: Any, prefix: str, out: dict[str, Tensor], visits: Iterator[int]) -> None:
    """Gather the tensors of a module tree under their dotted names."""
    if next(visits) > _MAX_NODES:
        raise _Refused("its module tree does not end")
    if isinstance(value, Tensor):
        out[prefix] = value
    elif isinstance(value, _Inert):
        for name, child in value.attributes.items():
            _collect(child, f"{prefix}.{name}" if prefix else str(name), out, visits)
