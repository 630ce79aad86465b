"""How many places of a hash table get another server when a server leaves or joins, beside the ideal.

Nothing is timed: the figures are computed, so they are the same in every run.
"""

from __future__ import annotations

from statistics import fmean
from typing import NamedTuple

from evaluation.measuring.findings import RESULTS, Findings
from evaluation.measuring.record import Row, Table, figure
from lbctl.servers.maglev import SIZE, lookup_table

COUNTS = (2, 3, 5, 10, 20, 50, 100)
COLUMNS = (
    "servers",
    "ideal",
    "changed when one leaves",
    "of it needless",
    "changed when one joins (ideal)",
    "hash modulo servers",
)


class Disruption(NamedTuple):
    """Shares of all places: those that change their server, and those among them that need not."""

    changed: float
    needless: float


def main() -> Findings:
    """Computes the mean over all servers that may leave or join."""
    return Findings({RESULTS: Table(columns=COLUMNS, rows=tuple(map(_row, COUNTS)))}, passed=True)


def _row(count: int) -> Row:
    leaves = [disruption(_names(count), which) for which in range(count)]
    joins = [disruption(_names(count + 1), which) for which in range(count)]
    changed, needless = fmean(each.changed for each in leaves), fmean(each.needless for each in leaves)
    joined, modulo = fmean(each.changed for each in joins), _modulo(count)
    return Row(
        cells=(
            str(count),
            f"{1 / count:.2%}",
            f"{changed:.2%}",
            f"{needless:.2%}",
            f"{joined:.2%} ({1 / (count + 1):.2%})",
            f"{modulo:.1%}",
        ),
        figures={
            "leaves": figure("share", [each.changed for each in leaves]),
            "needless": figure("share", [each.needless for each in leaves]),
            "joins": figure("share", [each.changed for each in joins]),
            "modulo": figure("share", [modulo]),
        },
    )


def disruption(servers: list[bytes], which: int) -> Disruption:
    """What differs between the tables with all of these servers, and with all but one."""
    gone = servers[which]
    more, fewer = _table(servers), _table([name for name in servers if name != gone])
    changed = [one for one, other in zip(more, fewer, strict=True) if one != other]
    return Disruption(len(changed) / SIZE, sum(one != gone for one in changed) / SIZE)


def _modulo(count: int) -> float:
    """The share of places that would change with hash % servers."""
    return sum(place % count != place % (count - 1) for place in range(SIZE)) / SIZE


def _table(servers: list[bytes]) -> list[bytes]:
    """The table with names in place of numbers."""
    return [servers[number] for number in lookup_table(servers, [1] * len(servers))]


def _names(count: int) -> list[bytes]:
    return [bytes((10, 0, number >> 8, number & 255, 0, 0)) for number in range(1, count + 1)]
