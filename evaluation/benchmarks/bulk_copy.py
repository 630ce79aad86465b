"""Bulk copy of entries to a switch: the copy step of a move, and `ovs-ofctl --bundle add-flows` of the same flows.

Ours is the whole way: the controller's entries as OpenFlow bundles, sent, and confirmed by the switch.
"""

from __future__ import annotations

import time

from evaluation.benchmarks.scene import Scene
from evaluation.benchmarks.seed import add_flows, seed
from evaluation.measuring.findings import Findings, Result, Unusable, median, of_results, per_second
from evaluation.measuring.others import undisturbed
from evaluation.measuring.record import figure
from lbctl.openflow.tables import number

ENTRIES = 50_000
FLOWS = 2 * ENTRIES
RUNS = 3
TARGET = 0.5


def main() -> Findings:
    """Measures both ways, in turns."""
    with Scene(lbs=2, external_ips=1, servers=2, clients=1) as scene:
        path = seed(scene, ENTRIES)
        source, target = scene.lbs.values()
        address = scene.site.external_ips[0].address

        def ofctl() -> float:
            begun = time.monotonic()
            add_flows(target, path)
            return FLOWS / (time.monotonic() - begun)

        def one() -> tuple[float, float]:
            """Each adds the flows to the same switch, which holds none of them before."""
            theirs = ofctl()
            for table in ("access_in", "access_out"):
                target.ovs.ofctl("del-flows", target.bridge, f"table={number(table)},tcp")
            record = scene.move(address, target.bridge)
            if record["state"] != "done" or record["entries_copied"] != ENTRIES:
                raise Unusable(f"the move did not end well: {record}")
            seconds = next(step["seconds"] for step in record["steps"] if step["name"] == "copy")
            back = scene.move(address, source.bridge)
            if back["state"] != "done":
                raise Unusable(f"the move back did not end well: {back}")
            return FLOWS / seconds, theirs

        measured = [undisturbed(one, scene.namespaces) for _ in range(RUNS)]
    runs = [run for run, _ in measured]
    rates = {"lbctl": figure("1/s", [run[0] for run in runs]), "ovs-ofctl": figure("1/s", [run[1] for run in runs])}
    ours, yardstick = median([run[0] for run in runs]), median([run[1] for run in runs])
    line = Result(
        f"bulk copy of {FLOWS} flows",
        per_second(ours),
        f"ovs-ofctl --bundle {per_second(yardstick)}",
        f"{ours / yardstick:.2f}",
        f">= {TARGET:g}",
        RUNS,
        max(others for _, others in measured),
        ours / yardstick >= TARGET,
        rates,
    )
    return of_results([line])
