"""Training a method's learnt parts on pictures with masks; the backbone stays frozen."""

from __future__ import annotations

from blemish.methods.losses import dice, focal
from blemish.training.loop import Progress, train
from blemish.training.places import Places
from blemish.training.samples import Features, Sample

__all__ = ["Features", "Places", "Progress", "Sample", "dice", "focal", "train"]
