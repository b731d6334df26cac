"""CLIP-AD's representative vectors, of synthetic embeddings and of sentences."""

from __future__ import annotations

import numpy as np
import tiny_clip
import torch
from cases import Array, Case, array

from adapters.clip_ad_sdp import text_side
from blemish.methods.clip_ad import BANDWIDTH, ClipAD, ClipAdConfig, clusters, kernel_sums, represent, select
from blemish.methods.ops import normalise

STATES = ("normal", "abnormal")


def outputs(case: Case) -> dict[str, Array]:
    d, out = case.data, {}
    embeddings = _synthetic(case) if d["source"] == "synthetic" else _sentences(case)
    for variant in d["variants"]:
        rows = {state: _half(e) if variant == "f16" else _unit(e) for state, e in embeddings.items()}
        for state in STATES:
            out[f"class_embeddings.{variant}.{state}"] = rows[state][: d.get("store_rows")]
        for rep_vec, dataset in d["runs"]:
            config = ClipAdConfig(**text_side(rep_vec, dataset))
            key = f"{variant}.{rep_vec}.{dataset}"
            texts = [represent(rows[state], config) for state in STATES]
            out[f"text_features.{key}"] = np.stack(texts, axis=1)
            for state in STATES:
                out |= _parts(case, rows[state], config, f"{key}.{state}")
    if d["source"] == "clip" and "f32" in d["variants"]:
        _check_the_method(case, out)
    return out


def exceptions(case: Case) -> dict[str, Array]:
    """A value near a rounding boundary may land on the neighbouring half, as the notes say; they are rounded twice."""
    halves = {name: value for name, value in case.expected.items() if name.startswith("class_embeddings.f16.")}
    return {name: np.abs(value) * 2.0**-9 for name, value in halves.items()}


def _parts(case: Case, rows: Array, config: ClipAdConfig, key: str) -> dict[str, Array]:
    raw = select(rows, config)
    if config.rep_vec == "pca" and f"raw.{key}" in case.expected and raw @ case.expected[f"raw.{key}"] < 0:
        raw = -raw  # the stored sign is arbitrary
    out = {f"raw.{key}": raw}
    if config.rep_vec == "dbscan":
        out[f"labels.{key}"] = clusters(rows, config.dbscan_eps, config.dbscan_min_samples)
    elif config.rep_vec == "mean-shift":
        out[f"labels.{key}"] = np.zeros(len(rows))
    elif config.rep_vec == "kde":
        h = BANDWIDTH
        density = kernel_sums(rows) / len(rows)
        out[f"log_density.{key}"] = np.log(density) - rows.shape[1] * np.log(h * np.sqrt(2 * np.pi))
    return out


def _check_the_method(case: Case, out: dict[str, Array]) -> None:
    """The same through the method."""
    for rep_vec, dataset in case.data["runs"]:
        config = ClipAdConfig(activation=case.data.get("activation", "checkpoint"), **text_side(rep_vec, dataset))
        found = array(ClipAD(case.backbone, config).text_features(case.data["class_names"])[0].T)
        assert np.allclose(found, out[f"text_features.f32.{rep_vec}.{dataset}"], atol=1e-6)


def _synthetic(case: Case) -> dict[str, Array]:
    out = {}
    for state, described in case.data["synthetic"].items():
        parts = []
        for g in described["groups"]:
            centre = tiny_clip.array(g["centre"], (described["dim"],), 1)
            noise = tiny_clip.array(g["noise"], (g["rows"], described["dim"]), g["std"])
            parts.append(np.float32(g["centre_scale"]) * centre + noise)
        out[state] = np.concatenate(parts)
    return out


def _sentences(case: Case) -> dict[str, Array]:
    """Not normalised."""
    method = ClipAD(case.backbone, ClipAdConfig(activation=case.data.get("activation", "checkpoint")))
    sentences = method.PROMPTS.sentences(case.data["class_names"][0])
    with torch.no_grad():
        encoded = [
            case.backbone.encode_text(case.backbone.tokenize(group), activation=method.config.activation)
            for group in sentences
        ]
    return {state: array(e) for state, e in zip(STATES, encoded, strict=True)}


def _unit(rows: Array) -> Array:
    return array(normalise(torch.from_numpy(rows)))


def _half(rows: Array) -> Array:
    """As under autocast: half values over their float32 norm, rounded to half."""
    half = rows.astype(np.float16).astype(np.float32)
    return _unit(half).astype(np.float16).astype(np.float32)
