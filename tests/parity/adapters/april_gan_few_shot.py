"""APRIL-GAN with reference pictures."""

from __future__ import annotations

from adapters.april_gan import outputs

__all__ = ["outputs"]
