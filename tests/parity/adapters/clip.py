"""The plain baseline: two image embeddings and two temperatures per case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from cases import Array, Case, array

from blemish.clip import Tap, resize_positions
from blemish.methods.clip import Clip, ClipConfig
from blemish.methods.maps import cosine_logits, normalise
from blemish.prompts import PromptSet


def outputs(case: Case) -> dict[str, Array]:
    d, backbone = case.data, case.backbone
    normal, anomalous = d["prompts"]
    method = type("CaseClip", (Clip,), {"PROMPTS": PromptSet((normal,), (anomalous,))})
    ids = backbone.tokenize([prompt.replace("{}", d["class_names"][0]) for prompt in d["prompts"]])
    with torch.no_grad():
        raw = backbone.encode_text(ids)
    return {"tokens": array(ids), "text_features_raw": array(raw), **image_side(case, method)}


@torch.no_grad()
def image_side(case: Case, method: type[Clip]) -> dict[str, Array]:
    """What `clip` and `clip-ac` have in common."""
    d, backbone = case.data, case.backbone
    config = ClipConfig(size=d["image_size"], layers=tuple(d["features_list"]), sigma=float(d["sigma"]))
    plain = method(backbone, config)
    pixels = case.pixels()
    features = backbone.encode_image(pixels, plain.request, plain.computation)
    text = plain.text_features(d["class_names"])
    position = backbone.towers.vision_model.embeddings.position_embedding.weight
    out = {
        "image_tensor": array(pixels),
        "positional_embedding": array(resize_positions(position, features.grid, "bilinear")),
        "patch_features": np.stack([array(backbone.project(features.taps[Tap(k)])) for k in plain.layers]),
        "text_features": array(text),
        "patch_cosine": array(replaced(plain, temperature=1.0).patch_logits(features, text[0])),
        "anomaly_map_raw_t007": array(replaced(plain, sigma=0.0, temperature=0.07).score(features, text[0]).map),
    }
    for variant in ("ln_post", "no_ln_post"):
        one = replaced(plain, class_token=variant)
        embedding = one.image_embedding(features)
        out[f"image_feature_{variant}_raw"] = array(embedding)
        cosines = [cosine_logits(embedding, pair, 1.0) for pair in text]
        assert torch.allclose(cosines[0], normalise(embedding) @ text[0].T, atol=1e-6)
        out[f"image_cosine_{variant}"] = array(torch.stack(cosines))
        for key, temperature in d["temperatures"].items():
            scorer = replaced(one, temperature=temperature)
            found = [scorer.score(features, pair) for pair in text]
            out[f"image_score_{variant}_{key}"] = array(torch.stack([p.score for p in found]))
            out[f"anomaly_map_{key}"] = array(found[0].map)
    return out


def replaced(method: Clip, **changes: object) -> Clip:
    return type(method)(method.backbone, replace(method.config, **changes))  # type: ignore[arg-type]
