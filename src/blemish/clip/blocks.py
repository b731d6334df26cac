"""One transformer block, in two forms that compute the same: the checkpoint's modules, and half-precision weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.clip.request import Activation
from blemish.errors import UsageError

Nonlinearity = Callable[[Tensor], Tensor]

#: The factor in OpenAI's approximation of GELU.
_QUICK = 1.702
#: A CPU's attention in bfloat16 takes up to a half longer where many keys (the second number or more) are no multiple
#: of the first.
_KEYS, _MANY_KEYS = 16, 128


class Block(Protocol):
    """What a pass asks of a block. D is its width; x is the stream that enters, (B, n, D)."""

    def inputs(self, x: Tensor, rows: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, after the first layer norm: each (B, n, D), of the query only the first `rows`."""

    def value(self, x: Tensor) -> Tensor:
        """The value alone: (B, n, D)."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
        """Softmax attention, head by head, merged and through the output projection: (B, rows, D).

        `seen`, bool (B or 1, rows, n), says which places a row looks at; default: all.
        """

    def mlp(self, x: Tensor) -> Tensor:
        """What the MLP adds to x, its layer norm included: (B, n, D)."""


def run(block: Block, x: Tensor, *, seen: Tensor | None = None, rows: int | None = None) -> Tensor:
    """One plain transformer block. With `rows`, only the first rows of the result are computed."""
    x = x[:, :rows] + block.attend(*block.inputs(x, rows), seen)
    return x + block.mlp(x)


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's approximation of GELU, x * sigmoid(1.702 x)."""
    return x * torch.sigmoid(_QUICK * x)


def nonlinearity(name: Activation, blocks: Sequence[Any]) -> Nonlinearity:
    """The function between the two layers of the MLPs of `blocks`, modules of a `transformers.CLIPModel`.

    Raises:
        UsageError: for an unknown name.
    """
    if name == "checkpoint":
        chosen: Nonlinearity = blocks[0].mlp.activation_fn
        return chosen
    if name == "quick_gelu":
        return quick_gelu
    if name == "gelu":
        return F.gelu
    raise UsageError(f"there is no activation {name!r}: choose checkpoint, quick_gelu or gelu")


def _attention(query: Tensor, key: Tensor, value: Tensor, heads: int, seen: Tensor | None) -> Tensor:
    """Softmax attention, heads split and merged again: (B, rows, D)."""

    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)

    mask = None if seen is None else seen.unsqueeze(1)
    if mask is None and key.device.type == "cpu" and key.dtype == torch.bfloat16:
        count = key.shape[1]
        missing = -count % _KEYS if count >= _MANY_KEYS else 0
        if missing:
            key, value = (F.pad(each, (0, 0, 0, missing)) for each in (key, value))
            mask = F.pad(key.new_zeros(1, 1, 1, count), (0, missing), value=-torch.inf)
    mixed = F.scaled_dot_product_attention(split(query), split(key), split(value), mask)
    return mixed.transpose(1, 2).flatten(2)


@dataclass(frozen=True, eq=False)
class ModuleBlock:
    """A block of a `transformers.CLIPModel`, as it is; differentiable."""

    module: Any
    activation: Nonlinearity

    def inputs(self, x: Tensor, rows: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        attention, y = self.module.self_attn, self.module.layer_norm1(x)
        return attention.q_proj(y[:, :rows]), attention.k_proj(y), attention.v_proj(y)

    def value(self, x: Tensor) -> Tensor:
        out: Tensor = self.module.self_attn.v_proj(self.module.layer_norm1(x))
        return out

    def attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
        attention = self.module.self_attn
        out: Tensor = attention.out_proj(_attention(query, key, value, attention.num_heads, seen))
        return out

    def mlp(self, x: Tensor) -> Tensor:
        mlp = self.module.mlp
        out: Tensor = mlp.fc2(self.activation(mlp.fc1(self.module.layer_norm2(x))))
        return out


class _Linear(NamedTuple):
    weight: Tensor  # (out, in)
    bias: Tensor


def _one_pass() -> Callable[..., Tensor] | None:
    """oneDNN's product in bfloat16, which adds the bias by the way; None where PyTorch or the processor has none."""
    known = torch.ops.mkldnn
    try:
        return known._linear_pointwise if known._is_mkldnn_bf16_supported() else None
    except AttributeError:
        return None


_ONE_PASS = _one_pass()


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(..., in) to (..., out), as `F.linear`, which on a CPU writes the bias first and then reads it again."""
    if _ONE_PASS is None or x.dtype != torch.bfloat16 or x.device.type != "cpu" or x.requires_grad:
        return F.linear(x, weight, bias)
    return _ONE_PASS(x, weight, bias, "none", [], "none")


@dataclass(frozen=True, eq=False)
class HalfBlock:
    """A block whose matrix products run in half precision. Its inputs and what it adds to the stream may be half.

    Query, key and value are one product. QuickGELU is SiLU with its factor in the weights beside it, which so are
    rounded once; that halves what is read and written between the two layers of the MLP.
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
        y = self._rounded(self.norm1(x))
        width = y.shape[-1]
        if rows is None:
            query, key, value = _product(y, *self.joint).chunk(3, dim=-1)
            return query, key, value
        query = _product(y[:, :rows], self.joint.weight[:width], self.joint.bias[:width])
        key, value = _product(y, self.joint.weight[width:], self.joint.bias[width:]).chunk(2, dim=-1)
        return query, key, value

    def value(self, x: Tensor) -> Tensor:
        start = 2 * x.shape[-1]
        return _product(self._rounded(self.norm1(x)), self.joint.weight[start:], self.joint.bias[start:])

    def attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
        return _product(_attention(query, key, value, self.heads, seen), *self.out)

    def mlp(self, x: Tensor) -> Tensor:
        return _product(self.activation(_product(self._rounded(self.norm2(x)), *self.fc1)), *self.fc2)

    def _rounded(self, x: Tensor) -> Tensor:
        return x.to(self.joint.weight.dtype)


@torch.inference_mode(False)  # weights made on the way to a score serve everywhere else, too
@torch.no_grad()
def halve(module: Any, activation: Nonlinearity, dtype: torch.dtype) -> HalfBlock:
    """A block in half precision; the module stays as it is, and shares its layer norms.

    Args:
        module: a block of a `transformers.CLIPModel`, float32.
        activation: the MLP's nonlinearity.
        dtype: bfloat16 or float16.
    """
    attention, mlp = module.self_attn, module.mlp
    # by its name: importing transformers for it would take longer than all else
    quick = activation is quick_gelu or type(activation).__name__ == "QuickGELUActivation"
    joint = (attention.q_proj, attention.k_proj, attention.v_proj)
    factor = _QUICK if quick else 1.0

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
