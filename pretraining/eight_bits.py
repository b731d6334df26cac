"""The matrices of an image tower's blocks in eight bits: half the size of half precision, read by every loader.

    python pretraining/eight_bits.py MODEL OUT

The type is E4M3 (Micikevicius and others, 2022): a sign, four bits of exponent, three of mantissa. safetensors stores
it and PyTorch turns it into other floats, so nothing has to be unpacked. A weight is off by up to 1/16 of itself, by
2.6 % in the mean square. Below 1/64 the mantissa is lost bit by bit, and most weights are smaller; so they are made
larger, and what they are multiplied with or added to smaller or larger in turn, by powers of two, which changes nothing
in what the tower computes: gains before the matrices that read the stream of tokens are divided by `READ`, and the
stream itself, which the other matrices are added to, is multiplied by `STREAM`, which the next layer norm takes away.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel

READ, STREAM = 16.0, 64.0
#: By what of the tower is multiplied: what writes the stream, the norms that a block reads it through, and what reads.
FACTORS = {
    r"embeddings|pre_layrnorm|out_proj|fc2": STREAM,
    r"layer_norm[12]": 1 / READ,
    r"([qkv]_proj|fc1)\.weight": READ,
}
EIGHT = torch.float8_e4m3fn


@torch.no_grad()
def raised(model: CLIPModel) -> None:
    """Makes the weights larger, in place; the tower computes the same, its tokens are `STREAM` times as long."""
    vision = model.vision_model
    for name, parameter in vision.named_parameters():
        for pattern, factor in FACTORS.items():
            if re.search(pattern, name):
                parameter.mul_(factor)
    epsilon = model.config.vision_config.layer_norm_eps * STREAM**2
    model.config.vision_config.layer_norm_eps = epsilon
    for norm in (m for m in vision.modules() if isinstance(m, nn.LayerNorm)):
        norm.eps = epsilon


def in_eight_bits(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices inside the image tower's blocks as E4M3, all else in half precision."""
    inside = {name for name, value in state.items() if "vision_model.encoder" in name and value.ndim == 2}
    return {name: value.to(EIGHT if name in inside else torch.float16) for name, value in state.items()}


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("model", type=Path, help="exported model")
    a.add_argument("out", type=Path)
    o = a.parse_args()
    model = CLIPModel.from_pretrained(o.model).float()
    raised(model)
    shutil.copytree(o.model, o.out, dirs_exist_ok=True)
    model.config.save_pretrained(o.out)
    save_file(in_eight_bits(model.state_dict()), o.out / "model.safetensors", {"format": "pt"})
    print(f"{o.out}: {(o.out / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
