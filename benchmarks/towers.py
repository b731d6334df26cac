"""Backbones with random weights at the papers' sizes, and the bare matrix products that a method asks of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from blemish.clip import Backbone, Towers, clip_tokenizer
from blemish.clip.forward import run_image_blocks
from blemish.clip.model import ClipConfig
from blemish.methods.base import Method

#: OpenAI's configuration of ViT-L/14@336.
VIT_L = {
    "vision_config": {
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "intermediate_size": 4096,
        "image_size": 336,
        "patch_size": 14,
    },
    "text_config": {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
        "vocab_size": 49408,
    },
    "projection_dim": 768,
}
#: Values of attention matrices that are computed together, so that they stay in the cache.
_MAX_VALUES = 2_000_000


def random_vit_l() -> Backbone:
    """Return ViT-L/14@336 with random weights that repeat a block of numbers: drawing 428 million takes longer."""
    towers = Towers(ClipConfig.from_dict(VIT_L)).to_empty(device="cpu").eval().requires_grad_(False)
    numbers = 0.02 * torch.randn(2**22, generator=torch.Generator().manual_seed(0))
    for name, value in towers.named_parameters():
        if "norm" in name:
            value.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            value.copy_(numbers.repeat(-(-value.numel() // len(numbers)))[: value.numel()].view(value.shape))
    return Backbone(towers, clip_tokenizer(), "random ViT-L/14@336", "random")


class _Recorder:
    """A block that computes nothing and records the shapes of the matrix products it is asked for."""

    def __init__(self, heads: int, hidden: int, shapes: list[tuple[int, ...]]) -> None:
        self.heads, self.hidden, self.shapes = heads, hidden, shapes

    def _product(self, x: Tensor, wide: int) -> None:
        self.shapes.append((x.shape[0] * x.shape[1], x.shape[2], wide))

    def inputs(self, x: Tensor, rows: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        width = x.shape[2]
        if rows is None:
            self._product(x, 3 * width)
        else:
            self._product(x[:, :rows], width)
            self._product(x, 2 * width)
        return x[:, :rows], x, x

    def value(self, x: Tensor) -> Tensor:
        self._product(x, x.shape[2])
        return x

    def attend(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        count, rows, width = query.shape
        self.shapes.append((count * self.heads, rows, key.shape[1], width // self.heads))
        self._product(query, width)
        return query

    def mlp(self, x: Tensor) -> Tensor:
        self._product(x, self.hidden)
        self.shapes.append((x.shape[0] * x.shape[1], self.hidden, x.shape[2]))
        return x


def products(method: Method, batch: int, dtype: torch.dtype) -> tuple[Callable[[], None], float]:
    """Return the matrix products that a method needs of the blocks, without norms, softmax and copies.

    Args:
        method: Method whose request is computed.
        batch: Number of images.
        dtype: Type of the products.

    Returns:
        A function that computes them on random numbers, and its operations in billions.
    """
    backbone, size = method.backbone, method.computation.size
    vision = backbone.towers.config.vision_config
    shapes: list[tuple[int, ...]] = []
    block = _Recorder(vision.num_attention_heads, vision.intermediate_size, shapes)
    tokens = torch.empty(batch, 1 + (size // backbone.patch) ** 2, backbone.width, device="meta")
    request = method.request
    run_image_blocks([block] * backbone.layers, tokens, request.taps, class_token=request.class_token)
    operands: dict[tuple[Any, ...], Tensor] = {}

    def of(*shape: int) -> Tensor:
        if shape not in operands:
            operands[shape] = torch.randn(shape).to(dtype)
        return operands[shape]

    def linear(rows: int, deep: int, wide: int) -> None:
        torch.mm(of(rows, deep), of(wide, deep).T, out=of(rows, wide))

    def attention(heads: int, rows: int, length: int, deep: int) -> None:
        group = max(1, _MAX_VALUES // (rows * length))
        for first in range(0, heads, group):
            count = min(group, heads - first)
            weights = of(count, rows, length)
            torch.bmm(of(count, rows, deep), of(count, length, deep).mT, out=weights)
            torch.bmm(weights, of(count, length, deep), out=of(count, rows, deep))

    def compute() -> None:
        for shape in shapes:
            (linear if len(shape) == 3 else attention)(*shape)

    operations = sum(2 * s[0] * s[1] * s[2] if len(s) == 3 else 4 * s[0] * s[1] * s[2] * s[3] for s in shapes)
    return compute, operations / 1e9
