"""Reading an LB's entries back after a restart of the controller, and `ovs-ofctl dump-flows` of the same switch.

The time begins when the switch logs that it is connected, and ends when the controller says that the LB is ready.
"""

from __future__ import annotations

import os
import subprocess
import time
from datetime import datetime

from evaluation.benchmarks.scene import Scene
from evaluation.benchmarks.seed import connections, seed
from evaluation.measuring.findings import Findings, Result, Unusable, median, of_results
from evaluation.measuring.others import undisturbed
from evaluation.measuring.record import figure
from tests.bed.balancer import BalancerNode
from topologies import programs

ENTRIES = 100_000
RUNS = 3
TARGET = 3.0


def main() -> Findings:
    """Measures both, one after the other."""
    with Scene(lbs=1, external_ips=1, servers=2, clients=1) as scene:
        seed(scene, ENTRIES)
        node = scene.lbs["lb-a"]
        measured = [undisturbed(lambda: (_restart(scene, node), _dump(node)), scene.namespaces) for _ in range(RUNS)]
    runs = [run for run, _ in measured]
    ours, yardstick = median([run[0] for run in runs]), median([run[1] for run in runs])
    times = {"lbctl": figure("s", [run[0] for run in runs]), "ovs-ofctl": figure("s", [run[1] for run in runs])}
    line = Result(
        f"read back {ENTRIES} entries",
        f"{ours:.2f} s",
        f"ovs-ofctl dump-flows {yardstick:.2f} s",
        f"{ours / yardstick:.2f}",
        f"<= {TARGET:g}",
        RUNS,
        max(others for _, others in measured),
        ours / yardstick <= TARGET,
        times,
    )
    return of_results([line])


def _restart(scene: Scene, node: BalancerNode) -> float:
    """kill -9 and a new controller; the seconds from the switch's connection until it is ready."""
    scene.controller.kill()
    seen = node.ovs.log_file.stat().st_size
    scene.controller.start()
    state = f"/v1/load-balancers/{node.bridge}"
    scene.wait_until(lambda: scene.rest("GET", state).json["state"] == "ready", 60.0, f"{node.bridge} read back")
    ended = time.time()
    if (found := connections(scene, scene.site.external_ips[0].address)) != ENTRIES:
        raise Unusable(f"{found} entries were read back of {ENTRIES}")
    with node.ovs.log_file.open() as log:
        log.seek(seen)
        stamp = next(line.partition("|")[0] for line in log if line.endswith(": connected\n"))
    return ended - datetime.fromisoformat(stamp).timestamp()


def _dump(node: BalancerNode) -> float:
    """Seconds that ovs-ofctl takes to ask for all flows and to write them nowhere."""
    command = ("ovs-ofctl", "-O", "OpenFlow14", "dump-flows", node.bridge)
    begun = time.monotonic()
    environment = {**os.environ, **node.ovs.environment}
    programs.run(command, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=120)
    return time.monotonic() - begun
