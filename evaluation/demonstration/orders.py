"""The orders in which the demonstration moves an external IP: four of the same steps, and one with nothing to copy."""

from __future__ import annotations

from dataclasses import dataclass

from lbctl.values.transfer import Strategy

NAIVE_ORDER = "LBCTL_NAIVE_ORDER"
"""Environment variable that tells naive_app.py the name of its order."""


@dataclass(frozen=True)
class Order:
    """`naive` orders are those of the prior art: they live in evaluation/demonstration/naive.py, not in the product.
    sliced: services have slices, and no entries by connection."""

    name: str
    explanation: str
    naive: bool = False
    sliced: bool = False

    @property
    def strategy(self) -> str:
        """What the REST API is asked for. The naive orders take the place of a strategy that the API knows."""
        return Strategy.PRECOPY.value if self.naive or self.sliced else self.name


ROUTE_FIRST = Order("route-first", "the route, then the access table; no transition mode", naive=True)
TABLE_FIRST = Order("table-first", "the access table, then the route; no transition mode", naive=True)
BUFFERED = Order("buffered", "transition mode holds every packet; the route, then the access table (the seed's order)")
PRECOPY = Order(
    "precopy", "transition mode holds what is not known yet; the access table while the old LB serves, then the route"
)
SLICED = Order("sliced", "no entry to copy, and nothing to hold: every LB has all slices; the route", sliced=True)

ORDERS = (ROUTE_FIRST, TABLE_FIRST, BUFFERED, PRECOPY, SLICED)
