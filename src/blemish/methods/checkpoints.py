"""Files of learnt weights: blemish's own, and those that the authors of the methods published.

blemish's own file is a safetensors file. Its header has these entries, all text: `format` ("blemish"), `method`,
`config` (JSON), `backbone`, `backbone_fingerprint`, `trained_on`, `source`, and `sha256`, the hash of all the rest.

The authors' files are PyTorch's (`.pth`). They are read without running code: a file that holds more than tensors is
refused. `LAYOUTS` says how each of them looks and how it becomes the parameters of a method.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from blemish.clip.state_dict import WRAPPERS, check_stored, refuse_bomb, strip_prefixes
from blemish.errors import OutputError, UsageError, WeightsError
from blemish.files import parse_json, sync_folder
from blemish.methods import configs
from blemish.methods.ops import require_words
from blemish.methods.registry import METHODS, info

if TYPE_CHECKING:
    from blemish.methods.base import Method

FORMAT = "blemish"
#: Entry of the header with the hash of the file, and what it looks like.
_SUM, _IS_SUM = "sha256", re.compile("[0-9a-f]{64}")

#: Safetensors allows no longer header.
_MAX_HEADER_BYTES = 100_000_000
#: Dictionaries around the weights in an authors' file.
_MAX_DEPTH = 4

State: TypeAlias = Mapping[str, Any]
"""The content of an authors' file: tensors, and dictionaries of tensors, by name."""


@dataclass(frozen=True)
class Header:
    """The header of a weights file."""

    method: str
    config: dict[str, Any]
    backbone: str
    backbone_fingerprint: str
    trained_on: str
    """Description of the training data."""
    source: str
    """Where the weights come from."""


# blemish's own files


def save(method: Method, path: str | os.PathLike[str], *, trained_on: str = "", source: str = "") -> None:
    """Write the learnt parts of a method, whole or not at all.

    Args:
        method: The trained method.
        path: The file.
        trained_on: Description of the training data.
        source: Where the weights come from, such as the published file.

    Raises:
        OutputError: The file cannot be written.
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
    """Write a safetensors file under another name and rename it, so that no half-written file is ever left."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            stream.write(to_bytes(tensors, metadata))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"weights cannot be written to {path}: {error}", path) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def to_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Return a safetensors file whose bytes depend on its content alone."""
    # The library writes the entries of the header in random order.
    data: bytes = to_safetensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    header["__metadata__"][_SUM] = _sum(header, data[end:])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at multiples of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def check_sum(data: bytes) -> None:
    """Raise ValueError for a file of `to_bytes` that changed since. Files of earlier versions have no hash."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = parse_json(data[8:end])
    metadata = header.get("__metadata__") or {}
    names = [name for name, value in metadata.items() if name == _SUM or _IS_SUM.fullmatch(value)]
    sums = [metadata.pop(name) for name in names]
    if names and (names != [_SUM] or sums != [_sum(header, data[end:])]):
        raise ValueError("its hash is another one")


def _sum(header: Mapping[str, Any], tensors: bytes) -> str:
    hashed = hashlib.sha256(json.dumps(header, separators=(",", ":")).encode())
    hashed.update(tensors)
    return hashed.hexdigest()


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all tensors of a safetensors file and the entries of its header. Raises WeightsError."""
    path = _existing(path)
    try:
        data = path.read_bytes()
        tensors = from_safetensors(data)
        check_sum(data)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    metadata = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    return tensors, {name: value for name, value in metadata.items() if name != _SUM}


