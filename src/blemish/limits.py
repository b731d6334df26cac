"""The limits that the numbers of good pictures give: thresholds by a rule, their promise, the scale of heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from blemish import calibration as conformal
from blemish.calibration import Calibration, Scheme, percent
from blemish.errors import UsageError, suggest
from blemish.few_shot import References
from blemish.profile import GoodPicture, Limits
from blemish.roi import Roi, RoiSource

Rule: TypeAlias = Literal["conformal", "mean-std", "percentile", "f1", "recall", "cost"]
"""How the thresholds are made from scores; `blemish.calibration.rules` has the formulas of all but the first."""
RULES: tuple[Rule, ...] = get_args(Rule)
LABELLED_RULES: tuple[Rule, ...] = ("f1", "recall", "cost")
"""Rules that need bad pictures."""

#: False-alarm rate that is promised if nobody asks for another and there are pictures enough.
DEFAULT_FALSE_ALARMS = 0.01
#: Share of the good pictures whose whole map is transparent.
_TRANSPARENT = 0.8
#: Values of a map that are looked at for its median, and by the rules of others.
_SAMPLED_VALUES = 100_000
#: Least width of a heatmap's scale below the threshold, as a part of the way from a usual value to the threshold.
_MIN_WIDTH = 0.1


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What is fitted, and how. Each field is an argument of `Detector.fit`.

    Attributes:
        false_alarms: Share of good pictures that are called anomalous, at most, in (0, 1). None promises 1 %, or the
            smallest share that so many pictures can promise.
        review: Share of good pictures that are reviewed or rejected, at most, larger than `false_alarms`; None makes no
            second threshold.
        min_area: Smallest region in pixels.
        roi: What counts in a picture: see `blemish.roi.read_roi`. None = all of it.
        rule: Rule of the thresholds. Only "conformal" promises something; "f1", "recall" and "cost" need `bad`.
        bad: Pictures with defects. They change no promise; the profile says how many of them are caught.
        recall: Share of the bad pictures that the rule "recall" catches, at least.
        miss_cost, false_alarm_cost: What the rule "cost" weighs against each other.
        robust: Leave out good pictures that look unlike the others.

    Raises:
        UsageError: A value is out of range, or options do not fit together.
    """

    false_alarms: float | None = None
    review: float | None = None
    min_area: int = 1
    roi: RoiSource | None = None
    rule: Rule = "conformal"
    bad: References | None = None
    recall: float = 0.95
    miss_cost: float = 1.0
    false_alarm_cost: float = 1.0
    robust: bool = False

    def __post_init__(self) -> None:
        for name, share in (("false_alarms", self.false_alarms), ("review", self.review)):
            if share is not None and not 0.0 < share < 1.0:
                raise UsageError(f"{name} is a share above 0 and below 1, such as 0.01, not {share}")
        if self.min_area < 1:
            raise UsageError(f"min_area must be at least 1 pixel, not {self.min_area}")
        if str(self.rule) == "mebin":
            raise UsageError(
                "MEBin gives each map a threshold of its own within its set, so a profile cannot keep one: measure it "
                "with evaluate(mask_threshold='mebin'), or choose another rule"
            )
        if self.rule not in RULES:
            raise UsageError(
                f"there is no rule {self.rule!r}{suggest(self.rule, RULES)}; choose from {', '.join(RULES)}"
            )
        if self.rule in LABELLED_RULES and self.bad is None:
            raise UsageError(f"the rule {self.rule} needs pictures with defects: give some, or choose conformal")
        if self.review is not None and self.rule != "conformal":
            raise UsageError("review is a second promise, and only the rule conformal makes promises")


@dataclass(frozen=True)
class Measured:
    """What one picture scores."""

    score: float
    level: float
    peak: float
    usual: float
    values: npt.NDArray[np.float32]
    """Some values of the map."""


