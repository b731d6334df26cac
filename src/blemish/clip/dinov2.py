"""DINOv2's vision transformer (Oquab et al., TMLR 2024, https://arxiv.org/abs/2304.07193), with and without registers.

Its blocks are those of CLIP with a scale for each channel of what attention and MLP add (LayerScale). The scales are
multiplied into the last layer of both, which gives the same sums; so everything that reads CLIP's blocks reads these.
Larger models have gated MLPs (SwiGLU).

Weights come under three sets of names: those of transformers 5, those of transformers 4, and those of Meta's own
checkpoints, where query, key and value are one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blemish.clip.model import Encoder, TowerConfig, embedding, layer_norm, require_same_shapes
from blemish.errors import WeightsError

#: `model_type` in the config.json of transformers.
MODEL_TYPES = ("dinov2", "dinov2_with_registers")
#: Mean and standard deviation of ImageNet, which DINOv2 was trained with, per channel of [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Dinov2Config(TowerConfig):
    """Sizes of a DINOv2; `hidden_act` is "swiglu" where the MLPs are gated."""

    layer_norm_eps: float = 1e-6
    hidden_act: str = "gelu"
    image_size: int = 518
    patch_size: int = 14
    num_register_tokens: int = 0

    @property
    def gated(self) -> bool:
        """Whether the MLPs have `swiglu` in place of an activation."""
        return self.hidden_act == "swiglu"


class Dinov2Embeddings(nn.Module):
    """Class token, register tokens, patch embedding and positions."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        width, side = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.register_tokens = nn.Parameter(torch.empty(config.num_register_tokens, width))
        self.patch_embedding = nn.Conv2d(3, width, side, side)
        self.position_embedding = embedding(1 + (config.image_size // side) ** 2, width)


class Dinov2Tower(nn.Module):
    """The whole model. The weights are on the meta device until they are set.

    Args:
        config: Sizes of the model.
    """

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.config = config
        # On the meta device nothing is allocated, and the caller's random state is not touched.
        with torch.device("meta"):
            self.embeddings = Dinov2Embeddings(config)
            self.encoder = Encoder(config)
            self.post_layernorm = layer_norm(config)

    @property
    def registers(self) -> int:
        """Number of register tokens."""
        return self.config.num_register_tokens

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> Dinov2Tower:
        """Build a frozen float32 tower in evaluation mode.

        Args:
            state: Weights of any floating type under the names of transformers or Meta. They are copied.
            settings: What the weights do not show, by transformers' names: `num_attention_heads` (the default is
                `default_heads`), `layer_norm_eps`, `hidden_act`. All other sizes follow from the shapes.

        Raises:
            WeightsError: The names or shapes are not those of a DINOv2.
        """
        weights = _rename(state)
        config = _infer_config(weights, settings or {})
        tower = cls(config).eval().requires_grad_(False)
        expected = {name: tuple(value.shape) for name, value in tower.state_dict().items()}
        require_same_shapes(expected, {name: tuple(value.shape) for name, value in weights.items()})
        # Memory of their own: views and memory-mapped files may be aligned so that products are summed differently.
        copies = {name: torch.empty(value.shape).copy_(value) for name, value in weights.items()}
        tower.load_state_dict(copies, assign=True)
        return tower


def is_dinov2(state: Mapping[str, Tensor]) -> bool:
    """Return whether weights have the names of Meta's DINOv2 checkpoints."""
    return "patch_embed.proj.weight" in state and any(key.startswith("blocks.") for key in state)


def default_heads(width: int) -> int:
    """Return the usual number of attention heads, since no weight's shape depends on it.

    All published models have heads of 64, from a width of 384 on; smaller ones are taken to have heads of 32.
    """
    return max(1, width // (64 if width >= 384 else 32))


_TRANSFORMERS = (
    ("embeddings.cls_token", "embeddings.class_embedding"),
    ("embeddings.patch_embeddings.projection.", "embeddings.patch_embedding."),
    ("embeddings.position_embeddings", "embeddings.position_embedding.weight"),
    ("layernorm.", "post_layernorm."),
)
_HUB = (
    ("cls_token", "embeddings.class_embedding"),
    ("register_tokens", "embeddings.register_tokens"),
    ("patch_embed.proj.", "embeddings.patch_embedding."),
    ("pos_embed", "embeddings.position_embedding.weight"),
    ("norm.", "post_layernorm."),
)
_BLOCK = (
    (r"attention\.attention\.(query|key|value)\.", lambda m: f"self_attn.{m[1][0]}_proj."),
    (r"attention\.([qkv])_proj\.", r"self_attn.\1_proj."),
    (r"(attention\.output\.dense|attention\.o_proj|attn\.proj)\.", "self_attn.out_proj."),
    (r"norm([12])\.", r"layer_norm\1."),
    (r"mlp\.(weights_in|w12)\.", "mlp.fc1."),
    (r"mlp\.(weights_out|w3|down_proj)\.", "mlp.fc2."),
    (r"(layer_scale|ls)([12])\.(lambda1|gamma)", r"scale\2"),
)
#: The layers that the scales of a block are multiplied into.
_SCALED = {"scale1": "self_attn.out_proj", "scale2": "mlp.fc2"}


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under the tower's names, with the scales multiplied in.

    Raises:
        WeightsError: There are names that a DINOv2 does not have.
    """
    prefixes = {key.partition(".")[0] for key in state}
    # A model with a head for some task holds the DINOv2 under its name.
    if prefix := next((name for name in MODEL_TYPES if name in prefixes), None):
        state = {key.removeprefix(prefix + "."): v for key, v in state.items() if key.startswith(prefix + ".")}
    hub = is_dinov2(state)
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith("mask_token"):  # of the training only
            continue
        block = re.fullmatch(r"(?:encoder\.layers?|blocks)\.(\d+)\.(.+)", key)
        if block is None:
            names = _HUB if hub else _TRANSFORMERS
            old, new = next((pair for pair in names if key.startswith(pair[0])), (key, key))
            out[new + key.removeprefix(old)] = value
            continue
        start, rest = f"encoder.layers.{int(block[1])}.", block[2]
        if rest.startswith("attn.qkv."):
            thirds = value.tensor_split(3) if value.ndim else (value,) * 3  # a wrong shape is reported later, by name
            out |= {f"{start}self_attn.{n}_proj.{rest[9:]}": third for n, third in zip("qkv", thirds, strict=True)}
            continue
        for pattern, replacement in _BLOCK:
            rest, changed = re.subn("^" + pattern, replacement, rest)
            if changed:
                break
        out[start + rest] = value
    for name in ("embeddings.class_embedding", "embeddings.register_tokens", "embeddings.position_embedding.weight"):
        if name in out:  # stored with a batch axis
            out[name] = out[name].reshape(-1, out[name].shape[-1])
    if (token := out.get("embeddings.class_embedding")) is not None:
        out["embeddings.class_embedding"] = token.flatten()
        out.setdefault("embeddings.register_tokens", token.new_empty(0, token.shape[-1]))
    return _multiply_scales(_join_parts(out))


def _join_parts(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the two halves of gated MLPs that are stored apart, and give models without them biases of 0."""
    out = dict(weights)
    for key in weights:
        start, _, name = key.rpartition(".gate_proj.")
        if start.endswith(".mlp") and (up := out.pop(f"{start}.up_proj.{name}", None)) is not None:
            out[f"{start}.fc1.{name}"] = torch.cat([out.pop(key), up])
        if key.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            value = weights[key]
            out.setdefault(key.removesuffix("weight") + "bias", value.new_zeros(value.shape[:1]))
    return out


def _multiply_scales(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = {key: value.float() for key, value in weights.items() if not key.endswith(tuple(_SCALED))}
    for key, scale in weights.items():
        start, _, name = key.rpartition(".")
        if name not in _SCALED:
            continue
        layer = f"{start}.{_SCALED[name]}"
        if f"{layer}.weight" not in out or out[f"{layer}.weight"].shape[:1] != scale.shape:
            raise WeightsError(f"the scales {key!r} have no layer of their size, as those of a DINOv2 have")
        out[f"{layer}.weight"] = out[f"{layer}.weight"] * scale.float()[:, None]
        if f"{layer}.bias" in out:
            out[f"{layer}.bias"] = out[f"{layer}.bias"] * scale.float()
    return out


def _infer_config(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Dinov2Config:
    """Return the sizes that the weights have. Raises WeightsError if they are not those of a DINOv2."""
    conv, positions = (
        weights.get(f"embeddings.{name}.weight", torch.empty(0)) for name in ("patch_embedding", "position_embedding")
    )
    numbers = {int(m[1]) for key in weights if (m := re.match(r"encoder\.layers\.(\d+)\.", key))}
    first, last = (weights.get(f"encoder.layers.0.mlp.{name}.weight", torch.empty(0)) for name in ("fc1", "fc2"))
    registers = weights.get("embeddings.register_tokens", torch.empty(0, 0))
    if conv.ndim != 4 or 0 in conv.shape or positions.ndim != 2 or first.ndim != 2 or last.ndim != 2:
        raise WeightsError("the weights do not have the names and shapes of a DINOv2")
    if numbers != set(range(len(numbers))):
        raise WeightsError("the blocks of the DINOv2 are not numbered 0, 1, 2 ...")
    side = round((positions.shape[0] - 1) ** 0.5)
    if side * side != positions.shape[0] - 1:
        raise WeightsError(f"the {positions.shape[0] - 1} patch positions of the DINOv2 are not those of a square grid")
    width, hidden = conv.shape[0], last.shape[1]
    gated = first.shape[0] == 2 * hidden
    return Dinov2Config(
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=len(numbers),
        num_attention_heads=settings.get("num_attention_heads") or default_heads(width),
        hidden_act="swiglu" if gated else settings.get("hidden_act", "gelu"),
        layer_norm_eps=settings.get("layer_norm_eps", 1e-6),
        patch_size=conv.shape[-1],
        image_size=side * conv.shape[-1],
        num_register_tokens=registers.shape[0],
    )
