"""Linear adapters: what APRIL-GAN, CLIP-AD's SDP+ and VCP-CLIP learn on the image side.

One linear layer per tapped layer brings its patches, which CLIP's own projection was never trained on, near the texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blemish.errors import UsageError, WeightsError
from blemish.methods import weights
from blemish.methods.base import Method


class LinearAdapters(nn.Module):
    """`fc.0` belongs to the shallowest tapped layer; the names are those of the published files.

    Args:
        count: tapped layers.
        width: D, of the patches.
        embed_dim: E, of the texts.
    """

    def __init__(self, count: int, width: int, embed_dim: int) -> None:
        super().__init__()
        # PyTorch would draw from its global random state, which is the caller's; reset draws
        with torch.device("meta"):
            layers = nn.ModuleList(nn.Linear(width, embed_dim) for _ in range(count))
        self.fc = layers.to_empty(device="cpu")
        self._bound = width**-0.5

    def reset(self, generator: torch.Generator) -> None:
        """Draws weights and biases as PyTorch does: uniform between -1/sqrt(D) and 1/sqrt(D)."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(self._bound * (2 * torch.rand(parameter.shape, generator=generator) - 1))

    def forward(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """(B, N, D) of each tapped layer, shallowest first, to (B, N, E), not normalised."""
        return [linear(tokens) for linear, tokens in zip(self.fc, patches, strict=True)]

    def read(self, state: Mapping[str, Any], key: str) -> None:
        """Takes over the adapters that a published file keeps under a name.

        Raises:
            WeightsError: a tensor is missing, unknown, or of another shape.
        """
        found = state[key]
        if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
            raise WeightsError(f"{key!r} in the weights is no dictionary of tensors")
        layers = sum(name.endswith(".weight") for name in found)
        if layers != len(self.fc):
            raise WeightsError(f"the weights are for {layers} layers and the recipe has {len(self.fc)}: change layers")
        weights.fit(found, {name: tuple(v.shape) for name, v in self.state_dict().items()})
        self.load_state_dict({name: value.float() for name, value in found.items()})


class KnownTexts:
    """The text features of objects that were asked for before: words are not learnt, so they never change."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._known: dict[str, Tensor] = {}

    def __call__(self, objects: Sequence[str] | None) -> Tensor:
        """(B, 2, E) for the objects of B pictures, without gradient. Raises UsageError if they are not named."""
        method = self._method
        if objects is None:
            raise UsageError(f"{method.info.name} is trained with the names of the objects: give objects")
        new = sorted(set(objects) - self._known.keys())
        with torch.no_grad():
            for name in new:
                self._known[name] = method.text_features([name])[0]
        return torch.stack([self._known[name].to(method.device) for name in objects])
