"""The loss curve of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """The loss curve: for each entry the step it ends at, and each loss term's mean since the entry before.

    seconds   that training took
    waited_s  of these, what it stood still for want of a batch
    """

    steps: list[int] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    waited_s: float = 0.0

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> History:
        """What `vars` gave. Raises TypeError where it is something else."""
        history = cls(**saved)
        lists: list[Any] = [history.steps, *dict(history.terms).values()]
        numbers = [history.seconds, history.waited_s, *(number for entries in lists for number in entries)]
        if (not all(isinstance(entries, list) for entries in lists)
                or not all(isinstance(number, int | float) for number in numbers)):
            raise TypeError("the history is no loss curve")
        return history

    def add(self, step: int, terms: Mapping[str, float]) -> None:
        """Append one entry."""
        self.steps.append(step)
        for name, value in terms.items():
            self.terms.setdefault(name, []).append(value)

    @property
    def loss(self) -> list[float]:
        """The curve of the total."""
        return self.terms.get("loss", [])
