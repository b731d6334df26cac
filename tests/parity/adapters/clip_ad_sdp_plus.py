"""CLIP-AD's staged dual path with adapters: scoring and training."""

from __future__ import annotations

import torch
from cases import Array, Case, array

from adapters.april_gan import exceptions, in_shape, training
from adapters.clip_ad_sdp import inference, make_config
from blemish.methods import checkpoints
from blemish.methods.clip_ad import ClipAdSDPPlus, ClipAdSdpPlusConfig
from blemish.methods.ops import normalise

__all__ = ["exceptions", "outputs"]


def outputs(case: Case) -> dict[str, Array]:
    method = make_method(case)
    if case.data.get("mode") == "train":
        return training(case, method, "feat_ori")
    out, features, text = inference(case, method)
    with torch.no_grad():
        patches, maps = method.adapted(features), method.layer_maps(features, text)
    out["map_ft"] = array(torch.stack(maps).sum(dim=0))
    for layer, tokens, one in zip(method.layers, patches, maps, strict=True):
        out |= {f"map_ft.{layer}": array(one), f"proj.{layer}": array(normalise(tokens))}
    return in_shape(case, out)


def make_method(case: Case) -> ClipAdSDPPlus:
    config, state = make_config(case, ClipAdSdpPlusConfig), {"linear_layers": case.weights}
    assert checkpoints.official_config("clip-ad-sdp-plus", state, config) == config
    method = ClipAdSDPPlus(case.backbone, config)
    checkpoints.load_official(method, state)
    return method
