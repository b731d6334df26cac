"""CLIP-AD's staged dual path; SDP+ adds to it."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from cases import Array, Case, array
from torch import Tensor

from adapters.april_gan import class_results, common, in_shape
from blemish.clip import ImageFeatures
from blemish.methods.clip_ad import ClipAdSDP, ClipAdSdpConfig

R = TypeVar("R", bound=ClipAdSdpConfig)


def outputs(case: Case) -> dict[str, Array]:
    return inference(case, ClipAdSDP(case.backbone, make_config(case)))[0]


def make_config(case: Case, kind: type[R] = ClipAdSdpConfig) -> R:  # type: ignore[assignment]
    p = case.data["params"]
    return kind(
        size=p["image_size"],
        activation=case.data["activation"],
        layers=tuple(p["features_list"]),
        sigma=float(p["smoothing"]),
        **text_side(p["rep_vec"], p["dataset"]),
    )


def text_side(rep_vec: str, dataset: str) -> dict[str, Any]:
    """The authors' settings for a data set, in a config's words."""
    eps, min_samples = (1.5, 25) if dataset == "visa" else (0.5, 15)
    return {"rep_vec": rep_vec.replace("_", "-"), "dbscan_eps": eps, "dbscan_min_samples": min_samples}


@torch.no_grad()
def inference(case: Case, method: ClipAdSDP) -> tuple[dict[str, Array], ImageFeatures, Tensor]:
    """What a case of SDP holds, and the features and texts of the pictures."""
    d = case.data
    pixels = case.pixels()
    features = case.backbone.encode_image(pixels, method.request, method.computation)
    texts = dict(zip(d["class_names"], method.text_features(d["class_names"]), strict=True))
    text = torch.stack([texts[name] for name in d["image_class"]])
    out = common(case, method, pixels, features, texts)
    similarities = []
    for layer in method.layers:
        anomalous = method.similarity(features, text, layer)
        similarities.append(torch.stack([-anomalous, anomalous], dim=-1))
        out[f"feat_ori.{layer}"] = array(method.original(features, layer))
        out[f"feat_surgery.{layer}"] = array(method.surgery(features, layer))
        out[f"similarity.{layer}"] = array(similarities[-1])
    out["similarity_sum"] = array(torch.stack(similarities).sum(dim=0))
    out["map_sdp"] = array(ClipAdSDP.raw_map(method, features, text))
    out["map_before_smoothing"] = array(method.raw_map(features, text))
    maps = method.score(features, text).map
    text_scores, peaks = method.text_score(features, text), maps.amax((1, 2))
    out |= {"map": array(maps), "pr_sp0": array(text_scores), "pr_sp1": array(peaks)}
    for name in d["class_names"]:
        rows = torch.tensor([name == found for found in d["image_class"]])
        scores = method.set_scores(text_scores[rows], peaks[rows])
        out |= class_results(case, name, scores, maps, out["gt_masks"], aupro=False)
    return in_shape(case, out), features, text
