"""The words of each paper: states and templates, as data.

One module per published set. A set is a `PromptSet`; filling it in is the only thing that can be done with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PromptSet:
    """States of an object, and templates around them; `{}` marks the place that is filled.

    A state takes the object's name ("damaged {}"), a template takes the filled state ("a photo of a {}.").
    """

    normal: tuple[str, ...]
    anomalous: tuple[str, ...]
    templates: tuple[str, ...] = ("{}",)

    def sentences(self, name: str) -> tuple[list[str], list[str]]:
        """The normal and the anomalous sentences about `name`: states in the outer loop, templates in the inner one.

        The name is put in unchanged: underscores, capitals and braces stay what they are.
        """
        return self._fill(self.normal, name), self._fill(self.anomalous, name)

    def _fill(self, states: Sequence[str], name: str) -> list[str]:
        # replace() and not format(): an object may be called "{x}"
        filled = [state.replace("{}", name) for state in states]
        return [template.replace("{}", state) for state in filled for template in self.templates]
