"""VCP-CLIP: scoring with every intermediate of the text tower, class-wise scores and metrics, three training steps."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cases import Array, Case, array
from torch import Tensor, nn

from blemish.clip import ImageFeatures, resize_positions
from blemish.clip.forward import embed_image
from blemish.datasets.masks import resize_mask
from blemish.methods.maps import as_grid
from blemish.methods.vcp_clip import VCPCLIP, VcpClipConfig, top_mean
from blemish.prompts import PromptSet


def outputs(case: Case) -> dict[str, Array]:
    found = {"infer": _inference, "train": _training}[case.data["kind"]](case)
    for name in case.data["stored_first_item_only"]:
        # layer maps are (layers, batch, ...), all others (batch, ...)
        found[name] = found[name][:, :1] if name.endswith("layer_maps") else found[name][:1]
    return found


def exceptions(case: Case) -> dict[str, Array]:
    """Two biases have a true gradient of zero, of which Adam makes steps: the cases allow their norms 3e-3."""
    noisy = ("New_Lan_Embed.prompt_linear1.fc.bias", "Zero_try.k_proj_pre_1.bias")
    names = case.data.get("param_names", [])
    return {"param_norms": np.array([3e-3 if name in noisy else 0.0 for name in names])} if names else {}


def make_method(case: Case) -> VCPCLIP:
    d = case.data
    config = VcpClipConfig(
        size=d["image_size"],
        layers=tuple(d["features_list"]),
        prompt_len=d["prompt_len"],
        deep_prompt_len=d["deep_prompt_len"],
        total_d_layer_len=d["total_d_layer_len"],
        use_global=d["use_global"],
        alpha=d.get("alpha", 0.2),
        sigma=float(d.get("sigma", 8)),
    )
    cls = VCPCLIP
    if "prompt_templates_normal" in d:
        groups = (d[f"prompt_templates_{kind}"] for kind in ("normal", "abnormal"))
        normal, abnormal = (tuple(s.replace("<|class|>", "{}") for s in group) for group in groups)
        cls = type("CaseVCPCLIP", (VCPCLIP,), {"PROMPTS": PromptSet(normal, abnormal)})
    state = official_state(case)
    assert VCPCLIP.official_config(state, config) == config
    method = cls(case.backbone, config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file always has four adapters
        method.load_official(state)
    return method


def official_state(case: Case) -> dict[str, object]:
    """The extra weights as the authors save them."""
    state: dict[str, object] = {}
    for key, value in case.weights.items():
        part, _, rest = key.partition(".")
        if part in ("trainable_linearlayer", "New_Lan_Embed", "Zero_try"):
            state.setdefault(part, {})[rest] = value  # type: ignore[index]
        else:
            state[key] = value
    return state


@torch.no_grad()
def _inference(case: Case) -> dict[str, Array]:
    d, backbone, method = case.data, case.backbone, make_method(case).eval()
    pixels = case.pixels()
    features = backbone.encode_image(pixels, method.request, method.computation)
    vision = backbone.towers.vision_model
    text = method.text_features(["object"])[0]
    names = method.names(features)
    texts = method.sentence_features(names)
    logits = {"raw": method.raw_logits(features, texts), "new": method.new_logits(features, texts)}
    layers = dict(zip(("raw", "new"), method.layer_maps(features, texts), strict=True))
    maps = {branch: found.mean(dim=0) for branch, found in layers.items()}
    masks = _masks(case)
    prediction = method.score(features, text)
    final = _by_class(case, method, prediction.map)
    top = sum(top_mean(found, 2000) for found in maps.values()) if d["image_size"] ** 2 >= 2000 else None
    out = {
        **_image_side(case, method, pixels, features),
        "visual_positional_embedding": array(
            resize_positions(vision.embeddings.position_embedding.weight, features.grid, "bicubic-antialias")
        ),
        "visual_ln_pre_image0": array(vision.pre_layrnorm(embed_image(vision, pixels[:1], "bicubic-antialias")[0])[0]),
        "class_token": array(names),
        **_text_tower(method, names[:1]),
        "text_embeddings": array(texts),
        "gt_mask": array(masks),
        "post_text": np.stack([array(t) for t in method.seen_texts(features, texts)]),
        "fused": array(_replaced(method, sigma=0.0).score(features, text).map),
        "smoothed": array(prediction.map),
        "final_map": array(final),
        # blemish halves the sum
        "image_score_topscaled_raw": 2 * array(prediction.score),
        "image_score_topscaled": array(_by_class(case, method, prediction.score)),
    }
    for branch, found in maps.items():
        out[f"{branch}_map"] = array(found)
        out[f"{branch}_layer_maps"] = array(layers[branch])
        grids = [[as_grid(each[..., k], features.grid) for k in range(2)] for each in logits[branch]]
        out[f"{branch}_logits"] = np.stack([array(torch.stack(pair, dim=1)) for pair in grids])
    for alpha in d.get("extra_alphas", []):
        other = _replaced(method, alpha=float(alpha)).score(features, text)
        out[f"final_map_alpha{alpha:g}"] = array(_by_class(case, method, other.map))
    if top is not None:
        scores = _by_class(case, method, top)
        out |= {"image_score_top2000_raw": array(top), "image_score": array(scores)}
        out["metrics"] = _metrics(case, array(masks), array(final), array(scores))
    return out


def _training(case: Case) -> dict[str, Array]:
    d, backbone, method = case.data, case.backbone, make_method(case).train()
    pixels = case.pixels()
    with torch.no_grad():
        features = backbone.encode_image(pixels, method.request, method.computation)
    masks = _masks(case)
    optimizer = method.optimizer(lr=d["learning_rate"])
    columns: dict[str, list[Array]] = {}
    for step in range(d["steps"]):
        if method.deep is not None:
            kept = torch.from_numpy(case.expected["dropout_keep"][step]) if d["dropout"] == "on" else None
            method.deep.dropout = Given(kept, method.config.dropout)
        names = method.names(features)
        losses = method.loss(features, masks, masks.amax(dim=(1, 2)))
        row = {
            "loss": losses["total"],
            "loss_base": losses["raw"],
            "loss_new": losses["new"],
            **{name: losses[name] for name in ("focal_raw", "focal_new", "dice_raw", "dice_new")},
            "class_token": names,
            "text_embeddings": method.sentence_features(names, learning=True),
        }
        optimizer.zero_grad()
        losses["total"].backward()
        gradients = _under_their_names(method, grad=True)
        optimizer.step()
        after = case.weights | _under_their_names(method)
        nothing = torch.tensor(torch.nan)
        row["grad_norms"] = torch.stack([gradients.get(name, nothing).norm() for name in d["param_names"]])
        row["param_norms"] = torch.stack([after[name].norm() for name in d["param_names"]])
        row |= {f"grad/{name}": gradients[name] for name in d["full_parameters"]}
        row |= {f"param/{name}": after[name] for name in d["full_parameters"]}
        for key, value in row.items():
            columns.setdefault(key, []).append(array(value).copy())
    out = _image_side(case, method, pixels, features) | {key: np.stack(values) for key, values in columns.items()}
    return out | {key: case.expected[key] for key in case.expected if key == "dropout_keep"}


class Given(nn.Module):
    """The dropout that the reference drew: (sentence, batch, block, n, width) of {0, 1}."""

    def __init__(self, kept: Tensor | None, rate: float) -> None:
        super().__init__()
        self.kept = None if kept is None else kept.permute(2, 0, 1, 3, 4).flatten(1, 2) / (1 - rate)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens if self.kept is None else tokens * self.kept


def _image_side(case: Case, method: VCPCLIP, pixels: Tensor, features: ImageFeatures) -> dict[str, Array]:
    taps = {tap.layer: found for tap, found in features.taps.items()}
    assert features.class_token is not None
    return {
        "image": array(pixels),
        "image_features": array(case.backbone.project(features.class_token)),
        "patch_tokens": np.stack([array(taps[layer]) for layer in method.layers]),
    }


def _text_tower(method: VCPCLIP, names: Tensor) -> dict[str, Array]:
    """The normal sentences over all positions, in and out of the text blocks (listened to, for the test)."""
    backbone, deep = method.backbone, method.deep
    text = backbone.towers.text_model
    blocks = list(text.encoder.layers)
    normal = len(method.PROMPTS.sentences("{}")[0])
    embeddings = method.prompts(names)[0][:normal]
    added = 0 if deep is None else method.config.deep_prompt_len
    zeros = torch.zeros(normal, backbone.context - added - embeddings.shape[1], dtype=torch.int64)
    whole = torch.cat([embeddings, backbone.embed(zeros)], dim=1)
    length = whole.shape[1]
    options: dict[str, Any] = {"activation": method.config.activation}
    if deep is not None:
        inserted, *rest = method.deep.projection(deep.tokens)
        options |= {"inserted": inserted, "deep": rest, "before_norm": deep.norm}
    states: dict[str, Tensor] = {}

    def listen(name: str, module: nn.Module, *, result: bool = False) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(lambda _, args, out: states.update({name: out if result else args[0]}))

    hooks = [
        listen("first", blocks[0].layer_norm1),
        listen("second", blocks[1].layer_norm1),
        listen("attended", blocks[-1].layer_norm2),
        listen("mlp", blocks[-1].mlp.fc2, result=True),
    ]
    try:
        backbone.encode_text(embeddings=whole, end=torch.full((normal,), length - 1), **options)
    finally:
        for hook in hooks:
            hook.remove()
    # the final norm sees end tokens alone: here every position is the end of a sentence of its own
    hook, final = listen("final", text.final_layer_norm, result=True), []
    try:
        for sentence in whole:
            backbone.encode_text(embeddings=sentence.expand(length, -1, -1), end=torch.arange(length), **options)
            final.append(states["final"])
    finally:
        hook.remove()
    found = {
        "text_block1_input_image0": states["first"],
        "text_block2_input_image0": states["second"],
        "text_block12_output_image0": states["attended"] + states["mlp"],
        "text_ln_final_image0": torch.stack(final),
    }
    return {name: array(value[0] if normal == 1 else value) for name, value in found.items()}


def _masks(case: Case) -> Tensor:
    files = {item["image"]: item["mask"] for rows in case.data["classes"].values() for item in rows}
    named = [files[name] for name in case.data["image_files"]]
    size = case.data["image_size"]
    return torch.stack(
        [torch.from_numpy(resize_mask(None if name is None else case.open(name), size)).float() for name in named]
    )


def _rows(case: Case) -> list[list[int]]:
    """The rows of each class's pictures."""
    files = case.data["image_files"]
    return [[files.index(item["image"]) for item in rows] for rows in case.data["classes"].values()]


