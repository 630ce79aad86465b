"""Full NAT: new connections/s and requests/s on kept connections, and a move with many entries.

Yardstick: destination NAT, by the same LB to the same servers in the same run, in turns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from evaluation.benchmarks import move
from evaluation.benchmarks.new_connections import CLIENTS, CONNECTIONS, SECONDS, WARM_UP
from evaluation.benchmarks.scene import Load, Scene, compared, wrk
from evaluation.measuring.findings import Findings, Result, of_results
from evaluation.measuring.others import undisturbed
from lbctl.site.model import Site
from tests.bed.sites import full_nat_site, simple_site

TARGET = 0.8
ENTRIES = 100_000
RUNS = 4


def main() -> Findings:
    """Measures: new connections, kept ones, and a move."""
    with Scene(both_kinds(), clients=CLIENTS) as scene:
        scene.start_nginx()
        scene.start_controller()
        new = _in_turns(scene, close=True)
        kept = _in_turns(scene, close=False)
    moves = move.measure(ENTRIES, full_nat_site(lbs=2, external_ips=1, servers=2))
    return of_results(
        [
            _result("new connections, full NAT", new),
            _result("requests, kept connections, full NAT", kept),
            move.result(ENTRIES, moves, "entries of full NAT"),
        ]
    )


def both_kinds() -> Site:
    """One LB with two external IPs, the second one with full NAT, and the same servers for both."""
    site = simple_site(lbs=1, external_ips=1, servers=2)
    full = full_nat_site(lbs=1, external_ips=2, servers=2).external_ips[1]
    return replace(site, external_ips=(*site.external_ips, full))


@dataclass(frozen=True)
class Run:
    """The same load with both kinds of NAT, one right after the other; `others`: see Result."""

    destination: Load
    full: Load
    others: float


def _in_turns(scene: Scene, *, close: bool) -> list[Run]:
    """Either kind goes first in its turn: the second one meets the entries of the first that still linger."""
    addresses = [str(ip.address) for ip in scene.site.external_ips]

    def both(seconds: float, order: int) -> list[Load]:
        """What both carried, in the order of the addresses. order: -1 if the last one goes first, else 1."""
        loads = [
            wrk(scene.clients, f"http://{address}/", seconds, connections=CONNECTIONS, close=close)
            for address in addresses[::order]
        ]
        return loads[::order]

    both(WARM_UP, 1)
    orders = ((1, -1)[number % 2] for number in range(RUNS))
    runs = [undisturbed(partial(both, SECONDS, order), scene.namespaces) for order in orders]
    return [Run(destination, full, others) for (destination, full), others in runs]


def _result(what: str, runs: list[Run]) -> Result:
    pairs = [(run.full, run.destination) for run in runs]
    return compared(what, ("full NAT", "destination NAT"), pairs, [run.others for run in runs], TARGET)
