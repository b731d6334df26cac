"""Validation of the built-in model's words: unknown object names, unknown words for states, kinds of defect.

    python -m pretraining.validation.words [--pictures 600] [--backbone builtin] [--photos FOLDER ...]

Prints the image AUROC of `clip` on synthetic pictures of a stream of their own, asked about an "object", about what
each picture shows, and about objects that no training prompt named; the same with words for states that no training
prompt used; and how often defective patches are nearest to the word for their kind of defect.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from blemish.clip import Backbone, Request, Tap, load_backbone
from blemish.methods import create
from blemish.metrics import auroc
from synthesis import make_sample
from synthesis.photos import load_photos
from synthesis.samples import LOST

STREAM = 40_404
#: Objects and words for states that no training prompt used.
UNKNOWN_NAMES = ("thimble", "kettledrum", "spatula", "harmonica", "zucchini", "doorknob", "saddle", "chandelier")
UNKNOWN_NORMAL = ("pristine {}", "spotless {}", "immaculate {}", "unharmed {}", "{} in mint condition")
UNKNOWN_DAMAGED = ("marred {}", "ruined {}", "impaired {}", "disfigured {}", "{} in poor condition")
#: Kinds of defect, and what they are asked as.
KINDS = {
    "scratch": "scratched object",
    "crack": "cracked object",
    "stain": "stained object",
    "dent": "dented object",
    "hole": "object with a hole",
    "missing part": "object with a missing part",
    "lesion": "object with a lesion",
    "contamination": "contaminated object",
}


@dataclass(frozen=True)
class Features:
    """Features of pictures with their names, kinds of defect and labels (n,)."""

    names: list[str]
    kinds: list[str]
    labels: np.ndarray
    images: Tensor
    """Class tokens in the joint space (n, E), normalised."""
    defects: Tensor
    """Defective patches, pooled (n, E), normalised."""


@torch.inference_mode()
def encode_pictures(backbone: Backbone, count: int, photos: Sequence[np.ndarray], size: int) -> Features:
    """Encode the first `count` pictures of the stream whose defects are in sight."""
    names, kinds, images, defects = [], [], [], []
    tap, index = Tap(backbone.layers), 0
    while len(names) < count:
        image, mask, caption = make_sample(STREAM, index, photos, 512)
        index += 1
        if caption.kind == LOST:
            continue
        pixels = backbone.preprocess([Image.fromarray(image)], size)
        features = backbone.encode_image(pixels, Request(frozenset({tap}), class_token=True))
        assert features.class_token is not None
        coverage = F.adaptive_avg_pool2d(torch.from_numpy(mask).float()[None, None], features.grid).flatten()
        patches = F.normalize(backbone.project(features.taps[tap][0, 1:]), dim=-1)
        names.append(caption.name)
        kinds.append(caption.kind)
        images.append(F.normalize(backbone.project(features.class_token[0]), dim=0))
        defects.append(F.normalize((patches * coverage[:, None]).sum(0), dim=0))
    labels = np.array([bool(kind) for kind in kinds])
    return Features(names, kinds, labels, torch.stack(images), torch.stack(defects))


@torch.inference_mode()
def encode_words(backbone: Backbone, sentences: Sequence[str]) -> Tensor:
    """Return text features (T, E), normalised."""
    return F.normalize(backbone.encode_text(backbone.tokenize(list(sentences))), dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=600, help="number of pictures")
    parser.add_argument("--backbone", default="builtin", help="name or folder")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="folders of real pictures")
    args = parser.parse_args()
    backbone = load_backbone(args.backbone)
    clip = create("clip", backbone)
    features = encode_pictures(backbone, args.pictures, load_photos(args.photos), clip.computation.size)

    def image_auroc(direction: Tensor) -> float:
        """Return the image AUROC along a direction (E,), or along one for each picture (n, E)."""
        return auroc(features.labels, (features.images * direction).sum(-1).numpy())

    with torch.inference_mode():
        names = {*features.names, *UNKNOWN_NAMES, "object"}
        directions = {name: clip.text_features([name])[0].diff(dim=0)[0] for name in names}
    print(f"{len(features.names)} pictures, {features.labels.sum()} of them defective; image AUROC of the class token")
    print(f"object: {image_auroc(directions['object']):.3f}")
    print(f"the picture's own name: {image_auroc(torch.stack([directions[name] for name in features.names])):.3f}")
    for name in UNKNOWN_NAMES:
        print(f"{name}: {image_auroc(directions[name]):.3f}")
    normal, damaged = (
        encode_words(backbone, [f"a photo of a {state.format('object')}" for state in states])
        for states in (UNKNOWN_NORMAL, UNKNOWN_DAMAGED)
    )
    for state, text in zip(UNKNOWN_DAMAGED, damaged, strict=True):
        print(f"{state.format('object')!r} against all unknown normal states: {image_auroc(text - normal.mean(0)):.3f}")
    print(f"all unknown states: {image_auroc(damaged.mean(0) - normal.mean(0)):.3f}")
    rows = [row for row, kind in enumerate(features.kinds) if kind in KINDS]
    nearest = (features.defects[rows] @ encode_words(backbone, list(KINDS.values())).T).argmax(1).tolist()
    hits = [list(KINDS)[index] == features.kinds[row] for row, index in zip(rows, nearest, strict=True)]
    for kind, phrase in KINDS.items():
        right = [hit for row, hit in zip(rows, hits, strict=True) if features.kinds[row] == kind]
        if right:
            print(f"{kind}: {sum(right)} of {len(right)} nearest to {phrase!r}")
    print(f"kinds of defect: {np.mean(hits):.2f} right of {len(rows)} pictures, chance {1 / len(KINDS):.2f}")


if __name__ == "__main__":
    main()