class FittedLimits:
    """The limits that the numbers of good pictures give.

    Args:
        options: What was asked for.
        entries: The good pictures; those with a score calibrate.
        scheme: How their scores came about.
        removed: Number of pictures that were left out.
        map_range: The method's scale of these maps.
        roi: The part of the picture that counts.
        sampled: Values of the maps of good pictures, for rules that look at pixels; None if they are not at hand.
        bad: Results of pictures with defects.

    Attributes:
        limits: The limits.
        guarantee: What they promise, in numbers, as JSON values.
        false_alarms: The promised false-alarm rate; None without a promise.
        notes: What was noticed.
    """

    def __init__(
        self,
        options: FitOptions,
        entries: Sequence[GoodPicture],
        scheme: Scheme,
        removed: int,
        map_range: tuple[float, float],
        roi: Roi | None,
        sampled: npt.NDArray[np.float32] | None = None,
        bad: Sequence[Measured] = (),
    ) -> None:
        good = [entry for entry in entries if entry.calibrates]
        selected = sum(entry.selected for entry in good)
        self.notes: list[str] = []
        self.guarantee: dict[str, Any] = {}
        self.false_alarms: float | None = None
        scores, levels = (
            np.asarray([getattr(entry, name) for entry in good], np.float32) for name in ("score", "level")
        )
        # A picture that was chosen by its score may score anything, like a bad one: the promise counts the others only.
        pictures, pixels = (
            Calibration(values, scheme, contaminated=selected, removed=removed) for values in (scores, levels)
        )
        share = self._share(options, pictures)
        others = {
            "mean + 3 std": conformal.mean_plus_std(scores),
            "percentile x factor": conformal.percentile_times(scores),
        }
        pixel = pixels.threshold(share).value
        review = promise = None
        if options.rule == "conformal":
            self.false_alarms, limit = share, pictures.threshold(share)
            if options.review is not None:
                review = conformal.two_thresholds(pictures, options.review, share)[0].value
            threshold, promise = limit.value, limit.guarantee.sentence() + selected_sentence(entries)
            self.guarantee = {**limit.guarantee.to_dict(), "review": options.review}
        elif options.rule in LABELLED_RULES:
            labelled = _labelled(options, scores, [result.score for result in bad])
            threshold = labelled.value
            self.guarantee = {"labelled": labelled.to_dict()}
        elif sampled is None:
            raise UsageError(f"the rule {options.rule} needs the maps of all good pictures: fit again with all of them")
        elif options.rule == "mean-std":
            threshold, pixel = others["mean + 3 std"], conformal.mean_plus_std(sampled)
        else:
            threshold, pixel = others["percentile x factor"], conformal.percentile_times(sampled)
        if threshold > 1:
            raise UsageError(
                "good pictures reach the highest score there is, so that nothing could be called anomalous: look at "
                "the good pictures, or choose another method"
            )
        threshold = float(np.float32(max(threshold, 0.0)))
        self.guarantee["other_rules"] = others
        if bad:
            caught = sum(result.score >= threshold for result in bad)
            with_region = sum(result.level >= pixel for result in bad)
            self.guarantee["bad"] = {"pictures": len(bad), "caught": caught, "with_region": with_region}
            self.notes.append(f"{caught} of {len(bad)} pictures with defects are called anomalous.")
        if odd := [entry.name for entry in good if entry.suspicious]:
            self.notes.append(_suspicious_note(odd))
        low, high = map_range
        fraction = (float(np.float32(pixel)) - low) / (high - low)
        self.limits = Limits(
            threshold=threshold,
            mask_threshold=min(max(fraction, 0.0), 1.0),
            review_threshold=review,
            min_area=options.min_area,
            heatmap_range=heatmap_range(pixel, good, map_range),
            scores=tuple(scores.tolist()),
            scheme=scheme,
            contaminated=selected,
            removed=removed,
            promise=promise,
            roi=roi,
        )

    def _share(self, options: FitOptions, calibration: Calibration) -> float:
        """Return the false-alarm rate to promise: that of the options, or else what so many pictures can promise.

        Raises:
            UsageError: So many pictures cannot promise what the options ask for.
        """
        if options.false_alarms is not None:
            conformal.quantile_rank(len(calibration), options.false_alarms, contaminated=calibration.contaminated)
            return options.false_alarms
        smallest, pictures = calibration.smallest_promise, len(calibration) - calibration.contaminated
        if smallest <= DEFAULT_FALSE_ALARMS:
            return DEFAULT_FALSE_ALARMS
        if options.rule == "conformal":
            self.notes.append(
                f"{pictures} calibration picture{'s' * (pictures != 1)} can promise {percent(smallest, up=True)} false "
                f"alarms at best; "
                f"{percent(DEFAULT_FALSE_ALARMS)} takes {conformal.pictures_needed(DEFAULT_FALSE_ALARMS)}."
            )
        return smallest


