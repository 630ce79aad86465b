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
    """keepalived's times to the first forwarded packet, in seconds, and what to print of them.

    `backs` is empty if it could not run.
    """

    backs: tuple[float, ...]
    shown: str

    @property
    def back(self) -> float:
        """The median."""
        return median(self.backs) if self.backs else math.inf


def main() -> Findings:
    """Measures each figure that is required, and then all faults."""
    results = [result for size in SIZES for result in figures(size)]
    faults = matrix(FAULTS)
    note = f"The faults: {MATRIX_SIZE} established connections, {MATRIX_RUNS} runs of each line."
    return replace(of_results(results, {"faults": faults}), notes=(note,))


def figures(size: int) -> list[Result]:
    """An LB is killed with so many connections, which all are to survive: a line for each copy."""
    deaths = {advert: yardstick(advert, size) for advert in ADVERTS}
    return [_figure(copy, size, deaths) for copy in COPIES]


def _figure(copy: str, size: int, deaths: Mapping[float, Yardstick]) -> Result:
    count, target, bound = SIZES[size]
    runs = repeated(KILLED, (copy,), size, count)
    backs = [_back(each.silence) for each in runs]
    alive = min(each.fates.alive for each in runs)
    ours = f"{milliseconds(median(backs))} (worst {milliseconds(max(backs))}), {_survived(alive, size)}"
    shown = "; ".join(f"keepalived, advert {advert:g} s: {death.shown}" for advert, death in deaths.items())
    best = min(death.back for death in deaths.values())
    measured = {"first packet": figure("s", backs), "alive": figure("connections", [run.fates.alive for run in runs])}
    theirs = {
        f"keepalived, advert {advert:g} s": figure("s", death.backs) for advert, death in deaths.items() if death.backs
    }
    return Result(
        f"LB killed, {size} connections, copy: {copy}",
        ours,
        shown,
        f"{median(backs) / best:.2f}",
        f"<= {milliseconds(target)} (worst {milliseconds(bound)}), all alive",
        count,
        max(each.others for each in runs),
        alive == size and median(backs) <= target and max(backs) <= bound,
        {**measured, **theirs},
    )


def yardstick(advert: float, size: int) -> Yardstick:
    """What becomes of so many connections when keepalived's active router dies."""
    if packages := keepalived.missing():
        return Yardstick((), f"not installed: {packages}")
    try:
        deaths = [keepalived.die(advert, size) for _ in range(YARDSTICK_RUNS)]
    except (CommandFailed, NotInTime) as error:
        return Yardstick((), str(error).partition("\n")[0])
    backs = tuple(_back(death.silence) for death in deaths)
    alive = min(death.fates.alive for death in deaths)
    return Yardstick(
        backs, f"{milliseconds(median(backs))} (worst {milliseconds(max(backs))}), {_survived(alive, size)}"
    )


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
