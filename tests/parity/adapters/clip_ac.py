"""The prompt ensemble: the image side is that of `clip`."""

from __future__ import annotations

import torch
from cases import Array, Case, array

from adapters.clip import image_side
from blemish.methods.clip import ClipAC


def outputs(case: Case) -> dict[str, Array]:
    backbone, out = case.backbone, {}
    sentences = ClipAC.PROMPTS.sentences(case.data["class_names"][0])
    for kind, group in zip(("normal", "anomalous"), sentences, strict=True):
        ids = backbone.tokenize(group)
        kept = case.expected.get(f"tokens_{kind}", ids).shape[1]
        out[f"tokens_{kind}"] = array(ids[:, :kept])
        with torch.no_grad():
            out[f"sentence_features_raw_{kind}"] = array(backbone.encode_text(ids))
    return {**out, **image_side(case, ClipAC)}
