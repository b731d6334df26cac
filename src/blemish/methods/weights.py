"""Files of learnt weights: one safetensors file per trained method, with a header that says what it is.

The header's entries (all text): `format` "blemish", `method`, `config` (JSON), `backbone`, `backbone_fingerprint`,
`trained_on`, `source`. Files that the authors published (`.pth`) hold tensors only or are refused.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from blemish.errors import OutputError, WeightsError
from blemish.methods import configs

if TYPE_CHECKING:
    from blemish.methods.base import Method

FORMAT = "blemish"


@dataclass(frozen=True)
class Header:
    """What a weights file says about itself."""

    method: str
    config: dict[str, Any]
    backbone: str
    backbone_fingerprint: str
    trained_on: str
    source: str


def save(method: Method, path: str | os.PathLike[str], *, trained_on: str = "", source: str = "") -> None:
    """Writes the learnt parts of a method, whole or not at all.

    Args:
        trained_on: the data, in words.
        source: where the weights come from, such as the published file.

    Raises:
        OutputError: the file cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "method": method.info.name,
        "config": json.dumps(configs.to_json(method.config)),
        "backbone": method.backbone.name,
        "backbone_fingerprint": method.backbone.fingerprint,
        "trained_on": trained_on,
        "source": source,
    }
    write_tensors(path, method.state_dict(), metadata)


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file beside its place and moves it there, so that no half-written file is ever found."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(_to_bytes(tensors, metadata))
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"weights cannot be written to {path}: {error}", path) from error


def _to_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose bytes depend on its content alone: the library writes header entries in random order."""
    data: bytes = to_safetensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at multiples of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file and its header's entries. Raises WeightsError."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}", path)
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file ({error}): get it again", path) from error


def read_header(path: str | os.PathLike[str], *, method: str | None = None) -> Header:
    """What a weights file says about itself.

    Raises:
        WeightsError: missing, damaged, not blemish's, or of another method than `method`.
    """
    return _header(read_tensors(path)[1], Path(path), method)


def load(method: Method, path: str | os.PathLike[str], *, any_backbone: bool = False) -> Header:
    """Reads learnt parts into a method; nothing is changed unless everything fits.

    Args:
        any_backbone: take weights that were learnt on another backbone of the same sizes.

    Raises:
        WeightsError: missing, damaged, of another method or backbone, or with tensors that do not fit.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    header = _header(metadata, path, method.info.name)
    backbone = method.backbone
    fit(tensors, {k: tuple(v.shape) for k, v in method.state_dict().items()}, path, learnt_on=header.backbone)
    if header.backbone_fingerprint != backbone.fingerprint and not any_backbone:
        raise WeightsError(
            f"{path} was learnt on the backbone {header.backbone} ({header.backbone_fingerprint}), which is not the "
            f"one in use, {backbone.name} ({backbone.fingerprint}): load that backbone or train on this one",
            path,
        )
    method.load_state_dict(tensors)
    return header


def fit(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, Sequence[int]],
    path: str | os.PathLike[str] | None = None,
    *,
    learnt_on: str = "",
) -> None:
    """Raises WeightsError unless the tensors have exactly these names and shapes and are finite."""
    what = "the weights" if path is None else str(path)
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise WeightsError(f"{what} has no tensor {missing[0]!r}: it is incomplete or of another config", path)
    if extra := sorted(tensors.keys() - shapes.keys()):
        raise WeightsError(f"{what} has a tensor {extra[0]!r} that the method does not know", path)
    for name, shape in shapes.items():
        found = tensors[name]
        if tuple(found.shape) != tuple(shape):
            origin = f" (it was learnt on the backbone {learnt_on})" if learnt_on else ""
            raise WeightsError(
                f"{name!r} in {what} has the shape {tuple(found.shape)} where config and backbone ask for "
                f"{tuple(shape)}{origin}: use the backbone and config it was learnt with",
                path,
            )
        if not (found.is_floating_point() and bool(found.isfinite().all())):
            raise WeightsError(f"{name!r} in {what} holds values that are not finite numbers: get it again", path)


def is_official(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one that PyTorch wrote (a zip archive or a pickle), judged by its first bytes."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"the weights file {path} cannot be read: {error.strerror or error}", path) from error
    # a safetensors file has the length of its header in 8 bytes, then a JSON object
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[8:] != b"{")


def read_official(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A file the authors published: tensors and containers, no code (`weights_only=True`). Raises WeightsError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle's protocol, which users can do nothing about
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from UnpicklingError to KeyError on damaged or unsafe files
        raise WeightsError(f"{path} is damaged or holds more than tensors: it is not read", path) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} does not hold a dictionary of weights", path)
    return state


def _header(metadata: Mapping[str, str], path: Path, method: str | None) -> Header:
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path} was not written by blemish: its header has no format {FORMAT!r}", path)
    try:
        config = json.loads(metadata["config"])
        named = {key: metadata[key] for key in ("method", "backbone", "backbone_fingerprint", "trained_on", "source")}
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} has a damaged header ({error}): get it again", path) from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} has a damaged header (the config is no object): get it again", path)
    if method is not None and named["method"] != method:
        raise WeightsError(f"{path} holds weights of {named['method']}, not of {method}", path)
    return Header(config=config, **named)
