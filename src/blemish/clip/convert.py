"""Weights under OpenAI's key names (also open_clip's) to a `transformers.CLIPModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from blemish.errors import WeightsError

if TYPE_CHECKING:
    from transformers import CLIPModel

#: Entries of OpenAI's and open_clip's files that are no weights.
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

_TOWERS = {"visual.transformer.resblocks.": "vision_model", "transformer.resblocks.": "text_model"}


def default_heads(vision_width: int, text_width: int) -> tuple[int, int]:
    """Attention heads of the two towers, which no weight's shape tells.

    OpenAI's convention is width // 64. open_clip's larger vision towers (ViT-H, g, bigG, e: widths from 1280) have 16
    heads instead; its text towers follow the convention.
    """
    return (vision_width // 64 if vision_width < 1280 else 16, text_width // 64)


def from_openai_state_dict(
    state: Mapping[str, Any],
    *,
    heads: tuple[int, int] | None = None,
    activation: Literal["quick_gelu", "gelu"] | None = None,
) -> CLIPModel:
    """Build a CLIPModel from weights under OpenAI's key names. Sizes follow from the shapes.

    Args:
        state: key -> tensor or NumPy array, of any floating type; `visual.conv1.weight`, `transformer.resblocks.0...`.
        heads: attention heads of the vision and the text tower; `default_heads` if not given.
        activation: of the MLPs. The weights do not tell, so it has to be given: OpenAI's models and those that DFN,
            MetaCLIP and open_clip's `-quickgelu` configurations name use `quick_gelu`, other open_clip models `gelu`.

    Returns:
        a model in float32 and in evaluation mode, frozen.

    Raises:
        WeightsError: if the activation is missing, or the keys or shapes are not those of a CLIP with a vision
            transformer.
    """
    if activation not in ("quick_gelu", "gelu"):
        raise WeightsError("these weights do not say which activation they were trained with: give quick_gelu or gelu")
    tensors = {
        key: (value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))).detach()
        for key, value in state.items()
        if key.rpartition(".")[2] not in _NOT_WEIGHTS
    }
    _refuse_other_models(tensors)
    config = _infer_config(tensors, heads, activation)
    renamed = _rename(tensors)
    return _fill(config, renamed)


def _refuse_other_models(tensors: Mapping[str, Tensor]) -> None:
    if any(key.startswith("visual.layer1.") for key in tensors):
        raise WeightsError("the checkpoint is a CLIP with a ResNet, but blemish needs one with a vision transformer")
    needed = [*_OUTER, "visual.proj", "text_projection"]
    needed += [f"{tower}0.attn.in_proj_weight" for tower in _TOWERS] + [
        f"{tower}0.mlp.c_fc.weight" for tower in _TOWERS
    ]
    # The scale of the logits is not used by any method; files without it are welcome.
    missing = [key for key in needed if key not in tensors and key != "logit_scale"]
    if missing:
        raise WeightsError(
            f"the checkpoint is not a CLIP with a vision transformer: {missing[0]!r} is missing"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )


def _blocks(tensors: Mapping[str, Tensor], tower: str) -> int:
    numbers = {key[len(tower) :].split(".")[0] for key in tensors if key.startswith(tower)}
    if numbers != {str(number) for number in range(len(numbers))}:
        raise WeightsError(f"the blocks of the checkpoint's {tower.rstrip('.')!r} are not numbered 0, 1, 2 ...")
    return len(numbers)


def _infer_config(tensors: Mapping[str, Tensor], heads: tuple[int, int] | None, activation: str) -> dict[str, Any]:
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
    for tower, width, count in (("vision", conv.shape[0], vision_heads), ("text", words.shape[1], text_heads)):
        if count < 1 or width % count:
            raise WeightsError(f"a {tower} tower of width {width} cannot have {count} attention heads: give heads")
    vision_tower, text_tower = _TOWERS
    embed_dim = tensors["visual.proj"].shape[-1]
    shared = {"hidden_act": activation, "layer_norm_eps": 1e-5, "projection_dim": embed_dim}
    return {
        "projection_dim": embed_dim,
        "vision_config": shared
        | {
            "hidden_size": conv.shape[0],
            "patch_size": conv.shape[-1],
            "image_size": side * conv.shape[-1],
            "num_hidden_layers": _blocks(tensors, vision_tower),
            "num_attention_heads": vision_heads,
            "intermediate_size": tensors[f"{vision_tower}0.mlp.c_fc.weight"].shape[0],
        },
        "text_config": shared
        | {
            "hidden_size": words.shape[1],
            "vocab_size": words.shape[0],
            "max_position_embeddings": context.shape[0],
            "num_hidden_layers": _blocks(tensors, text_tower),
            "num_attention_heads": text_heads,
            "intermediate_size": tensors[f"{text_tower}0.mlp.c_fc.weight"].shape[0],
            # OpenAI's vocabulary ends with the start and the end token.
            "bos_token_id": words.shape[0] - 2,
            "eos_token_id": words.shape[0] - 1,
        },
    }


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
            thirds = value.tensor_split(3) if value.ndim else (value,) * 3  # a wrong shape is found later, by name
            return {f"{prefix}self_attn.{part}_proj.{kind}": third for part, third in zip("qkv", thirds, strict=True)}
        for old, new in _BLOCK.items():
            if rest.startswith(old):
                return {prefix + new + rest[len(old) :]: value}
    raise WeightsError(f"the checkpoint has {key!r}, which a CLIP with a vision transformer does not have")


def _fill(config: dict[str, Any], tensors: Mapping[str, Tensor]) -> CLIPModel:
    from transformers import CLIPConfig, CLIPModel

    # On the meta device nothing is allocated or drawn at random, and the caller's random state is not touched.
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**config))
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = dict(tensors)
    given.setdefault("logit_scale", torch.tensor(model.config.logit_scale_init_value))
    for name in sorted(set(wanted) | set(given)):
        if name not in given:
            raise WeightsError(f"the checkpoint lacks the weights of {name!r}")
        if name not in wanted:
            raise WeightsError(f"the checkpoint has {name!r}, which a CLIP with a vision transformer does not have")
        if tuple(given[name].shape) != wanted[name]:
            raise WeightsError(
                f"the checkpoint's {name!r} has shape {tuple(given[name].shape)}, but the other weights ask for "
                f"{wanted[name]}"
            )
    # Copies: the model neither shares memory with the caller's weights nor its q, k and v with each other.
    values = {name: torch.empty(value.shape).copy_(value) for name, value in given.items()}
    model.load_state_dict(values, strict=True, assign=True)
    restore_buffers(model)
    return model.eval().requires_grad_(False)


def restore_buffers(model: CLIPModel) -> None:
    """Position numbers are no weights and are still on the meta device: transformers' own forward needs them."""
    for tower in (model.vision_model, model.text_model):
        count = tower.embeddings.position_embedding.weight.shape[0]
        tower.embeddings.position_ids = torch.arange(count).expand(1, -1)
