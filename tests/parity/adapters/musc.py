"""MuSc on CLIP and on DINOv2; all pictures of a case are one set."""

from __future__ import annotations

from dataclasses import replace

import torch
from cases import Array, Case, array

from blemish.clip import ImageBackbone, Tap, forward, to_levels
from blemish.methods.musc import MuSc, MuScConfig


@torch.no_grad()
def outputs(case: Case) -> dict[str, Array]:
    p = case.data["params"]
    backbone: ImageBackbone = case.backbone if "clip" in case.data else case.dinov2
    blocks = p["feature_layers"]
    config = replace(
        MuSc.default_config(backbone),
        size=p["img_resize"],
        activation=case.data.get("activation", "checkpoint"),
        mutual_layers=tuple(block + 1 for block in blocks),
        degrees=tuple(p["r_list"]),
        nearest=p["topmin_max"],
        similar_images=tuple(p["k_score"]),
        whole_set=True,
    )
    method = MuSc(backbone, config)
    pixels = backbone.preprocess(case.images, config.size, config.geometry)
    features = backbone.encode_image(pixels, method.request, method.computation)
    memory = method.build_memory_bank(
        [pixels], lambda x: backbone.encode_image(x, method.request, method.computation), num_images=len(pixels)
    )
    prediction = method.score(features, method.text_features(["object"])[0], memory)
    embedded, _ = forward.embed_image(backbone.vision, pixels[:1], config.position)
    out: dict[str, torch.Tensor] = {
        "embedded_tokens.0": embedded[0],
        "class_feature": method.class_features(features),
        "patch_map": method.mutual_map(features, memory),
        "image_score_before": prediction.map.amax((1, 2)),
        "image_score": prediction.score,
    }
    for number, image in enumerate(case.images):
        levels = to_levels(image, config.size, config.geometry, backbone.patch)
        out |= {f"resized.{number}": torch.from_numpy(levels).permute(1, 2, 0)}
        out |= {f"anomaly_map.{number}": prediction.map[number]}
    for block in blocks:
        tokens = features.taps[Tap(block + 1)][0, 1:]
        out[f"patch_tokens.{block}.0"] = backbone.final_norm(tokens) if config.final_norm else tokens
        for degree in config.degrees:
            one = MuSc(backbone, _one_map(config, block + 1, degree))
            out[f"lnamd.r{degree}.{block}.0"] = one.patches(features, block + 1)[0, :, 0]
            out[f"msm.r{degree}.{block}"] = one.mutual_map(features, one.extract_memory(features)).flatten(1)
    return {name: array(value) for name, value in out.items()}


def _one_map(config: MuScConfig, layer: int, degree: int) -> MuScConfig:
    return replace(config, mutual_layers=(layer,), degrees=(degree,), similar_images=())
