"""A Ryu app for the benchmark stalls, beside those of lbctl: it says on standard output how long the event loop lets
others wait.

It wants a turn after each millisecond; the time until it gets it is how long a packet would have waited that came just
then. Those that are long enough are told, each in a line: `turn END SECONDS`, END on the monotonic clock.
"""

from __future__ import annotations

import time
from typing import Any

from ryu.base import app_manager
from ryu.lib import hub

EVERY, TOLD = 0.001, 0.004
"""Seconds: between two turns; and after which a turn is late enough to be told."""


class TurnsApp(app_manager.RyuApp):
    """Watches from its start on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        hub.spawn(self._watch)

    def _watch(self) -> None:
        while True:
            asked = time.monotonic()
            hub.sleep(EVERY)
            ended = time.monotonic()
            if (late := ended - asked - EVERY) > TOLD:
                print(f"turn {ended:.4f} {late:.4f}", flush=True)
