"""A CLIPModel to be trained from nothing, and the forward that training uses.

The forward is the same computation as `blemish.clip` (tested), written for speed in training: explicit products
instead of the fused attention kernel (whose backward is slow on CPUs), a random subset of patch tokens, several
read-outs at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel


@dataclass(frozen=True)
class Shape:
    """Of the image tower: blocks, their width (heads are 64 wide), pixels of a patch's side and of a picture's.

    `epsilon` is that of the layer norms.
    """

    depth: int = 8
    width: int = 256
    patch: int = 16
    size: int = 384
    epsilon: float = 1e-5

    @property
    def grid(self) -> int:
        return self.size // self.patch


#: Of the first eight runs, which began with nothing; and what begins as DINOv2 (`eyes.py`). Grids of 24 patches.
SHAPES = {"ours": Shape(), "dinov2": Shape(8, 384, 14, 336, 1e-6)}
VOCABULARY, START, END = 4096, 4094, 4095


def make_model(shape: Shape = SHAPES["ours"]) -> CLIPModel:
    """An image tower of this shape, text tower 4 x 256, joint width 256."""
    shared = {"hidden_act": "gelu", "projection_dim": 256}
    text = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_hidden_layers": 4}
    text |= {"vocab_size": VOCABULARY, "max_position_embeddings": 77}
    text |= {"bos_token_id": START, "eos_token_id": END, "pad_token_id": END}
    vision = {"hidden_size": shape.width, "intermediate_size": 4 * shape.width}
    vision |= {"num_attention_heads": shape.width // 64, "num_hidden_layers": shape.depth}
    vision |= {"image_size": shape.size, "patch_size": shape.patch, "layer_norm_eps": shape.epsilon}
    config = CLIPConfig(text_config={**shared, **text}, vision_config={**shared, **vision}, projection_dim=256)
    model = CLIPModel(config)
    torch.nn.init.normal_(model.text_model.embeddings.position_embedding.weight, std=0.02)
    with torch.no_grad():
        image = model.vision_model.embeddings
        image.patch_embedding.weight.copy_(cosine_patches(shape.width, shape.patch))
        image.position_embedding.weight.zero_()
        image.class_embedding.zero_()  # it looks at all patches alike at first; else it would see only itself
        image.position_embedding.weight[1:] = 0.3 * grid_positions(shape.width, shape.grid)
        for block in model.vision_model.encoder.layers:
            mimetic(block.self_attn)
    return model


def mimetic(attention: nn.Module) -> None:
    """Start attention as trained ones look (Trockman and Kolter, 2023): tokens take away the mean of their likes.

    Per head W_q W_k^T is near 0.35 (I + noise), and W_v W_out near 0.4 (noise - I): what is left of a token is what its
    likes do not have, which is what an anomaly is.
    """
    width, heads = attention.q_proj.weight.shape[0], attention.num_heads
    rank, eye = width // heads, torch.eye(width)
    for h in range(heads):
        u, s, vt = torch.linalg.svd(0.35 * (torch.randn(width, width) / width**0.5 + eye))
        rows = slice(h * rank, (h + 1) * rank)
        attention.q_proj.weight[rows] = (u[:, :rank] * s[:rank] ** 0.5).T
        attention.k_proj.weight[rows] = vt[:rank] * s[:rank, None] ** 0.5
    u, s, vt = torch.linalg.svd(0.4 * (torch.randn(width, width) / width**0.5 - eye))
    attention.v_proj.weight.copy_(vt * s[:, None] ** 0.5)
    attention.out_proj.weight.copy_(u * s**0.5)


def cosine_patches(width: int, patch: int) -> Tensor:
    """(width, 3, patch, patch): a patch's lowest cosine frequencies, whitened, so that training starts well.

    Two thirds of the rows read brightness, a fifth read two colour differences; the rest are left random.
    """
    n = torch.arange(patch, dtype=torch.float32)
    basis = torch.cos(torch.pi * (n + 0.5)[None] * n[:, None] / patch) * (2 / patch) ** 0.5
    basis[0] /= 2**0.5
    order = sorted(((u, v) for u in range(patch) for v in range(patch)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
    colours = torch.tensor([[1.0, 1, 1], [1, -1, 0], [0.5, 0.5, -1]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    weight = 0.05 * torch.randn(width, 3, patch, patch)
    rows = [(colours[0], f) for f in order[: 2 * width // 3]]
    rows += [(c, f) for c in colours[1:] for f in order[: width // 10]]
    for i, (colour, (u, v)) in enumerate(rows):
        whiten = (1 + (u * u + v * v) ** 0.5) / 12  # the amplitudes of pictures fall with frequency
        weight[i] = whiten * colour[:, None, None] * basis[u][:, None] * basis[v][None]
    return weight


def grid_positions(width: int, grid: int) -> Tensor:
    """(grid*grid, width) sines and cosines of row and column."""
    omega = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    angle = torch.arange(grid)[:, None] * omega
    wave = torch.cat([angle.sin(), angle.cos()], 1)  # (grid, width / 2)
    return torch.cat([wave[:, None].expand(-1, grid, -1), wave[None].expand(grid, -1, -1)], 2).flatten(0, 1)


@dataclass
class Views:
    """Read-outs of the image tower, each in the joint space, not normalised. P = kept patches."""

    cls: Tensor  # (B, E) class token, after the final layer norm
    cls_raw: Tensor  # (B, E) the same without it, as AnomalyCLIP reads it
    patches: dict[str, Tensor]  # name -> (B, P, E)
    middle: Tensor  # (B, P, D) patch tokens where the V-V path begins, not projected


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, H, N, d) -> (B, N, H*d)."""
    if q.is_cuda or not q.requires_grad:  # the fused kernel is the fast one; on CPUs only forwards
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    a = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), -1, dtype=v.dtype)
    return (a @ v).transpose(1, 2).flatten(2)


