"""WinCLIP, zero-shot and with references; both reproductions, told apart by the case's options."""

from __future__ import annotations

import torch
from cases import Array, Case, array
from torch import Tensor

from blemish.clip import forward
from blemish.clip.forward import window_indices
from blemish.methods.base import MemoryBank
from blemish.methods.winclip import WinCLIP, WinClipConfig, harmonic


@torch.no_grad()
def outputs(case: Case) -> dict[str, Array]:
    d, backbone, method = case.data, case.backbone, _method(case)
    pixels = _pixels(case, "image", d["image_files"])
    embedded, grid = forward.embed_image(backbone.towers.vision_model, pixels, "bicubic-antialias")
    text = method.text_features([d["class_name"]])[0]
    memory = references = None
    if d["reference_files"]:
        reference_pixels = _pixels(case, "reference_image", d["reference_files"])
        references = backbone.encode_image(reference_pixels, method.memory_request, method.computation)
        memory = method.extract_memory(references)
    request = method.request if memory is None else method.memory_request
    features = backbone.encode_image(pixels, request, method.computation)
    prediction = method.score(features, text, memory)
    patches = method.zero_shot_map(features, text)
    out: dict[str, Tensor] = {
        "image": pixels,
        "text_features": method.mean_features(d["class_name"]),
        "embedded_tokens": embedded,
        "image_feature": backbone.project(features.class_token),
        "text_score": method.text_score(features, text),
        "zero_shot_map": patches,
        "map": patches,
        "anomaly_map": prediction.map,
        "image_score": prediction.score,
    }
    for kind, sentences in zip(("normal", "anomalous"), method.PROMPTS.sentences(d["class_name"]), strict=True):
        out[f"prompt_tokens_{kind}"] = backbone.tokenize(sentences)
        out[f"prompt_features_{kind}"] = backbone.encode_text(backbone.tokenize(sentences))
    for side in method.scales:
        found = method.window_features(features, side)
        out |= {
            f"window_index_{side}": window_indices(grid, side),
            f"window_features_{side}": found,
            f"window_scores_{side}": method.probability(found, text),
            f"map_{side}": method.scale_map(features, text, side),
        }
    if memory is not None:
        association = method.association_map(features, memory)
        out |= {
            "reference_image": reference_pixels,
            "patch_features": method.patch_features(features),
            "association_patch": method.patch_distance(features, memory),
            "association_map": association,
            "map": patches + association if method.config.few_shot_map == "sum" else (patches + association) / 2,
            "reference_patch_features": _apart(memory, memory.taps[method.tap]),
        }
        for side in method.scales:
            distance = method.window_distance(features, memory, side)
            out |= {
                f"association_window_{side}": distance,
                f"association_map_{side}": harmonic(distance, grid, side),
                f"reference_window_features_{side}": _apart(memory, memory.windows[side]),
            }
    return {name: array(value) for name, value in out.items()}


def _method(case: Case) -> WinCLIP:
    d = case.data
    config = WinClipConfig(
        size=d["image_size"],
        scales=tuple(d["scales"]),
        temperature=d["temperature"],
        patch_norm=d["options"]["patch_feature_layer_norm"],
        few_shot_map="mean" if d["options"]["few_shot_map"].endswith("/ 2") else "sum",
    )
    return WinCLIP(case.backbone, config)


def _pixels(case: Case, name: str, files: list[str]) -> Tensor:
    """anomalib resizes tensors where blemish resizes pictures: its cases start from the stored tensor."""
    if case.data["variant"] == "anomalib":
        return torch.from_numpy(case.expected[name])
    return case.backbone.preprocess([case.open(file) for file in files], case.data["image_size"])


def _apart(memory: MemoryBank, rows: Tensor) -> Tensor:
    return rows.unflatten(0, (memory.images, -1))
