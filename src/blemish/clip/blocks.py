"""A transformer block in two forms: the checkpoint's own modules, and weights cast to half precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.clip.model import (
    ACTIVATIONS,
    QUICK_GELU_FACTOR,
    EncoderLayer,
    Nonlinearity,
    TowerConfig,
    quick_gelu,
    swiglu,
)
from blemish.clip.request import Activation
from blemish.errors import UsageError


class Block(Protocol):
    """The parts of a pre-norm transformer block of width D; x is the stream that enters it, (B, n, D)."""

    def inputs(self, x: Tensor, rows: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value after the first layer norm, (B, n, D) each; of the query only `rows` rows."""

    def value(self, x: Tensor) -> Tensor:
        """Return the value only, (B, n, D)."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Return softmax(Q K^T / sqrt(d)) V of each head of width d, merged and projected: (B, rows, D).

        `attn_mask`, bool (B or 1, rows, n), is true where a row may look; the default is everywhere.
        """

    def mlp(self, x: Tensor) -> Tensor:
        """Return what the second layer norm and the MLP add to x, (B, n, D)."""


def run(block: Block, x: Tensor, *, attn_mask: Tensor | None = None, rows: int | None = None) -> Tensor:
    """Run a whole block: (B, n, D) to (B, n, D), or to the first `rows` only, (B, rows, D)."""
    x = x[:, :rows] + block.attend(*block.inputs(x, rows), attn_mask)
    return x + block.mlp(x)


def nonlinearity(name: Activation, config: TowerConfig) -> Nonlinearity:
    """Return the function between the two layers of a tower's MLPs.

    Raises:
        UsageError: The name is unknown, or the tower's MLPs are gated and cannot have another activation.
    """
    if config.gated:
        if name != "checkpoint":
            raise UsageError(f"the MLPs of this backbone are gated, so their activation cannot be replaced by {name}")
        return swiglu
    chosen = config.hidden_act if name == "checkpoint" else name
    if chosen not in ACTIVATIONS:
        raise UsageError(f"there is no activation {name!r}: choose checkpoint, {' or '.join(ACTIVATIONS)}")
    return ACTIVATIONS[chosen]


def _attention(query: Tensor, key: Tensor, value: Tensor, heads: int, attn_mask: Tensor | None) -> Tensor:
    """Split heads, attend and merge them again: (B, rows, D)."""

    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)

    mask = None if attn_mask is None else attn_mask.unsqueeze(1)
    mixed = F.scaled_dot_product_attention(split(query), split(key), split(value), mask)
    return mixed.transpose(1, 2).flatten(2)


@dataclass(frozen=True, eq=False)
class ModuleBlock:
    """A block computed by its modules, in their own precision. Differentiable."""

    module: EncoderLayer
    activation: Nonlinearity

    def inputs(self, x: Tensor, rows: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        attention, y = self.module.self_attn, self.module.layer_norm1(x)
        return attention.q_proj(y[:, :rows]), attention.k_proj(y), attention.v_proj(y)

    def value(self, x: Tensor) -> Tensor:
        out: Tensor = self.module.self_attn.v_proj(self.module.layer_norm1(x))
        return out

    def attend(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        attention = self.module.self_attn
        out: Tensor = attention.out_proj(_attention(query, key, value, attention.num_heads, attn_mask))
        return out

    def mlp(self, x: Tensor) -> Tensor:
        mlp = self.module.mlp
        out: Tensor = mlp.fc2(self.activation(mlp.fc1(self.module.layer_norm2(x))))
        return out


class _Linear(NamedTuple):
    weight: Tensor  # (out, in)
    bias: Tensor  # (out,)


@dataclass(frozen=True, eq=False)
class HalfBlock:
    """A block whose matrix products run in half precision. Its inputs and what it adds to the stream may be half.

    Query, key and value are one product. QuickGELU, x * sigmoid(c x), is silu(c x) / c: the factor c is in the weights
    on both sides, so that the activation is one pass over the memory.
    """

    heads: int
    norm1: Callable[[Tensor], Tensor]
    norm2: Callable[[Tensor], Tensor]
    joint: _Linear
    out: _Linear
    fc1: _Linear
    fc2: _Linear
    activation: Nonlinearity

    def inputs(self, x: Tensor, rows: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        y = self._to_half(self.norm1(x))
        width = y.shape[-1]
        if rows is None:
            query, key, value = F.linear(y, *self.joint).chunk(3, dim=-1)
            return query, key, value
        query = F.linear(y[:, :rows], self.joint.weight[:width], self.joint.bias[:width])
        key, value = F.linear(y, self.joint.weight[width:], self.joint.bias[width:]).chunk(2, dim=-1)
        return query, key, value

    def value(self, x: Tensor) -> Tensor:
        start = 2 * x.shape[-1]
        return F.linear(self._to_half(self.norm1(x)), self.joint.weight[start:], self.joint.bias[start:])

    def attend(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        return F.linear(_attention(query, key, value, self.heads, attn_mask), *self.out)

    def mlp(self, x: Tensor) -> Tensor:
        return F.linear(self.activation(F.linear(self._to_half(self.norm2(x)), *self.fc1)), *self.fc2)

    def _to_half(self, x: Tensor) -> Tensor:
        return x.to(self.joint.weight.dtype)


@torch.inference_mode(False)  # tensors made in inference mode could not be used outside of it
@torch.no_grad()
def halve(module: EncoderLayer, activation: Nonlinearity, dtype: torch.dtype) -> HalfBlock:
    """Cast a block's weights to half precision. The module stays as it is, and its layer norms are shared.

    Args:
        module: A float32 block.
        activation: The MLP's nonlinearity.
        dtype: bfloat16 or float16.
    """
    attention, mlp = module.self_attn, module.mlp
    joint = (attention.q_proj, attention.k_proj, attention.v_proj)
    quick = activation is quick_gelu
    factor = QUICK_GELU_FACTOR if quick else 1.0

    def cast(weight: Tensor, bias: Tensor) -> _Linear:
        return _Linear(weight.to(dtype), bias.to(dtype))

    return HalfBlock(
        heads=attention.num_heads,
        norm1=module.layer_norm1,
        norm2=module.layer_norm2,
        joint=cast(torch.cat([each.weight for each in joint]), torch.cat([each.bias for each in joint])),
        out=cast(attention.out_proj.weight, attention.out_proj.bias),
        fc1=cast(mlp.fc1.weight * factor, mlp.fc1.bias * factor),
        fc2=cast(mlp.fc2.weight / factor, mlp.fc2.bias),
        activation=_silu if quick else activation,
    )


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=True)
