"""APRIL-GAN: scoring, three training steps, a mosaic."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cases import Array, Case, array
from PIL import Image
from torch import Tensor

from blemish.clip import ImageFeatures, Tap, resize_positions
from blemish.datasets.masks import resize_mask
from blemish.methods import checkpoints
from blemish.methods.april_gan import AprilGAN, AprilGanConfig
from blemish.methods.base import MemoryBank, Method
from blemish.methods.ops import cosine_logits, encode_sentences, normalise
from blemish.training.augment import mosaic


def outputs(case: Case) -> dict[str, Array]:
    if case.data.get("mode") == "mosaic":
        return _mosaic(case)
    method = make_method(case)
    return training(case, method, "patch_tokens") if case.data.get("mode") == "train" else inference(case, method)


def exceptions(case: Case) -> dict[str, Array]:
    """A gradient near Adam's epsilon is noise in float32, and so is how far Adam moves by it: up to lr."""
    if case.data.get("mode") != "train":
        return {}
    lr, bias = case.data["params"]["learning_rate"], case.expected["fc.0.bias"]
    return {"fc.0.bias": np.where(np.abs(bias[1] - bias[0]) < 0.9 * lr, lr, 0.0)}


def make_method(case: Case) -> AprilGAN:
    p = case.data["params"]
    config = AprilGanConfig(
        size=p["image_size"],
        activation=case.data["activation"],
        layers=tuple(p["features_list"]),
        few_shot_layers=tuple(p.get("few_shot_features", p["features_list"])),
    )
    state = {"trainable_linearlayer": case.weights}
    assert checkpoints.official_config("april-gan", state, config) == config
    method = AprilGAN(case.backbone, config)
    checkpoints.load_official(method, state)
    return method


@torch.no_grad()
def inference(case: Case, method: AprilGAN) -> dict[str, Array]:
    d = case.data
    pixels = case.pixels()
    features = case.backbone.encode_image(pixels, method.memory_request, method.computation)
    texts = dict(zip(d["class_names"], method.text_features(d["class_names"]), strict=True))
    text = torch.stack([texts[name] for name in d["image_class"]])
    out = common(case, method, pixels, features, texts)
    out["image_feature"] = array(normalise(case.backbone.project(_class_token(features))))
    for layer, patches, one in zip(
        method.layers, method.adapted(features), method.layer_maps(features, text), strict=True
    ):
        out[f"patch_tokens.{layer}"] = array(features.taps[Tap(layer)])
        out[f"proj.{layer}"] = array(normalise(patches))
        out[f"logits.{layer}"] = array(cosine_logits(patches, text, method.config.temperature))
        out[f"layer_map.{layer}"] = array(one)
    out["map_zero_shot"] = array(method.score(features, text).map)
    text_scores = method.text_score(features, text)
    out["text_prob"] = array(text_scores)
    few_shot = "reference_files" in d
    memories = _memories(case, method) if few_shot else {}
    predictions = [
        method.score(only(features, row), text[row], memories.get(name)) for row, name in enumerate(d["image_class"])
    ]
    maps = torch.cat([p.map for p in predictions])
    if few_shot:
        out |= _few_shot(case, method, features, memories)
        out["map"] = array(maps)
        assert np.allclose(out["map"], out["map_zero_shot"] + out["map_few_shot"], atol=1e-5)
    for name in d["class_names"]:
        rows = torch.tensor([name == found for found in d["image_class"]])
        scores = method.set_scores(text_scores[rows], maps[rows].amax((1, 2)), few_shot=few_shot)
        out |= class_results(case, name, scores, maps, out["gt_masks"], aupro=True)
    return in_shape(case, out)


def _memories(case: Case, method: AprilGAN) -> dict[str, MemoryBank]:
    d, memories = case.data, {}
    for name in d["class_names"]:
        shown = [file for file, of in zip(d["reference_files"], d["reference_class"], strict=True) if of == name]
        pixels = case.backbone.preprocess([case.open(file) for file in shown], d["image_size"])
        memories[name] = method.extract_memory(
            case.backbone.encode_image(pixels, method.memory_request, method.computation)
        )
    return memories


def _few_shot(
    case: Case, method: AprilGAN, features: ImageFeatures, memories: dict[str, MemoryBank]
) -> dict[str, Array]:
    out = {
        f"memory.{name}.{tap.layer}": array(rows)
        for name, memory in memories.items()
        for tap, rows in memory.taps.items()
    }
    maps = [
        torch.cat(method.distance_maps(only(features, row), memories[name]))
        for row, name in enumerate(case.data["image_class"])
    ]
    for column, layer in enumerate(method.few_shot_layers):
        out[f"layer_map_few_shot.{layer}"] = array(torch.stack([m[column] for m in maps]))
    out["map_few_shot"] = array(torch.stack([m.sum(dim=0) for m in maps]))
    return out


# what the cases of APRIL-GAN and CLIP-AD have in common


def common(
    case: Case, method: Method, pixels: Tensor, features: ImageFeatures, texts: dict[str, Tensor]
) -> dict[str, Array]:
    """Inputs and texts."""
    out = {"pos_embed": _positions(case, features), "image_tensor": array(pixels), "gt_masks": array(masks(case))}
    for name, text in texts.items():
        out[f"text_features.{name}"] = array(text.T)
        for kind, units in zip(
            ("normal", "abnormal"), encode_sentences(method, type(method).PROMPTS, name), strict=True
        ):  # type: ignore[attr-defined]
            out[f"class_embeddings_{kind}.{name}"] = array(units)
    return out


