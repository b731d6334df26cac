"""Training of a method's learnt parts on images with masks; the backbone stays frozen."""

from __future__ import annotations

from blemish.methods.losses import dice, focal
from blemish.training.features import Features
from blemish.training.loop import Progress, train
from blemish.training.processes import Processes, joined
from blemish.training.run_files import RunPaths
from blemish.training.samples import FileSamples, Sample

__all__ = ["Features", "FileSamples", "Processes", "Progress", "RunPaths", "Sample", "dice", "focal", "joined", "train"]
