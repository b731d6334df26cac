"""Options of an evaluation."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, get_args

from blemish.clip import ImageBackbone
from blemish.errors import UsageError
from blemish.image_io import MAX_PIXELS
from blemish.profile import Profile
from blemish.types import PathLike, Precision, Preset, ValueRange, check_threshold, check_value_range

P = ParamSpec("P")
T = TypeVar("T")

Aupro: TypeAlias = Literal["exact", "200"]
MaskSize: TypeAlias = Literal["map", "full"]
MaskThreshold: TypeAlias = float | Literal["mebin"]
"""A fraction of the map range, or the rule that gives each map a threshold of its own (`blemish.calibration.mebin`)."""
MEBIN: Literal["mebin"] = "mebin"

MORE_METRICS = ("image_pg2", "image_pb2", "pixel_aupro_05", "pixel_aupimo")
"""PG2 and PB2; AUPRO up to a false-positive rate of 0.05; the mean of AUPIMO over the anomalous images."""
MASK_METRICS = ("mask_seg_f1", "mask_class_f1", "mask_recall", "mask_false_alarms")
"""Metrics of `blemish.metrics.MaskMetrics` at a mask threshold that was fixed beforehand."""

#: End of `MetricOptions.label` for masks of the images' own size.
_FULL = ", full masks"
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
        preset: As in `blemish.load`, for all methods.
        configs: Fields of the config to change, by method: {"musc": {"whole_set": True}}.
        profile: A profile in place of `methods`: its method, memory and region of interest, with its object name for
            all pictures. The result says how many false alarms its thresholds give beside how many it promises.
        out: Folder for scores, tables and the report; None keeps nothing but the result.
        limit: Maximum number of images per category, drawn at random with the labels in proportion; None for all.
        seed: Seed of that draw and of the bootstrap.
        maps: Keep all anomaly maps (float32) in `out`, so that pixel metrics can be recomputed without the model.
        aupro: "exact", or "200" for the papers' approximation in 200 steps.
        masks: Size in which pixels are measured: "map", as papers do (masks are reduced to the size of the maps), or
            "full" (maps are enlarged to the size of each image, so that small defects count).
        more_metrics: Compute the metrics of `MORE_METRICS` too: PG2, PB2, AUPRO up to 0.05, AUPIMO; and the differences
            between the best method and the others, on the same resamples.
        mask_threshold: Measure masks at this threshold as well, a fraction of each method's map range that was fixed
            beforehand: SegF1 and its like, `MASK_METRICS`. "mebin" gives each map of a category a threshold of its own
            (Huang et al., CVPR 2025), which promises nothing. None for none.
        report: Write `report.html` into `out`.
        split: Split of the data set.
        batch_size: Number of images that go through the model together.
        max_pixels: Larger images are refused, as in `blemish.load`.
        value_range: As in `blemish.load`; a profile has its own.
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
    preset: Preset | None = None
    configs: Mapping[str, Mapping[str, Any]] | None = None
    profile: PathLike | Profile | None = None
    out: PathLike | None = None
    limit: int | None = None
    seed: int = 0
    maps: bool = False
    aupro: Aupro = "exact"
    masks: MaskSize = "map"
    more_metrics: bool = False
    mask_threshold: MaskThreshold | None = None
    report: bool = False
    split: str = "test"
    batch_size: int = 8
    max_pixels: int = MAX_PIXELS
    value_range: ValueRange | None = None
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.out is None and (self.maps or self.report):
            raise UsageError("maps and a report are written to a folder, but there is none; give out")
        check_value_range("value_range", self.value_range)
        if self.profile is not None and self.value_range is not None:
            raise UsageError("the value range is part of the profile: leave it out, or fit again with it")
        if self.profile is not None and (tuple(self.methods) != ("anomalyclip",) or self.preset or self.configs):
            raise UsageError("a profile has its own method, preset and config; leave out methods, preset and configs")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {self.batch_size}")
        _ = self.metrics  # checks aupro, masks and mask_threshold

    @property
    def metrics(self) -> MetricOptions:
        """How metrics are computed."""
        return MetricOptions(
            aupro=self.aupro,
            masks=self.masks,
            seed=self.seed,
            more=self.more_metrics,
            mask_threshold=self.mask_threshold,
        )


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """How metrics are computed.

    Attributes:
        aupro: "exact", or "200" for the papers' approximation in 200 steps.
        masks: Size in which pixels are measured: "map", or "full" for that of each image.
        fpr_limit: False-positive rate up to which AUPRO is integrated.
        seed: Seed of the bootstrap.
        max_exact_pixels: Categories with more pixels are measured with a histogram.
        more: Compute the metrics of `MORE_METRICS` too.
        mask_threshold: Measure masks at this fraction of the map range too, `MASK_METRICS`, or at the threshold that
            "mebin" gives each map; None for none.
    """

    aupro: Aupro = "exact"
    masks: MaskSize = "map"
    fpr_limit: float = 0.3
    seed: int = 0
    max_exact_pixels: int = field(default_factory=lambda: MAX_EXACT_PIXELS)
    more: bool = False
    mask_threshold: MaskThreshold | None = None

    def __post_init__(self) -> None:
        if isinstance(self.mask_threshold, str):
            if self.mask_threshold != MEBIN:
                raise UsageError(f"mask_threshold is a number from 0 to 1, or {MEBIN!r}, not {self.mask_threshold!r}")
        else:
            check_threshold("mask_threshold", self.mask_threshold)
        if self.aupro not in get_args(Aupro):
            raise UsageError(f"aupro must be {' or '.join(map(repr, get_args(Aupro)))}, not {self.aupro!r}")
        if self.masks not in get_args(MaskSize):
            raise UsageError(f"masks must be {' or '.join(map(repr, get_args(MaskSize)))}, not {self.masks!r}")

    @property
    def label(self) -> str:
        """Variant of the pixel metrics."""
        return f"{self.aupro} to {self.fpr_limit:g}{_FULL if self.masks == 'full' else ''}"

    def has_masks_of(self, variant: str) -> bool:
        """Return whether a stored variant has masks of the same size."""
        return (_FULL in variant) == (self.masks == "full")

    def has_aupro_of(self, variant: str) -> bool:
        """Return whether a stored variant has the same AUPRO."""
        return re.split(", | and ", variant)[0] == f"{self.aupro} to {self.fpr_limit:g}"

    @property
    def extra(self) -> tuple[str, ...]:
        """Names of the metrics beyond those of every evaluation."""
        masks = () if self.mask_threshold is None else MASK_METRICS
        return (*(MORE_METRICS if self.more else ()), *masks)

    @property
    def variant(self) -> str:
        """What is measured; a stored result counts only if it was the same."""
        more = " and more" * self.more
        masks = "" if self.mask_threshold is None else f", masks at {self.mask_threshold!r}"
        return f"{self.label}{more}{masks}"


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
