"""The CLIPModel that is trained, and the forward pass of its training.

The forward pass is the same computation as in `blemish.clip` (tested), written for training: explicit products in place
of the fused attention kernel, whose backward is slow on CPUs; crops of patch tokens; several outputs in one pass.
"""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VOCABULARY, START, END = 4096, 4094, 4095
#: Dimension of the joint space.
JOINT_WIDTH = 256
#: Files of an exported model that belong to its tokenizer.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Shape:
    """Shape of the image tower: depth in blocks, width (in heads of 64), side of a patch and of the input in pixels."""

    depth: int = 8
    width: int = 384
    patch: int = 14
    size: int = 336
    epsilon: float = 1e-6
    """Epsilon of the layer norms."""

    @property
    def grid(self) -> int:
        """Number of patches along a side."""
        return self.size // self.patch


def make_model(shape: Shape) -> CLIPModel:
    """Return a CLIPModel with random weights: this image tower and the built-in text tower of 4 blocks of width 256."""
    shared = {"hidden_act": "gelu", "projection_dim": JOINT_WIDTH}
    text = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_hidden_layers": 4}
    text |= {"vocab_size": VOCABULARY, "max_position_embeddings": 77}
    text |= {"bos_token_id": START, "eos_token_id": END, "pad_token_id": END}
    vision = {"hidden_size": shape.width, "intermediate_size": 4 * shape.width}
    vision |= {"num_attention_heads": shape.width // 64, "num_hidden_layers": shape.depth}
    vision |= {"image_size": shape.size, "patch_size": shape.patch, "layer_norm_eps": shape.epsilon}
    return CLIPModel(CLIPConfig(text_config=shared | text, vision_config=shared | vision, projection_dim=JOINT_WIDTH))


def load_model(folder: Path) -> CLIPModel:
    """Read an exported model as float32."""
    return CLIPModel.from_pretrained(folder).float()


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of an exported model."""
    return Tokenizer.from_file(str(folder / TOKENIZER_FILES[0]))


def export(model: CLIPModel, folder: Path, tokenizer: Path) -> None:
    """Write a CLIPModel folder in half precision.

    Args:
        model: What is written; it is left as it is.
        folder: Where it is written.
        tokenizer: Folder of an exported model whose tokenizer is copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deepcopy(model).half().save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)
    size = model.config.vision_config.image_size
    config = {"image_processor_type": "CLIPImageProcessor", "crop_size": size, "size": size, "resample": 3}
    config |= {"do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=1) + "\n")


@dataclass
class Outputs:
    """Outputs of the image tower in the joint space, not normalised. P is the number of patches of the crop."""

    class_token: Tensor
    """Class token after the final layer norm (B, E)."""
    raw_class_token: Tensor
    """Class token without the final layer norm (B, E), as AnomalyCLIP reads it."""
    patches: dict[str, Tensor]
    """Patch tokens (B, P, E) by the place they are read from, see `image_outputs`."""


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of (B, H, N, d) queries; returns (B, N, H*d)."""
    if q.is_cuda or not q.requires_grad:  # on CPUs the backward of the fused kernel is slow
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), -1, dtype=v.dtype)
    return (weights @ v).transpose(1, 2).flatten(2)


def image_outputs(model: CLIPModel, pixels: Tensor, crop: Tensor | None = None) -> Outputs:
    """Run the image tower.

    Patch tokens are read from the last block ("last"), from AnomalyCLIP's value-value path, which begins after half of
    the blocks ("value"), from CLIP-AD's sum over the last quarter of it ("surgery"), and from the blocks after half and
    three quarters ("layer4" and "layer6" of 8).

    Args:
        model: The model.
        pixels: Normalised images (B, 3, S, S) float32.
        crop: Indices (B, P) of the patches that the tower sees; None shows all.
    """
    vision = model.vision_model
    embeddings, patch = vision.embeddings, model.config.vision_config.patch_size
    count, _, size, _ = pixels.shape
    grid = size // patch
    x = pixels.view(count, 3, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5).reshape(count, grid * grid, -1)
    position = embeddings.position_embedding.weight
    if crop is not None:
        x = x.gather(1, crop[..., None].expand(-1, -1, x.shape[-1]))
        patch_position = position[1:][crop]
    else:
        patch_position = position[1:].expand(count, -1, -1)
    x = F.linear(x, embeddings.patch_embedding.weight.flatten(1)).float() + patch_position
    x = torch.cat([(embeddings.class_embedding + position[0]).expand(count, 1, -1), x], 1)
    x = vision.pre_layrnorm(x)
    heads = model.config.vision_config.num_attention_heads
    depth = len(vision.encoder.layers)
    early, start = (depth // 2, 3 * depth // 4), depth // 2 + 1
    taps: dict[str, Tensor] = {}
    value_path = surgery = None
    for number, block in enumerate(vision.encoder.layers, 1):
        attention = block.self_attn
        weight = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        bias = torch.cat([attention.q_proj.bias, attention.k_proj.bias, attention.v_proj.bias])
        q, k, v = F.linear(block.layer_norm1(x), weight, bias).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if number == start:
            value_path = x
        if value_path is not None:
            step = attention.out_proj(_attend(v, v, v))
            value_path = value_path + step
            if number > depth - depth // 4:
                surgery = step if surgery is None else surgery + step
        x = x + attention.out_proj(_attend(q, k, v))
        x = x + block.mlp(block.layer_norm2(x))
        if number in early:
            taps[f"layer{number}"] = x[:, 1:]
    assert value_path is not None
    assert surgery is not None
    taps |= {"last": x[:, 1:], "value": value_path[:, 1:], "surgery": surgery[:, 1:]}
    project = model.visual_projection
    patches = {name: project(vision.post_layernorm(tokens)) for name, tokens in taps.items()}
    with torch.autocast(x.device.type, enabled=False):  # class tokens may differ by less than bfloat16 resolves
        class_token = x[:, 0].float()
        return Outputs(project(vision.post_layernorm(class_token)), project(class_token), patches)


def text_features(model: CLIPModel, ids: Tensor, end: Tensor) -> Tensor:
    """Encode sentences.

    Args:
        model: The model.
        ids: Token ids (T, n) int64.
        end: Position (T,) of each sentence's end token.

    Returns:
        Text features (T, E), L2-normalised.
    """
    text = model.text_model
    heads = model.config.text_config.num_attention_heads
    length = ids.shape[1]
    x = text.embeddings.token_embedding(ids) + text.embeddings.position_embedding.weight[:length]
    causal = torch.full((length, length), float("-inf"), device=ids.device).triu(1)
    for block in text.encoder.layers:
        attention, y = block.self_attn, block.layer_norm1(x)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = (project(y).unflatten(-1, (heads, -1)).transpose(1, 2) for project in projections)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + causal.to(q.dtype)
        x = x + attention.out_proj((torch.softmax(scores, -1, dtype=v.dtype) @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.layer_norm2(x))
    with torch.autocast(x.device.type, enabled=False):
        x = text.final_layer_norm(x[torch.arange(len(ids), device=ids.device), end].float())
        return F.normalize(model.text_projection(x), dim=-1)


class TextEncoder:
    """Encodes sentences with a tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, model: CLIPModel, sentences: list[str]) -> Tensor:
        """Return text features (T, E), L2-normalised, on the model's device."""
        rows = [torch.tensor(encoding.ids[:77]) for encoding in self.tokenizer.encode_batch(sentences)]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=END)
        end = torch.tensor([len(row) - 1 for row in rows])
        return text_features(model, ids.to(model.device), end.to(model.device))
