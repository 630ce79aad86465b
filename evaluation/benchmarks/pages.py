"""A page of an access table with 100 000 entries, as the REST API makes it.

Packets wait meanwhile, since the controller is one thread.

There is nothing to compare with; the target is absolute. There is no switch and no HTTP: what is measured is the
controller's work.
"""

from __future__ import annotations

import time
from functools import partial
from typing import cast

from evaluation.benchmarks.seed import entries
from evaluation.measuring.findings import Findings, Result, Unusable, median, milliseconds, of_results
from evaluation.measuring.others import watched
from evaluation.measuring.record import figure
from lbctl.api import shown
from lbctl.api.dispatch import dispatch
from lbctl.api.orders import Orders
from lbctl.control import ControlFunction
from lbctl.http.message import Request
from lbctl.store import State
from tests.bed.sites import simple_site

COUNT = 100_000
TARGET = 0.05
RUNS = 9
PATH = "/v1/load-balancers/lb-a/access-table"


class _Orders:
    """What the API wants of the Ryu app, as far as it is read."""

    def __init__(self, control: ControlFunction) -> None:
        self.shown = shown.of(control)

    def pause(self) -> None:
        pass


def main() -> Findings:
    """Measures each kind of page."""
    site = simple_site(lbs=1, external_ips=1)
    control = ControlFunction(site, State(), 0.0)
    external_ip = site.external_ips[0]
    table = control.ground.external_ips.by_address[external_ip.address.packed].table
    for entry in entries(COUNT, external_ip, "02:00:00:00:00:01"):
        table.add(entry)
    some = next(iter(table.entries())).connection
    orders = cast(Orders, _Orders(control))
    kinds: dict[str, dict[str, str]] = {
        "100 entries": {},
        "1000 entries": {"limit": "1000"},
        "of a client": {"client": str(some.client.address)},
        "of a server, by state": {"server": str(some.server.address), "state": "open"},
        "none found": {"state": "reset"},
    }
    return of_results([_line(what, *watched(partial(_seconds, orders, query))) for what, query in kinds.items()])


def _seconds(orders: Orders, query: dict[str, str]) -> list[float]:
    """What each of so many pages took, one after the other."""
    took: list[float] = []
    after: dict[str, str] = {}
    for _ in range(RUNS):
        parameters = {name: [value] for name, value in (query | after).items()}
        request = Request("GET", PATH, parameters, {}, b"")
        begun = time.perf_counter()
        response = dispatch(request, orders, None)
        took.append(time.perf_counter() - begun)
        if response.status != 200:
            raise Unusable(f"a page was answered with status {response.status}: {response.body.decode()}")
        cursor = response.body.rpartition(b'"next":')[2].partition(b",")[0].decode()
        after = {} if cursor == "null" else {"after": cursor.strip('"')}
    return took


def _line(what: str, took: list[float], others: float) -> Result:
    seconds = median(took)
    return Result(
        f"a page of {COUNT} entries: {what}",
        milliseconds(seconds),
        "none",
        "",
        f"<= {milliseconds(TARGET)}",
        RUNS,
        others,
        seconds <= TARGET,
        {"page": figure("s", took)},
    )
