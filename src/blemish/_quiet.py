"""Pillow without its remarks."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

_PILLOW = r"PIL\."
_quiet_lock = threading.Lock()
_quiet_users = 0


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep Pillow's remarks on odd files to itself; `warnings.catch_warnings` is not safe with threads.

    One filter for Pillow's modules is put in front for as long as any thread reads, and taken out again. Nobody
    else's filters are saved or restored.
    """
    global _quiet_users
    with _quiet_lock:
        _quiet_users += 1
        if _quiet_users == 1:
            warnings.filterwarnings("ignore", module=_PILLOW)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                for entry in [f for f in warnings.filters if getattr(f[3], "pattern", None) == _PILLOW]:
                    with contextlib.suppress(ValueError, AttributeError):
                        warnings.filters.remove(entry)  # type: ignore[attr-defined]
