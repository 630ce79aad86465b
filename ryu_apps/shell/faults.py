"""What nobody has foreseen: an exception in the core costs the event that it came of, and nothing else.

The same packet, row, answer or file may come again; a controller that ended each time would serve nobody. So such an
event is dropped, its traceback logged, and counted as `internal_errors`, which `lbctl doctor` tells.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from typing import ParamSpec

from ryu_apps.shell.log import log

P = ParamSpec("P")
TOLD_AGAIN = 60.0
"""Seconds after which a fault at the same place is logged again."""
PLACES = 100
"""That are remembered as told."""
EVENT = "internal_errors"


class Faults:
    """counters: where they are counted. now: seconds."""

    def __init__(self, counters: Counter[str], now: Callable[[], float]) -> None:
        self._counters, self._now = counters, now
        self._told: dict[str, float] = {}
        """Where -> when."""

    def contain(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Calls it. False if that went wrong."""
        try:
            function(*args, **kwargs)
        except Exception as error:
            self._counters[EVENT] += 1
            self._tell(error)
            return False
        return True

    def _tell(self, error: Exception) -> None:
        now, last = self._now(), traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}:{last.lineno}"
        if now < self._told.get(where, float("-inf")) + TOLD_AGAIN:
            return
        if len(self._told) >= PLACES:
            self._told.clear()
        self._told[where] = now
        log.exception("internal error, what led to it is dropped", where=where)
