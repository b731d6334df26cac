"""The designs that are compared, by name."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from blemish.clip import Backbone
from pretraining.search.heads import BlockHead, CentredHead, ConvHead, LinearHead, LowRankHead, MlpHead, TaughtHead
from pretraining.search.trial import Design, Mix

#: Learning rate of blocks that start from the tower's own, and of updates of low rank.
BLOCK_LR = 2e-4
#: Learning rate of a projection that has been learnt before.
TAUGHT_LR = 1e-4
#: Learning rate of blocks that have been taught before.
LEARNT_LR = 2e-5
#: Shares of the sources, beside those of `Design`.
MIXES: dict[str, Mix] = {
    "drawn only": {"drawn": 1.0},
    "painted only": {"painted": 1.0},
    "drawn and painted": {"drawn": 0.5, "painted": 0.5},
    "real only": {"real": 1.0},
    "real and painted": {"real": 0.5, "painted": 0.5},
}


def make_designs(backbone: Backbone, taught: Backbone) -> dict[str, Design]:
    """Return the designs.

    Args:
        backbone: Untouched tower; blocks start from copies of its own.
        taught: The shipped tower, whose first six blocks are the same and whose next two were taught.
    """
    size = (backbone.width, backbone.embed_dim)
    linear = Design(partial(LinearHead, (8,), *size))
    centred = Design(partial(CentredHead, (8,), *size))
    block = Design(partial(BlockHead, 8, backbone, (9,)), lr=BLOCK_LR)
    heads = {
        "linear, layer 6": Design(partial(LinearHead, (6,), *size)),
        "linear, layer 7": Design(partial(LinearHead, (7,), *size)),
        "linear, layer 8": linear,
        "linear, layer 9": Design(partial(LinearHead, (9,), *size)),
        "linear, layers 6, 7, 8": Design(partial(LinearHead, (6, 7, 8), *size)),
        "linear, layers 4, 6, 8": Design(partial(LinearHead, (4, 6, 8), *size)),
        "centred, layer 8": centred,
        "centred, layers 6, 7, 8": Design(partial(CentredHead, (6, 7, 8), *size)),
        "hidden layer, layer 8": Design(partial(MlpHead, 8, *size)),
        "convolutions, layers 6, 7, 8": Design(partial(ConvHead, (6, 7, 8), *size)),
        "block 9 learnt, on layer 8": block,
        "a random block, on layer 8": Design(partial(BlockHead, 8, backbone, (9,), random=True), lr=BLOCK_LR),
        "block 7 learnt, on layer 6": Design(partial(BlockHead, 6, backbone, (7,)), lr=BLOCK_LR),
        "blocks 9 and 10 learnt, on layer 8": Design(partial(BlockHead, 8, backbone, (9, 10)), lr=BLOCK_LR),
        "blocks 7 and 8 learnt, on layer 6": Design(partial(BlockHead, 6, backbone, (7, 8)), lr=BLOCK_LR),
        "blocks 7 and 8 with rank 8, on layer 6": Design(partial(LowRankHead, 6, backbone, (7, 8)), lr=1e-3),
    }
    variants = {
        "BCE": replace(linear, pixel_loss="bce"),
        "no loss of the image": replace(linear, image_loss=False),
        "kinds not balanced": replace(linear, balanced=False),
    }
    for name, mix in MIXES.items():
        variants[name] = replace(linear, mix=mix)
    designs = heads | {f"linear, layer 8: {name}": design for name, design in variants.items()}
    for title, design in {"centred, layer 8": centred, "block 9 learnt, on layer 8": block}.items():
        for name in ("drawn and painted", "real only"):
            designs[f"{title}: {name}"] = replace(design, mix=MIXES[name])
    shipped = Design(partial(TaughtHead, 6, taught, (7, 8)), lr=TAUGHT_LR)
    designs["shipped blocks 7 and 8, projection learnt"] = shipped
    for name in ("real only", "real and painted", "drawn and painted"):
        designs[f"shipped blocks 7 and 8, projection learnt: {name}"] = replace(shipped, mix=MIXES[name])
    updated = partial(TaughtHead, 6, taught, (7, 8), 8)
    designs["shipped blocks 7 and 8 with rank 8"] = replace(shipped, make=updated, lr=BLOCK_LR)
    learnt = Design(partial(TaughtHead, 6, taught, (7, 8), learn=True), lr=LEARNT_LR)
    designs["shipped blocks 7 and 8 learnt"] = learnt
    for name in ("real only", "drawn and painted"):
        designs[f"shipped blocks 7 and 8 learnt: {name}"] = replace(learnt, mix=MIXES[name])
    halved = replace(learnt, mix=MIXES["real only"], keep=0.5)
    designs["shipped blocks 7 and 8 learnt: real only, averaged with the start"] = halved
    designs["shipped blocks 7 and 8 and one more"] = Design(partial(TaughtHead, 6, taught, (7, 8), more=1), lr=BLOCK_LR)
    return designs
