"""What VCP-CLIP learns besides its linear adapters: context before, in and after the text tower.

Modules are made without drawing numbers; `reset` draws them.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.methods.maps import normalise

M = TypeVar("M", bound=nn.Module)

#: Heads of Post-VCP's attention.
HEADS = 8


class PreContext(nn.Module):
    """Pre-VCP: r tokens that stand for the object's name, to which the picture adds a convolution of its embedding.

    Args:
        length: r.
        width: Wt, of the text tower and of the picture's embedding.
        use_global: whether the picture adds anything.
    """

    def __init__(self, length: int, width: int, use_global: bool) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(length, width))
        # the embedding is a sequence of Wt numbers to the convolution, and each of its channels makes a token
        self.conv = _undrawn(nn.Conv1d(1, length, 3, padding=1, device="meta")) if use_global else None

    def reset(self, generator: torch.Generator) -> None:
        if self.conv is not None:
            _uniform(self.conv, generator)
        nn.init.trunc_normal_(self.query, generator=generator)

    def forward(self, pictures: Tensor) -> Tensor:
        """Embeddings (B, Wt), not normalised, to (B, r, Wt)."""
        if self.conv is None:
            return self.query.expand(len(pictures), -1, -1)
        tokens: Tensor = self.query + self.conv(pictures.unsqueeze(1))
        return tokens


class DeepPrompts(nn.Module):
    """Learnt tokens for every text block, (blocks, n, Wt), their common projection, and a norm after the last block."""

    def __init__(self, blocks: int, length: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(blocks, length, width))
        self.projection = _undrawn(nn.Linear(width, width, device="meta"))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)

    def reset(self, generator: torch.Generator) -> None:
        _uniform(self.projection, generator)
        nn.init.kaiming_normal_(self.projection.weight, mode="fan_out", generator=generator)
        nn.init.uniform_(self.tokens, -1, 1, generator=generator)
        self.norm.reset_parameters()

    def forward(self, sentences: int, *, learning: bool = False) -> Tensor:
        """(blocks, T, n, Wt); learning, each sentence has a dropout of its own in each block."""
        tokens: Tensor = self.projection(self.tokens).unsqueeze(1).expand(-1, sentences, -1, -1)
        if learning:
            tokens = self.dropout(tokens)
        return tokens


class PostContext(nn.Module):
    """Post-VCP: the texts attend to the patches, and become vectors of the patches' width."""

    def __init__(self, embed_dim: int, width: int) -> None:
        super().__init__()
        self.query = _undrawn(nn.Linear(embed_dim, width, device="meta"))
        self.key = _undrawn(nn.Linear(width, width, device="meta"))
        self.value = _undrawn(nn.Linear(width, width, device="meta"))
        self.out = _undrawn(nn.Linear(width, width, device="meta"))

    def reset(self, generator: torch.Generator) -> None:
        for module in self.children():
            _uniform(module, generator)

    def forward(self, text: Tensor, patches: Tensor) -> Tensor:
        """Texts (B, 2, E) and patches (B, N, D), both normalised, to texts (B, 2, D), normalised."""
        projected = self.query(text), self.key(patches), self.value(patches)
        query, key, value = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in projected)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return normalise(self.out(mixed.transpose(1, 2).flatten(2)))


def _undrawn(module: M) -> M:
    """A module that was made on no device: on a real one, PyTorch would draw from its global random state."""
    return module.to_empty(device="cpu")


def _uniform(module: nn.Module, generator: torch.Generator) -> None:
    """Draws weight and bias as PyTorch does for linear and convolution layers."""
    bound = module.get_parameter("weight")[0].numel() ** -0.5
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
