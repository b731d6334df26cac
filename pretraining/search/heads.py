"""What is learnt beside frozen blocks: heads that map their tokens into the space of the text tower.

A head never sees what a defect is called: it returns embeddings, and a score is the comparison of an embedding with the
text features of normal and damaged. So names and states that it was not trained with still work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.clip import Backbone
from blemish.clip.blocks import ModuleBlock, nonlinearity, run
from blemish.methods.ops import cosine_logits
from pretraining.training.model import Shape

#: Temperature of the cosines.
TEMPERATURE = 0.07

Tokens = Mapping[int, Tensor]


class Embeddings(NamedTuple):
    """Embeddings in the joint space, not normalised."""

    patches: list[Tensor]
    """(B, N, E) of each map that is averaged."""
    class_token: Tensor
    """(B, E)"""
    pooled: Tensor
    """(B, E), of the patches by learnt weights."""


class Head(nn.Module):
    """A head: what `features` makes of the tokens goes through a linear layer for each map.

    Attributes:
        layers: Layers whose tokens it needs.
    """

    def __init__(self, layers: Sequence[int], width: int, embed_dim: int, maps: int = 1) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.to_patches = nn.ModuleList(nn.Linear(width, embed_dim) for _ in range(maps))
        self.to_class, self.to_pooled = nn.Linear(width, embed_dim), nn.Linear(width, embed_dim)
        self.weigh = nn.Linear(width, 1)

    def features(self, tokens: Tokens) -> list[Tensor]:
        """Return the tokens (B, 1 + N, D) of each map, normalised."""
        return [F.layer_norm(tokens[layer], tokens[layer].shape[-1:]) for layer in self.layers]

    def forward(self, tokens: Tokens) -> Embeddings:
        features = self.features(tokens)
        patches = [linear(each[:, 1:]) for linear, each in zip(self.to_patches, features, strict=True)]
        last = features[-1]
        weights = self.weigh(last[:, 1:]).softmax(1)
        return Embeddings(patches, self.to_class(last[:, 0]), self.to_pooled((weights * last[:, 1:]).sum(1)))


class LinearHead(Head):
    """One linear layer for each tapped layer, as in APRIL-GAN."""

    def __init__(self, layers: Sequence[int], width: int, embed_dim: int) -> None:
        super().__init__(layers, width, embed_dim, len(layers))


class CentredHead(LinearHead):
    """Linear layers on what tells each token from the mean patch of its picture, each channel in units of its spread.

    What a thing is, is the same in all its patches and goes; what is left says how a place differs from the others.
    """

    def features(self, tokens: Tokens) -> list[Tensor]:
        layers = super().features(tokens)
        centred = []
        for x in layers:
            spread, mean = torch.std_mean(x[:, 1:], 1, keepdim=True)
            centred.append((x - mean) / (spread + 0.1))
        return centred


class MlpHead(Head):
    """A hidden layer for each token of one layer, beside the token itself."""

    def __init__(self, layer: int, width: int, embed_dim: int) -> None:
        super().__init__((layer,), width, embed_dim)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def features(self, tokens: Tokens) -> list[Tensor]:
        (x,) = super().features(tokens)
        return [x + self.mlp(x)]


class ConvHead(Head):
    """Convolutions over the patches of several layers, so that a patch is seen beside its neighbours."""

    def __init__(self, layers: Sequence[int], width: int, embed_dim: int, hidden: int = 128) -> None:
        super().__init__(layers, width, embed_dim, 1)
        self.reduce = nn.Linear(width * len(layers), hidden)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.far = nn.Conv2d(hidden, hidden, 3, padding=3, dilation=3)
        self.expand = nn.Linear(hidden, width)

    def features(self, tokens: Tokens) -> list[Tensor]:
        layers = super().features(tokens)
        x = F.gelu(self.reduce(torch.cat(layers, -1)[:, 1:]))
        side = round(x.shape[1] ** 0.5)
        grid = x.mT.unflatten(2, (side, side))
        grid = F.gelu(grid + self.near(grid))
        grid = F.gelu(grid + self.far(grid))
        patches = layers[-1][:, 1:] + self.expand(grid.flatten(2).mT)
        return [torch.cat([layers[-1][:, :1], patches], 1)]


class BlockHead(Head):
    """Transformer blocks on one layer's tokens, all of them learnt.

    Args:
        layer: Layer whose tokens they read.
        backbone: Tower from which the blocks start.
        blocks: Numbers of these blocks in the tower, from 1.
        random: Whether the weights of the blocks are drawn instead; what they add begins small.
    """

    def __init__(self, layer: int, backbone: Backbone, blocks: Sequence[int], *, random: bool = False) -> None:
        super().__init__((layer,), backbone.width, backbone.embed_dim)
        self.blocks = nn.ModuleList(copied_block(backbone, number) for number in blocks)
        self.activation = nonlinearity("checkpoint", backbone.vision.config)
        if random:
            draw_weights(self.blocks)

    def features(self, tokens: Tokens) -> list[Tensor]:
        x = tokens[self.layers[0]]
        for block in self.blocks:
            x = run(ModuleBlock(block, self.activation), x)  # type: ignore[arg-type]
        return [F.layer_norm(x, x.shape[-1:])]


class LowRank(nn.Module):
    """A frozen linear layer plus a learnt update of low rank, which begins at zero."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) * linear.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) + F.linear(F.linear(x, self.down), self.up)
        return out


