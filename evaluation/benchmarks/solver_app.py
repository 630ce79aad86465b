"""A Ryu app for the benchmark solving, beside those of lbctl: it has the controller solve problems of that size.

They are solved as the controller solves its own: at a signal, again and again for SECONDS. Each is logged.
"""

from __future__ import annotations

import signal
import time
from typing import Any

from ryu.base import app_manager
from ryu.lib import hub

from evaluation.benchmarks.assignment import problem
from evaluation.benchmarks.solving import ORDERS
from ryu_apps.library.threads import GreenThreads
from ryu_apps.shell.solver import solve

SECONDS = 12.0


class SolverApp(app_manager.RyuApp):
    """Solves on order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._problems = {number: problem(count, lbs, "exponential", 1) for number, (_, count, lbs) in ORDERS.items()}
        for number in ORDERS:
            signal.signal(number, lambda number, _: hub.spawn(self._solve, signal.Signals(number)))

    def _solve(self, number: signal.Signals) -> None:
        algorithm, count, lbs = ORDERS[number]
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            begun = time.monotonic()
            solve(self._problems[number], algorithm, GreenThreads())
            print(f"solved {algorithm} {count} {lbs} in {time.monotonic() - begun:.3f} s", flush=True)
