"""The controller against 200 simulated switches: connection set-ups/s, their latency, its processor time and memory.

ryu-manager as it is run, on one core; the load (benchmarks/set_ups.py) on another one, over TCP. There is no Open vSwitch, so what is
measured is what the controller can do, not what LBs on the same machine could.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from benchmarks.set_ups import FIRST_EXTERNAL
from lbctl.model import ExternalIp, LoadBalancer, Rebalance, Server, Service, Settings, Site
from testbed.controller import CHECKOUT, Controller, environment
from testbed.namespaces import Namespaces

SWITCHES, OUTSTANDING = 200, 400
TARGET = 8_000
LATENCY = 0.005
"""Seconds: the median at half the target."""
SECONDS = 10.0
READY = 300.0
CONTROLLER_CORE, LOAD_CORE = 0, 1
EXTERNAL, INTERNAL = IPv4Network("198.18.0.0/16"), IPv4Network("10.0.0.0/8")
FIRST_GATEWAY, FIRST_SERVER = IPv4Address("10.1.0.1"), IPv4Address("10.2.0.1")
TICKS = os.sysconf("SC_CLK_TCK")


def site(lbs: int, external_ips: int, **settings: Any) -> Site:
    """LBs as benchmarks/switches.py has them, which take turns in the external IPs; each has two servers of its own."""
    balancers = tuple(LoadBalancer(f"lb-{number}", number, f"1-{number}", f"2-{number}") for number in range(1, lbs + 1))

    def external_ip(number: int) -> ExternalIp:
        servers = tuple(Server(FIRST_SERVER + 2 * number + which, 80) for which in range(2))
        return ExternalIp(address=FIRST_EXTERNAL + number, load_balancer=balancers[number % lbs].name, gateway=FIRST_GATEWAY + number,
                          services=(Service("tcp", 80, "round-robin", servers),))

    return Site(balancers, (EXTERNAL,), (INTERNAL,), tuple(map(external_ip, range(external_ips))), Settings(**settings), rebalance=Rebalance())


class Capacity:
    """A controller with simulated switches. `process`: seconds of processor time and resident bytes of the controller."""

    def __init__(self, controller: Controller, load: subprocess.Popen[str]) -> None:
        self.controller = controller
        self._load = load

    @property
    def pid(self) -> int:
        assert self.controller.process is not None
        return self.controller.process.pid

    def order(self, **order: Any) -> dict[str, float]:
        """Gives the load an order, and waits until it has been carried out."""
        assert self._load.stdin and self._load.stdout
        self._load.stdin.write(json.dumps(order) + "\n")
        self._load.stdin.flush()
        before = self.processor_time()
        answer = self._load.stdout.readline()
        if not answer:
            raise RuntimeError(f"the load has ended; the controller's log:\n{self.controller.log_tail()}")
        found = json.loads(answer)
        if found:
            found["cost"] = (self.processor_time() - before) / found["asked"]
        return found

    def processor_time(self) -> float:
        """Seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident(self) -> int:
        """Bytes."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024

    def wait_ready(self) -> float:
        """Seconds until every LB is ready and reaches its servers."""
        begun = time.monotonic()
        while time.monotonic() < begun + READY:
            with contextlib.suppress(TimeoutError):
                lbs = self.controller.rest("GET", "/v1/load-balancers").json["load_balancers"]
                if all(lb["state"] == "ready" for lb in lbs):
                    return time.monotonic() - begun
            time.sleep(0.5)
        raise RuntimeError(f"the LBs are not ready; the controller's log:\n{self.controller.log_tail()}")


@contextlib.contextmanager
def capacity(given: Site) -> Iterator[Capacity]:
    """A controller of that site with all its switches connected. Each on its core."""
    with Namespaces() as spaces:
        space = spaces.add("capacity")
        controller = Controller(space, spaces.directory / "controller", "127.0.0.1")
        controller.configure(given)
        controller.start()
        assert controller.process is not None
        _pin(controller.process.pid, CONTROLLER_CORE)
        load = space.popen(sys.executable, "-m", "benchmarks.set_ups", cwd=CHECKOUT, env=environment(), stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE)
        _pin(load.pid, LOAD_CORE)
        found = Capacity(controller, load)
        found.order(connect=len(given.load_balancers), host="127.0.0.1", port=6653)
        print(f"ready after {found.wait_ready():.1f} s, {found.processor_time():.1f} s CPU, {found.resident() / 1e6:.0f} MB", file=sys.stderr)
        yield found


def _pin(pid: int, core: int) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


if __name__ == "__main__":
    ips = int(sys.argv[1])
    with capacity(site(int(sys.argv[2]) if len(sys.argv) > 2 else SWITCHES, ips)) as scene:
        time.sleep(3)
        def idle():
            a=scene.processor_time(); time.sleep(5); print("idle share", (scene.processor_time()-a)/5, scene.resident()/1e6)
        idle()
        for order in [dict(rate=1000, seconds=5.0), dict(rate=4000, seconds=8.0), dict(outstanding=400, seconds=8.0)]:
            found = scene.order(**order)
            print(order, {k: round(v*1e3 if k[0] in "pw" or k=="late" else v, 6) for k, v in found.items()}, f"{scene.resident()/1e6:.0f} MB", flush=True)
        idle()
