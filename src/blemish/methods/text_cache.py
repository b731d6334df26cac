"""Text features of object names, computed once for all methods that share them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from blemish.methods.base import Method

#: Object names whose features are kept; the least recently used ones go first.
MAX_ENTRIES = 1024


class TextCache:
    """Text features of object names; several threads may use it at once.

    Methods that inherit the same `text_features` and have equal `text_key` share their features. The cache must not
    outlive its methods.
    """

    def __init__(self) -> None:
        self._features: OrderedDict[tuple[Callable[..., Any], Hashable, str], Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, method: Method, object_names: Sequence[str]) -> Tensor:
        """Return the text features of a batch.

        Args:
            method: Encodes names that are not in the cache, one at a time.
            object_names: Name of the object in each image, at least one; see `prompt_name`.

        Returns:
            (2, E) if all names are equal, else (B, 2, E); see `Method.text_features`. Without gradient.
        """
        names = [prompt_name(method, name) for name in object_names]
        rows = {name: self._row(method, name).to(method.device) for name in dict.fromkeys(names)}
        return rows[names[0]] if len(rows) == 1 else torch.stack([rows[name] for name in names])

    def _row(self, method: Method, name: str) -> Tensor:
        # A key holds for those that inherit the same function: a subclass may write its own.
        key = (type(method).text_features, method.text_key, name)
        with self._lock:
            if key in self._features:
                self._features.move_to_end(key)
                return self._features[key]
        with torch.inference_mode():
            row = method.text_features([name])[0]
        row = row.clone()  # outside the mode: a tensor that training may use, too
        with self._lock:
            self._features[key] = row
            while len(self._features) > MAX_ENTRIES:
                self._features.popitem(last=False)
        return row


def prompt_name(method: Method, object_name: str) -> str:
    """Return the name that goes into the method's prompts: "object" if it is empty or makes no difference."""
    return (object_name or "object") if method.info.needs_object else "object"
