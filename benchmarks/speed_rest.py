"""Preprocessing, outputs, start-up, training, metrics and memory."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import reference
import torch
import torch.nn.functional as F
from interleaved import Contender, middle, ratio, turns
from PIL import Image
from rows import Row
from towers import random_vit_l

import metrics
from blemish import draw
from blemish.clip import CLIP_MEAN, CLIP_STD, Backbone, ImageFeatures, load_backbone
from blemish.methods import create
from blemish.methods.anomalyclip import AnomalyCLIP
from blemish.methods.losses import dice, focal
from blemish.methods.ops import normalise

#: What every start has to wait for.
LIBRARIES = "import torch; from transformers import CLIPModel"


def preprocess(rounds: int) -> Iterator[Row]:
    """One picture to pixels on one thread, next to the usual chain of transforms; and back to files."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 6, (1024, 1024, 3))
    picture = Image.fromarray((128 + grain).clip(0, 255).astype(np.uint8))
    backbone = load_backbone("builtin")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))

    def usual() -> torch.Tensor:
        square = picture.resize((518, 518), Image.Resampling.BICUBIC).convert("RGB")
        tensor = torch.from_numpy(np.array(square, copy=True)).permute(2, 0, 1).contiguous().float().div(255)
        return tensor.sub(mean).div(std)[None]

    assert torch.equal(usual(), backbone.preprocess([picture], 518))
    chain = {"usual": usual, "ours": partial(backbone.preprocess, [picture], 518)}
    seconds = turns(chain, 5 * rounds)
    yield Row(
        "pictures", "1024 x 1024 to pixels of 518 x 518", 1000 * middle(seconds)["ours"], "ms",
        ratio(seconds, "usual", "ours"), "times as fast as the usual transforms, with the same numbers",
    )  # fmt: skip
    heat = rng.random((1024, 1024)).astype(np.float32)
    laid = draw.overlay(picture, heat, (0.0, 1.0))
    packing: dict[str, Contender] = {
        "usual": lambda: laid.save(io.BytesIO(), "PNG", compress_level=1),
        "ours": lambda: draw.save_png(laid, io.BytesIO()),
    }
    seconds = turns(packing, 3 * rounds)
    yield Row(
        "pictures", "overlay of 1024 x 1024 to PNG", 1000 * middle(seconds)["ours"], "ms",
        ratio(seconds, "usual", "ours"), "times as fast as Pillow at its fastest level",
    )  # fmt: skip
    torch.set_num_threads(threads)


def start(rounds: int) -> Iterator[Row]:
    """From the command to the end of the process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.png"
        Image.new("RGB", (300, 300), "grey").save(path)

        def call(*words: str) -> Contender:
            return partial(subprocess.run, [sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

        contenders = {
            "python": call("-c", "pass"),
            "help": call("-m", "blemish", "--help"),
            LIBRARIES: call("-c", LIBRARIES),
            "detect": call("-m", "blemish", "detect", str(path), "--device", "cpu"),
        }
        seconds = turns(contenders, max(3, rounds))
    times = middle(seconds)
    yield Row(
        "start-up", "blemish --help", times["help"], "s", ratio(seconds, "help", "python"),
        f"times as long as Python alone ({times['python']:.3g} s)",
    )  # fmt: skip
    yield Row(
        "start-up", "blemish detect of one picture, built-in", times["detect"], "s",
        ratio(seconds, "detect", LIBRARIES), f"times as long as `{LIBRARIES}` ({times[LIBRARIES]:.3g} s)",
    )  # fmt: skip


def training(rounds: int) -> Iterator[Row]:
    """A step of AnomalyCLIP at ViT-L/14@336, 518 pixels, batch 8, from kept features and as published."""
    batch = 8
    backbone = random_vit_l()
    method = create("anomalyclip", backbone)
    tower = reference.Tower(backbone, method)
    grid = method.computation.size // backbone.patch
    generator = torch.Generator().manual_seed(0)
    (tap,) = method.request.taps
    with tempfile.TemporaryDirectory() as folder:
        kept = np.lib.format.open_memmap(
            Path(folder) / "tap.npy", "w+", np.float32, (batch, 1 + grid * grid, backbone.width)
        )
        kept[:] = torch.randn(kept.shape, generator=generator).numpy()
        token = torch.randn(batch, backbone.width, generator=generator)
        masks = (torch.rand(batch, 518, 518, generator=generator) > 0.97).float()
        labels = torch.tensor([0, 1] * (batch // 2))
        optimizer = method.optimizer()

        def step(loss: torch.Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        def cached() -> None:
            taps = {tap: torch.from_numpy(np.array(kept))}
            step(method.loss(ImageFeatures(taps, token, {}, (grid, grid)), masks, labels)["total"])

        def published() -> None:
            patches = torch.from_numpy(np.array(kept))
            step(_published_loss(method, backbone, patches, token, masks, labels))

        pixels = torch.randn(1, 3, 518, 518, generator=generator)

        @torch.no_grad()
        def forward() -> None:
            reference.anomalyclip(tower, pixels, torch.randn(2, backbone.embed_dim, generator=generator))

        seconds = turns({"cached": cached, "published": published, "forward": forward}, rounds)
    times = middle(seconds)
    yield Row(
        "training", "anomalyclip, ViT-L/14, 518 px: step of 8 from kept features", times["cached"], "s",
        ratio(seconds, "published", "cached"),
        f"times as fast as the published losses and text tower ({times['published']:.3g} s)",
    )  # fmt: skip
    seconds["epoch"] = [batch * a + b for a, b in zip(seconds["forward"], seconds["published"], strict=True)]
    yield Row(
        "training", "the same, per picture of an epoch", times["cached"] / batch, "s",
        ratio(seconds, "epoch", "cached"),
        f"times as fast as published, which runs the image tower in each epoch ({times['forward']:.3g} s a picture; "
        "measured at one picture, times eight)",
        asked=20.0,
    )  # fmt: skip


def _published_loss(
    method: AnomalyCLIP,
    backbone: Backbone,
    patches: torch.Tensor,
    token: torch.Tensor,
    masks: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """The published losses on whole maps: both texts over all 77 tokens, maps of every class at the picture's size."""
    embeddings, end = method.prompts()
    deep, text, x = method.deep_tokens(), backbone.towers.text_model, embeddings
    x = x + text.embeddings.position_embedding.weight[: x.shape[1]]
    causal = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
    for number, block in enumerate(text.encoder.layers):
        if 1 <= number <= len(deep):
            x = torch.cat([x[:, :1], deep[number - 1].to(x.dtype), x[:, 1 + deep[number - 1].shape[1] :]], dim=1)
        a, y = block.self_attn, block.layer_norm1(x)
        query, key, value = (
            layer(y).unflatten(-1, (a.num_heads, -1)).transpose(1, 2) for layer in (a.q_proj, a.k_proj, a.v_proj)
        )
        weights = (query @ key.mT * query.shape[-1] ** -0.5 + causal).softmax(-1)
        x = x + a.out_proj((weights @ value).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.layer_norm2(x))
    texts = normalise(backbone.towers.text_projection(text.final_layer_norm(x)[torch.arange(2), end]))
    temperature = method.config.temperature
    image = F.cross_entropy(normalise(backbone.project(token, norm=False)) @ texts.T / temperature, labels)
    probability = (normalise(backbone.project(patches)) @ texts.T / temperature).softmax(-1)[:, 1:]
    side = int(probability.shape[1] ** 0.5)
    maps = F.interpolate(probability.permute(0, 2, 1).unflatten(-1, (side, side)), masks.shape[-2:], mode="bilinear")
    pixel = focal(maps[:, 1], masks) + dice(maps[:, 1], masks) + dice(maps[:, 0], 1 - masks)
    return method.config.pixel_weight * pixel + image


