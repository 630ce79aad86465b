"""A page of an access table with 100 000 entries, as the REST API makes it: packets wait meanwhile, since the controller is one
thread.

There is nothing to compare with; the target is absolute. No switch and no HTTP: what is measured is the controller's work.
"""

from __future__ import annotations

import time

from evaluation.measuring.findings import Result, median, milliseconds
from evaluation.benchmarks.seed import entries
from lbctl.api.dispatch import dispatch
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
        self.control = control


def main() -> list[Result]:
    """Measures, and returns a line of the table for each kind of page."""
    site = simple_site(lbs=1, external_ips=1)
    control = ControlFunction(site, State(), 0.0)
    external_ip = site.external_ips[0]
    table = control.serving(external_ip.address).table
    for entry in entries(COUNT, external_ip, "02:00:00:00:00:01"):
        table.add(entry)
    some = next(iter(table.entries())).connection
    orders = _Orders(control)
    kinds = {"100 entries": {}, "1000 entries": {"limit": "1000"}, "of a client": {"client": str(some.client.address)},
             "of a server, by state": {"server": str(some.server.address), "state": "open"}, "none found": {"state": "reset"}}
    return [_line(what, _seconds(orders, query)) for what, query in kinds.items()]


def _seconds(orders: _Orders, query: dict[str, str]) -> float:
    """The median of so many pages, one after the other."""
    took, after = [], {}
    for _ in range(RUNS):
        request = Request("GET", PATH, {name: [value] for name, value in (query | after).items()}, {}, b"")
        begun = time.perf_counter()
        response = dispatch(request, orders, None)
        took.append(time.perf_counter() - begun)
        assert response.status == 200, response.body
        cursor = response.body.rpartition(b'"next":')[2].partition(b",")[0].decode()
        after = {} if cursor == "null" else {"after": cursor.strip('"')}
    return median(took)


def _line(what: str, seconds: float) -> Result:
    return Result(f"a page of {COUNT} entries: {what}", milliseconds(seconds), "none", "", f"<= {milliseconds(TARGET)}", RUNS, 0.0,
                  seconds <= TARGET)


if __name__ == "__main__":
    from evaluation.measuring.findings import table as text

    print(text(main()))
