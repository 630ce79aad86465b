"""What has been done lately, so that it is not done again too soon, nor for too many at once."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Lately(Generic[T]):
    """seconds: what was done longer ago does not count. most: so much may have been done in that time. Times are the
    caller's clock in seconds."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds, self._most = seconds, most
        self._done: dict[T, float] = {}
        """When; the longest ago first."""

    def may(self, what: T, now: float) -> bool:
        """May it be done now? Then it counts as done."""
        while self._done:
            oldest = next(iter(self._done))
            if now < self._done[oldest] + self._seconds:
                break
            del self._done[oldest]
        if what in self._done or len(self._done) >= self._most:
            return False
        self._done[what] = now
        return True
