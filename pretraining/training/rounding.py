"""Rounding of a model's matrices to 8 bits, in a type that every loader reads.

The type is E4M3 (Micikevicius et al., 2022): one sign bit, four bits of exponent, three of mantissa. safetensors stores
it and PyTorch converts it, so nothing has to be unpacked. Rounding changes a weight by up to 1/16 of its value (2.6 %
root mean square). Below 1/64 the mantissa loses bits, and most weights are smaller. They are therefore scaled up by
powers of two before rounding, so that the tower still computes the same: gains of the norms in front of matrices are
divided by `INPUT_SCALE`, and the residual stream is multiplied by `STREAM_SCALE`, which the next layer norm removes.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel

from pretraining.training.model import load_model

INPUT_SCALE, STREAM_SCALE = 16.0, 64.0
#: Factors by a pattern of the parameter's name: what writes the stream, norms that read it, matrices behind them.
FACTORS = {
    r"embeddings|pre_layrnorm|out_proj|fc2": STREAM_SCALE,
    r"layer_norm[12]": 1 / INPUT_SCALE,
    r"([qkv]_proj|fc1)\.weight": INPUT_SCALE,
}


@torch.no_grad()
def scale_up(model: CLIPModel) -> None:
    """Scale the weights in place. The tower computes the same; its tokens are `STREAM_SCALE` times as long."""
    vision = model.vision_model
    for name, parameter in vision.named_parameters():
        for pattern, factor in FACTORS.items():
            if re.search(pattern, name):
                parameter.mul_(factor)
    epsilon = model.config.vision_config.layer_norm_eps * STREAM_SCALE**2
    model.config.vision_config.layer_norm_eps = epsilon
    for norm in (module for module in vision.modules() if isinstance(module, nn.LayerNorm)):
        norm.eps = epsilon


def rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the matrices of the image tower's blocks as E4M3 and all else in half precision."""
    matrices = {name for name, value in state.items() if "vision_model.encoder" in name and value.ndim == 2}
    return {name: value.to(torch.float8_e4m3fn if name in matrices else torch.float16) for name, value in state.items()}


def round_model(source: Path, out: Path) -> None:
    """Write the exported model in `source` to `out`, with its matrices in 8 bits."""
    model = load_model(source)
    scale_up(model)
    shutil.copytree(source, out, dirs_exist_ok=True)
    model.config.save_pretrained(out)
    save_file(rounded(model.state_dict()), out / "model.safetensors", {"format": "pt"})
