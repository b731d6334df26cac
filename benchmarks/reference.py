"""The published computation of three methods, step by step in plain float32 PyTorch: what speed is compared with.

Written from what the authors' code computes and in its order, not from blemish's: sequence-first layout, `nn.Module`
calls, both attention paths written out over every block from the surgery on, all tokens of all blocks, maps brought to
the picture's size before they are summed and smoothed picture by picture with SciPy. It is not their code, which is not
part of this project; that the numbers are the same is tested.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from blemish.clip import Backbone
from blemish.clip.blocks import nonlinearity
from blemish.clip.forward import embed_image
from blemish.methods.base import Method


class Output(NamedTuple):
    """Of a batch of B pictures."""

    score: Tensor  # (B,)
    map: Tensor  # (B, S, S)


class _Block(NamedTuple):
    """A block with query, key and value joined, as the authors' modules hold them."""

    module: Any
    weight: Tensor
    bias: Tensor


class Tower:
    """The vision tower of a backbone, run as the published code runs it.

    Args:
        backbone: whose weights are used.
        method: whose config says what is computed.
    """

    def __init__(self, backbone: Backbone, method: Method) -> None:
        self.vision = backbone.towers.vision_model
        self.projection = backbone.towers.visual_projection
        self.config: Any = method.config
        self.blocks = []
        for module in self.vision.encoder.layers:
            a = module.self_attn
            joined = (a.q_proj, a.k_proj, a.v_proj)
            weight, bias = torch.cat([j.weight for j in joined]), torch.cat([j.bias for j in joined])
            self.blocks.append(_Block(module, weight, bias))

    def tokens(self, pixels: Tensor) -> tuple[Tensor, int]:
        """(1 + N, B, D), sequence first, after the first layer norm; and the side of the patch grid."""
        tokens, (side, _) = embed_image(self.vision, pixels, self.config.position)
        return self.vision.pre_layrnorm(tokens).permute(1, 0, 2), side

    def attention(self, block: _Block, y: Tensor, *, need_weights: bool) -> Tensor:
        """`nn.MultiheadAttention` over a sequence-first y."""
        out = block.module.self_attn.out_proj
        attended, _ = F.multi_head_attention_forward(
            y, y, y, y.shape[-1], block.module.self_attn.num_heads, block.weight, block.bias, None, None, False, 0.0,
            out.weight, out.bias, training=False, need_weights=need_weights,
        )  # fmt: skip
        return attended

    def both_paths(self, block: _Block, y: Tensor) -> tuple[Tensor, Tensor]:
        """The query-key path and the value-value path of the surgery, both written out: (1 + N, B, D) each."""
        module = block.module.self_attn
        x = y.permute(1, 0, 2)
        count, length, width = x.shape
        joint = F.linear(x, block.weight, block.bias).reshape(count, length, 3, module.num_heads, -1)
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        scale = query.shape[-1] ** -0.5
        plain = ((query @ key.transpose(-2, -1)) * scale).softmax(dim=-1)
        surgery = ((value @ value.transpose(-2, -1)) * scale).softmax(dim=-1)
        merged = [(weights @ value).transpose(1, 2).reshape(count, length, width) for weights in (plain, surgery)]
        first, second = (module.out_proj(each).permute(1, 0, 2) for each in merged)
        return first, second

    def mlp(self, block: _Block, x: Tensor) -> Tensor:
        """What the MLP adds to the stream."""
        mlp = block.module.mlp
        activation = nonlinearity(self.config.activation, self.vision.config)
        return mlp.fc2(activation(mlp.fc1(block.module.layer_norm2(x))))


def _probability(tokens: Tensor, text: Tensor, temperature: float) -> Tensor:
    """(B, n, E) and (2, E) to probabilities (B, n, 2)."""
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    return ((unit @ text.T) / temperature).softmax(dim=-1)


def _picture_maps(probability: Tensor, side: int, size: int) -> Tensor:
    """Patch probabilities (B, N, 2) at the picture's size, (B, 2, S, S)."""
    grid = probability.reshape(-1, side, side, 2).permute(0, 3, 1, 2)
    return F.interpolate(grid, (size, size), mode="bilinear", align_corners=False)


def _smoothed(maps: Tensor, sigma: float) -> Tensor:
    """SciPy, one picture after the other."""
    if sigma == 0:
        return maps
    return torch.stack([torch.from_numpy(np.asarray(gaussian_filter(m.numpy(), sigma=sigma))) for m in maps])