def selected_sentence(entries: Sequence[GoodPicture]) -> str:
    """Return what the promise does with pictures that were added because of their scores; empty without any."""
    selected = [entry for entry in entries if entry.selected]
    if not selected:
        return ""
    if len(selected) == 1:
        first, they_are, them = "1 good picture was added because of its score", "it is a reference", "it"
    else:
        first = f"{len(selected)} good pictures were added because of their scores"
        they_are, them = "they are references", "them"
    role = f"{they_are}, and " if selected[0].images else ""
    return f" {first}: {role}the promise does not count on {them}."


def _labelled(options: FitOptions, good: npt.ArrayLike, bad: npt.ArrayLike) -> conformal.LabelledThreshold:
    """Return the threshold of a rule that looks at good and bad pictures."""
    if options.rule == "f1":
        return conformal.f1_optimal(good, bad)
    if options.rule == "recall":
        return conformal.fixed_recall(good, bad, options.recall)
    costs = {"miss_cost": options.miss_cost, "false_alarm_cost": options.false_alarm_cost}
    return conformal.cheapest(good, bad, **costs)


def sample_inside(values: npt.NDArray[np.float32], roi: Roi | None) -> npt.NDArray[np.float32]:
    """Return values of a map (H, W) that lie inside the region of interest: all of them, or about 100,000 (k,).

    Their median says how far an ordinary place of the picture is from the good pictures.
    """
    inside = values if roi is None else values[roi.resized(values.shape[1], values.shape[0])]
    return inside.ravel()[:: -(-inside.size // _SAMPLED_VALUES)]


def heatmap_range(pixel: float, good: Sequence[GoodPicture], map_range: tuple[float, float]) -> tuple[float, float]:
    """Return the scale of heatmaps: the threshold is its middle, and what good pictures reach is at or below its low
    end.

    The maps of most good pictures (`_TRANSPARENT`) lie below the low end everywhere, as long as that leaves a tenth of
    the way from a usual value to the threshold for the colours in between.
    """
    usual = float(np.median([entry.usual for entry in good]))
    reached = float(np.quantile([entry.peak for entry in good], _TRANSPARENT))
    way = max(pixel - usual, 1e-3 * (map_range[1] - map_range[0]))
    width = min(max(pixel - reached, _MIN_WIDTH * way), way)
    return pixel - width, pixel + width


def require_enough(pictures: int, options: FitOptions) -> None:
    """Raise a UsageError for too few good pictures to promise anything."""
    if pictures >= 2:
        return
    wanted_share = options.false_alarms or DEFAULT_FALSE_ALARMS
    needed = conformal.pictures_needed(wanted_share)
    if pictures == 0:
        raise UsageError(
            f"there are no good pictures: give at least 2, and {needed} to promise {percent(wanted_share)}"
        )
    raise UsageError(
        f"one good picture promises nothing, since it has to be compared with another: give at least 2, and {needed} "
        f"to promise {percent(wanted_share)} false alarms"
    )


def _suspicious_note(names: Sequence[str]) -> str:
    subject = "this one" if len(names) == 1 else "these"
    return (
        f"{len(names)} of the good pictures look unlike the others: {', '.join(names)}; look at {subject}, and take "
        "out what is not good."
    )