def read_header(path: str | os.PathLike[str], *, method: str | None = None) -> Header:
    """Return the header of a weights file. The tensors are not read.

    Args:
        path: The file.
        method: The method that the file has to belong to; None allows any.

    Raises:
        WeightsError: The file is missing, damaged, not blemish's, or of another method.
    """
    path = _existing(path)
    # Not with `safe_open`, which maps the whole file into memory and checks that all of it is there.
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(_MAX_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError("its header is longer than the file")
            entries = parse_json(file.read(length))
            metadata = dict(entries.get("__metadata__") or {})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    return _header(metadata, path, method)


def load(method: Method, path: str | os.PathLike[str], *, any_backbone: bool = False) -> Header:
    """Read learnt parts into a method; nothing is changed unless everything fits.

    Args:
        method: The method that takes them.
        path: The file.
        any_backbone: Allow weights that were learnt on another backbone of the same sizes.

    Raises:
        WeightsError: The file is missing, damaged, of another method or backbone, or its tensors do not fit.
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
    """Raise a WeightsError unless the tensors have exactly these names and shapes and are finite numbers."""
    what = "the weights" if path is None else str(path)
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise WeightsError(f"{what} has no tensor {missing[0]!r}: it is incomplete or of another config", path)
    if extra := sorted(tensors.keys() - shapes.keys()):
        raise WeightsError(f"{what} has a tensor {extra[0]!r} that the method does not know", path)
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != tuple(shape):
            origin = f" (it was learnt on the backbone {learnt_on})" if learnt_on else ""
            raise WeightsError(
                f"{name!r} in {what} has the shape {tuple(tensor.shape)} where config and backbone ask for "
                f"{tuple(shape)}{origin}: use the backbone and config it was learnt with",
                path,
            )
        if not (tensor.is_floating_point() and bool(tensor.isfinite().all())):
            raise WeightsError(f"{name!r} in {what} holds values that are not finite numbers: get it again", path)


def _header(metadata: Mapping[str, str], path: Path, method: str | None) -> Header:
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path} was not written by blemish: its header has no format {FORMAT!r}", path)
    try:
        # Files that were written while the config was called "recipe" are still in use.
        config = parse_json(metadata["config"] if "config" in metadata else metadata["recipe"])
        named = {key: metadata[key] for key in ("method", "backbone", "backbone_fingerprint", "trained_on", "source")}
        # So are files that were written while the built-in backbone was called "embedded".
        named["backbone"] = "builtin" if named["backbone"] == "embedded" else named["backbone"]
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} has a damaged header ({error}): get it again", path) from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} has a damaged header (the config is no object): get it again", path)
    if method is not None and named["method"] != method:
        raise WeightsError(f"{path} holds weights of {named['method']}, not of {method}", path)
    return Header(config=config, **named)


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}", path)
    return path


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path} is damaged or not a safetensors file ({error}): get it again", path)


def is_official(path: str | os.PathLike[str]) -> bool:
    """Return whether PyTorch wrote the file (a zip archive or a pickle), by its first bytes."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"the weights file {path} cannot be read: {error.strerror or error}", path) from error
    # A safetensors file begins with the length of its header in 8 bytes, followed by a JSON object.
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[8:] != b"{")