def image_views(model: CLIPModel, pixels: Tensor, keep: Tensor | None = None) -> Views:
    """Run the image tower on (B, 3, S, S) float pixels; `keep` (B, P) are the patch indices that are shown to it.

    The V-V path begins after half of the blocks; after half and three quarters of them patches are read as well.
    """
    v = model.vision_model
    e, p = v.embeddings, model.config.vision_config.patch_size
    b, _, s, _ = pixels.shape
    g = s // p
    x = pixels.view(b, 3, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(b, g * g, 3 * p * p)
    pos = e.position_embedding.weight
    if keep is not None:
        x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))
        pos_patch = pos[1:][keep]
    else:
        pos_patch = pos[1:].expand(b, -1, -1)
    x = F.linear(x, e.patch_embedding.weight.flatten(1)).float() + pos_patch
    x = torch.cat([(e.class_embedding + pos[0]).expand(b, 1, -1), x], 1)
    x = v.pre_layrnorm(x)
    heads = model.config.vision_config.num_attention_heads
    taps: dict[str, Tensor] = {}
    seeded = group = None
    middle = x
    last = len(v.encoder.layers)
    early, start = (last // 2, 3 * last // 4), last // 2 + 1
    for i, block in enumerate(v.encoder.layers, 1):
        a = block.self_attn
        w = torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight])
        bias = torch.cat([a.q_proj.bias, a.k_proj.bias, a.v_proj.bias])
        q, k, val = F.linear(block.layer_norm1(x), w, bias).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if i == start:
            seeded, middle = x, x
        if seeded is not None:
            vv = a.out_proj(_attend(val, val, val))
            seeded = seeded + vv
            if i > last - last // 4:
                group = vv if group is None else group + vv
        x = x + a.out_proj(_attend(q, k, val))
        x = x + block.mlp(block.layer_norm2(x))
        if i in early:
            taps[f"layer{i}"] = x[:, 1:]
    assert seeded is not None
    assert group is not None
    taps |= {"last": x[:, 1:], "value": seeded[:, 1:], "surgery": group[:, 1:]}
    project = model.visual_projection
    patches = {k: project(v.post_layernorm(t)) for k, t in taps.items()}
    with torch.autocast(x.device.type, enabled=False):  # at first pictures differ by less than bfloat16 can tell
        cls, cls_raw = project(v.post_layernorm(x[:, 0].float())), project(x[:, 0].float())
    return Views(cls, cls_raw, patches, middle[:, 1:])


@functools.cache
def compiled_views() -> Callable[..., Views]:
    """`image_views` for whole pictures of one size, compiled; on a GPU a quarter faster."""
    return torch.compile(image_views, dynamic=False)


def text_features(model: CLIPModel, ids: Tensor, end: Tensor) -> Tensor:
    """(T, n) token ids -> (T, E), L2-normalised; `end` is the position of the end token."""
    t = model.text_model
    heads = model.config.text_config.num_attention_heads
    n = ids.shape[1]
    x = t.embeddings.token_embedding(ids) + t.embeddings.position_embedding.weight[:n]
    causal = torch.full((n, n), float("-inf"), device=ids.device).triu(1)
    for block in t.encoder.layers:
        a, y = block.self_attn, block.layer_norm1(x)
        q, k, v = (m(y).unflatten(-1, (heads, -1)).transpose(1, 2) for m in (a.q_proj, a.k_proj, a.v_proj))
        w = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + causal.to(q.dtype), -1, dtype=v.dtype)
        x = x + a.out_proj((w @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.layer_norm2(x))
    with torch.autocast(x.device.type, enabled=False):
        x = t.final_layer_norm(x[torch.arange(len(ids), device=ids.device), end].float())
        return F.normalize(model.text_projection(x), dim=-1)
