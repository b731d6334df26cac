"""Drift: do the pictures of the last while look like those that a profile was made of?

Two numbers of each picture are compared with those of the good pictures in the profile:

- the image score, which rises with defects, too;
- the median of the anomaly map: how far an ordinary patch of the picture is from those of the good pictures. A defect
  covers few patches and hardly changes it; another light, lens or product changes it.

Each is compared as a whole with the good pictures (Kolmogorov-Smirnov over a window), and one after the other by
`blemish.calibration.DriftTest`, whose alarm is false in at most 1 of 100 runs (about, since it has a window, too).
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from blemish.calibration import Comparison, DriftTest, Scheme, compare
from blemish.detection import Detection
from blemish.limits import sample_inside
from blemish.profile import Profile
from blemish.roi import Roi

Level: TypeAlias = Literal["unknown", "ok", "watch", "alarm"]
LEVELS: tuple[Level, ...] = ("unknown", "ok", "watch", "alarm")
"""From the least to the most urgent."""

#: Latest pictures that are compared.
WINDOW = 200
#: Fewest pictures, and fewest good ones, that say something.
FEWEST = 20
#: Chance of a distance like this at which a level begins. The window moves, so each is reached by chance now and then.
_WATCH, _ALARM = 1e-3, 1e-6
#: Way of `Comparison.shift` from 0.5 that an alarm takes: 3 of 4 new values lie on one side of an old one.
_DISTANT = 0.25
#: Logarithm of the capital at which the running test gives an alarm that is false in 1 of 100 runs.
_CAPITAL = 2.0
#: Scores that the running test compares a new one with.
_MEMORY = 1000
_BINS = 20


class _Statistic:
    """One number of each picture, beside that of the good pictures."""

    def __init__(self, good: Sequence[float], scheme: Scheme) -> None:
        self.good, self.scheme = list(good), scheme
        self.recent: deque[float] = deque(maxlen=WINDOW)
        # Leave-one-out values are a little higher than those of new pictures: the test would find that.
        self.test = DriftTest(self.good if scheme == "split" else (), window=_MEMORY)

    def add(self, value: float) -> None:
        self.recent.append(value)
        self.test.update(value)

    def compared(self) -> Comparison | None:
        if len(self.recent) < FEWEST or len(self.good) < FEWEST:
            return None
        return compare(self.good, list(self.recent))

    def level(self, comparison: Comparison | None) -> Level:
        if comparison is None:
            return "unknown"
        is_distant = abs(comparison.shift - 0.5) >= _DISTANT
        if self.test.log_capital >= _CAPITAL or (comparison.p_value < _ALARM and is_distant):
            return "alarm"
        # After leave-one-out, new values lie a little below the old ones even if nothing has changed.
        lower = self.scheme == "leave-one-out" and comparison.shift < 0.5 and not is_distant
        return "watch" if comparison.p_value < _WATCH and not lower else "ok"

    def report(self, comparison: Comparison | None, level: Level) -> dict[str, Any]:
        """Return histogram, numbers and words."""
        return {
            "level": level,
            "sentence": self._sentence(comparison),
            **self.histogram(),
            "statistic": None if comparison is None else comparison.statistic,
            "p_value": None if comparison is None else comparison.p_value,
            "shift": None if comparison is None else comparison.shift,
            "log_capital": self.test.log_capital,
        }

    def _sentence(self, comparison: Comparison | None) -> str:
        if comparison is None:
            return ""
        above = round(100 * comparison.shift)
        sentences = [
            f"A recent picture lies above a good one in {above} of 100 comparisons; 50 would be no change.",
            f"Chance alone gives a difference like this {_chance(comparison.p_value)}.",
        ]
        if self.test.log_capital >= _CAPITAL:
            sentences.append("It changed while the service ran.")
        return " ".join(sentences)

    def histogram(self) -> dict[str, list[float]]:
        values = [*self.good, *self.recent]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        edges = np.linspace(low, high if high > low else low + 1e-6, _BINS + 1)
        return {
            "edges": edges.tolist(),
            "calibration": np.histogram(self.good, edges)[0].tolist(),
            "recent": np.histogram(list(self.recent), edges)[0].tolist(),
        }


@dataclass(frozen=True)
class Numbers:
    """The numbers of one picture."""

    score: float
    usual: float
    """Median of the anomaly map."""


def numbers_of(detection: Detection, roi: Roi | None) -> Numbers:
    """Return the numbers of a picture, as a fit computes them for the good ones."""
    return Numbers(float(detection.score), float(np.median(sample_inside(detection.anomaly_map, roi))))


class Drift:
    """The latest pictures of one profile. For several threads.

    Args:
        profile: The profile.

    Attributes:
        profile: As given.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        entries = [entry for entry in profile.good if entry.calibrates]
        scheme = profile.limits.scheme
        self._scores = _Statistic([entry.score for entry in entries if entry.score is not None], scheme)
        self._usual = _Statistic([entry.usual for entry in entries if entry.usual is not None], scheme)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._pictures = self._own = 0

    def add(self, numbers: Numbers, content: bytes, *, is_good: bool = False) -> None:
        """Add a picture, unless it is one of the latest again.

        Args:
            numbers: Its numbers.
            content: Hash of its file.
            is_good: It is one of the profile's good pictures: it would be compared with itself, so it is only counted.
        """
        with self._lock:
            if content in self._known:
                return
            self._known[content] = None
            if len(self._known) > WINDOW:
                self._known.popitem(last=False)
            if is_good:
                self._own += 1
                return
            self._pictures += 1
            self._scores.add(numbers.score)
            self._usual.add(numbers.usual)

    def report(self) -> dict[str, Any]:
        """Return what `GET /v1/profiles/NAME/drift` answers."""
        with self._lock:
            scores, usual = self._scores.compared(), self._usual.compared()
            levels = self._scores.level(scores), self._usual.level(usual)
            level = max(levels, key=LEVELS.index)
            return {
                "level": level,
                "sentence": self._sentence(level, levels, scores, usual),
                "advice": self._advice(levels),
                "pictures": self._pictures,
                "own": self._own,
                "window": WINDOW,
                "scores": {
                    "name": "scores",
                    "meaning": "A score rises with a defect, and with any other change of the pictures.",
                    **self._scores.report(scores, levels[0]),
                },
                "features": {
                    "name": "ordinary places of the pictures",
                    "meaning": "How unlike the good ones an ordinary place of a picture is (the median of its map). "
                    "A defect hardly changes it; light, lens, position and product do.",
                    **self._usual.report(usual, levels[1]),
                },
            }

    @property
    def level(self) -> Level:
        """The level alone."""
        with self._lock:
            return max((each.level(each.compared()) for each in (self._scores, self._usual)), key=LEVELS.index)

    def _sentence(
        self, level: Level, levels: tuple[Level, Level], scores: Comparison | None, usual: Comparison | None
    ) -> str:
        count = len(self._scores.recent)
        own = _own_sentence(self._own)
        if scores is None or usual is None:
            if len(self._scores.good) < FEWEST:
                text = f"The profile has the scores of {len(self._scores.good)} good pictures; it takes {FEWEST} to "
                return f"{text}notice drift.{own}"
            few = "1 picture was" if count == 1 else f"{count} pictures were"
            return f"{few} scored; it takes {FEWEST} to say something about drift.{own}"
        if level == "ok":
            return f"The last {count} pictures look like the good pictures of the profile.{own}"
        if levels[1] in ("watch", "alarm"):
            text = f"The last {count} pictures look unlike the good pictures as a whole"
        else:
            text = f"The last {count} scores have moved: there are more defects, or the pictures have changed"
        return f"{text}{'; the promise may not hold' if level == 'alarm' else ''}.{own}"

    def _advice(self, levels: tuple[Level, Level]) -> str:
        """Return what a person should do."""
        level = max(levels, key=LEVELS.index)
        if level == "unknown":
            if len(self._scores.good) < FEWEST:
                return f"Fit the profile again with {FEWEST} good pictures or more."
            return "Score more pictures, then look again."
        if level == "ok":
            return "There is nothing to do."
        if level == "watch":
            return (
                "Look at the latest pictures, and here again after some more: a watch comes up by chance now and then."
            )
        if levels[1] == "alarm":
            return (
                "Check light, lens, position and product. If the change is meant to stay, fit the profile again with "
                "good pictures of today."
            )
        return (
            "Look at the latest pictures that were rejected. If they are defective, the production needs a look; if "
            "they are good, review a whole batch and give it back, or fit the profile again."
        )


def _own_sentence(own: int) -> str:
    if not own:
        return ""
    if own == 1:
        return " 1 more is one of the profile's good pictures and does not count."
    return f" {own} more are among the profile's good pictures and do not count."


def _chance(p_value: float) -> str:
    """Return how often chance alone gives a difference like this, as text."""
    if p_value >= 0.1:
        return f"in {round(10 * p_value)} of 10 cases"
    for cases in (100, 1000, 10_000, 100_000, 1_000_000):
        if p_value >= 1 / cases:
            return f"in {round(cases * p_value)} of {cases:,} cases"
    return "in less than 1 of 1,000,000 cases"