def _anomaly_map(tower: Tower, taps: list[Tensor], text: Tensor, side: int) -> Tensor:
    """The sum over layers of how much more anomalous than normal a patch is, as AnomalyCLIP draws it: (B, S, S)."""
    r, maps = tower.config, []
    for tap in taps:
        tokens = tower.projection(tower.vision.post_layernorm(tap))
        normal, anomalous = _picture_maps(_probability(tokens, text, r.temperature)[:, 1:], side, r.size).unbind(1)
        maps.append((anomalous + 1 - normal) / 2)
    return _smoothed(torch.stack(maps).sum(dim=0), r.sigma)


def anomalyclip(tower: Tower, pixels: Tensor, text: Tensor) -> Output:
    """AnomalyCLIP's test: value-value attention beside the plain path in the last blocks."""
    r, last = tower.config, len(tower.blocks)
    layers = {last if layer == -1 else layer for layer in r.layers}
    x, side = tower.tokens(pixels)
    second, taps = x, []
    for number, block in enumerate(tower.blocks, start=1):
        y = block.module.layer_norm1(x)
        if number <= last - r.dpam_blocks:
            x = x + tower.attention(block, y, need_weights=False)
            x = x + tower.mlp(block, x)
            second = x
        else:
            added, value_added = tower.both_paths(block, y)
            x = x + added
            x = x + tower.mlp(block, x)
            second = second + value_added
        if number in layers:
            taps.append(second.permute(1, 0, 2).clone())
    picture = tower.projection(x.permute(1, 0, 2)[:, 0])
    score = _probability(picture[:, None], text, r.temperature)[:, 0, 1]
    return Output(score, _anomaly_map(tower, taps[r.feature_map_layer :], text, side))


def clip(tower: Tower, pixels: Tensor, text: Tensor) -> Output:
    """CLIP asked directly, with AnomalyCLIP's formulas around plain blocks."""
    r, last = tower.config, len(tower.blocks)
    x, side = tower.tokens(pixels)
    taps = []
    for number, block in enumerate(tower.blocks, start=1):
        x = x + tower.attention(block, block.module.layer_norm1(x), need_weights=False)
        x = x + tower.mlp(block, x)
        if number in {last if layer == -1 else layer for layer in r.layers}:
            taps.append(x.permute(1, 0, 2).clone())
    tokens = tower.projection(tower.vision.post_layernorm(x.permute(1, 0, 2)))
    score = _probability(tokens[:, :1], text, r.temperature)[:, 0, 1]
    return Output(score, _anomaly_map(tower, taps, text, side))


def april_gan(tower: Tower, pixels: Tensor, text: Tensor, adapters: list[torch.nn.Linear]) -> Output:
    """APRIL-GAN's test: attention weights are asked for in every block, though nobody looks at them."""
    r, last = tower.config, len(tower.blocks)
    x, side = tower.tokens(pixels)
    taps = []
    for number, block in enumerate(tower.blocks, start=1):
        x = x + tower.attention(block, block.module.layer_norm1(x), need_weights=True)
        x = x + tower.mlp(block, x)
        if number in {last if layer == -1 else layer for layer in r.layers}:
            taps.append(x.permute(1, 0, 2))
    tokens = tower.projection(tower.vision.post_layernorm(x.permute(1, 0, 2)))
    score = _probability(tokens[:, :1], text, r.temperature)[:, 0, 1]
    total = torch.zeros(len(pixels), r.size, r.size)
    for tap, adapter in zip(taps, adapters, strict=True):
        patches = adapter(tap[:, 1:])
        logits = (patches / patches.norm(dim=-1, keepdim=True)) @ text.T / r.temperature
        grid = logits.permute(0, 2, 1).reshape(-1, 2, side, side)
        total += F.interpolate(grid, (r.size, r.size), mode="bilinear", align_corners=True).softmax(dim=1)[:, 1]
    return Output(score, _smoothed(total, r.sigma))


def run(method: Method, tower: Tower, pixels: Tensor, text: Tensor) -> Output:
    """The reference of a method, by its name: `anomalyclip`, `clip` or `april-gan`."""
    if method.info.name == "april-gan":
        adapters: Any = method.adapters
        return april_gan(tower, pixels, text, adapters.fc)
    return {"anomalyclip": anomalyclip, "clip": clip}[method.info.name](tower, pixels, text)
