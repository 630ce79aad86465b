"""What a scheduler's choice costs, and how long its table takes to be made. There is nothing to compare with.

The question whether the chosen server can take the connection (which `allowed` answers) costs nothing here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv4Address

from evaluation.measuring.findings import RESULTS, Findings, median
from evaluation.measuring.others import watched
from evaluation.measuring.record import Row, Table, figure
from lbctl.servers.schedulers import scheduler_for
from lbctl.site.model import SCHEDULERS, SchedulerName, Server, Service
from lbctl.values.keys import server_key
from lbctl.values.protocols import TCP

CHOICES, ROUNDS = 2_000, 7
COUNTS = (2, 10, 100)
COLUMNS = ("scheduler", *(f"{count} servers" for count in COUNTS), "10, first choice not allowed", "made, 10 servers")


def main() -> Findings:
    """Measures each scheduler."""
    rows, others = watched(lambda: tuple(_row(kind) for kind in SCHEDULERS))
    return Findings({RESULTS: Table(columns=COLUMNS, rows=rows)}, passed=True, runs=ROUNDS, others=others)


def _row(kind: SchedulerName) -> Row:
    choices = {f"{count} servers": _choices(kind, count, _anybody) for count in COUNTS}
    refused = _choices(kind, 10, _not_the_first)
    made = _times(lambda: scheduler_for(Service("tcp", 80, kind, _servers(10)), {}))
    shown = [f"{median(times) * 1e6:.1f} us" for times in (*choices.values(), refused)]
    figures = {name: figure("s", times) for name, times in choices.items()}
    return Row(
        cells=(f"`{kind}`", *shown, f"{median(made) * 1e3:.2f} ms"),
        figures={**figures, "first choice not allowed": figure("s", refused), "made": figure("s", made)},
    )


def _choices(kind: SchedulerName, count: int, allowed: Callable[[], Callable[[Server], bool]]) -> list[float]:
    """Seconds for each choice among so many servers, for each round. `allowed` is asked anew for each choice."""
    some = _servers(count)
    connections = {server_key(TCP, server.address.packed, server.port): 100 * server.weight for server in some}
    clients = [(0xCB007100 + number).to_bytes(4) + number.to_bytes(2) for number in range(CHOICES)]
    scheduler = scheduler_for(Service("tcp", 80, kind, some), connections)

    def once() -> None:
        for client in clients:
            scheduler.choose(client, allowed())

    return [seconds / CHOICES for seconds in _times(once)]


def _times(action: Callable[[], object]) -> list[float]:
    """Seconds of each round."""
    found = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        action()
        found.append(time.perf_counter() - begun)
    return found


def _servers(count: int) -> tuple[Server, ...]:
    return tuple(Server(IPv4Address("10.0.0.1") + number, 80, 1 + number % 3) for number in range(count))


def _yes(_: Server) -> bool:
    return True


def _anybody() -> Callable[[Server], bool]:
    return _yes


def _not_the_first() -> Callable[[Server], bool]:
    """Refuses the server that is asked about first."""
    answers = iter((False,))
    return lambda _: next(answers, True)