class LowRankHead(BlockHead):
    """The tower's own next blocks with updates of low rank, which only this path sees."""

    def __init__(self, layer: int, backbone: Backbone, blocks: Sequence[int], rank: int = 8) -> None:
        super().__init__(layer, backbone, blocks)
        self.blocks.requires_grad_(False)
        add_updates(self.blocks, rank)


class TaughtHead(BlockHead):
    """Blocks of a tower that has been taught, on a layer of the untouched one; they and its projection are the start.

    Args:
        layer: Layer that both towers share up to rounding.
        taught: The other tower, whose stream may be on another scale.
        blocks: Numbers of its blocks that come next.
        rank: Rank of updates of the blocks; 0 leaves them as they are.
        learn: Whether the blocks themselves are learnt.
        more: Further blocks with drawn weights on top, learnt, whose part in the result begins small.
    """

    def __init__(
        self,
        layer: int,
        taught: Backbone,
        blocks: Sequence[int],
        rank: int = 0,
        *,
        learn: bool = False,
        more: int = 0,
    ) -> None:
        super().__init__(layer, taught, blocks)
        self.blocks.requires_grad_(learn)
        if rank:
            add_updates(self.blocks, rank)
        for _ in range(more):
            block = copied_block(taught, blocks[-1])
            draw_weights(block)
            self.blocks.append(block)
        # A layer norm's epsilon follows the scale of its stream (`pretraining.training.rounding`).
        self.scale = (float(self.blocks[0].layer_norm1.eps) / Shape.epsilon) ** 0.5
        final, projection = taught.vision.post_layernorm, taught.towers.visual_projection.weight
        with torch.no_grad():
            for linear in (*self.to_patches, self.to_class, self.to_pooled):
                linear.weight.copy_(projection * final.weight)
                linear.bias.copy_(projection @ final.bias)

    def features(self, tokens: Tokens) -> list[Tensor]:
        return super().features({layer: self.scale * x for layer, x in tokens.items()})


def draw_weights(blocks: nn.Module) -> None:
    """Draw the weights of blocks anew; what they add to their input begins small."""
    for name, parameter in blocks.named_parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.002 if "out_proj" in name or "fc2" in name else 0.02)
        else:
            nn.init.constant_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0)


def add_updates(blocks: nn.Module, rank: int) -> None:
    """Put an update of low rank beside each linear layer."""
    for name, module in list(blocks.named_modules()):
        if isinstance(module, nn.Linear):
            parent = blocks.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], LowRank(module, rank))


def copied_block(backbone: Backbone, number: int) -> nn.Module:
    """Return a copy of a block of the tower, from 1, that can be trained."""
    block: nn.Module = deepcopy(backbone.towers.vision_model.encoder.layers[number - 1])
    return block.requires_grad_(True)


def patch_logits(embeddings: Embeddings, text: Tensor) -> Tensor:
    """Return the logits (B, N), damaged minus normal, as the mean over the maps.

    Args:
        embeddings: What a head returns.
        text: (2, E) or (B, 2, E), normalised; row 0 is normal, row 1 damaged.
    """
    return torch.stack([difference(each, text) for each in embeddings.patches]).mean(0)


def difference(embeddings: Tensor, text: Tensor) -> Tensor:
    """Return the logits, damaged minus normal, of embeddings (B, E) or (B, N, E)."""
    logits = cosine_logits(embeddings, text, TEMPERATURE)
    return logits[..., 1] - logits[..., 0]
