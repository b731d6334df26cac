"""The words that the built-in model is taught: states, templates, nouns, captions.

Held-out templates are never shown in training; the synthetic validation asks with them alone. What
`benchmarks/words.py` calls unseen is in none of these lists.
"""

from __future__ import annotations

import numpy as np

#: Words for states that papers put into prompts.
_PAPERS_NORMAL = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "normal {}",
    "good {}",
    "intact {}",
    "undamaged {}",
    "clean {}",
    "healthy {}",
    "fine {}",
    "faultless {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
    "{} without scratch",
    "{} without crack",
    "{} without contamination",
    "{} in good condition",
    "{} without anomaly",
)
_PAPERS_ABNORMAL = (
    "damaged {}",
    "broken {}",
    "imperfect {}",
    "blemished {}",
    "defective {}",
    "abnormal {}",
    "anomalous {}",
    "flawed {}",
    "faulty {}",
    "bad {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
    "{} with a flaw",
    "{} with a defect",
    "{} with an anomaly",
    "{} with damage on it",
    "unhealthy {}",
    "{} with a blemish",
    "{} in bad condition",
)
#: More that people say; adjectives, then what follows the noun.
_MORE_NORMAL = (
    "unbroken unscratched uncracked unstained undented uncontaminated unblotched unmarked unworn uncorroded untorn "
    "unbent unflawed unchipped uninfected uninterrupted undistorted excellent great acceptable proper correct sound "
    "complete functional functioning working usable serviceable reliable satisfactory conforming defect-free "
    "damage-free scratch-free crack-free rust-free error-free good-looking well-made well-formed well-kept well- "
    "preserved brand-new fresh neat uniform well-assembled non-defective healthy-looking benign benign-looking "
    "disease-free lesion-free physiological unremarkable normal-looking"
)
_MORE_ABNORMAL = (
    "unsound unacceptable improper incorrect unsatisfactory nonconforming out-of-spec malfunctioning nonfunctional "
    "non-working unusable unreliable inaccurate deficient inferior substandard low-quality rejected scrapped unfit "
    "scuffed scraped grazed abraded gouged nicked pitted pockmarked scarred shattered splintered fragmented split "
    "ruptured burst snapped fissured leaking leaky crushed crumpled creased warped twisted buckled skewed crooked "
    "collapsed squashed flattened misshapen malformed eroded oxidised oxidized tarnished decayed rotten rotting "
    "mouldy moldy spoiled perished deteriorated degraded weathered shabby frayed ragged tattered ripped shredded "
    "unravelled detached disconnected dislodged peeling flaking delaminated blistered soiled filthy grimy greasy "
    "polluted tainted impure streaked blotched bleached scorched charred singed overheated melted shorted "
    "unsoldered misfit mismatched mispositioned uneven lopsided diseased infected sick ill cancerous malignant "
    "malignant-looking tumorous pathological injured wounded bruised ulcerated necrotic lesioned suspicious "
    "aberrant atypical"
)
_MORE_NORMAL_AFTER = (
    "in excellent condition",
    "in perfect condition",
    "in working condition",
    "in flawless condition",
    "in very good condition",
    "in undamaged condition",
    "in normal condition",
    "in good shape",
    "in great shape",
    "in good order",
    "in working order",
    "in a good state",
    "in a healthy state",
    "of good quality",
    "of high quality",
    "that is intact",
    "that is flawless",
    "that is fine",
    "that is not damaged",
    "that is not broken",
    "that is not defective",
    "that is clean and whole",
    "that looks normal",
    "that looks good",
    "that looks as it should",
    "which is undamaged",
    "with no defect",
    "with no defects",
    "with no damage",
    "with no visible damage",
    "with no scratches",
    "with no cracks",
    "with no flaws",
    "with no lesion",
    "with no sign of disease",
    "without any defect",
    "without any damage",
    "without defects",
    "without flaws",
    "without scratches",
    "without cracks",
    "without stains",
    "without stain",
    "without dents",
    "without holes",
    "without missing parts",
    "without lesion",
    "without lesions",
    "without tumor",
    "without disease",
    "without abnormality",
    "without pathology",
    "free of defects",
    "free of damage",
    "free of scratches",
    "free from flaws",
    "free from contamination",
    "showing no damage",
    "showing no defect",
    "showing no sign of wear",
    "showing no abnormality",
    "having no defect",
    "having no flaws",
    "as good as new",
    "as expected",
)
_MORE_ABNORMAL_AFTER = (
    "in damaged condition",
    "in broken condition",
    "in very bad condition",
    "in unacceptable condition",
    "in faulty condition",
    "in worn condition",
    "in bad shape",
    "in damaged shape",
    "in a bad state",
    "in a damaged state",
    "in a diseased state",
    "in need of repair",
    "of bad quality",
    "of low quality",
    "out of order",
    "that is damaged",
    "that is broken",
    "that is defective",
    "that is faulty",
    "that is not intact",
    "that is not normal",
    "that is not good",
    "that is not as it should be",
    "that is no longer good",
    "that looks damaged",
    "that looks wrong",
    "that looks abnormal",
    "that has a defect",
    "that has been damaged",
    "which is damaged",
    "with defects",
    "with flaws",
    "with several defects",
    "with visible damage",
    "with a small defect",
    "with some damage",
    "with an imperfection",
    "with imperfections",
    "with an error",
    "with a fault",
    "with a problem",
    "with an abnormality",
    "with abnormalities",
    "with anomalies",
    "with signs of wear",
    "with surface damage",
    "with corrosion",
    "with an injury",
    "with a wound",
    "with disease",
    "with a disease",
    "with signs of disease",
    "with cancer",
    "with a pathology",
    "with an infection",
    "with lesions",
    "showing damage",
    "showing a defect",
    "showing signs of damage",
    "showing a lesion",
    "showing an abnormality",
    "showing wear",
    "having a defect",
    "having a flaw",
    "having damage",
)


