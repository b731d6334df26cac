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
#: How sharply texts attend where they start at CLIP's projection: this times a cosine, shared among the heads.
SHARPNESS = 100.0


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

    def stand_for(self, word: Tensor) -> None:
        """Starts as the embeddings of a word's tokens (n, Wt), to which the picture adds nothing yet."""
        places = torch.arange(len(self.query)).clamp_max(len(word) - 1)
        with torch.no_grad():
            self.query.copy_(word[places])
        if self.conv is not None:
            _zero(self.conv)

    def forward(self, pictures: Tensor) -> Tensor:
        """Embeddings (B, Wt), not normalised, to (B, r, Wt)."""
        if self.conv is None:
            return self.query.expand(pictures.shape[0], -1, -1)
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

    def say_nothing(self) -> None:
        """Starts with tokens that are projected to zero, which hardly disturb the sentences."""
        _zero(self.projection)

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

    def follow(self, projection: Tensor) -> None:
        """Starts with texts that ask for patches near them in the joint space, and become a mean of those.

        Args:
            projection: (E, D), the backbone's way into the joint space.
        """
        with torch.no_grad():
            self.query.weight.copy_(SHARPNESS * projection.T / torch.linalg.matrix_norm(projection, 2))
            for module in (self.key, self.value, self.out):
                nn.init.eye_(module.weight)
            for module in (self.query, self.key, self.value, self.out):
                nn.init.zeros_(module.bias)

    def forward(self, text: Tensor, tokens: Tensor) -> Tensor:
        """Texts (B, 2, E), normalised, and raw tokens (B, 1 + N, D), class token first, to texts (B, 2, D), normalised.

        The texts attend to the normalised patches. Few ask and many are asked: so the questions are brought through the
        keys' projection, and the patches through the values' only after they are mixed, which gives the same.
        """
        batch, states, width = *text.shape[:2], tokens.shape[-1]
        key, value = (weight.view(HEADS, -1, width) for weight in (self.key.weight, self.value.weight))
        # heads first, for they have weights of their own: (heads, B * 2, ...)
        asked = self.query(text).view(batch * states, HEADS, -1).transpose(0, 1)
        constant = asked @ self.key.bias.view(HEADS, -1, 1)
        questions, constant = (
            x.view(HEADS, batch, states, -1).transpose(0, 1).flatten(1, 2) for x in (asked @ key, constant)
        )
        lengths = torch.linalg.vector_norm(tokens, dim=-1)[:, None, 1:]
        answers = (questions @ tokens.mT)[..., 1:] / lengths + constant
        # the class token is not asked
        shares = F.pad(answers.softmax(dim=-1) / lengths, (1, 0))
        mixed = (shares @ tokens).view(batch, HEADS, states, width).transpose(0, 1).flatten(1, 2)
        values = mixed @ value.mT + self.value.bias.view(HEADS, 1, -1)
        return normalise(self.out(values.transpose(0, 1).reshape(batch, states, width)))


def _undrawn(module: M) -> M:
    """A module that was made on no device: on a real one, PyTorch would draw from its global random state."""
    return module.to_empty(device="cpu")


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def _uniform(module: nn.Module, generator: torch.Generator) -> None:
    """Draws weight and bias as PyTorch does for linear and convolution layers."""
    bound = module.get_parameter("weight")[0].numel() ** -0.5
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
