"""Golden results: what all methods give for fixed pictures, through the public interface.

    python tests/golden/golden.py          make the file anew (only where a change of the numbers is intended)

The values hold on any machine within a tolerance, the checksums to the bit on the machine that made them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums depend on how many threads share them

import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import blemish
from blemish import methods
from blemish.clip import Backbone, load_backbone
from blemish.methods import checkpoints

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from helpers import save_tiny_backbone

DATA = Path(__file__).resolve().parent.parent / "data" / "golden"
#: One value of a map in so many, along each side, is stored; the checksum is of all.
STRIDE = 8
#: Methods that compare with pictures they are given.
WITH_REFERENCES = ("april-gan", "musc", "winclip")
BACKBONES = ("tiny", "builtin")
EXPORTED = ("anomalyclip", "clip", "winclip")
EVALUATED = ("clip", "anomalyclip", "musc", "april-gan")
NUMBERS = [
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1_max",
    "pixel_iou",
    "pixel_aupro",
]

Array = NDArray[Any]


def pictures() -> list[Array]:
    """Three RGB pictures of different sizes; the last two have a bright scratch."""
    made = []
    for seed, (height, width) in enumerate([(90, 120), (128, 128), (150, 101)]):
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[:height, :width]
        base = 110 + 50 * np.sin(rows / 7) * np.cos(columns / 9)
        picture = base[..., None] + rng.normal(0, 6, (height, width, 3)) + [0, 10, 25]
        if seed:
            picture[height // 3 : height // 3 + 5, width // 4 : width // 2] = 240
        made.append(picture.clip(0, 255).astype(np.uint8))
    return made


def machine() -> str:
    """What decides the last bit: the processor, PyTorch, NumPy, and the threads."""
    known = Path("/proc/cpuinfo")
    text = known.read_text() if known.exists() else platform.processor()
    model = [line for line in text.splitlines() if line.startswith(("model name", "flags"))][:2]
    parts = [*model, torch.__version__, np.__version__, Image.__version__, str(torch.get_num_threads())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def detector(name: str, backbone: Backbone, folder: Path, **options: Any) -> blemish.Detector:
    """A detector; what a method learns is the shipped weights, or on the tiny backbone as it is drawn."""
    learnt = None
    if methods.info(name).trainable and backbone.name not in ("embedded", "builtin"):
        learnt = folder / f"{name}.safetensors"
        checkpoints.save(methods.create(name, backbone), learnt, trained_on="nothing", source="a test")
    return blemish.load(
        name, backbone=backbone, weights=learnt, object_name="metal nut", device="cpu", precision="float32", **options
    )


def detections(name: str, backbone: Backbone, folder: Path) -> dict[str, Array]:
    """Scores and maps of one method, without and with references, and in tiles."""
    shown, found = pictures(), {}
    runs: dict[str, dict[str, Any]] = {"zero-shot": {}}
    if name in WITH_REFERENCES:
        runs["references"] = {"references": shown[:1] * 2 + shown[1:] if name == "musc" else shown[:2]}
    if name == "clip":
        runs["tiles"] = {"tile": 64}
    for run, options in runs.items():
        made = detector(name, backbone, folder, **options)
        for number, one in enumerate(made.stream(shown, batch_size=2)):
            found[f"{run}/{number}/score"] = np.float64(one.score)
            found[f"{run}/{number}/map"] = one.anomaly_map
    return found


def evaluation(backbone: Backbone, folder: Path) -> dict[str, Array]:
    """The numbers of a small data set with two categories."""
    data = folder / f"data-{backbone.name.rpartition('/')[2]}"
    for category, offset in (("grid", 0), ("lid", 40)):
        for number, shown in enumerate(pictures() * 2):
            kind = "good" if number % 3 == 0 else "scratch"
            image = Image.fromarray((shown.astype(int) * (5 + number) // 8 + offset).clip(0, 255).astype(np.uint8))
            path = data / category / "test" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
            if kind != "good":
                mask = (shown == 240).all(2)
                path = data / category / "ground_truth" / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    learnt: dict[str, Path] = {}
    for name in EVALUATED:
        if methods.info(name).trainable and backbone.name not in ("embedded", "builtin"):
            learnt[name] = folder / f"{name}.safetensors"
            checkpoints.save(methods.create(name, backbone), learnt[name], trained_on="nothing", source="a test")
    result = blemish.evaluate(
        data, "folder", methods=EVALUATED, backbone=backbone, weights=learnt, device="cpu", precision="float32"
    )
    return {
        f"{row.method}/{row.category}": np.array([getattr(row, number) for number in NUMBERS], np.float64)
        for row in result.rows
    }


def exported(name: str, backbone: Backbone, folder: Path) -> dict[str, Array]:
    """What an exported graph gives, run by the runtime alone."""
    import onnxruntime

    from blemish import exporting as export

    path = folder / f"{name}.onnx"
    export.export(detector(name, backbone, folder), path)
    one = export.load_exported(path)(pictures()[2])
    session = onnxruntime.InferenceSession(path)
    side = 96
    pixels = np.random.default_rng(0).random((2, 3, side, side), np.float32)
    names = [output.name for output in session.get_outputs()]
    raw = dict(zip(names, session.run(None, {session.get_inputs()[0].name: pixels}), strict=True))
    return {"score": np.float64(one.score), "map": one.anomaly_map, **{f"raw/{k}": v for k, v in sorted(raw.items())}}


def backbones(folder: Path) -> dict[str, Backbone]:
    """The tiny random one (24 and 12 blocks) and the one that ships."""
    return {"tiny": load_backbone(str(save_tiny_backbone(folder / "tiny"))), "builtin": load_backbone()}


def keys() -> list[str]:
    """One for each thing that is computed: kind/backbone/method."""
    # Methods that only compare have their numbers in tests/parity.
    # Without references `joint` is `clip`.
    scored = [name for name, info in methods.METHODS.items() if not info.needs_references and name != "joint"]
    made = [f"detect/{backbone}/{name}" for backbone in BACKBONES for name in scored]
    made += [f"evaluate/{backbone}" for backbone in BACKBONES]
    return made + [f"export/builtin/{name}" for name in EXPORTED]


def compute(key: str, known: dict[str, Backbone], folder: Path) -> dict[str, Array]:
    """The results of one key."""
    kind, backbone, *rest = key.split("/")
    if kind == "evaluate":
        return evaluation(known[backbone], folder)
    run = detections if kind == "detect" else exported
    return run(rest[0], known[backbone], folder)


def checksum(values: Array) -> str:
    """Over every byte."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def sampled(values: Array) -> Array:
    """What is stored: all of little, one value in `STRIDE` along each side of a map."""
    values = np.asarray(values)
    return values if values.ndim < 2 else values[..., ::STRIDE, ::STRIDE]


def main() -> None:
    stored: dict[str, Array] = {}
    checksums: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        known = backbones(Path(folder))
        for key in keys():
            print(key, flush=True)
            for name, values in compute(key, known, Path(folder)).items():
                stored[f"{key}/{name}"] = sampled(values)
                checksums[f"{key}/{name}"] = checksum(values)
    DATA.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(DATA / "values.npz", **stored)
    text = json.dumps({"machine": machine(), "checksums": checksums}, indent=1)
    (DATA / "checksums.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