def _states(before: str, after: tuple[str, ...]) -> tuple[str, ...]:
    return (*(f"{word} {{}}" for word in before.split()), *(f"{{}} {phrase}" for phrase in after))


NORMAL_STATES = (*_PAPERS_NORMAL, *_states(_MORE_NORMAL, _MORE_NORMAL_AFTER))
ABNORMAL_STATES = (*_PAPERS_ABNORMAL, *_states(_MORE_ABNORMAL, _MORE_ABNORMAL_AFTER))
#: The states that `draw_state` prefers: so many of each list, from its front.
PAPERS = len(_PAPERS_NORMAL)
#: Words that say a state, which therefore name nothing.
STATE_WORDS = frozenset(s.removesuffix(" {}") for s in (*NORMAL_STATES, *ABNORMAL_STATES) if s.endswith(" {}"))

TEMPLATES = (
    "{}",
    "{}.",
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of a {}",
    "a photo of the {}",
    "a cropped photo of the {}.",
    "a close-up photo of a {}.",
    "a bright photo of the {}.",
    "a dark photo of the {}.",
    "a blurry photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a low resolution photo of a {}.",
    "a black and white photo of the {}.",
    "a good photo of a {}.",
    "a bad photo of the {}.",
    "a photo of one {}.",
    "a photo of my {}.",
    "a photo of a small {}.",
    "a photo of the large {}.",
    "there is a {} in the scene.",
    "this is the {} in the scene.",
    "an image of a {}",
    "a picture of the {}",
    "a photo of a {} for visual inspection.",
    "a photo of the {} for anomaly detection.",
    "a microscope picture of the {}",
    "a medical image of a {}",
    "a scan of a {}",
    "an x-ray image of a {}",
    "an image of the {}.",
    "a picture of one {}",
    "a close view of a {}.",
    "a detailed photo of the {}.",
    "a photo of a {} on a table.",
    "a photo of a {} from above",
    "a photo of some {}.",
    "a grayscale image of the {}",
    "a microscope image of a {}.",
    "a ct scan of a {}",
    "an mri scan of the {}",
    "an ultrasound image of a {}",
    "an endoscopy image of the {}",
    "a medical photo of the {}.",
    "a product photo of a {}.",
    "the {} as a camera sees it",
    "the {}",
    "a {}",
    "one {}",
    "here is a {}.",
    "it is a {}.",
    "this {}",
    "we see a {}",
)
HELD_OUT_TEMPLATES = (
    "a photo of the cool {}.",
    "a close-up photo of the {}.",
    "a cropped photo of a {}.",
    "this is one {} in the scene.",
    "a dark photo of a {}.",
    "a photo of the small {}.",
    "an inspection image showing a {}",
    "look at this {}",
)
#: Nouns that name nothing in particular, as prompts without an object do.
_GENERIC = (
    "object surface item part product thing texture sample component material piece specimen workpiece device unit "
    "assembly structure area region tissue"
)
GENERIC = tuple(_GENERIC.split())
#: Object names that papers put into prompts: their tokens are kept whole. Their pictures are not shown.
_NAMES = (
    "carpet grid leather tile wood bottle cable capsule hazelnut metal nut pill screw toothbrush transistor "
    "zipper candle capsules cashew chewinggum fryum macaroni pcb pipe bracket connector plate tubes brain "
    "chest colon skin thyroid head tumor polyp lesion retina liver lung bone tooth cell solar wafer chip board "
    "circuit fabric textile cookie toy figure rail road steel magnetic commutator engine gear bearing casting "
    "weld pipe glass ceramic paper plastic rubber industrial medical mri ct endoscopy ultrasound dermoscopy "
    "image background foreground panel label print lens breakfast box juice pushpins splicing connectors bag "
    "audiojack eraser mint usb switch button nail spring washer "
    "regulator resistor capacitor diode relay socket fuse battery antenna sensor display keyboard cap lid tube can "
    "jar box carton bowl cup mug spoon fork knife pen pencil brush comb rope thread yarn foam rubber silicone leaf "
    "fruit apple orange banana potato bread pasta rice bean seed egg fish meat coin key lock hinge valve pump hose "
    "belt chain wheel tire tyre rim brake disc piston blade turbine rotor stator coil wire winding busbar insulator "
    "window mirror door floor wall roof brick concrete asphalt pavement bridge pole fence marble granite slab plank "
    "panel film foil sheet strip coating paint lacquer print logo text code stamp seal package blister vial syringe "
    "ampoule stent implant catheter glove mask heart kidney stomach spine knee hand breast prostate nerve vessel "
    "artery blood lymph node mole eye cornea fundus ear throat joint muscle wafer die bump solder pad trace via chip "
    "phone screen case bearing shaft rod bar beam ingot billet bolt rivet clip hook pin pipe flange gasket "
)
NAMES = tuple(dict.fromkeys(_NAMES.split()))


