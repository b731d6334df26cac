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
    SubspaceADBatch,
    SubspaceAdBatchConfig,
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
    copies = _copies(case, method, train)
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


def _copies(case: Case, method: SubspaceAD | SubspaceADBatch, train: list[Image.Image]) -> list[list[Image.Image]]:
    """What is encoded of each training picture; with the angles of the case, which depend on what was drawn before."""
    own = [list(method.reference_copies(each, number, len(train))) for number, each in enumerate(train)]
    given = case.data.get("rotation_angles")
    if given is None:
        return own
    stored = [given["pass1_mean"], given["pass2_covariance"]]
    angles = tuple(angle for draw in stored for picture in draw for angle in picture)
    if angles == rotation_angles(method.config.seed, len(angles)):
        return own
    return [[image, *(image.rotate(a) for draw in stored for a in draw[i])] for i, image in enumerate(train)]


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
