"""The packages of the extra `serve`."""

from __future__ import annotations

import importlib.util

from blemish.errors import UsageError

_PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def require() -> None:
    """Raise a UsageError unless the packages of the extra are installed."""
    missing = [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise UsageError(f"{' and '.join(missing)} {are} not installed; run: pip install 'blemish[serve]'")
