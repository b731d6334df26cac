"""Backbones with random weights at the papers' sizes, and the bare matrix products that a method asks of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from blemish.clip import Backbone
from blemish.clip.forward import run_image_blocks
from blemish.clip.tokenizer import clip_tokenizer
from blemish.methods.base import Method

#: ViT-L/14@336, as OpenAI's configuration has it.
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
#: Values of one attention matrix that are made at once, so that they stay near the processor.
_AT_ONCE = 2_000_000


def random_vit_l() -> Backbone:
    """ViT-L/14@336 with random weights. They repeat a block of random numbers: drawing 428 million takes longer."""
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**VIT_L))
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    drawn = 0.02 * torch.randn(2**22, generator=torch.Generator().manual_seed(0))
    for name, value in model.named_parameters():
        if "norm" in name:
            value.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            value.copy_(drawn.repeat(-(-value.numel() // len(drawn)))[: value.numel()].view(value.shape))
    for name, value in model.named_buffers():
        if name.endswith("position_ids"):
            value.copy_(torch.arange(value.numel()).view(value.shape))
    return Backbone(model, clip_tokenizer(), "random ViT-L/14@336", "random")


class _Recorder:
    """A block that computes nothing and notes which matrix products it was asked for."""

    def __init__(self, heads: int, wider: int, seen: list[tuple[int, ...]]) -> None:
        self.heads, self.wider, self.seen = heads, wider, seen

    def _product(self, x: Tensor, wide: int) -> None:
        self.seen.append((x.shape[0] * x.shape[1], x.shape[2], wide))

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

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
        count, rows, width = query.shape
        self.seen.append((count * self.heads, rows, key.shape[1], width // self.heads))
        self._product(query, width)
        return query

    def mlp(self, x: Tensor) -> Tensor:
        self._product(x, self.wider)
        self.seen.append((x.shape[0] * x.shape[1], self.wider, x.shape[2]))
        return x


def products(method: Method, batch: int, dtype: torch.dtype) -> tuple[Callable[[], None], float]:
    """The matrix products of the blocks that a method needs, and nothing else: no norm, no softmax, no copies.

    Args:
        method: whose request is computed.
        batch: pictures.
        dtype: of the products.

    Returns:
        A function that computes them on random numbers, and how many billion operations that are.
    """
    backbone, size = method.backbone, method.computation.size
    vision = backbone.model.config.vision_config
    seen: list[tuple[int, ...]] = []
    block = _Recorder(vision.num_attention_heads, vision.intermediate_size, seen)
    tokens = torch.empty(batch, 1 + (size // backbone.patch) ** 2, backbone.width, device="meta")
    request = method.request
    run_image_blocks([block] * backbone.layers, tokens, request.taps, class_token=request.class_token)
    made: dict[tuple[Any, ...], Tensor] = {}

    def of(*shape: int) -> Tensor:
        if shape not in made:
            made[shape] = torch.randn(shape).to(dtype)
        return made[shape]

    def linear(rows: int, deep: int, wide: int) -> None:
        torch.mm(of(rows, deep), of(wide, deep).T, out=of(rows, wide))

    def attention(heads: int, rows: int, length: int, deep: int) -> None:
        group = max(1, _AT_ONCE // (rows * length))
        for first in range(0, heads, group):
            count = min(group, heads - first)
            weights = of(count, rows, length)
            torch.bmm(of(count, rows, deep), of(count, length, deep).mT, out=weights)
            torch.bmm(weights, of(count, length, deep), out=of(count, rows, deep))

    def compute() -> None:
        for shape in seen:
            (linear if len(shape) == 3 else attention)(*shape)

    operations = sum(2 * s[0] * s[1] * s[2] if len(s) == 3 else 4 * s[0] * s[1] * s[2] * s[3] for s in seen)
    return compute, operations / 1e9
