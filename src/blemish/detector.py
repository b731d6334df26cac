"""The front door: pictures in, detections out.

detector = load("anomalyclip")
detection = detector.detect("part.jpg")
for detection in detector.detect_many(paths, batch_size=8): ...
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from blemish.clip import Backbone, load_backbone
from blemish.detection import Detection, Provenance
from blemish.engine import Engine, TorchEngine
from blemish.errors import UsageError
from blemish.few_shot import References, build_memory_bank, require_reference_method, sample_memory_bank
from blemish.hub import locate
from blemish.image_io import MAX_PIXELS, LoadedImage
from blemish.methods import create, load_class
from blemish.methods import weights as weight_files
from blemish.methods.base import MemoryBank, Method
from blemish.methods.catalogue import WEIGHTS
from blemish.methods.text_cache import TextCache
from blemish.scoring import Failed, Scorer, Task
from blemish.tiles import OVERLAP, Canvas, Tiling
from blemish.types import ComputePrecision, ImageSource, OnError, Precision, resolve_device

#: A vision tower of at least this many parameters is large: half the time matters more than the last digits. The
#: built-in one has 14.6 million.
_LARGE = 5_000_000
#: Name of the one method in the score loop.
_METHOD = "method"


@dataclass(frozen=True)
class Scored:
    """A picture that went through the model, and of which the map has yet to be brought to its size."""

    canvas: Canvas
    finish: Callable[[], tuple[LoadedImage, Detection]]
    """Makes the detection; once, in any thread."""

    @property
    def pixels(self) -> int:
        """Values that the map will hold."""
        return self.canvas.across.cells * self.canvas.down.cells


def load(
    method: str = "anomalyclip",
    *,
    backbone: str | os.PathLike[str] | Backbone = "builtin",
    weights: str | os.PathLike[str] | None = None,
    object_name: str = "object",
    threshold: float | None = None,
    mask_threshold: float | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    max_pixels: int = MAX_PIXELS,
    references: References | None = None,
    tile: int | None = None,
    overlap: float = OVERLAP,
) -> Detector:
    """Make a detector.

    Args:
        method: A name from `blemish methods`.
        backbone: "builtin", a hub id, a folder or file that `load_backbone` reads, or a loaded backbone to be shared.
        weights: What the method learnt: a file (safetensors, or a published checkpoint), or the name of published
            weights that `blemish weights pull` fetched. None takes what is shipped for this method on this backbone.
        object_name: What the pictures show ("metal nut"); methods that are told nothing ignore it.
        threshold: A picture with score >= threshold is anomalous. None gives no verdict.
        mask_threshold: The same for pixels, as a fraction of the method's fixed scale; None = `threshold`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        precision: Of the vision tower. "auto" is bfloat16, on hardware with units for it, for all but toy
            backbones, and for the windows of `winclip` on any; else float32. Text features and scores are float32
            always, but for `musc`'s comparisons, which follow the tower.
        max_pixels: Larger pictures are refused. With `tile` it bounds what is decoded at once: a band of rows of a TIFF
            that can be read so, else the picture.
        references: Normal pictures of the object, for few-shot methods, or unlabelled ones for a mutual method
            (`musc`): a list of what `Detector.detect` takes, or one file, folder or pattern. None scores zero-shot.
        tile: Side in pixels of the tiles that larger pictures are cut into, each scored like a picture: for details
            that are lost when the whole is reduced to the model's input, and for pictures that do not fit into the
            memory. See `blemish.tiles`. None scores pictures whole.
        overlap: Of neighbouring tiles, as a fraction of their side.

    Raises:
        UsageError: Unknown method, device or precision, a trainable method on a foreign backbone without weights,
            references for a method that takes none.
        WeightsError: A checkpoint that cannot be used.
        ImageError: A reference that cannot be read.
    """
    cls = load_class(method)  # before the backbone: a misspelt name should not cost a download
    if references is not None:
        require_reference_method(cls.info)
    tiling = None if tile is None else Tiling(tile, overlap)
    if precision not in get_args(Precision):
        raise UsageError(f"precision is one of {', '.join(get_args(Precision))}, not {precision!r}")
    place = resolve_device(device)
    told = backbone.name if isinstance(backbone, Backbone) else os.fspath(backbone)
    named = None if weights is None else locate(weights, method, told)  # before the backbone, too
    tower = backbone if isinstance(backbone, Backbone) else load_backbone(told)
    if named is None and cls.info.trainable:
        named = shipped(method, tower.fingerprint)
        if named is None:
            raise UsageError(
                f"{method} has learnt parts, and none are shipped for the backbone {tower.name}: "
                "give its weights (a safetensors file or a published checkpoint), or choose a method without"
            )
    kind, windows = _precisions(precision, tower, place)
    engine = TorchEngine(
        create(method, tower, weights=named),
        weights=None if named is None else named.name,
        device=place,
        precision=kind,
        windows=windows,
    )
    memory = None
    if references is not None:
        memory = build_memory_bank(engine, references, max_pixels=max_pixels, tiling=tiling)
    return Detector(
        engine,
        memory=memory,
        object_name=object_name,
        threshold=threshold,
        mask_threshold=mask_threshold,
        max_pixels=max_pixels,
        tiling=tiling,
    )


class Detector:
    """An engine with its settings. `load` makes one; its calls may run in several threads at once.

    Args:
        engine: What computes.
        memory: References to compare with; None scores zero-shot.
        object_name: As in `load`, and so are the others.
        threshold: See `load`.
        mask_threshold: See `load`.
        max_pixels: See `load`.
        tiling: How larger pictures are cut; None = not at all.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        memory: MemoryBank | None = None,
        object_name: str = "object",
        threshold: float | None = None,
        mask_threshold: float | None = None,
        max_pixels: int = MAX_PIXELS,
        tiling: Tiling | None = None,
    ) -> None:
        self.engine, self.memory = engine, memory
        self.object_name = object_name
        self.threshold, self.mask_threshold = threshold, mask_threshold
        self.max_pixels = max_pixels
        self.tiling = tiling
        self._texts = TextCache()

    @property
    def provenance(self) -> Provenance:
        """What makes the numbers."""
        provenance = self.engine.provenance
        if self.memory is not None:
            provenance = replace(
                provenance, references=self.memory.references, references_fingerprint=self.memory.fingerprint
            )
        if self.tiling is not None:
            provenance = replace(provenance, tile=self.tiling.side, overlap=self.tiling.overlap)
        return provenance

    def with_memory(self, memory: MemoryBank | None) -> Detector:
        """Return a detector that compares with this memory bank; None scores zero-shot."""
        return Detector(
            self.engine,
            memory=memory,
            object_name=self.object_name,
            threshold=self.threshold,
            mask_threshold=self.mask_threshold,
            max_pixels=self.max_pixels,
            tiling=self.tiling,
        )

    def with_references(self, references: References) -> Detector:
        """Return a detector that compares with these pictures: normal ones, or unlabelled ones for a transductive method.

        Raises:
            UsageError: The method takes no references, there are none, or a path does not exist.
            ImageError: A reference cannot be read.
        """
        bank = build_memory_bank(self.torch_engine, references, max_pixels=self.max_pixels, tiling=self.tiling)
        return self.with_memory(bank)

    def with_set(self, images: Sequence[ImageSource]) -> Detector:
        """Return a detector for the set that it is going to score, for transductive methods (`musc`).

        Pictures of the set are drawn as references, always the same ones. With fewer than two readable pictures there
        is nothing to compare with, and the detector scores zero-shot.

        Raises:
            UsageError: The method is not transductive.
        """
        return self.with_memory(sample_memory_bank(self.torch_engine, images, max_pixels=self.max_pixels))

    @property
    def method(self) -> Method:
        """The method. Raises UsageError for a detector that does not run in PyTorch, and so do the next four."""
        return self.torch_engine.method

    @property
    def backbone(self) -> Backbone:
        """The backbone."""
        return self.torch_engine.backbone

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return self.torch_engine.device

    @property
    def precisions(self) -> tuple[torch.dtype, torch.dtype]:
        """Of the vision tower, and of windows."""
        engine = self.torch_engine
        return engine.precision, engine.windows

    @property
    def torch_engine(self) -> TorchEngine:
        """The engine, which has them all."""
        if not isinstance(self.engine, TorchEngine):
            raise UsageError("an exported detector has no method or backbone to be asked; load it by its method's name")
        return self.engine

    def detect(self, picture: ImageSource, *, object_name: str | None = None) -> Detection:
        """Score one picture.

        Args:
            picture: A path, bytes, a PIL image, an array (H, W[, 3 | 4]), a tensor, a `LoadedImage`: see `read_image`.
            object_name: What it shows, if other than the detector's own.

        Raises:
            ImageError: It cannot be read.
        """
        return next(self.detect_many([picture], object_name=object_name))

    def detect_many(
        self,
        pictures: Iterable[ImageSource],
        *,
        batch_size: int = 8,
        on_error: OnError | None = None,
        object_name: str | None = None,
    ) -> Iterator[Detection]:
        """Score a stream of pictures, in its order.

        Threads read ahead while the model computes; at most about two batches of pictures are in memory, however long
        the stream.

        Args:
            pictures: What `detect` takes, any number of them.
            batch_size: Pictures, or tiles, that go through the model together.
            on_error: Called with (path or None, error), in order, for each picture that cannot be read; the others go
                on. None raises the error, after the pictures before it.
            object_name: As in `detect`.

        Raises:
            ImageError: A picture cannot be read and there is no `on_error`.
        """
        for _, detection in self.stream(pictures, batch_size=batch_size, on_error=on_error, object_name=object_name):
            yield detection

    def stream(
        self,
        pictures: Iterable[ImageSource],
        *,
        batch_size: int = 8,
        on_error: OnError | None = None,
        object_name: str | None = None,
    ) -> Generator[tuple[LoadedImage, Detection], None, None]:
        """As `detect_many`, with the picture as it was read beside each detection, to draw on."""
        scored = self.scored(pictures, batch_size=batch_size, on_error=on_error, object_name=object_name)
        with contextlib.closing(scored):
            for one in scored:
                yield one.finish()

    def scored(
        self,
        pictures: Iterable[ImageSource],
        *,
        batch_size: int = 8,
        on_error: OnError | None = None,
        object_name: str | None = None,
    ) -> Generator[Scored, None, None]:
        """As `stream`, but the last step is the caller's, so that it can be left to threads while the model goes on."""
        name = self.object_name if object_name is None else object_name
        scorer = Scorer(
            {_METHOD: self.engine},
            batch_size=batch_size,
            max_pixels=self.max_pixels,
            tiling=self.tiling,
            texts=self._texts,
        )
        tasks = (Task(None, source, frozenset({_METHOD}), name) for source in pictures)
        with contextlib.closing(scorer.run(tasks, {_METHOD: self.memory})) as results:
            for result in results:
                if isinstance(result, Failed):
                    if on_error is None:
                        raise result.error
                    on_error(result.error.path, result.error)
                    continue
                canvas = result.tile.canvas
                canvas.add(result.tile.place, result.score, result.map, result.timing)
                if canvas.done:
                    yield Scored(canvas, partial(self._finish, canvas))

    def _finish(self, canvas: Canvas) -> tuple[LoadedImage, Detection]:
        found = Detection(
            score=canvas.score,
            anomaly_map=canvas.take().numpy(),
            map_range=self.engine.map_range(self.memory),
            size=canvas.size,
            path=canvas.path,
            threshold=self.threshold,
            mask_threshold=self.mask_threshold,
            notes=canvas.notes,
            timing=canvas.timing,
            provenance=self.provenance,
            map_step=canvas.step,
        )
        return canvas.picture, found


def shipped(method: str, fingerprint: str) -> Path | None:
    """What comes with blemish for this method on the backbone with this fingerprint; None if nothing does."""
    for path in sorted(WEIGHTS.glob("*.safetensors")):
        header = weight_files.read_header(path)
        if (header.method, header.backbone_fingerprint) == (method, fingerprint):
            return path
    return None


def _precisions(
    asked: Precision, backbone: Backbone, device: torch.device
) -> tuple[ComputePrecision, ComputePrecision]:
    """Of the vision tower, and of windows, which are a dozen times the work of the picture that they are cut from."""
    if asked != "auto":
        return asked, asked
    if not _has_bfloat16_units(device):
        return "float32", "float32"
    size = sum(parameter.numel() for parameter in backbone.towers.vision_model.parameters())
    return "bfloat16" if size >= _LARGE else "float32", "bfloat16"


def _has_bfloat16_units(device: torch.device) -> bool:
    """For its products: tensor cores from Ampere on, AMX, AVX512_BF16. Without them it is slower, not faster."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    asked = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("amx_tile", "avx512_bf16"))
    return device.type == "cpu" and any(supported() for supported in asked if supported is not None)
