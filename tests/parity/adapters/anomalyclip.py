"""AnomalyCLIP: scoring, three training steps, a small dataset with its metrics."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import torch
from cases import Array, Case, array
from torch import Tensor

from blemish.clip import Request, Tap, resize_positions
from blemish.datasets.masks import resize_mask
from blemish.methods.anomalyclip import AnomalyCLIP, AnomalyClipConfig
from blemish.methods.maps import as_grid, cosine_logits, normalise, upsample


def outputs(case: Case) -> dict[str, Array]:
    kinds = {"inference": _inference, "training": _training, "dataset": _dataset}
    return kinds[case.data["kind"]](case)


def make_method(case: Case) -> AnomalyCLIP:
    d = case.data
    config = AnomalyClipConfig(
        size=d["image_size"],
        layers=tuple(d["features_list"]),
        feature_map_layer=d["feature_map_layer"][0],
        dpam_blocks=(d["DPAM_layer"] or 1) - 1,
        n_ctx=d["n_ctx"],
        depth=d["depth"],
        t_n_ctx=d["t_n_ctx"],
        temperature=d["temperature"],
        sigma=float(d.get("sigma", 4)),
        pixel_weight=float(d.get("lam", 4)),
    )
    state = {"prompt_learner": case.weights}
    assert AnomalyCLIP.official_config(state, config) == config
    method = AnomalyCLIP(case.backbone, config)
    method.load_official(state)
    return method


@torch.no_grad()
def _inference(case: Case) -> dict[str, Array]:
    method, backbone = make_method(case), case.backbone
    pixels = case.pixels()
    blocks = Request(frozenset(Tap(k + 1) for k in range(backbone.layers)))
    features = backbone.encode_image(pixels, method.request | blocks, method.computation)
    embeddings, end = method.prompts()
    raw_text, hidden = _end_states(method, embeddings, end)
    text = method.text_features(["object"])[0]
    unrounded = _replaced(method, half_deep_tokens=False).text_features(["object"])[0]
    taps = [features.taps[method.tap(k)] for k in method.layers]
    position = backbone.towers.vision_model.embeddings.position_embedding.weight
    temperature, size = method.config.temperature, method.config.size
    probability = method.patch_probability(features, text)
    prediction = method.score(features, text)
    return {
        "image_tensor": array(pixels),
        "patch_features": np.stack([array(backbone.project(tap)) for tap in taps]),
        "image_feature": array(normalise(method.image_embedding(features))),
        "image_feature_raw": array(method.image_embedding(features)),
        "text_prompts": array(embeddings),
        "text_eot_hidden": array(hidden),
        "text_features_raw": array(raw_text),
        "text_features": array(text),
        "text_features_without_half": array(unrounded),
        "positional_embedding": array(resize_positions(position, features.grid, "bilinear")),
        "class_token_per_block": np.stack([array(features.taps[Tap(k + 1)][:, 0]) for k in range(backbone.layers)]),
        "tap_tokens_last": array(taps[-1]),
        "image_logits": array(method.image_logits(features, text)),
        "image_score": array(prediction.score),
        "similarity": np.stack(
            [array(cosine_logits(backbone.project(t[:, 1:]), text, temperature).softmax(-1)) for t in taps]
        ),
        "layer_maps_image0": np.stack([array(upsample(as_grid(p[:1], features.grid), size))[0] for p in probability]),
        "anomaly_map_raw": array(_replaced(method, sigma=0.0).score(features, text).map),
        "anomaly_map": array(prediction.map),
    }


def _training(case: Case) -> dict[str, Array]:
    d, method, backbone = case.data, make_method(case), case.backbone
    pixels = case.pixels()
    with torch.no_grad():
        features = backbone.encode_image(pixels, method.request, method.computation)
        taps = [array(backbone.project(features.taps[method.tap(k)])) for k in method.layers]
    size = d["image_size"]
    masks = torch.stack(
        [
            torch.from_numpy(resize_mask(None if name is None else case.open(name), size)).float()
            for name in d["mask_files"]
        ]
    )
    labels = torch.tensor(d["labels"])
    optimizer = method.optimizer(lr=d["lr"], betas=tuple(d["betas"]))
    out: dict[str, Array] = {
        "image_tensor": array(pixels),
        "masks": array(masks),
        "image_feature": array(normalise(method.image_embedding(features))),
        "patch_features": np.stack(taps),
    }
    columns: dict[str, list[Array]] = {}
    for step in range(d["steps"]):
        text = method.text_features(["object"])[0]
        losses = method.loss(features, masks, labels)
        optimizer.zero_grad()
        losses["total"].backward()
        if step == 0:
            probability = method.patch_probability(features, text)[-1]
            anomalous = upsample(as_grid(probability, features.grid), size)
            out["similarity_map_last_step0"] = array(torch.stack([1 - anomalous, anomalous], dim=1))
            out |= {f"grad_step0/{k}": array(v) for k, v in _under_their_names(method, grad=True).items()}
        optimizer.step()
        after = _under_their_names(method)
        row = {
            "text_features": text,
            "focal": losses["focal"],
            "dice_abnormal": losses["dice_anomalous"],
            "dice_normal": losses["dice_normal"],
            "pixel_loss": losses["pixel"],
            "image_loss": losses["image"],
            "total_loss": losses["total"],
            "image_logits": method.image_logits(features, text),
            "param_norms": torch.stack([after[key].norm() for key in d["trainable"]]),
            **{f"params_after/{k}": v for k, v in after.items()},
        }
        for key, value in row.items():
            columns.setdefault(key, []).append(array(value).copy())
    return out | {key: np.stack(values) for key, values in columns.items()}


@torch.no_grad()
def _dataset(case: Case) -> dict[str, Array]:
    d, method = case.data, make_method(case)
    meta = json.loads((case.folder / d["dataset_root"] / "meta.json").read_text(encoding="utf-8"))
    items = [item for rows in meta["test"].values() for item in rows]
    text = method.text_features(["object"])[0]
    scores, maps, masks = [], [], []
    for item in items:
        pixels = case.backbone.preprocess([case.open(item["img_path"])], d["image_size"])
        prediction = method.score(case.backbone.encode_image(pixels, method.request, method.computation), text)
        scores.append(array(prediction.score)[0])
        maps.append(array(prediction.map)[0])
        mask = case.open(item["mask_path"]) if item["mask_path"] else None
        masks.append(array(torch.from_numpy(resize_mask(mask, d["image_size"])).float()))
    out = {
        "image_score": np.array(scores),
        "anomaly_map": np.stack(maps),
        "masks": np.stack(masks),
        "labels": np.array([item["anomaly"] for item in items]),
        "class_index": np.array([d["class_names"].index(item["cls_name"]) for item in items]),
    }
    return out | _metrics(out, len(d["class_names"]))


def _metrics(found: dict[str, Array], classes: int) -> dict[str, Array]:
    """The four numbers that the reference reports, in the order of its table."""
    from blemish.metrics import aupro_200, image_metrics, pixel_metrics

    rows = []
    for number in range(classes):
        chosen = found["class_index"] == number
        masks, maps = found["masks"][chosen], found["anomaly_map"][chosen]
        image = image_metrics(found["labels"][chosen], found["image_score"][chosen])
        rows.append((pixel_metrics(masks, maps).auroc, aupro_200(masks, maps), image.auroc, image.ap))
    values = np.array(rows)
    mean = values.mean(axis=0)
    out: dict[str, Array] = {"table": np.round(100 * np.vstack([values, mean]), 1)}
    for column, name in enumerate(("pixel-auroc", "pixel-aupro", "image-auroc", "image-ap")):
        out[f"per_class/{name}"], out[f"mean/{name}"] = values[:, column], mean[column]
    return out


def _end_states(method: AnomalyCLIP, embeddings: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The text features before normalisation, and the end token after each block (listened to, for the test only)."""
    text = method.backbone.towers.text_model
    states: list[Tensor] = []
    # what a block hands on enters the next block's first layer norm, or after the last block the final norm
    norms = [layer.layer_norm1 for layer in list(text.encoder.layers)[1:]]
    rows = torch.arange(len(end))
    hooks = [norm.register_forward_hook(lambda _, args, __: states.append(args[0][rows, end])) for norm in norms]
    hooks.append(text.final_layer_norm.register_forward_hook(lambda _, args, __: states.append(args[0])))
    try:
        raw = method.backbone.encode_text(embeddings=embeddings, end=end, deep=method.deep_tokens())
    finally:
        for hook in hooks:
            hook.remove()
    return raw, torch.stack(states)


def _under_their_names(method: AnomalyCLIP, *, grad: bool = False) -> dict[str, Tensor]:
    context, deep = (p.grad if grad else p for p in (method.context, method.deep))
    assert context is not None
    names = {"ctx_pos": context[0][None, None], "ctx_neg": context[1][None, None]}
    return names | {f"compound_prompts_text.{k}": row for k, row in enumerate([] if deep is None else deep)}


def _replaced(method: AnomalyCLIP, **changes: object) -> AnomalyCLIP:
    other = AnomalyCLIP(method.backbone, replace(method.config, **changes))  # type: ignore[arg-type]
    other.load_state_dict(method.state_dict())
    return other
