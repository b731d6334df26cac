"""Normal pictures: a table of families, each a small painter with many random parameters.

`make_scene(rng, size, photos)` draws one. A scene has structure that belongs to it: seams, bars, print, grain, shadows.
"""

from __future__ import annotations

import numpy as np

from synthesis.scenes.base import Family, Photos, Rng, Scene
from synthesis.scenes.bodies.medical import MEDICAL
from synthesis.scenes.bodies.optical import BODIES
from synthesis.scenes.composed import banded, framed, regions
from synthesis.scenes.objects.objects import SPECIES, heap, kit, object_family
from synthesis.scenes.patterns.patterns import PATTERNS
from synthesis.scenes.products.products import PRODUCTS
from synthesis.scenes.surfaces.fabrics import FABRICS
from synthesis.scenes.surfaces.industrial import SURFACES, surface_scene
from synthesis.scenes.surfaces.textures import TEXTURES, texture_scene

__all__ = ["FAMILIES", "Family", "Photos", "Rng", "Scene", "make_scene"]

#: Families by name with their weights, relative shares of all pictures. The order decides what a seed draws.
FAMILIES: dict[str, tuple[Family, float]] = {
    **{name: (texture_scene(painter), weight) for name, (painter, weight) in TEXTURES.items()},
    **{name: (surface_scene(painter), weight) for name, (painter, weight) in (SURFACES | FABRICS).items()},
    **PATTERNS,
    **{name: (object_family(name), 1.2 * weight) for name, (_, weight) in SPECIES.items()},
    **MEDICAL,
    **PRODUCTS,
    **BODIES,
    "banded": (banded, 2.5),
    "regions": (regions, 2.5),
    "framed": (framed, 1.5),
    "kit": (kit, 2.0),
    "heap": (heap, 1.2),
}
_NAMES = list(FAMILIES)
_SHARES = np.cumsum([weight for _, weight in FAMILIES.values()])


def make_scene(rng: Rng, size: int, photos: Photos = ()) -> Scene:
    """Draw one random normal picture of `size` pixels a side."""
    index = int(np.searchsorted(_SHARES, rng.uniform(0, _SHARES[-1])))
    return FAMILIES[_NAMES[min(index, len(_NAMES) - 1)]][0](rng, size, photos)
