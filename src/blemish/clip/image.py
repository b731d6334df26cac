"""What all backbones share: a frozen vision transformer and its preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from blemish.clip import blocks, forward
from blemish.clip.dinov2 import IMAGENET_MEAN, IMAGENET_STD, Dinov2Tower
from blemish.clip.geometry import normalise_levels, to_levels
from blemish.clip.model import VisionTower
from blemish.clip.request import Activation, Computation, Geometry, ImageFeatures, Request
from blemish.errors import UsageError


def fingerprint_of(model: nn.Module) -> str:
    """Return the first 16 hex digits of the SHA-256 over all parameters: sorted names, shapes, and bytes as float32."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()[:16]


class ImageBackbone(nn.Module):
    """A vision transformer with its preprocessing: the base of all backbones. No call changes it.

    Calls are differentiable: the caller chooses `torch.no_grad()`. The weights are taken as they are; `load_backbone`
    returns frozen ones.

    Args:
        model: The modules that are fingerprinted.
        vision: The vision tower in them.
        name: Name of the backbone in results.
        fingerprint: Fingerprint of the weights; computed when it is first needed if not given.
        mean: Per channel, subtracted from pixels in [0, 1].
        std: Per channel, pixels are divided by it.

    Attributes:
        name: Name of the backbone in results.
        reads_words: Whether it has a text tower; a backbone without has no text functions.
        layers: L, number of blocks of the vision tower.
        width: D, width of the vision tower.
        patch: Side of a patch in pixels.
        size: Side of the checkpoint's own input in pixels.
        registers: Number of register tokens, which are never returned.
        mean, std: As given.
    """

    reads_words: bool = False

    def __init__(
        self,
        model: nn.Module,
        vision: VisionTower | Dinov2Tower,
        name: str,
        fingerprint: str | None,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.towers = model
        self.name = name
        self._fingerprint = fingerprint
        self.mean, self.std = tuple(mean), tuple(std)
        self.layers = vision.config.num_hidden_layers
        self.width = vision.config.hidden_size
        self.patch = vision.config.patch_size
        self.size = vision.config.image_size
        self.registers = vision.registers
        self._half: dict[tuple[Activation, torch.dtype, torch.device], list[blocks.HalfBlock]] = {}

    @property
    def vision(self) -> VisionTower | Dinov2Tower:
        """The modules of the vision tower."""
        raise NotImplementedError

    @property
    def activation(self) -> str:
        """The checkpoint's own activation."""
        return self.vision.config.hidden_act

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over the weights."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(self.towers)
        return self._fingerprint

    def preprocess(self, images: Sequence[Image.Image], size: int, geometry: Geometry = "squash") -> Tensor:
        """Resize and normalise images as the reference implementations do.

        Args:
            images: B images of 8 bits per channel.
            size: S, the side of the result in pixels; where the aspect ratio is kept, the shorter side before the crop.
            geometry: How images are resized.

        Returns:
            (B, 3, H, W) float32 on the CPU; H = W = S unless the aspect ratio is kept.

        Raises:
            UsageError: The geometry is unknown, or the results differ in shape and make no batch.
            ImageError: An image is too long and narrow to keep its aspect ratio.
        """
        levels = [to_levels(image, size, geometry, self.patch) for image in images]
        shapes = {each.shape for each in levels} or {(3, size, size)}
        if len(shapes) > 1:
            raise UsageError(f"images of different aspect ratios make no batch: {sorted(shapes)}; prepare them apart")
        return self.normalise(levels) if levels else torch.empty(0, *shapes.pop())

    def normalise(self, levels: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return what `preprocess` returns, (B, 3, H, W), from the RGB levels of resized images, (3, H, W) each."""
        out = np.empty((len(levels), *levels[0].shape), np.float32)
        for row, each in enumerate(levels):
            normalise_levels(each, self._values, out[row])
        return torch.from_numpy(out)

    def levels(self, pixels: Tensor) -> NDArray[np.uint8]:
        """Return the RGB levels of prepared pixels, (B, 3, H, W) to (B, 3, H, W): undo `normalise`, exactly."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        levels: NDArray[np.uint8] = (pixels * std + mean).mul(255).round().clamp(0, 255).byte().numpy()
        return levels

    @cached_property
    def _values(self) -> NDArray[np.float32]:
        """The value of each level, (3, 256)."""
        mean, std = torch.tensor(self.mean).view(3, 1), torch.tensor(self.std).view(3, 1)
        values: NDArray[np.float32] = (torch.arange(256).div(255) - mean).div(std).numpy()
        return values

    def encode_image(
        self,
        pixels: Tensor,
        request: Request | None = None,
        computation: Computation | None = None,
        *,
        precision: torch.dtype = torch.float32,
        windows: torch.dtype | None = None,
    ) -> ImageFeatures:
        """Run the vision tower once, as far as `request` needs it.

        Args:
            pixels: (B, 3, H, W) from `preprocess`, on the backbone's device.
            request: What to return; the class token only if not given.
            computation: How to compute it; at the pixels' size with the defaults of `Computation` if not given.
            precision: Type of the matrix products in the blocks: float32, or bfloat16 or float16 with weights that are
                cast at the first such call and kept. The streams are always float32.
            windows: Type of the products for windows, if it differs from `precision`.

        Returns:
            The streams, tokens and windows of the request, without register tokens.

        Raises:
            UsageError: The pixels do not have the size of the computation or are smaller than a patch, a tap lies
                beyond the last block, a window does not fit into the grid, or windows are asked of a backbone with
                register tokens.
        """
        request = Request() if request is None else request
        if pixels.ndim != 4 or pixels.shape[1] != 3 or min(pixels.shape[2:]) < self.patch:
            raise UsageError(
                f"pixels are (B, 3, S, S) with S at least {self.patch} for this backbone, not {tuple(pixels.shape)}"
            )
        computation = Computation(pixels.shape[-1]) if computation is None else computation
        self._require_size(pixels, computation)
        if beyond := [tap.layer for tap in request.taps if tap.layer > self.layers]:
            raise UsageError(f"layer {max(beyond)} was asked for, but the backbone has {self.layers} layers")
        if request.windows and self.registers:
            raise UsageError(f"windows are computed on backbones without register tokens, and {self.name} has some")

        chosen = self._image_blocks(computation.activation, precision)
        x, grid = self._embed_image(pixels, computation, precision)
        taps, class_token = forward.run_image_blocks(chosen, x, request.taps, class_token=request.class_token)
        if self.registers:
            first = 1 + self.registers
            taps = {tap: torch.cat([stream[:, :1], stream[:, first:]], dim=1) for tap, stream in taps.items()}
        if windows is not None and request.windows:
            chosen = self._image_blocks(computation.activation, windows)
        window_tokens = {side: forward.run_windows(chosen, x, grid, side) for side in request.windows}
        return ImageFeatures(taps, class_token, window_tokens, grid, precision)

    def final_norm(self, tokens: Tensor) -> Tensor:
        """Apply the final layer norm of the vision tower to tokens of any layer: (..., D) to (..., D)."""
        out: Tensor = self.vision.post_layernorm(tokens)
        return out

    def _embed_image(
        self, pixels: Tensor, computation: Computation, precision: torch.dtype
    ) -> tuple[Tensor, tuple[int, int]]:
        """Return the stream that enters the first block, (B, 1 + R + N, D), and the grid."""
        return forward.embed_image(self.vision, pixels, computation.position, precision)

    def _require_size(self, pixels: Tensor, computation: Computation) -> None:
        shape, side = tuple(pixels.shape[2:]), computation.size
        if computation.geometry == "keep-aspect":
            fits = min(shape) // self.patch == side // self.patch
        else:
            fits = shape == (side, side)
        if not fits:
            raise UsageError(f"the computation is for size {side}, the pixels are {tuple(pixels.shape)}")

    def _image_blocks(self, activation: Activation, precision: torch.dtype) -> Sequence[blocks.Block]:
        layers, function = self.vision.encoder.layers, blocks.nonlinearity(activation, self.vision.config)
        if precision == torch.float32:
            return [blocks.ModuleBlock(layer, function) for layer in layers]
        key = activation, precision, layers[0].mlp.fc1.weight.device
        if key not in self._half:
            # Two threads that arrive at once both cast the weights, which only costs time.
            self._half[key] = [blocks.halve(layer, function, precision) for layer in layers]
        return self._half[key]


class Dinov2Backbone(ImageBackbone):
    """A DINOv2, with or without register tokens. It reads no words.

    Args:
        tower: The model.
        name: Name of the backbone in results.
        fingerprint: Fingerprint of the weights; computed when it is first needed if not given.
        mean: Per channel, subtracted from pixels in [0, 1].
        std: Per channel, pixels are divided by it.
    """

    towers: Dinov2Tower

    def __init__(
        self,
        tower: Dinov2Tower,
        name: str = "dinov2",
        fingerprint: str | None = None,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(tower, tower, name, fingerprint, mean=mean, std=std)

    @property
    def vision(self) -> Dinov2Tower:
        """The modules of the vision tower."""
        return self.towers
