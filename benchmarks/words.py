"""What the words of the built-in model are worth: names it was not taught, words for states it was not taught, kinds.

    python benchmarks/words.py [--pictures 600] [--backbone builtin] [--photos FOLDER ...]

Pictures are made by `pretraining/`, of a stream of their own. Prints the image AUROC of `clip` asked about an "object",
about what each picture shows, and about things that no prompt of the training named; the same with words for states
that no picture was captioned with; how often the defective patches of a picture are nearest to the word for their
kind of defect; and how often pictures with stains, scratches and cracks are nearest to the right one of these three
words.
"""

from __future__ import annotations

import argparse
import sys
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

PRETRAINING = Path(__file__).resolve().parent.parent / "pretraining"
STREAM = 40_404
UNSEEN_NAMES = ("thimble", "kettledrum", "spatula", "harmonica", "zucchini", "doorknob", "saddle", "chandelier")
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
#: Kinds that are to be told apart by themselves, by the class token and by pooled patches.
THREE = ("stain", "scratch", "crack")


@dataclass(frozen=True)
class Seen:
    """What the backbone makes of the pictures: class tokens (n, E), and defective patches pooled (n, E), normalised."""

    names: list[str]
    kinds: list[str]
    labels: np.ndarray
    pictures: Tensor
    defects: Tensor


@torch.inference_mode()
def look(backbone: Backbone, count: int, photos: list[np.ndarray], size: int) -> Seen:
    """The first `count` pictures of the stream whose defects stayed in sight."""
    from pool import make_sample

    names, kinds, pictures, defects = [], [], [], []
    tap, index = Tap(backbone.layers), 0
    while len(names) < count:
        image, mask, (name, _, kind, _) = make_sample(STREAM, index, photos, 512)
        index += 1
        if kind == "lost":
            continue
        found = backbone.encode_image(
            backbone.preprocess([Image.fromarray(image)], size), Request(frozenset({tap}), class_token=True)
        )
        assert found.class_token is not None
        cover = F.adaptive_avg_pool2d(torch.from_numpy(mask).float()[None, None], found.grid).flatten()
        patches = F.normalize(backbone.project(found.taps[tap][0, 1:]), dim=-1)
        names.append(name)
        kinds.append(kind)
        pictures.append(F.normalize(backbone.project(found.class_token[0]), dim=0))
        defects.append(F.normalize((patches * cover[:, None]).sum(0), dim=0))
    labels = np.array([bool(kind) for kind in kinds])
    return Seen(names, kinds, labels, torch.stack(pictures), torch.stack(defects))


@torch.inference_mode()
def encode(backbone: Backbone, sentences: Sequence[str]) -> Tensor:
    """(T, E), normalised."""
    return F.normalize(backbone.encode_text(backbone.tokenize(list(sentences))), dim=-1)


def told_apart(tokens: Tensor, kinds: Sequence[str], words: Tensor, names: Sequence[str]) -> float:
    """How often tokens (n, E) are nearest to the word (K, E) for their kind, each kind counting alike.

    Pictures and words are taken from their own means: what all damage has in common does not tell kinds apart.
    """
    each = torch.stack([tokens[[kind == name for kind in kinds]].mean(0) for name in names if name in kinds])
    near = ((tokens - each.mean(0)) @ (words - words.mean(0)).T).argmax(1).tolist()
    right = [[names[n] == k for n, k in zip(near, kinds, strict=True) if k == name] for name in names]
    return float(np.mean([np.mean(one) for one in right if one]))


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--pictures", type=int, default=600)
    a.add_argument("--backbone", default="builtin")
    a.add_argument("--photos", type=Path, nargs="*", default=[])
    o = a.parse_args()
    sys.path.insert(0, str(PRETRAINING))
    from kept_words import BENCHMARK
    from pool import bundled_photos, load_photos

    backbone = load_backbone(o.backbone)
    clip = create("clip", backbone)
    seen = look(backbone, o.pictures, load_photos(o.photos) + bundled_photos(), clip.computation.size)

    def ranked(directions: Tensor) -> float:
        return auroc(seen.labels, (seen.pictures * directions).sum(-1).numpy())

    with torch.inference_mode():
        texts = {name: clip.text_features([name])[0].diff(dim=0)[0] for name in {*seen.names, *UNSEEN_NAMES, "object"}}
    print(f"{len(seen.names)} pictures, {int(seen.labels.sum())} of them defective; image AUROC of the class token")
    print(f"object: {ranked(texts['object']):.3f}")
    print(f"the picture's own name: {ranked(torch.stack([texts[name] for name in seen.names])):.3f}")
    for name in UNSEEN_NAMES:
        print(f"{name}: {ranked(texts[name]):.3f}")
    normal, damaged = (
        encode(backbone, [f"a photo of a {word.format('object')}" for word in BENCHMARK[state]])
        for state in ("normal", "damaged")
    )
    for word, one in zip(BENCHMARK["damaged"], damaged, strict=True):
        print(f"{word.format('object')!r} against all unseen normal words: {ranked(one - normal.mean(0)):.3f}")
    print(f"all unseen words for states: {ranked(damaged.mean(0) - normal.mean(0)):.3f}")
    rows = [row for row, kind in enumerate(seen.kinds) if kind in KINDS]
    near = (seen.defects[rows] @ encode(backbone, list(KINDS.values())).T).argmax(1).tolist()
    kinds = list(KINDS)
    for kind in kinds:
        hits = [kinds[found] == kind for row, found in zip(rows, near, strict=True) if seen.kinds[row] == kind]
        if hits:
            print(f"{kind}: {sum(hits)} of {len(hits)} nearest to {KINDS[kind]!r}")
    right = np.mean([kinds[found] == seen.kinds[row] for row, found in zip(rows, near, strict=True)])
    print(f"kinds of defect: {right:.2f} right of {len(rows)} pictures, chance {1 / len(kinds):.2f}")
    rows = [row for row, kind in enumerate(seen.kinds) if kind in THREE]
    of, words = [seen.kinds[row] for row in rows], encode(backbone, [KINDS[kind] for kind in THREE])
    for name, tokens in (("class token", seen.pictures), ("pooled patches", seen.defects)):
        print(f"{', '.join(THREE)} by {name}: {told_apart(tokens[rows], of, words, THREE):.2f} right of {len(rows)}")


if __name__ == "__main__":
    main()
