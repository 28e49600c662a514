"""Latch: once closed, nothing is commanded until a person opens it."""

from __future__ import annotations


class Latch:
    """Closed with a named cause; the first cause is kept, because the later ones follow from it."""

    def __init__(self) -> None:
        self._cause: str | None = None

    @property
    def closed(self) -> bool:
        return self._cause is not None

    @property
    def cause(self) -> str | None:
        """Why it is closed; None while it is open."""
        return self._cause

    def close(self, cause: str) -> bool:
        """Close it. True where it was open, so that the cause is told once."""
        if self._cause is not None:
            return False
        self._cause = cause
        return True

    def open(self) -> None:
        """The explicit reset."""
        self._cause = None