def random_noun(rng: np.random.Generator, nouns: tuple[str, ...], vocabulary: tuple[str, ...]) -> str:
    """A noun for a prompt: generic, seen in scenes, or any word, so that states mean the same beside unknown names."""
    u = rng.random()
    if u < 0.35:
        return GENERIC[rng.integers(len(GENERIC))]
    if u < 0.55 and nouns:
        return nouns[rng.integers(len(nouns))]
    pool = NAMES if u < 0.75 else vocabulary
    words: list[str] = []
    wanted = 1 if rng.random() < 0.7 else 2
    while len(words) < wanted:
        word = pool[rng.integers(len(pool))]
        if word not in STATE_WORDS:
            words.append(word)
    return ("_" if rng.random() < 0.1 else " ").join(words)


def draw_state(rng: np.random.Generator, states: tuple[str, ...]) -> str:
    """One of NORMAL_STATES or ABNORMAL_STATES, half the time one that papers use."""
    return states[rng.integers(PAPERS if rng.random() < 0.5 else len(states))]


def state_pair(rng: np.random.Generator, noun: str, templates: tuple[str, ...] = TEMPLATES) -> tuple[str, str]:
    """One (normal, abnormal) pair of prompts about the same noun, mostly in the same template."""
    t = templates[rng.integers(len(templates))]
    t2 = t if rng.random() < 0.7 else templates[rng.integers(len(templates))]
    n, a = draw_state(rng, NORMAL_STATES), draw_state(rng, ABNORMAL_STATES)
    return t.format(n.format(noun)), t2.format(a.format(noun))


def as_state(phrase: str) -> str:
    """What is said of a defect, as a state of a thing: "with a scratch" follows it, "scratched" goes before."""
    return f"{{}} {phrase}" if phrase.startswith("with") else f"{phrase} {{}}"


def caption(rng: np.random.Generator, name: str, material: str, phrase: str | None, place: str | None) -> str:
    """A caption of one picture; `phrase` is a defect's adjective ("scratched") or noun phrase ("with a scratch")."""
    thing = name if not material or rng.random() < 0.3 else f"{material} {name}"
    if phrase is None:
        thing = draw_state(rng, NORMAL_STATES).format(thing)
    else:
        thing = as_state(phrase).format(thing)
        if phrase.startswith("with") and place and rng.random() < 0.4:
            thing += f" {place}"
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(thing)


def place(mask: np.ndarray) -> str:
    """Where a mask lies, in words ("in the top left")."""
    y, x = np.nonzero(mask)
    return place_at(x.mean() / mask.shape[1], y.mean() / mask.shape[0])


def place_at(x: float, y: float) -> str:
    """The same of a point, as parts of width and height."""
    row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    col = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return f"in the {row} {col}".strip().replace("  ", " ") if row or col else "in the middle"
