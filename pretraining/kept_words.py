"""Words for states that nobody taught by hand, to see what reading makes of them.

On the first list the settings of `reading.py` were chosen; the second was looked at once, at the end. A sentence
encoder may teach any of them. Three sides: "normal", "damaged", and "neutral", which says nothing of damage.
"""

from __future__ import annotations


def _states(adjectives: str, after: tuple[str, ...]) -> tuple[str, ...]:
    return (*(f"{word} {{}}" for word in adjectives.split()), *(f"{{}} {phrase}" for phrase in after))


DEVELOPMENT = {
    "damaged": _states(
        "mangled decrepit mutilated wrecked battered crumbling defaced botched crippled maimed busted smashed ravaged "
        "vandalized dilapidated lacerated blighted bungled unserviceable sullied",
        (
            "in terrible condition",
            "in awful shape",
            "in a sorry state",
            "in lousy condition",
            "with bruises",
            "with fissures",
            "with abrasions",
            "showing deterioration",
            "with a fracture",
            "that is not usable",
        ),
    ),
    "normal": _states(
        "unspoiled sturdy impeccable unsullied uninjured unscathed wholesome untouched tidy ideal superb splendid "
        "exemplary unbruised undefiled crackless stainless untarnished undiseased unpunctured",
        (
            "in superb condition",
            "in wonderful shape",
            "in fine fettle",
            "in splendid condition",
            "with no bruises",
            "free of imperfections",
            "that is not scratched",
            "without fissures",
            "showing no deterioration",
            "not bent",
        ),
    ),
    "neutral": _states(
        "quilted elegant bilingual rectangular Danish musical orange coastal annual portable granular woollen electric "
        "rented familiar upright rural edible famous layered",
        (
            "in storage condition",
            "with a handle",
            "with stripes",
            "with a logo",
            "on a shelf",
            "with two sides",
            "showing a label",
            "with music",
            "having a lid",
            "that is blue",
        ),
    ),
}
LAST = {
    "damaged": _states(
        "desecrated unkempt mauled shoddy demolished festering trashed corrupted hurt derelict",
        ("in horrible condition", "with gashes", "showing rot", "in dire shape", "with an abscess"),
    ),
    "normal": _states(
        "untainted unblighted polished flourishing unhurt first-rate",
        ("in tip-top condition", "without gashes", "free of rot", "that is not torn"),
    ),
    "neutral": _states(
        "Roman triangular seasonal woolly digital northern borrowed sliced",
        ("with buttons", "with a picture on it", "in summer condition", "showing a number", "of oak"),
    ),
}

#: What `benchmarks/words.py` asks with.
BENCHMARK = {
    "normal": ("pristine {}", "spotless {}", "immaculate {}", "unharmed {}", "{} in mint condition"),
    "damaged": ("marred {}", "ruined {}", "impaired {}", "disfigured {}", "{} in poor condition"),
}


def kept_words() -> set[str]:
    """All words of these lists: none of them may serve as an example of anything."""
    return {w for some in (DEVELOPMENT, LAST, BENCHMARK) for states in some.values() for s in states for w in s.split()}
