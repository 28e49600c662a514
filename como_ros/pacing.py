"""A loop at a steady rate of wall time."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 0.25  # lag beyond this is given up, not caught up in a burst: a suspended computer, a long reset


class Pacer:
    """Waits until each period is due: no drift, because the due times are added up and never measured anew.

    A slow period is made up for by shorter waits, never by a negative one. A lag beyond PATIENCE_S is given up.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._now, self._sleep = now, sleep
        self._due_s = now()

    def wait(self, period_s: float) -> float:
        """Wait until `period_s` after the last due time; the lag behind it in seconds, 0 where the loop kept up."""
        self._due_s += period_s
        lag_s = self._now() - self._due_s
        if lag_s <= 0.0:
            self._sleep(-lag_s)
            return 0.0
        if lag_s > PATIENCE_S:
            self.restart()
        return lag_s

    def restart(self) -> None:
        """Count from now on, after work that belongs to no period."""
        self._due_s = self._now()
