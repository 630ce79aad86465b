"""`python -m evaluation.benchmarks.schedulers`: what a scheduler's choice costs, for docs/schedulers.md; it is no part of `python -m evaluation.benchmarks`."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv4Address
from statistics import median

from lbctl.servers.schedulers import scheduler_for
from lbctl.site.model import SCHEDULERS, Server, Service
from lbctl.values.keys import server_key
from lbctl.values.protocols import TCP

CHOICES, ROUNDS = 2_000, 7
COUNTS = (2, 10, 100)


def main() -> None:
    """Medians of ROUNDS rounds; one server in the last column is not allowed."""
    print("| scheduler | " + " | ".join(f"{count} servers" for count in COUNTS) + " | 10, first choice not allowed | made, 10 servers |")
    print("|---" * (len(COUNTS) + 3) + "|")
    for kind in SCHEDULERS:
        costs = [f"{_choice(kind, count):.1f} us" for count in COUNTS]
        print(f"| `{kind}` | {' | '.join(costs)} | {_choice(kind, 10, refuse=True):.1f} us | {_made(kind) * 1e3:.2f} ms |")


def _choice(kind: str, count: int, refuse: bool = False) -> float:
    """Microseconds."""
    some = _servers(count)
    connections = {server_key(TCP, server.address.packed, server.port): 100 * server.weight for server in some}
    clients = [(0xCB007100 + number).to_bytes(4) + number.to_bytes(2) for number in range(CHOICES)]
    scheduler = scheduler_for(Service("tcp", 80, kind, some), connections)
    asked = iter(())

    def refuses_first(_: Server) -> bool:
        return next(asked, True)

    def once() -> None:
        nonlocal asked
        for client in clients:
            if refuse:
                asked = iter((False,))
            scheduler.choose(client, refuses_first if refuse else _anybody)

    return _seconds(once) / CHOICES * 1e6


def _made(kind: str) -> float:
    return _seconds(lambda: scheduler_for(Service("tcp", 80, kind, _servers(10)), {}))


def _seconds(action: Callable[[], object]) -> float:
    def timed() -> float:
        begun = time.perf_counter()
        action()
        return time.perf_counter() - begun

    return median(timed() for _ in range(ROUNDS))


def _servers(count: int) -> tuple[Server, ...]:
    return tuple(Server(IPv4Address("10.0.0.1") + number, 80, 1 + number % 3) for number in range(count))


def _anybody(_: Server) -> bool:
    return True


if __name__ == "__main__":
    main()
