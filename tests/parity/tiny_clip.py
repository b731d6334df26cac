"""Deterministic tiny CLIP weights, so that two implementations can be compared number for number.

`state_dict(config, seed)` returns the weights of a CLIP ViT under OpenAI's checkpoint key names
(the names that OpenAI's archives and open_clip's checkpoints use) as float32 NumPy arrays.
They are drawn from PCG64 in the order of the sorted key names, so every machine gets the same bits.
The weights are random: they detect nothing. They are scaled so that activations stay well spread
through all layers, which makes a wrong formula show up as a large difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of a tiny CLIP ViT. Heads are width // 64, as in OpenAI's models."""

    embed_dim: int = 64
    image_size: int = 70
    patch_size: int = 14
    vision_width: int = 128
    vision_layers: int = 24
    text_width: int = 64
    text_layers: int = 12
    context_length: int = 77
    vocab_size: int = 49408
    quick_gelu: bool = True


#: Stands in for OpenAI ViT-L/14@336px: 24 vision layers, patch 14, QuickGELU.
TINY_L14 = TinyConfig()
#: Stands in for OpenAI ViT-B/16: 12 vision layers, patch 16, QuickGELU.
TINY_B16 = TinyConfig(image_size=80, patch_size=16, vision_layers=12)
#: Stands in for LAION ViT-B-16-plus-240: 12 vision layers, patch 16, GELU.
TINY_B16_PLUS = TinyConfig(image_size=80, patch_size=16, vision_layers=12, quick_gelu=False)

CONFIGS = {"tiny-l14": TINY_L14, "tiny-b16": TINY_B16, "tiny-b16-plus": TINY_B16_PLUS}


def _shapes(c: TinyConfig) -> dict[str, tuple[tuple[int, ...], float, float]]:
    """Key -> (shape, mean, standard deviation)."""
    out: dict[str, tuple[tuple[int, ...], float, float]] = {}

    def blocks(prefix: str, width: int, layers: int) -> None:
        for i in range(layers):
            p = f"{prefix}.resblocks.{i}."
            out[p + "attn.in_proj_weight"] = ((3 * width, width), 0.0, 1.2 * width**-0.5)
            out[p + "attn.in_proj_bias"] = ((3 * width,), 0.0, 0.05)
            out[p + "attn.out_proj.weight"] = ((width, width), 0.0, 0.6 * width**-0.5)
            out[p + "attn.out_proj.bias"] = ((width,), 0.0, 0.02)
            out[p + "ln_1.weight"] = ((width,), 1.0, 0.1)
            out[p + "ln_1.bias"] = ((width,), 0.0, 0.05)
            out[p + "mlp.c_fc.weight"] = ((4 * width, width), 0.0, width**-0.5)
            out[p + "mlp.c_fc.bias"] = ((4 * width,), 0.0, 0.05)
            out[p + "mlp.c_proj.weight"] = ((width, 4 * width), 0.0, 0.6 * (4 * width) ** -0.5)
            out[p + "mlp.c_proj.bias"] = ((width,), 0.0, 0.02)
            out[p + "ln_2.weight"] = ((width,), 1.0, 0.1)
            out[p + "ln_2.bias"] = ((width,), 0.0, 0.05)

    grid = c.image_size // c.patch_size
    out["visual.conv1.weight"] = ((c.vision_width, 3, c.patch_size, c.patch_size), 0.0, (3 * c.patch_size**2) ** -0.5)
    out["visual.class_embedding"] = ((c.vision_width,), 0.0, 0.5)
    out["visual.positional_embedding"] = ((grid * grid + 1, c.vision_width), 0.0, 0.3)
    out["visual.ln_pre.weight"] = ((c.vision_width,), 1.0, 0.1)
    out["visual.ln_pre.bias"] = ((c.vision_width,), 0.0, 0.05)
    blocks("visual.transformer", c.vision_width, c.vision_layers)
    out["visual.ln_post.weight"] = ((c.vision_width,), 1.0, 0.1)
    out["visual.ln_post.bias"] = ((c.vision_width,), 0.0, 0.05)
    out["visual.proj"] = ((c.vision_width, c.embed_dim), 0.0, c.vision_width**-0.5)
    out["token_embedding.weight"] = ((c.vocab_size, c.text_width), 0.0, 0.3)
    out["positional_embedding"] = ((c.context_length, c.text_width), 0.0, 0.1)
    blocks("transformer", c.text_width, c.text_layers)
    out["ln_final.weight"] = ((c.text_width,), 1.0, 0.1)
    out["ln_final.bias"] = ((c.text_width,), 0.0, 0.05)
    out["text_projection"] = ((c.text_width, c.embed_dim), 0.0, c.text_width**-0.5)
    return out


def state_dict(config: TinyConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights under OpenAI's key names, float32; `logit_scale` is ln 100."""
    rng = np.random.Generator(np.random.PCG64(seed))
    out = {}
    shapes = _shapes(config)
    for key in sorted(shapes):
        shape, mean, std = shapes[key]
        out[key] = (mean + std * rng.standard_normal(shape, dtype=np.float32)).astype(np.float32)
    out["logit_scale"] = np.float32(np.log(100.0)).reshape(())
    return out


def array(name: str, shape: tuple[int, ...], std: float = 1.0) -> np.ndarray:
    """A float32 array drawn from a stream named by `name`: extra weights, learnt prompts, adapters."""
    seed = np.frombuffer(name.encode(), dtype=np.uint8).astype(np.uint32)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed.tolist())))
    return (std * rng.standard_normal(shape, dtype=np.float32)).astype(np.float32)


def photo(name: str, height: int, width: int) -> np.ndarray:
    """An RGB photo-like uint8 array (height, width, 3): smooth colour fields, grain, and one blotch."""
    seed = np.frombuffer(name.encode(), dtype=np.uint8).astype(np.uint32)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed.tolist())))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    out = np.empty((height, width, 3), dtype=np.float64)
    for ch in range(3):
        fx, fy, phase = rng.uniform(0.5, 6.0), rng.uniform(0.5, 6.0), rng.uniform(0, 6.28)
        out[..., ch] = 128 + 60 * np.sin(6.28 * (fx * x / width + fy * y / height) + phase)
    out += rng.normal(0, 12, size=(height, width, 1))
    cy, cx = rng.uniform(0.2, 0.8) * height, rng.uniform(0.2, 0.8) * width
    r = rng.uniform(0.08, 0.2) * min(height, width)
    blotch = np.exp(-(((y - cy) ** 2 + (x - cx) ** 2) / (2 * r * r)))
    out -= 90 * blotch[..., None]
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)