def masks(case: Case) -> Tensor:
    return torch.stack(
        [
            torch.from_numpy(resize_mask(_box(image, box), case.data["image_size"])).float()
            for image, box in zip(case.images, case.data["mask_boxes"], strict=True)
        ]
    )


def _box(image: Image.Image, box: list[int] | None) -> Array:
    mask = np.zeros((image.height, image.width), np.uint8)
    if box is not None:
        mask[box[0] : box[2], box[1] : box[3]] = 255
    return mask


def only(features: ImageFeatures, rows: int | list[int]) -> ImageFeatures:
    """Some pictures of a batch."""
    index = [rows] if isinstance(rows, int) else rows
    token = features.class_token
    return ImageFeatures(
        taps={tap: value[index] for tap, value in features.taps.items()},
        class_token=None if token is None else token[index],
        windows={},
        grid=features.grid,
    )


def class_results(
    case: Case, name: str, scores: Tensor, maps: Tensor, targets: Array, *, aupro: bool
) -> dict[str, Array]:
    """The image scores of one class and the seven numbers that the reference reports (AUPRO may be switched off)."""
    from blemish.metrics import aupro_200, image_metrics, pixel_metrics

    rows = np.array([name == found for found in case.data["image_class"]])
    image = image_metrics(np.array(case.data["image_label"])[rows], array(scores))
    pixel = pixel_metrics(targets[rows], array(maps)[rows])
    region = aupro_200(targets[rows], array(maps)[rows]) if aupro else 0.0
    values = [pixel.auroc, pixel.f1_max, pixel.ap, region, image.auroc, image.f1_max, image.ap]
    if len(case.expected.get(f"metrics.{name}", values)) == 3:  # a data set without masks
        values = values[4:]
    return {f"image_score.{name}": array(scores), f"metrics.{name}": np.array(values)}


def in_shape(case: Case, out: dict[str, Array]) -> dict[str, Array]:
    """Cases keep only the first pictures, or the first rows of a memory, of large outputs."""
    return {name: value[: len(case.expected[name])] if name in case.expected else value for name, value in out.items()}


def training(case: Case, method: Any, tokens: str) -> dict[str, Array]:
    """Some steps on the pictures in their order. The method has `adapters`; `tokens` is what its taps are called."""
    d = case.data
    pixels, targets = case.pixels(), masks(case)
    with torch.no_grad():
        features = case.backbone.encode_image(pixels, method.request, method.computation)
    texts = dict(zip(d["class_names"], method.text_features(d["class_names"]), strict=True))
    out = common(case, method, pixels, features, texts)
    for layer in method.layers:
        out[f"{tokens}.{layer}"] = array(features.taps[Tap(layer, "middle" if tokens == "feat_ori" else "residual")])
    parameters = dict(method.adapters.named_parameters())
    ordered = [parameters[key] for key in case.weights]
    columns: dict[str, list[Array]] = {"fc.0.bias": [], "param_norms": []}

    def note(**values: Array) -> None:
        for key, value in values.items():
            columns.setdefault(key, []).append(value.copy())

    def note_parameters() -> None:
        note(
            param_norms=array(torch.stack([p.norm() for p in ordered])), **{"fc.0.bias": array(parameters["fc.0.bias"])}
        )

    p = d["params"]
    optimizer = method.optimizer(lr=p["learning_rate"], betas=tuple(d["optimizer"]["betas"]))
    note_parameters()
    for step in range(p["steps"]):
        start = step % p["batches_per_epoch"] * p["batch_size"]
        rows = list(range(start, min(start + p["batch_size"], len(pixels))))
        names = [d["image_class"][row] for row in rows]
        labels = torch.tensor([d["image_label"][row] for row in rows])
        losses = method.loss(only(features, rows), targets[rows], labels, names)
        if step == 0:
            text = torch.stack([texts[name] for name in names])
            out["gt_masks"] = array(targets[rows])
            out |= {f"prob_map.{k}": array(m) for k, m in enumerate(method.layer_maps(only(features, rows), text))}
        optimizer.zero_grad()
        losses["total"].backward()
        note(loss_focal=array(losses["focal"]), loss_dice=array(losses["dice"]), loss=array(losses["total"]))
        note(grad_norms=array(torch.stack([p.grad.norm() for p in ordered])))
        optimizer.step()
        note_parameters()
    last = max(int(key.split(".")[1]) for key in parameters)
    out[f"fc.{last}.weight_first_rows"] = array(parameters[f"fc.{last}.weight"])
    return in_shape(case, out | {key: np.stack(values) for key, values in columns.items()})


def _mosaic(case: Case) -> dict[str, Array]:
    size, tiles = case.data["image_size"], []
    for tile in case.data["tiles"]:
        image = case.open(tile["file"])
        # the authors' blank mask of a good picture has its sides exchanged
        blank = np.zeros((image.width, image.height), np.uint8)
        tiles.append((image, blank if tile["defect"] == "good" else _box(image, tile["mask_box"])))
    image, mask = mosaic(tiles)
    resized = np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255
    return {
        "mosaic_image": np.asarray(image, np.float32),
        "mosaic_mask": np.asarray(mask, np.float32),
        "image_tensor": array(case.backbone.preprocess([image], size)),
        "mask_tensor": resized[None],
        "gt_mask": array(torch.from_numpy(resize_mask(mask, size)).float())[None],
    }


def _positions(case: Case, features: ImageFeatures) -> Array:
    weight = case.backbone.towers.vision_model.embeddings.position_embedding.weight
    return array(resize_positions(weight, features.grid, "bicubic-antialias"))


def _class_token(features: ImageFeatures) -> Tensor:
    assert features.class_token is not None
    return features.class_token
