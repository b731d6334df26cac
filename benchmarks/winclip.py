"""WinCLIP's windows, next to how the reproductions run them.

    python benchmarks/winclip.py [--pictures 1] [--rounds 3] [--out FILE]

ViT-B/16+ at 240 pixels with random weights: 196 windows of 2 x 2 patches and 169 of 3 x 3. The contenders, all of them
from pixels to maps, with text features given:

* `windows one by one`: a forward pass in float32 for every window, over the class token and its patches;
* `windows of a scale`: tokens are picked window by window and joined, then one forward pass in float32 over all tokens
  of all windows of a scale; which windows cover a patch is searched patch by patch;
* `float32` and `bfloat16`: blemish.

The first two retell two published reproductions step by step; it is not their code, which is not part of this project.
Differences of maps from the second one are printed: what is compared is the same computation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from interleaved import Contender, middle, ratio, report, turns
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from blemish.clip import Backbone, load_backbone
from blemish.clip.forward import embed_image, window_indices
from blemish.engine import TorchEngine
from blemish.methods import load_class

SIZE, SCALES, TEMPERATURE = 240, (2, 3), 0.07


def random_backbone() -> Backbone:
    """ViT-B/16+ with random weights; its text tower is as small as the built-in model's, and only asked beforehand."""
    like = load_backbone("builtin")
    vision = {
        "hidden_size": 896,
        "num_attention_heads": 14,
        "num_hidden_layers": 12,
        "intermediate_size": 3584,
        "image_size": SIZE,
        "patch_size": 16,
        "hidden_act": "gelu",
    }
    text = like.model.config.text_config.to_dict()
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=640))
    return Backbone(model.eval().requires_grad_(False), like.tokenizer, name="random ViT-B/16+")


class Plain:
    """The vision tower as the reproductions run it: float32, every block over all tokens."""

    def __init__(self, backbone: Backbone) -> None:
        self.vision, self.projection = backbone.towers.vision_model, backbone.towers.visual_projection
        self.blocks = list(self.vision.encoder.layers)
        attentions = [block.self_attn for block in self.blocks]
        joined = [[a.q_proj, a.k_proj, a.v_proj] for a in attentions]
        self.weights = [torch.cat([layer.weight for layer in layers]) for layers in joined]
        self.biases = [torch.cat([layer.bias for layer in layers]) for layers in joined]

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 1 + N, D), before the first layer norm."""
        return embed_image(self.vision, pixels, "bicubic-antialias")[0]

    def embedding(self, tokens: Tensor) -> Tensor:
        """The class token of (B, n, D) tokens after all blocks, in the joint space: (B, E)."""
        x = self.vision.pre_layrnorm(tokens)
        for block, weight, bias in zip(self.blocks, self.weights, self.biases, strict=True):
            x = x + self._attention(block.self_attn, block.layer_norm1(x), weight, bias)
            x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.layer_norm2(x))))
        return self.projection(self.vision.post_layernorm(x[:, 0]))

    def _attention(self, attention: Any, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        heads = (part.unflatten(-1, (attention.num_heads, -1)) for part in F.linear(y, weight, bias).chunk(3, dim=-1))
        query, key, value = (part.transpose(1, 2) for part in heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def kept_tokens(side: int, grid: int) -> Tensor:
    """(windows, 1 + side * side): the class token and the patches of each window, as rows of the tokens."""
    windows = window_indices((grid, grid), side)
    return torch.cat([windows.new_zeros(len(windows), 1), windows + 1], dim=1)


def one_by_one(plain: Plain, tokens: Tensor, kept: Tensor) -> Tensor:
    """A forward pass for each window: (B, windows, E)."""
    return torch.stack([plain.embedding(tokens[:, window]) for window in kept], dim=1)


def scale_at_once(plain: Plain, tokens: Tensor, kept: Tensor) -> Tensor:
    """One forward pass for all windows of a scale: (B, windows, E)."""
    picked = torch.cat([torch.index_select(tokens, 1, window) for window in kept])
    return plain.embedding(picked).unflatten(0, (len(kept), len(tokens))).transpose(0, 1)


def spread(scores: Tensor, kept: Tensor, patches: int) -> Tensor:
    """Each patch gets the harmonic mean of the windows that cover it, which are searched for: (B, patches), float64."""
    scores, merged = scores.double(), torch.zeros(len(scores), patches, dtype=torch.float64)
    for patch in range(patches):
        covering = [bool(torch.isin(patch + 1, window)) for window in kept[:, 1:]]
        merged[:, patch] = sum(covering) / torch.sum(1 / scores[:, covering], dim=-1)
    return merged


Windows = Callable[[Plain, Tensor, Tensor], Tensor]


def retold(plain: Plain, pixels: Tensor, text: Tensor, windows: Windows) -> Tensor:
    """Maps of a batch (B, S, S)."""

    def score(embeddings: Tensor) -> Tensor:
        return ((F.normalize(embeddings, dim=-1) @ text.mT) / TEMPERATURE).softmax(dim=-1)[..., 1]

    tokens, side = plain.tokens(pixels), pixels.shape[-1]
    grid = side // plain.vision.config.patch_size
    total = 1 / score(plain.embedding(tokens)).double()[:, None].expand(-1, grid * grid)
    for scale in SCALES:
        kept = kept_tokens(scale, grid)
        total = total + 1 / spread(score(windows(plain, tokens, kept)), kept, grid * grid)
    mean = ((1 + len(SCALES)) / total).reshape(-1, 1, grid, grid)
    return F.interpolate(mean, size=(side, side), mode="bilinear")[:, 0].float()


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--pictures", type=int, default=1, help="in a batch")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--out", type=Path, help="JSON file")
    o = a.parse_args()
    backbone = random_backbone()
    method = load_class("winclip")(backbone)
    engines = {kind: TorchEngine(method, precision=kind) for kind in ("float32", "bfloat16")}
    plain, pixels = Plain(backbone), torch.randn(o.pictures, 3, SIZE, SIZE)
    text = method.text_features(["object"])[0]
    contenders: dict[str, Contender] = {
        "windows one by one": partial(retold, plain, pixels, text, one_by_one),
        "windows of a scale": partial(retold, plain, pixels, text, scale_at_once),
        **{kind: partial(engine.run, pixels, "object") for kind, engine in engines.items()},
    }
    with torch.inference_mode():
        truth = retold(plain, pixels, text, scale_at_once)
        for kind, engine in engines.items():
            apart = (engine.run(pixels, "object").prediction.map - truth).abs()
            print(f"{kind}: maps differ by at most {apart.max():.1e}, on average {apart.mean():.1e}")
        seconds = turns(contenders, o.rounds)
    for name, value in middle(seconds).items():
        print(f"{name:>20}  {value / o.pictures:7.3f} s a picture")
    ratios = {
        f"{slow} / {fast}": ratio(seconds, slow, fast)
        for slow in ("windows one by one", "windows of a scale")
        for fast in engines
    }
    for name, value in ratios.items():
        print(f"{name:>32}  {value}")
    if o.out:
        o.out.write_text(json.dumps({"pictures": o.pictures, **report(seconds, ratios)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
