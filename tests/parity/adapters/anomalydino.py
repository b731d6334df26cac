"""AnomalyDINO, few-shot and batched; told apart by the case's mode."""

from __future__ import annotations

import numpy as np
import torch
from cases import Array, Case, array
from PIL import Image
from torch import Tensor

from blemish.clip import ImageFeatures, forward, to_levels
from blemish.methods.anomalydino import (
    ANGLES,
    TOP,
    AnomalyDINO,
    AnomalyDINOBatch,
    AnomalyDinoBatchConfig,
    AnomalyDinoConfig,
    PatchBank,
    PatchMethod,
    first_component,
    mean_of_largest,
)

METRICS = {"L2_normalized": "cosine", "L2": "L2"}


@torch.no_grad()
def outputs(case: Case) -> dict[str, Array]:
    out = _batched(case) if case.data["mode"].startswith("batched") else _few_shot(case)
    return {name: value if isinstance(value, np.ndarray) else array(value) for name, value in out.items()}


def _few_shot(case: Case) -> dict[str, Tensor | Array]:
    p = case.data["params"]
    config = AnomalyDinoConfig(
        size=p["resolution"],
        masking=p["masking"],
        mask_references=p["mask_ref_images"],
        rotation=p["rotation"],
        metric=METRICS[p["knn_metric"]],
        neighbours=p["k_neighbors"],
    )
    method = AnomalyDINO(case.dinov2, config)
    references = [case.open(name).convert("RGB") for name in case.data["reference_files"]]
    copies = [
        copy
        for number, each in enumerate(references)
        for copy in method.reference_copies(each, number, len(references))
    ]
    pixels = [method.backbone.preprocess([copy], config.size, config.geometry) for copy in copies]
    memory = method.build_memory_bank(pixels, lambda x: _encode(method, x), num_images=len(references))
    assert isinstance(memory, PatchBank)
    reference = _encode(method, pixels[0])
    rows = memory.taps[method.tap]
    out: dict[str, Tensor | Array] = {
        "resized_reference.0": _levels(method, references[0]),
        "reference_features.0": method.patches(reference)[0],
        "mask_reference.0": _grid(method.foreground(method.patches(reference), reference.grid)[0], reference),
        "memory_shape": np.array(rows.shape),
        "memory": rows[: len(case.expected.get("memory", rows))],
    }
    if config.rotation:
        out |= {f"rotated_reference.{angle}": np.asarray(copies[i]) for i, angle in enumerate(ANGLES)}
    scores = []
    for number, image in enumerate(case.images):
        features = _features(method, image)
        found, distances = _picture(case, method, image, number, features), method.distances(features, memory)
        scores.append(float(mean_of_largest(distances.flatten(1), TOP)))
        full = method.finish_map(distances[0], image.height, image.width)
        out |= {**found, f"distances.{number}": distances[0], f"anomaly_map.{number}": full}
    return out | {"image_score": np.array(scores)}


def _batched(case: Case) -> dict[str, Tensor | Array]:
    p = case.data["params"]
    config = AnomalyDinoBatchConfig(size=p["resolution"], masking=p["masking"], quantile=p["quantile"])
    method = AnomalyDINOBatch(case.dinov2, config)
    every = [_features(method, image) for image in case.images]
    parts = [method.extract_memory(features) for features in every]
    memory = PatchBank.concat(parts)
    out: dict[str, Tensor | Array] = {}
    counts, scores = [], []
    for number, (image, features) in enumerate(zip(case.images, every, strict=True)):
        own = parts[number].taps[method.tap]
        others = method.others(own, memory)
        unmasked, distances = method.unmasked_distances(own, others), method.distances(features, memory)
        counts.append(method.count(len(others)))
        if counts[-1] < 2:  # the authors' mean is over none
            kept = method.foreground(method.patches(features), features.grid).reshape(distances.shape)
            unmasked, distances = unmasked * torch.nan, torch.where(kept, torch.nan, 0.0)
        # The authors take no patch of a picture that has fewer than 100, and the mean of none is not a number.
        few = int(TOP * distances.numel()) == 0
        scores.append(float("nan") if few else float(mean_of_largest(distances.flatten(1), TOP)))
        out |= _picture(case, method, image, number, features)
        out |= {
            f"features_head.{number}": method.patches(features)[0, :20],
            f"distances_unmasked.{number}": _grid(unmasked, features),
            f"distances.{number}": distances[0],
        }
    labels = np.array(case.data["image_label"])
    return out | {"k": np.array(counts), "image_score": np.array(scores), "auroc": _auroc(labels, np.array(scores))}


def _picture(
    case: Case, method: PatchMethod, image: Image.Image, number: int, features: ImageFeatures
) -> dict[str, Tensor | Array]:
    """What both modes store of a scored picture."""
    patches = method.patches(features)
    pixels = method.backbone.preprocess([image], method.config.size, method.config.geometry)
    component = _grid(first_component(patches)[0], features)
    expected = case.expected.get(f"first_pc.{number}")
    if expected is not None and (array(component) * expected).sum() < 0:
        component = -component  # the sign is free
    return {
        f"resized.{number}": _levels(method, image),
        f"embedded_tokens.{number}": forward.embed_image(case.dinov2.vision, pixels, method.config.position)[0][0],
        f"features.{number}": patches[0],
        f"first_pc.{number}": component,
        f"mask.{number}": _grid(method.foreground(patches, features.grid)[0], features),
    }


def _features(method: PatchMethod, image: Image.Image) -> ImageFeatures:
    return _encode(method, method.backbone.preprocess([image], method.config.size, method.config.geometry))


def _encode(method: PatchMethod, pixels: Tensor) -> ImageFeatures:
    return method.backbone.encode_image(pixels, method.memory_request, method.computation)


def _levels(method: PatchMethod, image: Image.Image) -> Array:
    return to_levels(image, method.config.size, method.config.geometry, method.backbone.patch).transpose(1, 2, 0)


def _grid(values: Tensor, features: ImageFeatures) -> Tensor:
    return values.reshape(features.grid)


def _auroc(labels: Array, scores: Array) -> Array:
    if np.isnan(scores).any():
        return np.array(np.nan)
    good, bad = scores[labels == 0], scores[labels == 1]
    return np.array((bad[:, None] > good).mean() + (bad[:, None] == good).mean() / 2)
