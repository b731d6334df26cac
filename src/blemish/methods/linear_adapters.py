"""Linear adapters: what APRIL-GAN, CLIP-AD's SDP+ and VCP-CLIP learn on the image side.

One linear layer per tapped layer maps its patches, for which CLIP's own projection was not trained, close to the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from blemish.clip import Backbone

Start: TypeAlias = Literal["random", "projection"]
"""Where adapters start: at random numbers, as in the papers, or at CLIP's own projection."""


class LinearAdapters(nn.Module):
    """Linear layers `fc.0`, `fc.1`, ... from the shallowest tapped layer on, named as in the published files.

    Args:
        count: Number of tapped layers.
        width: Width D of the patches.
        embed_dim: Width E of the texts.
    """

    def __init__(self, count: int, width: int, embed_dim: int) -> None:
        super().__init__()
        # On a real device PyTorch would draw the values from its global random state, which belongs to the caller.
        with torch.device("meta"):
            layers = nn.ModuleList(nn.Linear(width, embed_dim) for _ in range(count))
        self.fc = layers.to_empty(device="cpu")
        self._bound = width**-0.5

    def start(self, how: Start, backbone: Backbone, seed: int) -> None:
        """Set the adapters to their values before training."""
        if how == "projection":
            self.init_from_projection(backbone)
        else:
            self.reset(torch.Generator().manual_seed(seed))

    def reset(self, generator: torch.Generator) -> None:
        """Draw weights and biases as PyTorch does: uniform between -1/sqrt(D) and 1/sqrt(D)."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(self._bound * (2 * torch.rand(parameter.shape, generator=generator) - 1))

    def init_from_projection(self, backbone: Backbone) -> None:
        """Set every adapter to the backbone's own projection."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("weight"):
                    parameter.copy_(linear_projection(backbone))
                else:
                    parameter.zero_()

    def forward(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """Adapt the patches (B, N, D) of each tapped layer, shallowest first: (B, N, E) each, not normalised."""
        return [linear(tokens) for linear, tokens in zip(self.fc, patches, strict=True)]


def linear_projection(backbone: Backbone) -> Tensor:
    """Return the image tower's final layer norm and its projection as one linear map (E, D).

    A cosine does not change if the vector is divided by its spread, as the norm does. The bias of the norm, which would
    have to be divided too, is small beside the rest and left out.
    """
    model = backbone.towers
    scaled: Tensor = model.visual_projection.weight * model.vision_model.post_layernorm.weight
    return scaled - scaled.mean(dim=1, keepdim=True)
