"""WinCLIP+: the same method with references."""

from __future__ import annotations

from adapters.winclip import outputs

__all__ = ["outputs"]
