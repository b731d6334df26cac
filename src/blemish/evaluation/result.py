"""What an evaluation says: rows of numbers, and where they come from."""

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

MEAN = "mean"
#: The metrics of a row, all fractions in [0, 1]; thresholds are on the scale of scores and maps.
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
    """One method on one category, or (category "mean", `mean` true) the unweighted mean over the categories.

    A number that the data do not define is nan, and `undefined` says why.

    Attributes:
        method: Its name.
        scores: "picture": each picture was scored on its own. "set-wide": by the paper's rule over the whole category,
            which no single picture can be scored by; pixel metrics do not depend on it and are nan here.
        dataset: The data set's name.
        category: Of the data set.
        mean: Whether this is the mean over the categories.
        pictures: How many were scored.
        anomalous: How many of them are anomalous.
        failed: How many could not be scored, and are missing from the numbers.
        image_auroc_low: Lower end of the 95 % bootstrap interval of `image_auroc` over pictures; likewise for
            `image_ap`, `pixel_auroc` and `pixel_aupro`. Of the mean row: its categories are resampled each on its own
            (of pixel metrics: their half-widths are joined as those of independent numbers). nan where it is not
            known, as for pixel metrics of categories too large to hold.
        image_auroc_high: Its upper end.
        image_f1_threshold: The score that reaches `image_f1_max` (of the mean row: no threshold to use).
        pixel_f1_threshold: The map value that reaches `pixel_f1_max`.
        pixel_categories: Of how many categories the pixel metrics are the mean; those without masks are left out.
        pixel_error: How far pixel metrics can be from the exact ones, at most; 0 = they are exact.
        undefined: For each metric that is nan, the reason.
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

    @property
    def name(self) -> str:
        """What the row is called in a table: the method, and its rule where that is not the usual one."""
        return self.method if self.scores == "picture" else f"{self.method} ({self.scores})"

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON: None instead of nan."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["undefined"] = dict(self.undefined)
        return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A published number next to ours.

    Attributes:
        method: As in `Row`.
        category: As in `Row`; "mean" for the data set.
        metric: One of `METRICS`.
        ours: A fraction; nan where it is undefined.
        published: A fraction.
        difference: ours - published; nan unless both are of one backbone and of the same pictures.
        backbone: That the published number was made with.
        same_backbone: Whether it is ours.
        same_pictures: Whether ours is of as many pictures; True where it is not known how many were published.
        trained_on: What the published weights were trained on.
        table: Where it was published.
        source: Where it was read.
        own: The method's own authors published it.
        verified: It was read in the table itself, not quoted by someone else.
        note: What else should be known.
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
        """Plain dictionary for JSON: None instead of nan."""
        return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A picture that could not be scored, or a category that could not be measured."""

    category: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `blemish.evaluate`.

    Attributes:
        rows: Per method and category, then the means; see `Row`.
        published: Published numbers of the same methods on the same data, ours beside them.
        failed: What is missing from the numbers.
        facts: Where the numbers come from: data, methods with configs and fingerprints, passes, options, seconds.
        folder: Where scores and tables are; None if they were not to be kept.
    """

    rows: tuple[Row, ...]
    published: tuple[Comparison, ...]
    failed: tuple[Failure, ...]
    facts: Mapping[str, Any]
    folder: Path | None

    @property
    def means(self) -> tuple[Row, ...]:
        """The mean rows, best image AUROC first; those without one last."""
        rows = [row for row in self.rows if row.mean]
        return tuple(sorted(rows, key=lambda row: 1.0 if math.isnan(row.image_auroc) else -row.image_auroc))

    @property
    def categories(self) -> tuple[str, ...]:
        """In the data set's order."""
        return tuple(dict.fromkeys(row.category for row in self.rows if not row.mean))

    def row(self, method: str, category: str | None = None, scores: Rule = "picture") -> Row:
        """One row; without a category the mean. Raises UsageError if it is not there."""
        for row in self.rows:
            here = row.mean if category is None else not row.mean and row.category == category
            if here and row.method == method and row.scores == scores:
                return row
        raise UsageError(f"there is no row of {method} for {category or 'the mean'}")

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        return {
            "facts": dict(self.facts),
            "rows": [row.to_dict() for row in self.rows],
            "published": [one.to_dict() for one in self.published],
            "failed": [vars(one) for one in self.failed],
        }

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a pandas frame. Raises UsageError if pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise UsageError("a pandas frame needs pandas; run: pip install pandas") from error
        return pandas.DataFrame(_records(self.rows))

    def to_polars(self) -> polars.DataFrame:
        """The rows as a polars frame. Raises UsageError if polars is not installed."""
        try:
            import polars
        except ImportError as error:
            raise UsageError("a polars frame needs polars; run: pip install polars") from error
        return polars.DataFrame(_records(self.rows))

    def to_markdown(self) -> str:
        """The tables as Markdown."""
        from blemish.evaluation.tables import to_markdown

        return to_markdown(self)


def _records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as columns of plain values; the reasons for nan as one text."""
    records = []
    for row in rows:
        values = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
        values["undefined"] = "; ".join(f"{metric}: {reason}" for metric, reason in row.undefined.items())
        records.append(values)
    return records
