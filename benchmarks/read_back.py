"""Reading an LB's entries back after a restart of the controller, and `ovs-ofctl dump-flows` of the same switch.

The time is the one that the switch sees: from being told to connect until the controller says that it is ready.
"""

from __future__ import annotations

import os
import subprocess
import time

from benchmarks.quiet import undisturbed
from benchmarks.results import Result, median
from benchmarks.scene import Scene
from benchmarks.seed import connections, seed
from testbed.bed import BalancerNode

ENTRIES = 100_000
RUNS = 3
TARGET = 3.0


def main() -> list[Result]:
    """Measures, and returns a line of the table."""
    with Scene(lbs=1, external_ips=1, servers=2, clients=1) as scene:
        seed(scene, ENTRIES)
        node = scene.lbs["lb-a"]
        runs = [undisturbed(lambda: (_restart(scene, node), _dump(node)), scene.namespaces)[0] for _ in range(RUNS)]
    ours, yardstick = median([run[0] for run in runs]), median([run[1] for run in runs])
    return [Result(f"read back {ENTRIES} entries", f"{ours:.2f} s", f"ovs-ofctl dump-flows {yardstick:.2f} s",
                   f"{ours / yardstick:.2f}", f"<= {TARGET:g}", RUNS, ours / yardstick <= TARGET)]


def _restart(scene: Scene, node: BalancerNode) -> float:
    """kill -9, a new controller, and then the switch's connection, which is timed. Seconds."""
    scene.controller.kill()
    scene.controller.start()
    begun = time.monotonic()
    node.ovs.appctl("bridge/reconnect", node.bridge)
    while scene.rest("GET", f"/v1/load-balancers/{node.bridge}").json["state"] != "ready":
        time.sleep(0.005)
    elapsed = time.monotonic() - begun
    assert connections(scene, scene.site.external_ips[0].address) == ENTRIES
    return elapsed


def _dump(node: BalancerNode) -> float:
    """Seconds that ovs-ofctl takes to ask for all flows and to write them nowhere."""
    command = ("ovs-ofctl", "-O", "OpenFlow14", "dump-flows", node.bridge)
    begun = time.monotonic()
    subprocess.run(command, env={**os.environ, **node.ovs.environment}, stdout=subprocess.DEVNULL, check=True, timeout=120)
    return time.monotonic() - begun


if __name__ == "__main__":
    from benchmarks.results import table

    print(table(main()))
