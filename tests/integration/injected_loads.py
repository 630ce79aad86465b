"""A Ryu app for a bed: what the external IPs carry is what the test says (see injection.py), not what their flows
count.

Only the counting is replaced. How loads are smoothed, when they are looked at, what is planned, and how it is carried
out are the product's own. So a decision depends on the loads that the test has said, and on no machine's speed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from lbctl.load.loads import Loads
from lbctl.values.owners import owner_of

LOADS, READ = "loads.json", "loads-read"
DIRECTORY = Path(sys.argv[sys.argv.index("--config-file") + 1]).resolve().parents[1]


class Said:
    """What the test has said: one after the other, the rates of each period."""

    def __init__(self) -> None:
        self.number = self.measured = 0

    def rates(self, rates: dict[int, tuple[float, float]]) -> Iterator[int]:
        """In the place of Loads._rates: fills in, for each owner, packets/s and bytes/s."""
        order = json.loads((DIRECTORY / LOADS).read_text())
        if order["number"] != self.number:
            self.number, self.measured = order["number"], 0
        period = order["periods"][min(self.measured, len(order["periods"]) - 1)]
        self.measured += 1
        new = DIRECTORY / f"{READ}.new"
        new.write_text(f"{self.number} {self.measured}")
        new.rename(DIRECTORY / READ)
        rates |= {owner_of(ip_address(ip).packed): (float(rate), 100.0 * rate) for ip, rate in period.items()}
        yield len(rates)


said = Said()
assert callable(Loads._rates), "what is replaced here has another name now"
Loads._rates = lambda self, rates, now: said.rates(rates)
