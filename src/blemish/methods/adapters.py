"""Linear adapters: what APRIL-GAN, CLIP-AD's SDP+ and VCP-CLIP learn on the image side.

One linear layer per tapped layer brings its patches, which CLIP's own projection was never trained on, near the texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import Function

from blemish.clip import Backbone
from blemish.errors import UsageError, WeightsError
from blemish.methods import weights
from blemish.methods.base import Method

#: Where adapters start: at numbers drawn as PyTorch draws them, as in the papers, or at CLIP's own projection.
Start: TypeAlias = Literal["random", "projection"]


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

    def start(self, how: Start, backbone: Backbone, seed: int) -> None:
        """Sets the adapters to what they are before training."""
        if how == "projection":
            self.follow(backbone)
        else:
            self.reset(torch.Generator().manual_seed(seed))

    def reset(self, generator: torch.Generator) -> None:
        """Draws weights and biases as PyTorch does: uniform between -1/sqrt(D) and 1/sqrt(D)."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(self._bound * (2 * torch.rand(parameter.shape, generator=generator) - 1))

    def follow(self, backbone: Backbone) -> None:
        """Sets every adapter to the backbone's own way into the joint space."""
        with torch.no_grad():
            for linear in self.layers:
                linear.weight.copy_(linear_projection(backbone))
                linear.bias.zero_()

    @property
    def layers(self) -> list[nn.Linear]:
        """The adapters, shallowest first."""
        return [linear for linear in self.fc if isinstance(linear, nn.Linear)]

    def forward(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """(B, N, D) of each tapped layer, shallowest first, to (B, N, E), not normalised."""
        return [linear(tokens) for linear, tokens in zip(self.fc, patches, strict=True)]

    def differences(self, tokens: Sequence[Tensor], text: Tensor) -> list[Tensor]:
        """How much nearer adapted patches are to the anomalous than to the normal text: what losses are made of.

        The cosines of `forward`'s patches with both texts, subtracted; the adapted patches themselves serve for their
        norms alone, and nothing of their size is made anew where gradients come back.

        Args:
            tokens: (B, 1 + N, D) of each tapped layer, class token first, as they are handed out.
            text: (B, 2, E), normalised.

        Returns:
            (B, N) in [-2, 2] for each layer.
        """
        apart = text[:, 1] - text[:, 0]
        found = []
        for linear, x in zip(self.layers, tokens, strict=True):
            length: Tensor = _Length.apply(linear(x))  # type: ignore[no-untyped-call]
            # through the adapter from the other side: the text to the patches
            along = x @ (apart @ linear.weight).unsqueeze(-1) + (apart @ linear.bias).view(-1, 1, 1)
            found.append((along.squeeze(-1) / length)[:, 1:])
        return found

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
            raise WeightsError(f"the weights are for {layers} layers and the config has {len(self.fc)}: change layers")
        weights.fit(found, {name: tuple(v.shape) for name, v in self.state_dict().items()})
        self.load_state_dict({name: value.float() for name, value in found.items()})


def linear_projection(backbone: Backbone) -> Tensor:
    """The image tower's final layer norm and its projection as one linear map, (E, D).

    A cosine does not see that the norm divides by the spread. The shift that it adds, which would have to be divided by
    that too, is small beside the rest and left out.
    """
    model = backbone.towers
    scaled: Tensor = model.visual_projection.weight * model.vision_model.post_layernorm.weight
    return scaled - scaled.mean(dim=1, keepdim=True)


class _Length(Function):
    """The L2 norm along the last axis, without an epsilon: PyTorch's own goes back in three passes, this in one."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(rows, dim=-1)
        ctx.save_for_backward(rows, length)
        return length

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Tensor:
        rows, length = ctx.saved_tensors
        out: Tensor = rows * (outer[0] / length).unsqueeze(-1)
        return out


class KnownTexts:
    """The text features of objects that were asked for before: words are not learnt, so they never change."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._known: dict[str, Tensor] = {}

    def __call__(self, object_names: Sequence[str] | None) -> Tensor:
        """(B, 2, E) for the objects of B pictures, without gradient. Raises UsageError if they are not named."""
        method = self._method
        if object_names is None:
            raise UsageError(f"{method.info.name} is trained with the names of the objects: give object_names")
        new = sorted(set(object_names) - self._known.keys())
        with torch.no_grad():
            for name in new:
                self._known[name] = method.text_features([name])[0]
        return torch.stack([self._known[name].to(method.device) for name in object_names])
