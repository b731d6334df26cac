"""SubspaceAD, few-shot and batched; told apart by the case's mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cases import Array, Case, array
from PIL import Image
from torch import Tensor

from blemish.clip import forward, to_levels
from blemish.methods.subspacead import (
    SubspaceAD,
    SubspaceAdBatchConfig,
    SubspaceADBatch,
    SubspaceAdConfig,
    SubspaceBank,
    rotation_angles,
)


@torch.no_grad()
def outputs(case: Case) -> dict[str, Array]:
    p = case.data["params"]
    method = _method(p)(case.dinov2, _config(p))
    config, backbone = method.config, case.dinov2

    def prepare(image: Image.Image) -> Tensor:
        return backbone.preprocess([image], config.size, config.geometry)

    def encode(pixels: Tensor) -> Any:
        return backbone.encode_image(pixels, method.memory_request, method.computation)

    def patches(image: Image.Image) -> Tensor:
        features = encode(prepare(image))
        return method.patches(features)[0].unflatten(0, features.grid)

    batched = bool(p["batched_zero_shot"])
    train = [case.open(name).convert("RGB") for name in case.data["train_files"]]
    copies = [list(method.reference_copies(each, number, len(train))) for number, each in enumerate(train)]
    batches = (prepare(copy) for each in copies for copy in each)
    memory = method.build_memory_bank(batches, encode, num_images=len(train))
    assert isinstance(memory, SubspaceBank)
    subspace = memory.subspace
    k = method.components(subspace)
    basis = subspace.components[:, :k]
    out: dict[str, Tensor | Array] = {
        "pca_mean": subspace.mean,
        "explained_variance": subspace.variances,
        "k": np.array(k),
        "projector": basis @ basis.T,
    }
    if not batched and config.rotations:
        n = config.rotations
        out |= {
            "rotated.pass1.0": np.asarray(copies[0][1]),
            "rotated.pass2.0": np.asarray(copies[0][1 + n]),
            "features_train_rotated.pass1.0": patches(copies[0][1]),
            "features_train_rotated.pass2.0": patches(copies[0][1 + n]),
        }
        drawn = rotation_angles(config.seed, 2 * len(train) * n)
        given = case.data["rotation_angles"]
        stored = [angle for draw in ("pass1_mean", "pass2_covariance") for each in given[draw] for angle in each]
        assert drawn == tuple(stored), "the angles of the case are not those that are drawn"
    for number, image in enumerate(train[:2]):
        out |= {f"resized_train.{number}": _levels(method, image), f"features_train.{number}": patches(image)}
    scores = []
    for number, image in enumerate(case.images):
        features = encode(prepare(image))
        residual = method.patch_scores(features, memory)
        maps = method.raw_map(residual)
        scores.append(float(method.raw_score(maps)))
        out |= {
            f"resized.{number}": _levels(method, image),
            f"embedded_tokens.{number}": forward.embed_image(backbone.vision, prepare(image), config.position)[0][0],
            f"features.{number}": patches(image),
            f"residual.{number}": residual[0],
            f"anomaly_map.{number}": maps[0],
        }
    out["image_score"] = np.array(scores)
    return {name: value if isinstance(value, np.ndarray) else array(value) for name, value in out.items()}


def _method(p: dict[str, Any]) -> type[SubspaceAD] | type[SubspaceADBatch]:
    return SubspaceADBatch if p["batched_zero_shot"] else SubspaceAD


def _config(p: dict[str, Any]) -> Any:
    """The config from the authors' parameters."""
    layers = {
        "mean": (tuple(p["layers"]),),
        "concat": tuple((layer,) for layer in p["layers"]),
        "group": tuple(map(tuple, p.get("grouped_layers") or ())),
    }[p["agg_method"]]
    fields: dict[str, Any] = {
        "size": p["image_res"],
        "geometry": "squash-torch-crop" if p["docrop"] else "squash-torch",
        "layers": layers,
        "explained": p["pca_ev"],
        "components": p.get("pca_dim") or 0,
        "drop": p["drop_k"],
        "measure": p["score_method"],
        "top": p["img_score_agg"],
    }
    if p["batched_zero_shot"]:
        return SubspaceAdBatchConfig(**fields)
    return SubspaceAdConfig(**fields, rotations=p["aug_count"] if p.get("k_shot") else 0, seed=p["seed"])


def _levels(method: SubspaceAD | SubspaceADBatch, image: Image.Image) -> Array:
    return to_levels(image, method.config.size, method.config.geometry, method.backbone.patch).transpose(1, 2, 0)