def _by_class(case: Case, method: VCPCLIP, values: Tensor) -> Tensor:
    out = torch.empty_like(values)
    for rows in _rows(case):
        out[rows] = method.set_scores(values[rows])
    return out


def _metrics(case: Case, masks: Array, maps: Array, scores: Array) -> Array:
    from blemish.metrics import image_metrics, pixel_metrics

    table = []
    for rows in _rows(case):
        pixel = pixel_metrics(masks[rows], maps[rows], steps=200, vcp=True)
        image = image_metrics(masks[rows].any(axis=(1, 2)), scores[rows])
        of_pixels = pixel.auroc, pixel.aupro, pixel.ap, pixel.f1_max, pixel.iou
        table.append([*of_pixels, image.auroc, image.ap, image.f1_max, pixel.f1_threshold])
    return np.array(table)


def _under_their_names(method: VCPCLIP, *, grad: bool = False) -> dict[str, Tensor]:
    """Parameters or gradients under the names and in the shapes of the authors' files."""
    named = {}
    for name, parameter in method.named_parameters():
        value = parameter.grad if grad else parameter
        if value is not None:
            named[name] = value.detach().clone()
    out = {"New_Lan_Embed.prompt_temp": named.pop("raw_scale"), "Zero_try.prompt_temp_l1": named.pop("new_scale")}
    if (tokens := named.pop("deep.tokens", None)) is not None:
        out |= {"prompt_embeddings": tokens[:1], "deep_prompt_embeddings": tokens[1:]}
    out["New_Lan_Embed.prompt_query"] = named.pop("pre.query").unsqueeze(0)
    parts = {
        "linear": "trainable_linearlayer",
        "pre.conv": "New_Lan_Embed.prompt_linear1.fc",
        "deep.projection": "prompt_proj",
        "deep.norm": "prompt_norm",
        "post.query": "Zero_try.q_proj_pre",
        "post.key": "Zero_try.k_proj_pre_1",
        "post.value": "Zero_try.v_proj_pre_1",
        "post.out": "Zero_try.proj_post_t",
    }
    for name, value in named.items():
        part = next(ours for ours in parts if name.startswith(f"{ours}."))
        wider = part.startswith("post.") and value.dim() == 2
        out[parts[part] + name.removeprefix(part)] = value.unsqueeze(-1) if wider else value
    return out


def _replaced(method: VCPCLIP, **changes: object) -> VCPCLIP:
    other = type(method)(method.backbone, replace(method.config, **changes))  # type: ignore[arg-type]
    other.load_state_dict(method.state_dict())
    return other.eval()
