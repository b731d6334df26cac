"""VCP-CLIP's published files: three dictionaries, and the prompts beside them.

`trainable_linearlayer` (linear adapters), `New_Lan_Embed` (Pre-VCP), `Zero_try` (Post-VCP); `prompt_*` and
`deep_prompt_embeddings` (deep tokens). As in the authors' test script, the first and the third may hold more or less
than the method has: what is missing keeps the values that the method starts from, and a warning says so.
`prompt_text_projection` is never used, nor are the other prompts in files without `deep_prompt_embeddings`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from blemish.errors import WeightsError
from blemish.methods import published, weights

_LINEAR, _PRE, _POST = "trainable_linearlayer", "New_Lan_Embed", "Zero_try"
_TOKENS, _DEEP = "prompt_embeddings", "deep_prompt_embeddings"

#: The file's names -> the method's. Post-VCP's linear layers are convolutions there, with an axis of length 1 more.
_NAMES: dict[str, dict[str, str]] = {
    _PRE: {
        "prompt_query": "pre.query",
        "prompt_temp": "raw_scale",
        "prompt_linear1.fc.weight": "pre.conv.weight",
        "prompt_linear1.fc.bias": "pre.conv.bias",
    },
    _POST: {
        "prompt_temp_l1": "new_scale",
        **{
            f"{theirs}.{kind}": f"post.{ours}.{kind}"
            for theirs, ours in (
                ("q_proj_pre", "query"),
                ("k_proj_pre_1", "key"),
                ("v_proj_pre_1", "value"),
                ("proj_post_t", "out"),
            )
            for kind in ("weight", "bias")
        },
    },
}
_PROMPTS = {
    f"prompt_{theirs}.{kind}": f"deep.{ours}.{kind}"
    for theirs, ours in (("proj", "projection"), ("norm", "norm"))
    for kind in ("weight", "bias")
}


def sizes(state: Mapping[str, Any]) -> dict[str, Any]:
    """prompt_len, deep_prompt_len and total_d_layer_len, read off the shapes. Raises WeightsError."""
    published.require_method(state, "vcp-clip")
    deep = _top(state).get(_DEEP)
    found = {
        "prompt_len": _length(_part(state, _PRE).get("prompt_query"), f"{_PRE}: prompt_query"),
        "total_d_layer_len": 0 if deep is None else len(deep),
    }
    return found if deep is None else found | {"deep_prompt_len": _length(deep, _DEEP)}


def read(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The learnt parts in a published file.

    Args:
        state: the file's content.
        own: the method's learnt parts, for names, shapes and what the file lacks.

    Returns:
        all of the method's learnt parts, float32.

    Raises:
        WeightsError: a tensor of Pre-VCP or of the prompts is missing or unknown, or any is of another shape.
    """
    published.require_method(state, "vcp-clip")
    return {
        **own,
        **_read_linear(_part(state, _LINEAR), own),
        **_read_pre(_part(state, _PRE), own),
        **_read_post(_part(state, _POST), own),
        **_read_prompts(_top(state), own),
    }


def _read_linear(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    wanted = {name.removeprefix("linear."): name for name in own if name.startswith("linear.")}
    return _known(_LINEAR, found, {theirs: (ours, own[ours].shape) for theirs, ours in wanted.items()})


def _read_post(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    shapes = {name: (*own[name].shape, 1) if own[name].dim() == 2 else own[name].shape for name in own}
    taken = _known(_POST, found, {theirs: (ours, shapes[ours]) for theirs, ours in _NAMES[_POST].items()})
    return {name: value.reshape(own[name].shape) for name, value in taken.items()}


def _known(part: str, found: Mapping[str, Tensor], wanted: Mapping[str, tuple[str, Any]]) -> dict[str, Tensor]:
    """Those of the wanted tensors that are there: their name -> (ours, their shape) to ours -> tensor."""
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if not wanted.keys() & found.keys():
        raise WeightsError(f"{part!r} in the weights has none of the tensors that the method knows")
    if missing:
        _warn(f"{part!r} in the weights lacks {', '.join(missing)}: untrained values stand in for them")
    if extra:
        _warn(f"{part!r} in the weights holds {', '.join(extra)}, which the method has no place for: left out")
    there = {theirs: wanted[theirs] for theirs in wanted.keys() & found.keys()}
    weights.fit({theirs: found[theirs] for theirs in there}, {theirs: shape for theirs, (_, shape) in there.items()})
    return {ours: found[theirs].detach().float() for theirs, (ours, _) in there.items()}


def _read_pre(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All of Pre-VCP; a method that leaves the picture out of the prompts has no convolution, but the file does."""
    length = own["pre.query"].shape[0]
    shapes = {
        "prompt_query": (1, *own["pre.query"].shape),
        "prompt_temp": (),
        "prompt_linear1.fc.weight": (length, 1, 3),
        "prompt_linear1.fc.bias": (length,),
    }
    weights.fit(found, shapes)
    names = {theirs: ours for theirs, ours in _NAMES[_PRE].items() if ours in own}
    return {ours: found[theirs].detach().float().reshape(own[ours].shape) for theirs, ours in names.items()}


def _read_prompts(found: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if (tokens := own.get("deep.tokens")) is None:
        if _DEEP in found:
            raise WeightsError("the weights have deep prompts and the config has none: change total_d_layer_len")
        return {}
    blocks, length, width = tokens.shape
    shapes: dict[str, Any] = {theirs: own[ours].shape for theirs, ours in _PROMPTS.items()}
    shapes |= {_TOKENS: (1, length, width), _DEEP: (blocks - 1, length, width)}
    weights.fit({name: value for name, value in found.items() if name != "prompt_text_projection"}, shapes)
    taken = {ours: found[theirs].detach().float() for theirs, ours in _PROMPTS.items()}
    return {**taken, "deep.tokens": torch.cat([found[_TOKENS], found[_DEEP]]).detach().float()}


def _top(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors beside the dictionaries."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _part(state: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    part = state[name]
    if not isinstance(part, Mapping) or not all(isinstance(value, Tensor) for value in part.values()):
        raise WeightsError(f"{name!r} in the weights is no dictionary of tensors")
    return dict(part)


def _length(tensor: Tensor | None, name: str) -> int:
    """n of (_, n, width)."""
    if tensor is None or tensor.dim() != 3:
        raise WeightsError(f"the weights have no {name!r} of three axes")
    return tensor.shape[1]


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)
