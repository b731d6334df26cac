"""Stand-ins for tests: a tiny random CLIP that runs every path in milliseconds, and folders of small pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WORDS = (
    "a an the of for in photo picture object metal nut solar cell textile without with damage damaged flaw flawless "
    "perfect defect normal broken unblemished close up cropped good bad small large there is"
)


def save_tiny_backbone(folder: Path, seed: int = 0, layers: tuple[int, int] = (24, 12)) -> Path:
    """Write a CLIPModel folder (config.json, model.safetensors, tokenizer files) with random weights.

    As deep as ViT-L (if `layers`, of the vision and the text tower, says no other), so that the papers' configs with
    their layers 6..24 fit, but with a grid of 7 x 7; the vision tower is 32 wide, the text tower and the joint space 16
    (equal, as in all of OpenAI's).
    """
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    letters = sorted({*"abcdefghijklmnopqrstuvwxyz0123456789.,-!'_/"})
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]

    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+"), "removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", start), ("<|endoftext|>", end)],
    )
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=128,
    )
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={
            **tower,
            "hidden_size": 16,
            "num_hidden_layers": layers[1],
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 128,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={**tower, "num_hidden_layers": layers[0], "image_size": 518, "patch_size": 74},
        projection_dim=16,
    )
    torch.manual_seed(seed)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    """Write a picture of noise on a gradient; the suffix chooses the format."""
    rng = np.random.default_rng(seed)
    width, height = size
    ramp = np.linspace(40, 180, width)[None, :, None].repeat(height, 0).repeat(3, 2)
    pixels = (ramp + rng.normal(0, 20, ramp.shape)).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def decode_mask(runs: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return the mask (H, W) of uncompressed COCO run lengths."""
    height, width = runs["size"]
    counts = np.asarray(runs["counts"])
    assert counts.sum() == height * width
    assert (counts >= 0).all()
    return np.repeat(np.arange(counts.size) % 2 == 1, counts).reshape((height, width), order="F")


def load_pixels(path: Path) -> Image.Image:
    """Return the decoded image of a file, which is closed again."""
    with Image.open(path) as image:
        image.load()
        return image
