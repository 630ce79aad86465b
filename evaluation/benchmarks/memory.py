"""Bytes for an entry in the controller: what Python allocates for one, and by how much the process grows.

There is nothing to compare with; the target is absolute.
"""

from __future__ import annotations

import gc
import tracemalloc

from evaluation.benchmarks.scene import Scene
from evaluation.benchmarks.seed import entries, seed
from evaluation.measuring.findings import Findings, Result, of_results
from evaluation.measuring.record import figure
from evaluation.measuring.usage import resident
from lbctl.entries.access_table import AccessTable
from tests.bed.sites import simple_site

FEW, MANY = 1_000, 100_000
TARGET = 500


def main() -> Findings:
    """Measures both."""
    return of_results(
        [_line("as Python allocates it", allocated()), _line("as the controller's process grows", grown())]
    )


def allocated() -> float:
    """Bytes for an entry in an access table, by tracemalloc."""
    external_ip = simple_site().external_ips[0]
    gc.collect()
    tracemalloc.start()
    table = AccessTable()
    for number, entry in enumerate(entries(MANY, external_ip, "02:00:00:00:00:01")):
        entry.created = entry.last_seen = float(number)  # each has times of its own, as in life
        table.add(entry)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(table)


def grown() -> float:
    """Bytes for an entry by which a controller that read many back is larger than one that read few back."""
    few, many = _resident(FEW), _resident(MANY)
    return (many - few) / (MANY - FEW)


def _resident(count: int) -> int:
    """Resident bytes of a controller that has read back so many entries."""
    with Scene(lbs=1, external_ips=1, servers=2, clients=1) as scene:
        seed(scene, count)
        process = scene.controller.process
        assert process is not None
        return resident(process.pid)


def _line(what: str, size: float) -> Result:
    return Result(
        f"memory of an entry, {what}",
        f"{size:.0f} bytes",
        "none",
        "",
        f"<= {TARGET}",
        1,
        None,
        size <= TARGET,
        {"size": figure("bytes", [size])},
    )
