"""Failover: what clients notice of it, by fault and by where the entries are copied from.

Yardstick: keepalived and conntrackd, two routers of which the active one dies (keepalived.py), in the same run.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evaluation.benchmarks import keepalived
from evaluation.benchmarks.fault_run import FAULTS, Fault, Run, run
from evaluation.measuring.findings import Findings, Result, median, milliseconds, of_results, percent
from evaluation.measuring.record import Figure, Row, Table, figure
from lbctl.site.model import COPIES
from tests.bed.bed import NotInTime
from tests.bed.faults import Silence
from tests.bed.processes import CommandFailed

SIZES = {1_000: (10, 0.5, 1.0), 20_000: (3, 1.5, 1.5)}
"""Established connections -> how many runs; seconds until the first forwarded packet, for the median and the worst."""
MATRIX_SIZE, MATRIX_RUNS = 1_000, 3
ADVERTS = (1.0, 0.01)
"""Seconds between keepalived's advertisements: what it is usually set to, and the least that VRRP 3 can say."""
YARDSTICK_RUNS = 3
KILLED = FAULTS[0]
FATES = ("alive", "reset", "hung")
COLUMNS = (
    "fault",
    "copies",
    "runs",
    "survived",
    "RST",
    "hung",
    "requests failed",
    "slow",
    "longest silence",
    "worst",
    "begins to move after",
    "harmed at the other LB",
    "others",
)


@dataclass(frozen=True)
class Yardstick:
    """keepalived's times to the first forwarded packet, in seconds, and how many connections survived.

    Both are empty if it could not run; `reason` says why.
    """

    advert: float
    backs: tuple[float, ...] = ()
    alive: tuple[int, ...] = ()
    reason: str = ""

    @property
    def back(self) -> float:
        """The median."""
        return median(self.backs) if self.backs else math.inf

    @property
    def told(self) -> str:
        """In a few words."""
        return f"keepalived, advert {self.advert:g} s: {milliseconds(self.back) if self.backs else self.reason}"

    def row(self, size: int) -> Row:
        """Its row of the table of yardsticks."""
        if not self.backs:
            return Row(cells=(str(size), f"{self.advert:g} s", self.reason, "", "", "0"))
        cells = (
            str(size),
            f"{self.advert:g} s",
            milliseconds(self.back),
            milliseconds(max(self.backs)),
            _survived(min(self.alive), size),
            str(len(self.backs)),
        )
        return Row(
            cells=cells, figures={"first packet": figure("s", self.backs), "alive": figure("connections", self.alive)}
        )


def main() -> Findings:
    """Measures each figure that is required, and then all faults."""
    deaths = {size: [yardstick(advert, size) for advert in ADVERTS] for size in SIZES}
    results = [_figure(copy, size, deaths[size]) for size in SIZES for copy in COPIES]
    tables = {"yardstick": _yardsticks(deaths), "faults": matrix(FAULTS)}
    note = f"The faults: {MATRIX_SIZE} established connections."
    return replace(of_results(results, tables), notes=(note,))


def _figure(copy: str, size: int, deaths: Sequence[Yardstick]) -> Result:
    """An LB is killed with so many connections, which all are to survive."""
    count, target, bound = SIZES[size]
    runs = repeated(KILLED, (copy,), size, count)
    backs = [_back(each.silence) for each in runs]
    alive = [each.fates.alive for each in runs]
    best = min(deaths, key=lambda death: death.back)
    ours = f"{milliseconds(median(backs))} (worst {milliseconds(max(backs))}), {_survived(min(alive), size)}"
    return Result(
        f"LB killed, {size} connections, copy: {copy}",
        ours,
        best.told,
        f"{median(backs) / best.back:.2f}" if best.backs else "",
        f"<= {milliseconds(target)} (worst {milliseconds(bound)}), all alive",
        count,
        max(each.others for each in runs),
        min(alive) == size and median(backs) <= target and max(backs) <= bound,
        {"first packet": figure("s", backs), "alive": figure("connections", alive)},
    )


def yardstick(advert: float, size: int) -> Yardstick:
    """What becomes of so many connections when keepalived's active router dies."""
    if packages := keepalived.missing():
        return Yardstick(advert, reason=f"not installed: {packages}")
    try:
        deaths = [keepalived.die(advert, size) for _ in range(YARDSTICK_RUNS)]
    except (CommandFailed, NotInTime) as error:
        return Yardstick(advert, reason=str(error).partition("\n")[0])
    backs = tuple(_back(death.silence) for death in deaths)
    return Yardstick(advert, backs, tuple(death.fates.alive for death in deaths))


def _yardsticks(deaths: Mapping[int, Sequence[Yardstick]]) -> Table:
    columns = ("connections", "keepalived's advert", "first packet, median", "worst", "survived", "runs")
    return Table(columns=columns, rows=tuple(each.row(size) for size, some in deaths.items() for each in some))


def _survived(alive: int, size: int) -> str:
    return "all alive" if alive == size else f"{alive} alive"


def matrix(faults: Sequence[Fault], size: int = MATRIX_SIZE, count: int = MATRIX_RUNS) -> Table:
    """A line for each of these faults with each of its copies."""
    return Table(
        columns=COLUMNS,
        rows=tuple(
            _row(fault, copies, repeated(fault, copies, size, count)) for fault in faults for copies in fault.copies
        ),
    )


def _row(fault: Fault, copies: Sequence[str], runs: Sequence[Run]) -> Row:
    """Connections and requests: of all runs together. Times: medians."""
    silences = [each.silence.length if each.silence else math.inf for each in runs]
    noticed = [math.inf if each.noticed is None else each.noticed for each in runs]
    fates = {what: [getattr(each.fates, what) for each in runs] for what in FATES}
    failed, asked = sum(each.failed for each in runs), sum(each.requests for each in runs)
    cells = (
        fault.name,
        ", ".join(copies),
        str(len(runs)),
        *(str(sum(counts)) for counts in fates.values()),
        f"{failed} of {asked}",
        str(sum(each.slow for each in runs)),
        milliseconds(median(silences)),
        milliseconds(max(silences)),
        milliseconds(median(noticed)) if fault.leaves else "stays",
        str(sum(each.harmed for each in runs)),
        percent(max(each.others for each in runs)),
    )
    figures: dict[str, Figure] = {what: figure("connections", counts) for what, counts in fates.items()}
    figures |= {
        "silence": figure("s", silences),
        "begins to move after": figure("s", noticed),
        "requests": figure("requests", [each.requests for each in runs]),
        "failed": figure("requests", [each.failed for each in runs]),
        "slow": figure("requests", [each.slow for each in runs]),
        "harmed at the other LB": figure("connections and requests", [each.harmed for each in runs]),
    }
    return Row(cells=cells, figures=figures)


def repeated(fault: Fault, copies: Sequence[str], size: int, count: int) -> list[Run]:
    """So many runs, each in a bed of its own; says how they went on standard error."""
    runs = []
    for _ in range(count):
        runs.append(each := run(fault, size, copies))
        print(
            f"    {fault.name}, {size} connections, copies {', '.join(copies)}: {each.told()}",
            file=sys.stderr,
            flush=True,
        )
    return runs


def _back(silence: Silence | None) -> float:
    return silence.end if silence else math.inf