def pixel_metrics(rounds: int) -> Iterator[Row]:
    """All pixel metrics of four maps, next to the steps of the published evaluation."""
    masks, maps = metrics.make(4, 518)
    contenders = {name: partial(metrics.CONTENDERS[name], masks, maps) for name in ("blemish", "references")}
    seconds = turns(contenders, min(rounds, 2))
    yield Row(
        "metrics", "AUROC, AP, F1-max, IoU and AUPRO of 4 maps of 518 x 518", middle(seconds)["blemish"], "s",
        ratio(seconds, "references", "blemish"),
        f"times as fast as the published evaluation's steps ({middle(seconds)['references']:.3g} s)",
    )  # fmt: skip


_MEMORY = """
import resource, sys
sys.path.insert(0, {folder!r})
import torch, transformers, numpy as np
if {what!r} != "libraries":
    from PIL import Image
    from towers import random_vit_l
    import blemish, reference
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8))
    large, batch = {what!r} == "large", {batch}
    backbone = random_vit_l() if large else "builtin"
    method = "clip" if large else "anomalyclip"
    detector = blemish.load(method, backbone=backbone, precision={precision!r}, device="cpu")
    if {precision!r} == "float32" and {published}:
        engine = detector.torch_engine
        tower = reference.Tower(engine.backbone, engine.method)
        with torch.inference_mode():
            pixels = engine.preprocess(picture)
            reference.run(engine.method, tower, pixels, engine.method.text_features(["object"])[0])
    else:
        for _ in detector.stream((picture for _ in range({count})), batch_size=batch):
            pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def memory(rounds: int) -> Iterator[Row]:
    """Peak resident memory, each in a process of its own."""
    del rounds
    cases: dict[str, dict[str, Any]] = {
        "torch and transformers alone": {"what": "libraries"},
        "built-in, float32, batch 16, 64 pictures": {"what": "builtin", "precision": "float32", "count": 64},
        "built-in, bfloat16, batch 16, 64 pictures": {"what": "builtin", "precision": "bfloat16", "count": 64},
        "built-in, bfloat16, batch 16, 640 pictures": {"what": "builtin", "precision": "bfloat16", "count": 640},
        "ViT-L/14, 518 px, clip, float32": {"what": "large", "precision": "float32", "count": 1},
        "ViT-L/14, 518 px, clip, bfloat16": {"what": "large", "precision": "bfloat16", "count": 1},
        "ViT-L/14, 518 px, clip as published": {"what": "large", "precision": "float32", "published": True},
    }
    usual = {"precision": "float32", "count": 1, "published": False, "batch": 16}
    for name, case in cases.items():
        words = {**usual, **case, "folder": os.fspath(Path(__file__).parent)}
        if words["what"] == "large":
            words["batch"] = 1
        process = subprocess.run(
            [sys.executable, "-c", _MEMORY.format(**words)], check=True, capture_output=True, text=True
        )
        yield Row("memory", name, json.loads(process.stdout.splitlines()[-1]) / 1e6, "MB", None, "peak resident memory")