def read_official(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read an authors' file without running code. Raises WeightsError if it holds more than tensors."""
    refuse_bomb(Path(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the protocol of the pickle, which users can do nothing about
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises anything from UnpicklingError to KeyError
        raise WeightsError(f"{path} is damaged or holds more than tensors: it is not read", path) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} does not hold a dictionary of weights", path)
    renamed: dict[int, dict[Any, Any]] = {}
    state = _own_names(state, renamed)
    check_stored(
        (value for part in renamed.values() for value in part.values() if isinstance(value, Tensor)), Path(path)
    )
    return _unwrapped(state)


def _unwrapped(state: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """Return an authors' file without the dictionaries that training scripts put around it."""
    if depth > _MAX_DEPTH:
        return state
    if identify(state) is not None or (isinstance(state.get("state_dict"), dict) and "ctx" in state["state_dict"]):
        return state
    for key in WRAPPERS:
        inner = state.get(key)
        content = _unwrapped(inner, depth + 1) if isinstance(inner, dict) else {}
        if identify(content) is not None or "state_dict" in content:
            return content
        if "ctx" in content:  # CoOp's own file has one such dictionary around it
            return {"state_dict": content}
    return state


def _own_names(state: Mapping[Any, Any], renamed: dict[int, dict[Any, Any]]) -> dict[Any, Any]:
    """Return a dictionary, and those in it, with the tensors' own names, without what parallel training adds.

    Args:
        state: The dictionary; parts of a damaged or hostile file may contain each other.
        renamed: What is done already, by the identity of the original.
    """
    if id(state) not in renamed:
        own = renamed[id(state)] = {}
        tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
        for name, value in state.items():
            if not isinstance(value, Tensor):
                own[name] = _own_names(value, renamed) if isinstance(value, dict) else value
        own.update(strip_prefixes(tensors))
    return renamed[id(state)]


# the authors' files


@dataclass(frozen=True)
class Layout:
    """How the authors of a method store what it learns."""

    keys: tuple[str, ...]
    """Names at the top of the file by which it is recognised; empty if they could be anybody's."""
    config: Callable[[State], dict[str, Any]]
    """Returns the fields of the config that the shapes of the tensors decide."""
    read: Callable[[State, Method], dict[str, Tensor]]
    """Returns the parameters of a method; raises WeightsError if they do not fit."""


def identify(state: State) -> str | None:
    """Return the method whose authors publish files like this one; None if there is none."""
    return next((n for n, layout in LAYOUTS.items() if layout.keys and set(layout.keys) <= state.keys()), None)


def official_config(name: str, state: State, config: Any) -> Any:
    """Return the config with the fields that an authors' file decides.

    Raises:
        UsageError: The authors of the method publish no weights.
        WeightsError: The file is not one of theirs.
    """
    return configs.change(config, _layout(name, state).config(state))


def load_official(method: Method, state: State) -> None:
    """Read an authors' file into a method; nothing is changed unless everything fits. Raises as `official_config`."""
    method.load_state_dict(_layout(method.info.name, state).read(state, method))


def _layout(name: str, state: State) -> Layout:
    if name not in LAYOUTS:
        raise UsageError(f"{name} has no published weights to read; give a blemish safetensors file")
    title, owner, layout = info(name).title, identify(state), LAYOUTS[name]
    if owner == name or not layout.keys:
        return layout
    if owner is not None:
        raise WeightsError(f"these are weights of {METHODS[owner].title}, not of {title}: load them into {owner}")
    keys = " and ".join(repr(key) for key in layout.keys)
    raise WeightsError(f"these are no weights of {title}: they have no {keys}")


def _dictionary(state: State, name: str) -> dict[str, Tensor]:
    """Return one of the dictionaries in a file."""
    part = state[name]
    if not isinstance(part, Mapping) or not all(isinstance(value, Tensor) for value in part.values()):
        raise WeightsError(f"{name!r} in the weights is no dictionary of tensors")
    return dict(part)


# AnomalyCLIP: {"prompt_learner": {...}}. Learnt are `ctx_pos` and `ctx_neg` (1, 1, n_ctx, Wt) and
# `compound_prompts_text.0`, `.1`, ... (t_n_ctx, Wt). Frozen are the token embeddings and ids around them, which have
# to be the backbone's own. The authors' code never uses `compound_prompt_projections.*`.

_DEEP = "compound_prompts_text."


def _anomalyclip_config(state: State) -> dict[str, Any]:
    learner = _prompt_learner(state)
    deep = [value for key, value in learner.items() if key.startswith(_DEEP)]
    fields = {"n_ctx": learner["ctx_pos"].shape[-2], "depth": len(deep) + 1}
    return fields | {"t_n_ctx": deep[0].shape[0]} if deep and deep[0].dim() == 2 else fields


def _read_anomalyclip(state: State, method: Method) -> dict[str, Tensor]:
    config, words = method.config, ("object.", "damaged object.")
    backbone = require_words(method.backbone, method.info.name)
    ids = backbone.tokenize(words)
    embedded = backbone.embed(ids.to(method.device)).cpu()
    n_ctx, width, end = config.n_ctx, backbone.text_width, backbone.context - config.n_ctx
    learner = {k: v for k, v in _prompt_learner(state).items() if not k.startswith("compound_prompt_projections.")}
    frozen = {k: learner.pop(k) for k in list(learner) if k.startswith(("token_", "tokenized_prompts_"))}
    deep = [f"{_DEEP}{k}" for k in range(config.depth - 1)]
    contexts = dict.fromkeys(("ctx_pos", "ctx_neg"), (1, 1, n_ctx, width))
    fit(learner, {**contexts, **dict.fromkeys(deep, (config.t_n_ctx, width))})
    for row, name in enumerate(("pos", "neg")):
        _check_same(frozen.pop(f"token_prefix_{name}", None), embedded[row, :1], f"token_prefix_{name}")
        _check_same(frozen.pop(f"token_suffix_{name}", None), embedded[row, 1:end], f"token_suffix_{name}")
        prompt = frozen.pop(f"tokenized_prompts_{name}", None)
        if prompt is not None:  # Only the number of placeholders for learnt tokens matters.
            prompt = torch.cat([prompt.flatten()[:1], prompt.flatten()[n_ctx + 1 :]])
        _check_same(prompt, ids[row, :end], f"tokenized_prompts_{name}")
    fit(frozen, {})
    context = torch.cat([learner["ctx_pos"], learner["ctx_neg"]]).view(2, n_ctx, width).float()
    empty = torch.empty(0, config.t_n_ctx, width)
    return {"context": context, "deep": torch.stack([learner[k] for k in deep]).float() if deep else empty}


def _prompt_learner(state: State) -> dict[str, Tensor]:
    learner = state["prompt_learner"]
    if not isinstance(learner, dict) or not all(isinstance(v, Tensor) for v in learner.values()):
        raise WeightsError("these are no weights of AnomalyCLIP: they have no 'prompt_learner' with tensors")
    if "ctx_pos" not in learner or learner["ctx_pos"].dim() != 4:
        raise WeightsError("the weights' prompt_learner has no 'ctx_pos' of shape (1, 1, n_ctx, width)")
    return learner


def _check_same(stored: Tensor | None, expected: Tensor, name: str) -> None:
    """Compare a frozen tensor in the file with the backbone's; half-precision archives differ by their rounding."""
    if stored is None:
        return
    stored, expected = stored.to(expected.dtype).flatten(), expected.detach().flatten()
    if stored.shape != expected.shape or not stored.allclose(expected, rtol=2e-3, atol=1e-4):
        raise WeightsError(f"{name!r} in the weights is not what this backbone has: they were learnt with another CLIP")


# APRIL-GAN: {"trainable_linearlayer": {...}} and CLIP-AD's SDP+: {"linear_layers": {...}}. Both hold `fc.0.weight` (E,
# D) and `fc.0.bias` (E,) of one linear layer for each tapped layer.


def _linear_layout(key: str) -> Layout:
    def read(state: State, method: Method) -> dict[str, Tensor]:
        tensors = _dictionary(state, key)
        stored, own = sum(name.endswith(".weight") for name in tensors), method.state_dict()
        expected = sum(name.endswith(".weight") for name in own)
        if stored != expected:
            raise WeightsError(f"the weights are for {stored} layers and the config has {expected}: change layers")
        fit(tensors, {name.removeprefix("adapters."): tuple(value.shape) for name, value in own.items()})
        return {f"adapters.{name}": value.float() for name, value in tensors.items()}

    return Layout((key,), lambda _: {}, read)


# CoOp: {"state_dict": {"ctx": ..., "token_prefix": ..., "token_suffix": ...}, ...}. The tokens around `ctx` belong to
# the class names of the training and are left out.


def _coop_config(state: State) -> dict[str, Any]:
    shape = _coop_context(state).shape
    return {"n_ctx": shape[-2], "per_state": len(shape) == 3, "ctx_init": ""}


def _read_coop(state: State, method: Method) -> dict[str, Tensor]:
    stored, own = _coop_context(state), method.get_parameter("context")
    if stored.dim() == own.dim() == 3 and len(stored) != len(own):
        raise WeightsError(
            f"the weights have contexts for {len(stored)} phrases where the config has {len(own)}: name the "
            "objects that they were trained on as classes, in that order"
        )
    fit({"ctx": stored}, {"ctx": tuple(own.shape)})
    return {"context": stored.float()}


def _coop_context(state: State) -> Tensor:
    inner = state.get("state_dict")
    if not isinstance(inner, dict) or not isinstance(inner.get("ctx"), Tensor) or inner["ctx"].dim() not in (2, 3):
        raise WeightsError("these are no weights of CoOp: they have no 'state_dict' with a context 'ctx'")
    if unknown := sorted(set(inner) - {"ctx", "token_prefix", "token_suffix"}):
        raise WeightsError(f"the weights have a tensor {unknown[0]!r} that CoOp does not know")
    context: Tensor = inner["ctx"]
    return context


# VCP-CLIP: three dictionaries, `trainable_linearlayer` (linear adapters), `New_Lan_Embed` (Pre-VCP) and `Zero_try`
# (Post-VCP), and beside them `prompt_*` and `deep_prompt_embeddings` (deep tokens). As in the authors' test script, the
# first and the third may hold more or less than the method has: missing values stay as they are, with a warning. The
# authors never use `prompt_text_projection`, nor the other prompts in files without `deep_prompt_embeddings`.

_LINEAR, _PRE, _POST = "trainable_linearlayer", "New_Lan_Embed", "Zero_try"
_TOKENS, _DEEP_TOKENS = "prompt_embeddings", "deep_prompt_embeddings"
_PRE_NAMES = {
    "prompt_query": "pre.query",
    "prompt_temp": "raw_scale",
    "prompt_linear1.fc.weight": "pre.conv.weight",
    "prompt_linear1.fc.bias": "pre.conv.bias",
}
_POST_LAYERS = {"q_proj_pre": "query", "k_proj_pre_1": "key", "v_proj_pre_1": "value", "proj_post_t": "out"}
_KINDS = ("weight", "bias")
_POST_NAMES = {
    "prompt_temp_l1": "new_scale",
    **{f"{theirs}.{kind}": f"post.{ours}.{kind}" for theirs, ours in _POST_LAYERS.items() for kind in _KINDS},
}
_PROMPT_NAMES = {
    f"prompt_{theirs}.{kind}": f"deep.{ours}.{kind}"
    for theirs, ours in (("proj", "projection"), ("norm", "norm"))
    for kind in _KINDS
}


def _vcp_clip_config(state: State) -> dict[str, Any]:
    deep = _top_tensors(state).get(_DEEP_TOKENS)
    fields = {
        "prompt_len": _length(_dictionary(state, _PRE).get("prompt_query"), f"{_PRE}: prompt_query"),
        "total_d_layer_len": 0 if deep is None else len(deep),
    }
    return fields if deep is None else fields | {"deep_prompt_len": _length(deep, _DEEP_TOKENS)}


def _read_vcp_clip(state: State, method: Method) -> dict[str, Tensor]:
    own = method.state_dict()
    linear = {name.removeprefix("linear."): name for name in own if name.startswith("linear.")}
    return {
        **own,
        **_read_known(_LINEAR, state, linear, own),
        **_read_pre(_dictionary(state, _PRE), own),
        **_read_known(_POST, state, _POST_NAMES, own),
        **_read_deep(_top_tensors(state), own),
    }


def _read_known(part: str, state: State, names: Mapping[str, str], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors of a dictionary that the method knows; `names` maps the file's names to the method's."""
    tensors = _dictionary(state, part)
    missing, extra = sorted(names.keys() - tensors.keys()), sorted(tensors.keys() - names.keys())
    common = names.keys() & tensors.keys()
    if not common:
        raise WeightsError(f"{part!r} in the weights has none of the tensors that the method knows")
    if missing:
        _warn(f"{part!r} in the weights lacks {', '.join(missing)}: untrained values stand in for them")
    if extra:
        _warn(f"{part!r} in the weights holds {', '.join(extra)}, which the method has no place for: left out")
    # The linear layers of Post-VCP are convolutions in the file, with one more axis of length 1.
    shapes = {
        theirs: (*own[ours].shape, 1) if part == _POST and own[ours].dim() == 2 else own[ours].shape
        for theirs, ours in names.items()
    }
    fit({theirs: tensors[theirs] for theirs in common}, {theirs: shapes[theirs] for theirs in common})
    return {names[theirs]: tensors[theirs].detach().float().reshape(own[names[theirs]].shape) for theirs in common}


def _read_pre(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    length = own["pre.query"].shape[0]
    shapes = {
        "prompt_query": (1, *own["pre.query"].shape),
        "prompt_temp": (),
        "prompt_linear1.fc.weight": (length, 1, 3),
        "prompt_linear1.fc.bias": (length,),
    }
    fit(tensors, shapes)
    # The file has the convolution also for a method without it (`use_global=False`).
    names = {theirs: ours for theirs, ours in _PRE_NAMES.items() if ours in own}
    return {ours: tensors[theirs].detach().float().reshape(own[ours].shape) for theirs, ours in names.items()}


def _read_deep(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if (tokens := own.get("deep.tokens")) is None:
        if _DEEP_TOKENS in tensors:
            raise WeightsError("the weights have deep prompts and the config has none: change total_d_layer_len")
        return {}
    blocks, length, width = tokens.shape
    shapes: dict[str, Sequence[int]] = {theirs: own[ours].shape for theirs, ours in _PROMPT_NAMES.items()}
    shapes |= {_TOKENS: (1, length, width), _DEEP_TOKENS: (blocks - 1, length, width)}
    fit({name: value for name, value in tensors.items() if name != "prompt_text_projection"}, shapes)
    prompts = {ours: tensors[theirs].detach().float() for theirs, ours in _PROMPT_NAMES.items()}
    return {**prompts, "deep.tokens": torch.cat([tensors[_TOKENS], tensors[_DEEP_TOKENS]]).detach().float()}


def _top_tensors(state: State) -> dict[str, Tensor]:
    """Return the tensors beside the dictionaries."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _length(tensor: Tensor | None, name: str) -> int:
    """Return n of a tensor (_, n, width)."""
    if tensor is None or tensor.dim() != 3:
        raise WeightsError(f"the weights have no {name!r} of three axes")
    return tensor.shape[1]


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


#: The layouts by method. A method stands before those whose keys its files hold too.
LAYOUTS: dict[str, Layout] = {
    "anomalyclip": Layout(("prompt_learner",), _anomalyclip_config, _read_anomalyclip),
    "vcp-clip": Layout((_LINEAR, _PRE, _POST), _vcp_clip_config, _read_vcp_clip),
    "clip-ad-sdp-plus": _linear_layout("linear_layers"),
    "april-gan": _linear_layout("trainable_linearlayer"),
    "coop": Layout((), _coop_config, _read_coop),
}
