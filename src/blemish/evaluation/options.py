"""Options of an evaluation."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, get_args

from blemish.clip import ImageBackbone
from blemish.errors import UsageError
from blemish.image_io import MAX_PIXELS
from blemish.profile import Profile
from blemish.types import PathLike, Precision

P = ParamSpec("P")
T = TypeVar("T")

Aupro: TypeAlias = Literal["exact", "200"]
MaskSize: TypeAlias = Literal["map", "full"]

#: Categories with more pixels are measured with a histogram; up to that, 4 bytes per pixel are held in memory.
MAX_EXACT_PIXELS = 600_000_000


@dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated, and how. Each field is an argument of `blemish.evaluate`.

    Args:
        data: Folder of the data set, laid out as it is distributed.
        dataset: Name of the data set, one of `blemish.datasets.names()`; "folder" for your own MVTec-like folders.
        categories: Categories to evaluate; None for all that are there.
        methods: Names of methods; ["all"] for those that have weights for the backbone.
        backbone: As in `blemish.load`; all methods share it.
        weights: Weights by method, in place of those that blemish ships.
        configs: Fields of the config to change, by method: {"musc": {"whole_set": True}}.
        profile: A profile in place of `methods`: its method, memory and region of interest, with its object name for all
            pictures. The result says how many false alarms its thresholds give beside how many it promises.
        out: Folder for scores, tables and the report; None keeps nothing but the result.
        limit: Maximum number of images per category, drawn at random with the labels in proportion; None for all.
        seed: Seed of that draw and of the bootstrap.
        maps: Keep all anomaly maps (float32) in `out`, so that pixel metrics can be recomputed without the model.
        aupro: "exact", or "200" for the papers' approximation in 200 steps.
        masks: Size in which pixels are measured: "map", as papers do (masks are reduced to the size of the maps), or
            "full" (maps are enlarged to the size of each image, so that small defects count).
        report: Write `report.html` into `out`.
        split: Split of the data set.
        batch_size: Number of images that go through the model together.
        max_pixels: Larger images are refused, as in `blemish.load`.
        device: As in `blemish.load`.
        precision: As in `blemish.load`.

    Raises:
        UsageError: Options contradict each other or are out of range.
    """

    data: PathLike
    dataset: str = "folder"
    _: KW_ONLY
    categories: Sequence[str] | None = None
    methods: Sequence[str] = ("anomalyclip",)
    backbone: PathLike | ImageBackbone = "builtin"
    weights: Mapping[str, PathLike] | None = None
    configs: Mapping[str, Mapping[str, Any]] | None = None
    profile: PathLike | Profile | None = None
    out: PathLike | None = None
    limit: int | None = None
    seed: int = 0
    maps: bool = False
    aupro: Aupro = "exact"
    masks: MaskSize = "map"
    report: bool = False
    split: str = "test"
    batch_size: int = 8
    max_pixels: int = MAX_PIXELS
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.out is None and (self.maps or self.report):
            raise UsageError("maps and a report are written to a folder, but there is none; give out")
        if self.profile is not None and (tuple(self.methods) != ("anomalyclip",) or self.configs):
            raise UsageError("a profile has its own method and config; leave out methods and configs")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {self.batch_size}")
        _ = self.metrics  # checks aupro and masks

    @property
    def metrics(self) -> MetricOptions:
        """How metrics are computed."""
        return MetricOptions(aupro=self.aupro, masks=self.masks, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """How metrics are computed.

    Attributes:
        aupro: "exact", or "200" for the papers' approximation in 200 steps.
        masks: Size in which pixels are measured: "map", or "full" for that of each image.
        fpr_limit: False-positive rate up to which AUPRO is integrated.
        seed: Seed of the bootstrap.
        max_exact_pixels: Categories with more pixels are measured with a histogram.
    """

    aupro: Aupro = "exact"
    masks: MaskSize = "map"
    fpr_limit: float = 0.3
    seed: int = 0
    max_exact_pixels: int = field(default_factory=lambda: MAX_EXACT_PIXELS)

    def __post_init__(self) -> None:
        if self.aupro not in get_args(Aupro):
            raise UsageError(f"aupro must be {' or '.join(map(repr, get_args(Aupro)))}, not {self.aupro!r}")
        if self.masks not in get_args(MaskSize):
            raise UsageError(f"masks must be {' or '.join(map(repr, get_args(MaskSize)))}, not {self.masks!r}")

    @property
    def label(self) -> str:
        """Variant of the pixel metrics; a stored result counts only if its variant is the same."""
        return f"{self.aupro} to {self.fpr_limit:g}{', full masks' if self.masks == 'full' else ''}"


def takes_options(
    options: Callable[P, EvaluationOptions],
) -> Callable[[Callable[[EvaluationOptions], T]], Callable[P, T]]:
    """Let a function of `EvaluationOptions` be called with the fields as arguments, also for type checkers."""

    def decorate(function: Callable[[EvaluationOptions], T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return function(options(*args, **kwargs))

        signature = inspect.signature(function)
        parameters = inspect.signature(options).parameters.values()
        call.__signature__ = signature.replace(parameters=list(parameters))  # type: ignore[attr-defined]
        return call

    return decorate
