"""Bounds of numbers that people set: keys of a configuration, options of a verb.

    require_bounds(self, steps=COUNT, learning_rate=ABOVE_0, seed=SEED)       # in __post_init__
    def verb(trials: Annotated[int, COUNT] = 50) -> None: ...                 # `como` checks what was typed
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """What a number may be. NaN fits nowhere, and infinity only where `infinite`.

    least, most   the bound itself fits
    above, below  the bound itself does not fit
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    infinite: bool = False

    def expected(self, value: float | None) -> str:
        """What was expected instead of `value`, such as "1 or more"; empty where it fits, and for None."""
        if value is None:
            return ""
        if math.isnan(value) or (math.isinf(value) and not self.infinite):
            return "a finite number"
        if self.least is not None and value < self.least:
            return f"{self.least} or more"
        if self.above is not None and value <= self.above:
            return f"above {self.above}"
        if self.most is not None and value > self.most:
            return f"at most {self.most}"
        if self.below is not None and value >= self.below:
            return f"below {self.below}"
        return ""


COUNT = Bounds(least=1)
FROM_0 = Bounds(least=0)
ABOVE_0 = Bounds(above=0)
SHARE = Bounds(least=0, most=1)
SEED = Bounds(least=0, most=2**63 - 1)  # more does not fit into torch's generator


def require_bounds(settings: object, **bounds: Bounds) -> None:
    """Raises ValueError for the first attribute of `settings` that is out of its bounds; it begins with its name.

    None is not looked at, and of a tuple each number is.
    """
    for name, bound in bounds.items():
        given: Any = getattr(settings, name)
        numbers = {f"{name}[{i}]": item for i, item in enumerate(given)} if isinstance(given, tuple) else {name: given}
        for key, value in numbers.items():
            expected = bound.expected(value)
            if expected:
                raise ValueError(f"{key} must be {expected}, got {value}")
