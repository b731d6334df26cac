"""The picture generator: normal scenes, synthetic defects with exact masks and words, and a camera.

Everything follows from a seed: see `synthesis.samples`.
"""

from synthesis.defects import KINDS, Defect, add_defects, words_for
from synthesis.samples import Sample, make_product, make_sample
from synthesis.scenes import FAMILIES, Scene, make_scene

__all__ = [
    "FAMILIES",
    "KINDS",
    "Defect",
    "Sample",
    "Scene",
    "add_defects",
    "make_product",
    "make_sample",
    "make_scene",
    "words_for",
]
