"""Frame loss: how many messages of a stream never came, by the gaps between the header stamps of those that did."""

from __future__ import annotations

from collections import deque

WINDOW_S = 5.0
# Fewer messages say nothing: drivers drop a frame now and then.
_LEAST_EXPECTED = 20


class FrameLoss:
    """Counts over the last WINDOW_S seconds of header stamps.

    rate_hz  how often the stream is stamped when nothing is lost
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._last_s: float | None = None
        self._gaps: deque[tuple[float, int]] = deque()

    def arrived(self, stamp_s: float) -> None:
        """Note a message. A stamp that does not increase begins anew."""
        if self._last_s is None or stamp_s <= self._last_s:
            self._gaps.clear()
        else:
            self._gaps.append((stamp_s, max(round((stamp_s - self._last_s) * self._rate_hz) - 1, 0)))
        self._last_s = stamp_s
        while self._gaps and self._gaps[0][0] < stamp_s - WINDOW_S:
            self._gaps.popleft()

    @property
    def lost(self) -> int:
        """Messages that should have been stamped in the window and did not arrive."""
        return sum(missed for _, missed in self._gaps)

    @property
    def share(self) -> float:
        """The lost ones among all that should be there, 0 to 1; 0 before there is enough to say."""
        expected = self.lost + len(self._gaps)
        return self.lost / expected if expected >= _LEAST_EXPECTED else 0.0
