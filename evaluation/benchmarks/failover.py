"""Failover: what clients notice of it, by fault and by where the entries are copied from.

Yardstick: keepalived and conntrackd, two routers of which the active one dies (keepalived.py), in the same run.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from evaluation.benchmarks import keepalived
from evaluation.benchmarks.fault_run import FAULTS, Fault, Run, run
from evaluation.measuring.findings import Result, median, milliseconds
from lbctl.site.model import COPIES
from tests.bed.faults import Silence
from tests.bed.processes import CommandFailed

SIZES = {1_000: (10, 0.5, 1.0), 20_000: (3, 1.5, 1.5)}
"""Established connections: runs; seconds until the first forwarded packet that the median, and the worst, must not exceed."""
MATRIX_SIZE, MATRIX_RUNS = 1_000, 3
ADVERTS = (1.0, 0.01)
"""Seconds between keepalived's advertisements: what it is usually set to, and the least that VRRP 3 can say."""
YARDSTICK_RUNS = 3
KILLED = FAULTS[0]
HEAD = ("fault", "copies", "survived", "RST", "hung", "requests failed", "slow", "longest silence", "worst", "begins to move after",
        "others")


def main() -> list[Result]:
    """Prints the matrix of all faults, and returns a line for each figure that is required."""
    results = [result for size in SIZES for result in figures(size)]
    print(f"{MATRIX_SIZE} established connections, {MATRIX_RUNS} runs of each fault:\n")
    print(matrix(FAULTS) + "\n")
    return results


def figures(size: int) -> list[Result]:
    """An LB is killed with so many connections, which all are to survive: a line for each copy."""
    deaths = {advert: yardstick(advert, size) for advert in ADVERTS}
    shown = "; ".join(f"advert {advert:g} s: {text}" for advert, (_, text) in deaths.items())
    best = min(back for back, _ in deaths.values())
    return [_figure(copy, size, shown, best) for copy in COPIES]


def _figure(copy: str, size: int, yardstick: str, best: float) -> Result:
    count, target, bound = SIZES[size]
    runs = repeated(KILLED, (copy,), size, count)
    backs = [_back(each.silence) for each in runs]
    alive = min(each.fates.alive for each in runs)
    ours = f"{milliseconds(median(backs))} (worst {milliseconds(max(backs))}), {alive} alive"
    return Result(f"LB killed, {size} connections, copy: {copy}", ours, yardstick, f"{median(backs) / best:.2f}",
                  f"<= {milliseconds(target)} (worst {milliseconds(bound)}), all alive", count, max(each.others for each in runs),
                  alive == size and median(backs) <= target and max(backs) <= bound)


def yardstick(advert: float, size: int) -> tuple[float, str]:
    """keepalived's time to the first forwarded packet (median, seconds; infinite if it cannot run), and what to print of it."""
    if packages := keepalived.missing():
        return math.inf, f"not installed: {packages}"
    try:
        deaths = [keepalived.die(advert, size) for _ in range(YARDSTICK_RUNS)]
    except CommandFailed as error:
        return math.inf, str(error).partition("\n")[0]
    backs = [_back(death.silence) for death in deaths]
    return median(backs), f"{milliseconds(median(backs))} (worst {milliseconds(max(backs))}), {min(d.fates.alive for d in deaths)} alive"


def matrix(faults: Sequence[Fault], size: int = MATRIX_SIZE, count: int = MATRIX_RUNS) -> str:
    """A Markdown table with a line for each of these faults with each of its copies."""
    rows = [HEAD, tuple("-" * len(cell) for cell in HEAD)]
    rows += [_cells(fault, copies, repeated(fault, copies, size, count)) for fault in faults for copies in fault.copies]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cells(fault: Fault, copies: Sequence[str], runs: Sequence[Run]) -> tuple[str, ...]:
    """Connections and requests: of all runs together. Times: medians."""
    silences = [each.silence.length if each.silence else math.inf for each in runs]
    noticed = [math.inf if each.noticed is None else each.noticed for each in runs]
    fates = [str(sum(getattr(each.fates, what) for each in runs)) for what in ("alive", "reset", "hung")]
    requests = (f"{sum(each.failed for each in runs)} of {sum(each.requests for each in runs)}", str(sum(each.slow for each in runs)))
    return (fault.name, ", ".join(copies), *fates, *requests, _time(median(silences)), _time(max(silences)),
            _time(median(noticed)) if fault.leaves else "stays", f"{max(each.others for each in runs):.0%}")


def repeated(fault: Fault, copies: Sequence[str], size: int, count: int) -> list[Run]:
    """So many runs, each in a bed of its own; says how they went on standard error."""
    runs = []
    for _ in range(count):
        runs.append(each := run(fault, size, copies))
        print(f"    {fault.name}, {size} connections, copies {', '.join(copies)}: {each.told()}", file=sys.stderr, flush=True)
    return runs


def _back(silence: Silence | None) -> float:
    return silence.end if silence else math.inf


def _time(seconds: float) -> str:
    return milliseconds(seconds) if math.isfinite(seconds) else "never"
