"""The result of an evaluation: rows of numbers, and where they come from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from blemish.errors import UsageError

if TYPE_CHECKING:
    import pandas
    import polars

Rule: TypeAlias = Literal["picture", "set-wide"]
FailureKind: TypeAlias = Literal["picture", "mask", "method"]

MEAN = "mean"
#: Metrics of a row, all fractions in [0, 1]; thresholds are on the scale of scores and maps.
METRICS = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1_max",
    "pixel_iou",
    "pixel_aupro",
)
MORE_TITLES = {
    "image_pg2": "PG2",
    "image_pb2": "PB2",
    "pixel_aupro_05": "AUPRO 0.05",
    "pixel_aupimo": "AUPIMO",
    "mask_seg_f1": "SegF1",
    "mask_class_f1": "ClassF1",
    "mask_recall": "recall",
    "mask_false_alarms": "false alarms",
}
"""Titles of the metrics that are computed on request."""
TITLES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1_max": "pixel F1-max",
    "pixel_iou": "pixel IoU",
    "pixel_aupro": "pixel AUPRO",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one category, or the unweighted mean over the categories.

    A metric that the data do not define is nan, with the reason in `undefined`.

    Attributes:
        method: Name of the method.
        scores: "picture" if each picture was scored on its own, or "set-wide" for the paper's rule over a whole
            category, which cannot score a single picture. Pixel metrics do not depend on the rule; they are nan in
            set-wide rows.
        dataset: Name of the data set.
        category: Name of the category; "mean" for the mean.
        mean: Whether this is the mean over the categories.
        pictures: Number of pictures that were scored.
        anomalous: Number of anomalous pictures among them.
        failed: Number of pictures that could not be scored; they are missing from the numbers.
        image_auroc_low: Lower end of the 95 % bootstrap interval of `image_auroc` over pictures; likewise for
            `image_ap`, `pixel_auroc` and `pixel_aupro`. For a mean, each category is resampled on its own; half-widths
            of pixel metrics are combined as those of independent numbers. nan if unknown, as for the pixel metrics of
            categories that do not fit into memory.
        image_auroc_high: Upper end of that interval.
        image_f1_threshold: Score that reaches `image_f1_max`; the mean of thresholds is not a threshold to use.
        pixel_f1_threshold: Map value that reaches `pixel_f1_max`.
        pixel_categories: Number of categories with masks, over which pixel metrics are averaged.
        pixel_error: Largest distance of pixel metrics to the exact ones; 0 for exact ones.
        undefined: Reason for each metric that is nan.
        extra: Metrics that were asked for in addition, by name: `MORE_METRICS` and `MASK_METRICS` of
            `blemish.evaluation`.
    """

    method: str
    scores: Rule
    dataset: str
    category: str
    mean: bool
    pictures: int
    anomalous: int
    failed: int
    image_auroc: float
    image_auroc_low: float = math.nan
    image_auroc_high: float = math.nan
    image_ap: float
    image_ap_low: float = math.nan
    image_ap_high: float = math.nan
    image_f1_max: float
    image_f1_threshold: float
    pixel_auroc: float
    pixel_auroc_low: float = math.nan
    pixel_auroc_high: float = math.nan
    pixel_ap: float
    pixel_f1_max: float
    pixel_f1_threshold: float
    pixel_iou: float
    pixel_aupro: float
    pixel_aupro_low: float = math.nan
    pixel_aupro_high: float = math.nan
    pixel_categories: int
    pixel_error: float
    undefined: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the row in a table: the method, and the rule of set-wide scores."""
        return self.method if self.scores == "picture" else f"{self.method} ({self.scores})"

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON, with None instead of nan."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | dict(self.extra)
        del values["extra"]
        values["undefined"] = dict(self.undefined)
        return without_nan(values)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A published number beside ours.

    Attributes:
        method: Name of the method.
        category: Name of the category; "mean" for the data set.
        metric: One of `METRICS`.
        ours: Our number, a fraction; nan if undefined.
        published: The published number, a fraction.
        difference: ours - published; nan unless backbone and pictures are the same.
        backbone: Backbone of the published number.
        same_backbone: Whether ours is the same backbone.
        same_pictures: Whether ours has as many pictures; True if the published count is unknown.
        trained_on: Training data of the published weights.
        table: Where the number was published.
        source: Where the number was read.
        own: Whether the method's own authors published it.
        verified: Whether it was read in the table itself rather than quoted by others.
        note: Further remarks.
    """

    method: str
    category: str
    metric: str
    ours: float
    published: float
    difference: float
    backbone: str
    same_backbone: bool
    same_pictures: bool
    trained_on: str
    table: str
    source: str
    own: bool
    verified: bool
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON, with None instead of nan."""
        return without_nan(vars(self))


@dataclass(frozen=True, kw_only=True)
class MethodDifference:
    """How much the best method is ahead of another one on the same images: a paired bootstrap.

    Attributes:
        metric: "image_auroc" or "image_ap".
        first: The method with the best mean.
        second: The other method.
        categories: Number of categories that the means are over.
        value: Mean of the first minus mean of the second.
        low: Lower end of the 95 % bootstrap interval.
        high: Upper end.
        p_value: Two-sided p-value of no difference.
    """

    metric: str
    first: str
    second: str
    categories: int
    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A picture that cannot be scored, a mask that cannot be used, or a method that cannot do a category."""

    kind: FailureKind
    category: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `blemish.evaluate`.

    Attributes:
        rows: Rows of each method: its categories, then their mean.
        published: Published numbers of the same methods on the same data, beside ours.
        failed: Pictures and masks that are missing from the numbers.
        facts: Provenance as JSON values: data, methods with configs and fingerprints, passes, options, seconds.
        folder: Folder of scores and tables; None if nothing was kept.
        differences: The best method against each other one; empty unless more metrics were asked for.
    """

    rows: tuple[Row, ...]
    published: tuple[Comparison, ...]
    failed: tuple[Failure, ...]
    facts: Mapping[str, Any]
    folder: Path | None
    differences: tuple[MethodDifference, ...] = ()

    @property
    def means(self) -> tuple[Row, ...]:
        """Mean rows, best image AUROC first; undefined ones last."""
        rows = [row for row in self.rows if row.mean]
        return tuple(sorted(rows, key=lambda row: 1.0 if math.isnan(row.image_auroc) else -row.image_auroc))

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in the order of the data set."""
        return tuple(dict.fromkeys(row.category for row in self.rows if not row.mean))

    def row(self, method: str, category: str | None = None, scores: Rule = "picture") -> Row:
        """Return the row of a category; of the mean for None. Raises UsageError if there is no such row."""
        for row in self.rows:
            matches = row.mean if category is None else not row.mean and row.category == category
            if matches and row.method == method and row.scores == scores:
                return row
        raise UsageError(f"there is no row of {method} for {category or 'the mean'}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "facts": dict(self.facts),
            "rows": [row.to_dict() for row in self.rows],
            "published": [comparison.to_dict() for comparison in self.published],
            "failed": [vars(failure) for failure in self.failed],
            **({"differences": [vars(difference) for difference in self.differences]} if self.differences else {}),
        }

    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a pandas frame. Raises UsageError if pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise UsageError("a pandas frame needs pandas; run: pip install pandas") from error
        return pandas.DataFrame(_records(self.rows))

    def to_polars(self) -> polars.DataFrame:
        """Return the rows as a polars frame. Raises UsageError if polars is not installed."""
        try:
            import polars
        except ImportError as error:
            raise UsageError("a polars frame needs polars; run: pip install polars") from error
        return polars.DataFrame(_records(self.rows))

    def to_markdown(self) -> str:
        """Return the tables as Markdown."""
        from blemish.evaluation.tables import to_markdown

        return to_markdown(self)


def _records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as dictionaries of plain values, with the reasons for nan as one text."""
    records = []
    for row in rows:
        values = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
        values |= values.pop("extra")
        values["undefined"] = "; ".join(f"{metric}: {reason}" for metric, reason in row.undefined.items())
        records.append(values)
    return records


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for JSON, which has no nan: None in its place."""
    return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in values.items()}
