"""Faults of files: kills at operations on them, changes of their bytes and times; and what is not whole in a folder."""

from __future__ import annotations

import functools
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import fault_commands
import numpy as np
from PIL import Image

from blemish.errors import BlemishError
from blemish.files import file_sum

#: Operations on files that Python reports before they happen.
_OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")
_DECADE = 10 * 365 * 86400
#: Files of a finished run that are damaged; the next run has to repair or refuse them.
_DAMAGED: dict[str, tuple[str, ...]] = {
    "detect": ("results.jsonl", "runs.jsonl"),
    "scan": ("parts/*.parquet", "parts/*.parquet", "plan.parquet", "plan.sha256", "settings.json", "runs/*/*.jsonl"),
    "evaluate": ("scores.jsonl", "categories.jsonl", "run.json", "maps/**/*.npy"),
    "train": ("cache/*/*.npy", "checkpoint.safetensors", "losses.jsonl"),
    "weights pull": ("published/*.pth",),
}


def one_thread() -> None:
    """Prepare this process for forks: PyTorch with one thread, and each backbone loaded once."""
    import torch

    from blemish.clip import load

    torch.set_num_threads(1)
    load._load_folder = functools.cache(load._load_folder)


def kill_at(folder: str, count: int) -> None:
    """Kill this process right before the `count`-th operation that changes a file below a folder."""
    left = count

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in _OPERATIONS or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if os.fsdecode(args[0]).startswith(folder):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def jump(seed: int) -> None:
    """Let the clocks of this process jump by up to ten years whenever they are read."""
    import blemish.evaluation
    import blemish.fitting.schemes
    import blemish.outputs.results

    rng, true = random.Random(seed), time.time

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=rng.uniform(-_DECADE, _DECADE))

    time.time = lambda: true() + rng.uniform(-_DECADE, _DECADE)
    for module in (blemish.evaluation, blemish.fitting.schemes, blemish.outputs.results):
        module.datetime = Jumping  # type: ignore[attr-defined]


def shift_times(folder: Path, rng: random.Random) -> None:
    """Give all files in a folder other times."""
    for path in folder.rglob("*"):
        moment = time.time() + rng.uniform(-_DECADE, _DECADE)
        os.utime(path, (moment, moment))


def not_whole(folder: Path, published: Path) -> Iterator[str]:
    """Yield what is wrong with the files that stand in a folder under their final names."""
    readers = _readers(published)
    for path in folder.rglob("*"):
        if path.suffix in readers and path.is_file() and not path.name.startswith(".") and "cache" not in path.parts:
            try:
                readers[path.suffix](path)
            except Exception as error:
                yield f"{path.relative_to(folder)} is not whole: {type(error).__name__}: {error}"


def _readers(published: Path) -> dict[str, Callable[[Path], object]]:
    import onnx
    from pyarrow import parquet

    from blemish.methods import checkpoints
    from blemish.profile import read_profile

    def png(path: Path) -> None:
        with Image.open(path) as image:
            image.load()

    def pulled(path: Path) -> None:
        if file_sum(path) != file_sum(published):
            raise ValueError("it is not the published file")

    return {
        ".png": png,
        ".npy": functools.partial(np.load, allow_pickle=False),
        ".safetensors": checkpoints.read_tensors,
        ".profile": read_profile,
        ".parquet": parquet.read_table,
        ".json": lambda path: json.loads(path.read_text()),
        ".onnx": onnx.load,
        ".pth": pulled,
    }


def difference(before: Any, after: Any, where: str = "") -> str:
    """Return the first place where two values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                return difference(before.get(name), after.get(name), f"{where}/{name}")
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        if len(before) != len(after):
            return f"{where}: {len(before)} and {len(after)}"
        for number, (first, second) in enumerate(zip(before, after, strict=True)):
            if first != second:
                return difference(first, second, f"{where}/{number}")
    return f"{where}: {str(before)[:200]} and {str(after)[:200]}"


def alter(path: Path, rng: random.Random) -> str:
    """Flip a bit, overwrite some bytes, blank some, or cut the file; return what was done."""
    data = bytearray(path.read_bytes())
    what, at = rng.choice(["flip", "flip", "overwrite", "blank", "cut"]), rng.randrange(len(data))
    before = bytes(data)
    if what == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif what == "cut":
        del data[at:]
    else:
        size = min(rng.randint(1, 512), len(data) - at)
        data[at : at + size] = rng.randbytes(size) if what == "overwrite" else bytes(size)
    if bytes(data) == before:
        data[at] ^= 255
    path.write_bytes(data)
    return f"{what} at {at} of {len(before)} in {path.name}"


def damage(bench: Any, command: fault_commands.Command, rng: random.Random, trial: Any) -> Any:
    """Damage a file of a finished run; the next one repairs it, or refuses it in a sentence."""
    shutil.rmtree(bench.out, ignore_errors=True)
    shutil.copytree(bench.root / "finished" / command.name, bench.out)
    pattern = rng.choice(_DAMAGED[command.name])
    path = rng.choice([path for path in sorted(bench.out.glob(pattern)) if path.stat().st_size])
    what = alter(path, rng)
    if path.suffix == ".npy":  # what is made of it is made again
        for name in ("categories.jsonl", "weights.safetensors", "checkpoint.safetensors", "losses.jsonl"):
            (bench.out / name).unlink(missing_ok=True)
    ended = bench.run(bench.words(command))
    if ended.trouble:
        trial.find("wrong", f"{what}: {ended.trouble}")
    if ended.code:
        return trial
    outcome, whole = command.outcome(bench.out), bench.outcomes[command.name]
    if path.name == "losses.jsonl":  # a log for people; nothing is computed from it
        outcome, whole = {**outcome, path.name: ""}, {**whole, path.name: ""}
    if outcome != whole:
        trial.find("wrong", f"{what}: {difference(whole, outcome)}")
    return trial


def damage_and_read(bench: Any, command: fault_commands.Command, rng: random.Random, trial: Any) -> Any:
    """Damage a file twenty times; its reader refuses it, or reads what stood in it."""
    from blemish.maps import decode_map
    from blemish.methods import checkpoints
    from blemish.profile import read_profile

    def tensors(path: Path) -> Any:
        values, header = checkpoints.read_tensors(path)
        return {name: value.numpy().tobytes() for name, value in values.items()}, header

    def png(path: Path) -> Any:
        decoded = decode_map(path.read_bytes())
        return decoded.values.tobytes(), decoded.low, decoded.high, decoded.step

    pattern, read = {
        "detect": ("map/*.png", png),
        "train": ("*.safetensors", tensors),
        "fit": ("*.profile", lambda path: read_profile(path).summary()),
    }[command.name]
    for _ in range(20):
        source = rng.choice(sorted((bench.root / "finished" / command.name).glob(pattern)))
        path = bench.root / f"damaged{source.suffix}"
        shutil.copyfile(source, path)
        whole, what = read(path), alter(path, rng)
        trial.tried += 1
        try:
            if read(path) != whole:
                trial.find("wrong", f"{what}: it is read as whole")
        except BlemishError:
            pass
        except Exception as error:
            trial.find("wrong", f"{what}: {type(error).__name__}: {error}")
    return trial


def picture_bytes(seed: int) -> bytes:
    """Return a small PNG of noise."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
