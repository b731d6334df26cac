"""Weights under the key names of OpenAI and open_clip to `Towers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from blemish.clip.model import ClipConfig, TextConfig, Towers, VisionConfig
from blemish.errors import WeightsError

#: Last parts of the keys that are not weights.
_NOT_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size", "attn_mask"})

_BLOCK = {
    "attn.out_proj.": "self_attn.out_proj.",
    "ln_1.": "layer_norm1.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
    "ln_2.": "layer_norm2.",
}

_OUTER = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}

#: `logit_scale` at the start of CLIP's training, ln(1 / 0.07) as transformers rounds it.
_INITIAL_LOGIT_SCALE = 2.6592

_TOWERS = {"visual.transformer.resblocks.": "vision_model", "transformer.resblocks.": "text_model"}


#: Entries that only the state dict of one of OpenAI's archives has.
_OPENAI_ONLY = frozenset({"input_resolution", "context_length", "vocab_size"})


def is_openai(state: Mapping[str, Any]) -> bool:
    """Return whether a state dict was taken from one of OpenAI's archives, whose activation is QuickGELU."""
    return state.keys() >= _OPENAI_ONLY


def default_heads(vision_width: int, text_width: int) -> tuple[int, int]:
    """Return the usual numbers of attention heads of both towers, since no weight's shape depends on them.

    OpenAI's convention is width // 64. open_clip's larger vision towers (ViT-H, g, bigG, e: widths from 1280) have 16
    heads instead; its text towers follow the convention.
    """
    return (vision_width // 64 if vision_width < 1280 else 16, text_width // 64)


def from_openai_state_dict(
    state: Mapping[str, Any],
    *,
    heads: tuple[int, int] | None = None,
    activation: Literal["quick_gelu", "gelu"] | None = None,
) -> Towers:
    """Build frozen float32 towers from weights under OpenAI's key names. The sizes follow from the shapes.

    Args:
        state: Tensors or NumPy arrays of any floating type, by key (`visual.conv1.weight`,
            `transformer.resblocks.0...`). They are copied.
        heads: Attention heads of the vision and the text tower; `default_heads` if not given.
        activation: Activation of the MLPs, which is required because the weights do not show it: `quick_gelu` for
            OpenAI's models and for those of DFN, MetaCLIP and open_clip's `-quickgelu` configurations, `gelu` for other
            open_clip models.

    Raises:
        WeightsError: The activation is missing, or the keys or shapes are not those of a CLIP with a vision
            transformer.
    """
    if activation not in ("quick_gelu", "gelu"):
        raise WeightsError("weights do not show which activation they were trained with: give quick_gelu or gelu")
    tensors = {
        key: (value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))).detach()
        for key, value in state.items()
        if key.rpartition(".")[2] not in _NOT_WEIGHTS
    }
    _refuse_other_models(tensors)
    config = _infer_config(tensors, heads, activation)
    # No method uses the scale of the logits; files without it are accepted.
    return Towers.from_state_dict(config, {"logit_scale": torch.tensor(_INITIAL_LOGIT_SCALE), **_rename(tensors)})


def _refuse_other_models(tensors: Mapping[str, Tensor]) -> None:
    if any(key.startswith("visual.layer1.") for key in tensors):
        raise WeightsError("the checkpoint is a CLIP with a ResNet, but blemish needs one with a vision transformer")
    needed = [*_OUTER, "visual.proj", "text_projection"]
    needed += [f"{tower}0.attn.in_proj_weight" for tower in _TOWERS] + [
        f"{tower}0.mlp.c_fc.weight" for tower in _TOWERS
    ]
    missing = [key for key in needed if key not in tensors and key != "logit_scale"]
    if missing:
        raise WeightsError(
            f"the checkpoint is not a CLIP with a vision transformer: {missing[0]!r} is missing"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )


def _count_blocks(tensors: Mapping[str, Tensor], tower: str) -> int:
    numbers = {key[len(tower) :].split(".")[0] for key in tensors if key.startswith(tower)}
    if numbers != {str(number) for number in range(len(numbers))}:
        raise WeightsError(f"the blocks of the checkpoint's {tower.rstrip('.')!r} are not numbered 0, 1, 2 ...")
    return len(numbers)


def _infer_config(tensors: Mapping[str, Tensor], heads: tuple[int, int] | None, activation: str) -> ClipConfig:
    conv, position = tensors["visual.conv1.weight"], tensors["visual.positional_embedding"]
    words, context = tensors["token_embedding.weight"], tensors["positional_embedding"]
    matrices = [position, words, context, tensors["visual.proj"], tensors["text_projection"]]
    matrices += [tensors[f"{tower}0.mlp.c_fc.weight"] for tower in _TOWERS]
    if conv.ndim != 4 or any(matrix.ndim != 2 for matrix in matrices) or 0 in conv.shape:
        raise WeightsError("the checkpoint's weights do not have the shapes of a CLIP with a vision transformer")
    side = round((position.shape[0] - 1) ** 0.5)
    if side * side != position.shape[0] - 1:
        raise WeightsError(f"the checkpoint's {position.shape[0] - 1} patch positions are not those of a square grid")
    vision_heads, text_heads = heads or default_heads(conv.shape[0], words.shape[1])
    vision_tower, text_tower = _TOWERS
    return ClipConfig(
        projection_dim=tensors["visual.proj"].shape[-1],
        vision_config=VisionConfig(
            hidden_size=conv.shape[0],
            patch_size=conv.shape[-1],
            image_size=side * conv.shape[-1],
            num_hidden_layers=_count_blocks(tensors, vision_tower),
            num_attention_heads=vision_heads,
            intermediate_size=tensors[f"{vision_tower}0.mlp.c_fc.weight"].shape[0],
            hidden_act=activation,
        ),
        text_config=TextConfig(
            hidden_size=words.shape[1],
            vocab_size=words.shape[0],
            max_position_embeddings=context.shape[0],
            num_hidden_layers=_count_blocks(tensors, text_tower),
            num_attention_heads=text_heads,
            intermediate_size=tensors[f"{text_tower}0.mlp.c_fc.weight"].shape[0],
            hidden_act=activation,
            # OpenAI's vocabulary ends with the start and the end token.
            bos_token_id=words.shape[0] - 2,
            eos_token_id=words.shape[0] - 1,
        ),
    )


def _rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if key in _OUTER:
            out[_OUTER[key]] = value
        elif key == "visual.proj":
            out["visual_projection.weight"] = value.T
        elif key == "text_projection":
            out["text_projection.weight"] = value.T
        else:
            out |= _rename_in_block(key, value)
    return out


def _rename_in_block(key: str, value: Tensor) -> dict[str, Tensor]:
    for theirs, ours in _TOWERS.items():
        if not key.startswith(theirs):
            continue
        number, _, rest = key[len(theirs) :].partition(".")
        prefix = f"{ours}.encoder.layers.{number}."
        if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
            kind = rest.rpartition("_")[2]
            thirds = value.tensor_split(3) if value.ndim else (value,) * 3  # a wrong shape is reported later, by name
            return {f"{prefix}self_attn.{part}_proj.{kind}": third for part, third in zip("qkv", thirds, strict=True)}
        for old, new in _BLOCK.items():
            if rest.startswith(old):
                return {prefix + new + rest[len(old) :]: value}
    raise WeightsError(f"the checkpoint has {key!r}, which a CLIP with a vision transformer does not have")
