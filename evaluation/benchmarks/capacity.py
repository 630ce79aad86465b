"""The controller against 200 simulated switches: connection set-ups/s, their latency, its processor time and memory.

ryu-manager runs on one core as it always does; the load (evaluation/benchmarks/set_ups.py) runs on another one and
speaks to it over TCP. There is no Open vSwitch: what is measured is what the controller can do, not what LBs on the
same machine could. Yardstick: evaluation/benchmarks/bare.py in its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from evaluation.benchmarks.set_ups import FIRST_EXTERNAL
from evaluation.measuring.findings import Findings, Result, Unusable, median, milliseconds, of_results, per_second
from evaluation.measuring.others import undisturbed
from evaluation.measuring.record import Figure, figure
from evaluation.measuring.usage import processor_time, resident
from lbctl.site.model import ExternalIp, LoadBalancer, Server, Service, Settings, Site
from tests.bed.controller import APPS, CHECKOUT, Controller, environment
from tests.bed.namespaces import Namespace, Namespaces
from tests.bed.traffic import connect

SWITCHES, EXTERNAL_IPS, SERVERS = 200, 200, 2
OUTSTANDING = 400
"""Set-ups under way at saturation: two for each switch."""
TARGET, LATENCY = 8_000, 0.005
"""Set-ups/s, and seconds: the median at half of them."""
SECONDS, RUNS = 10.0, 3
PATIENCE = 300.0
UNITS = {
    "rate": "1/s",
    "p50": "s",
    "p99": "s",
    "p999": "s",
    "worst": "s",
    "late": "s",
    "lost": "set-ups",
    "cost": "s",
    "busy": "cores",
}
"""Of what a run gives."""
CONTROLLER_CORE, LOAD_CORE = 0, 1
EXTERNAL, INTERNAL = IPv4Network("198.18.0.0/16"), IPv4Network("10.0.0.0/8")
FIRST_GATEWAY, FIRST_SERVER = IPv4Address("10.1.0.1"), IPv4Address("10.2.0.1")


def site(lbs: int, external_ips: int, servers_each: int = SERVERS, **settings: Any) -> Site:
    """LBs as evaluation/benchmarks/switches.py has them; they take turns in the external IPs.

    Each external IP has servers of its own. settings: of the site; clients say nothing after their SYN.
    """
    balancers = tuple(
        LoadBalancer(f"lb-{number}", number, f"1-{number}", f"2-{number}") for number in range(1, lbs + 1)
    )

    def external_ip(number: int) -> ExternalIp:
        servers = tuple(Server(FIRST_SERVER + servers_each * number + which, 80) for which in range(servers_each))
        return ExternalIp(
            address=FIRST_EXTERNAL + number,
            load_balancer=balancers[number % lbs].name,
            gateway=FIRST_GATEWAY + number,
            services=(Service("tcp", 80, "round-robin", servers),),
        )

    ips = tuple(map(external_ip, range(external_ips)))
    return Site(balancers, (EXTERNAL,), (INTERNAL,), ips, Settings(**{"half_open_timeout": 1e6, **settings}))


class Loaded:
    """Something that listens for switches, and the process that loads it. `pid`: of the former."""

    def __init__(self, space: Namespace, pid: int, lbs: int) -> None:
        self.space, self.pid = space, pid
        _pin(pid, CONTROLLER_CORE)
        self._load = space.popen(
            sys.executable,
            "-m",
            "evaluation.benchmarks.set_ups",
            cwd=CHECKOUT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        _pin(self._load.pid, LOAD_CORE)
        self._order(connect=lbs, host="127.0.0.1", port=6653)

    def measure(self, **order: float) -> dict[str, float]:
        """What evaluation/benchmarks/set_ups.py measures; and as `cost` seconds of processor time for each set-up.

        All that the process did meanwhile counts as cost.
        """
        before = processor_time(self.pid)
        found = self._order(**order)
        return found | {"cost": (processor_time(self.pid) - before) / found["asked"]}

    def kill(self, number: int, seconds: float) -> dict[str, float]:
        """That switch is gone: which external IPs are announced within so many seconds."""
        return self._order(kill=number, seconds=seconds)

    def close(self) -> None:
        """Ends the load."""
        self._load.communicate()

    def _order(self, **order: Any) -> dict[str, float]:
        assert self._load.stdin and self._load.stdout
        self._load.stdin.write(json.dumps(order) + "\n")
        self._load.stdin.flush()
        answer = self._load.stdout.readline()
        if not answer:
            raise Unusable("the load has ended: what it loads has closed a connection, or its reason is above")
        found: dict[str, float] = json.loads(answer)
        return found


@dataclass
class Start:
    """Seconds from the first connection until every LB is ready, and until every LB knows every server.

    begun: when that was (of time.monotonic). `_processor`: how much processor time the controller took until then.
    """

    begun: float
    ready: float
    ready_processor: float
    known: float
    known_processor: float


@contextlib.contextmanager
def controlled(given: Site, apps: Sequence[str] = APPS) -> Iterator[tuple[Controller, Loaded, Start]]:
    """A controller of that site, with all its switches connected and all their servers known."""
    with Namespaces() as spaces:
        space = spaces.add("capacity")
        controller = Controller(space, spaces.directory / "controller", "127.0.0.1", apps=apps)
        controller.configure(given)
        controller.start()
        assert controller.process is not None
        begun = time.monotonic()
        loaded = Loaded(space, controller.process.pid, len(given.load_balancers))
        _wait(lambda: _lbs_ready(controller), controller)
        until_ready = time.monotonic() - begun, processor_time(loaded.pid)
        pairs = len(given.load_balancers) * sum(len(ip.server_addresses()) for ip in given.external_ips)
        _wait(lambda: controller.log_file.read_text().count("neighbour found") == pairs, controller)
        yield controller, loaded, Start(begun, *until_ready, time.monotonic() - begun, processor_time(loaded.pid))
        loaded.close()


@contextlib.contextmanager
def bare(lbs: int) -> Iterator[Loaded]:
    """The yardstick."""
    with Namespaces() as spaces:
        space = spaces.add("bare")
        process = space.popen(sys.executable, "-m", "evaluation.benchmarks.bare", cwd=CHECKOUT, env=environment())
        _wait(lambda: _listens(space))
        loaded = Loaded(space, process.pid, lbs)
        yield loaded
        loaded.close()


def _wait(condition: Callable[[], bool], controller: Controller | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Unusable(f"not in time; {controller.log_tail() if controller else ''}")
        time.sleep(0.5)  # what is asked costs the controller some 50 ms


def _lbs_ready(controller: Controller) -> bool:
    with contextlib.suppress(OSError):
        lbs = controller.rest("GET", "/v1/load-balancers").json["load_balancers"]
        return all(lb["state"] == "ready" for lb in lbs)
    return False


def _listens(space: Namespace) -> bool:
    with contextlib.suppress(OSError):
        connect(space, "127.0.0.1", 6653).close()
        return True
    return False


def _pin(pid: int, core: int) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


@dataclass
class Runs:
    """The same order, given some times."""

    found: list[dict[str, float]] = field(default_factory=list)
    others: float = 0.0

    def add(self, more: Runs) -> None:
        """Other runs of the same order count as well."""
        self.found += more.found
        self.others = max(self.others, more.others)

    def median(self, what: str) -> float:
        return median([run[what] for run in self.found])

    def latency(self) -> str:
        """Median, 99 % and 99.9 %; how late the load itself was, and its share of a core."""
        shown = ", ".join(
            (
                milliseconds(self.median("p50")),
                f"99 % {milliseconds(self.median('p99'))}",
                f"99.9 % {milliseconds(self.median('p999'))}",
            )
        )
        return shown + f" (load late 99 % {milliseconds(self.median('late'))}, busy {self.median('busy'):.0%})"

    def figures(self) -> dict[str, Figure]:
        """All that was measured, by name."""
        return {name: figure(unit, [run[name] for run in self.found]) for name, unit in UNITS.items()}

    @property
    def lost(self) -> int:
        return int(sum(run["lost"] for run in self.found))


def repeated(loaded: Loaded, runs: int = RUNS, **order: float) -> Runs:
    """Each run on a quiet machine, or once more."""
    found = Runs()
    for _ in range(runs):
        run, others = undisturbed(lambda: loaded.measure(**order), [loaded.space.path])
        found.found.append(run)
        found.others = max(found.others, others)
    return found


def main() -> Findings:
    """Measures the yardstick, and then the controller."""
    with bare(SWITCHES) as loaded:
        bare_most = repeated(loaded, 1, outstanding=OUTSTANDING, seconds=SECONDS / 2)
        bare_half = repeated(loaded, 1, rate=TARGET / 2, seconds=SECONDS / 2)
    with controlled(site(SWITCHES, EXTERNAL_IPS)) as (_, loaded, start):
        before = processor_time(loaded.pid)
        time.sleep(SECONDS)
        idle, small = (processor_time(loaded.pid) - before) / SECONDS, resident(loaded.pid)
        half = repeated(loaded, rate=TARGET / 2, seconds=SECONDS)
        most = repeated(loaded, outstanding=OUTSTANDING, seconds=SECONDS)
        half_most = repeated(loaded, 1, rate=most.median("rate") / 2, seconds=SECONDS)
        asked = sum(run["asked"] for run in half.found + most.found + half_most.found)
        grown = (resident(loaded.pid) - small) / asked
    if any(run["mods"] != 2 for run in half.found + most.found):
        raise Unusable("a set-up did not have two flow-mods")
    half_rate = per_second(most.median("rate") / 2)
    return of_results(
        [
            _saturated(most, bare_most),
            _latency(half, bare_half),
            Result(
                f"latency at half of saturation, {half_rate}",
                half_most.latency(),
                "none",
                "",
                "",
                1,
                half_most.others,
                True,
                half_most.figures(),
            ),
            _without_target(
                "controller without load",
                f"{idle:.0%} of a core, {small / 1e6:.0f} MB, {grown:.0f} bytes more for each set-up",
                {
                    "processor": figure("cores", [idle]),
                    "memory": figure("bytes", [small]),
                    "memory of a set-up": figure("bytes", [grown]),
                },
            ),
            _without_target(
                f"from the first LB's connection until all {SWITCHES} are ready",
                f"{start.ready:.1f} s, {start.ready_processor:.1f} s of the processor",
                {"ready": figure("s", [start.ready]), "processor": figure("s", [start.ready_processor])},
            ),
            _without_target(
                f"until every LB knows all {EXTERNAL_IPS * SERVERS} servers",
                f"{start.known:.0f} s, {start.known_processor:.0f} s of the processor",
                {"known": figure("s", [start.known]), "processor": figure("s", [start.known_processor])},
            ),
        ]
    )


def _without_target(what: str, shown: str, figures: dict[str, Figure]) -> Result:
    return Result(what, shown, "none", "", "", 1, None, True, figures)


def _saturated(most: Runs, bare_most: Runs) -> Result:
    rate, yardstick = most.median("rate"), bare_most.median("rate")
    figures = {**most.figures(), "rate of the yardstick": figure("1/s", [yardstick])}
    return Result(
        f"set-ups/s at saturation, {SWITCHES} LBs",
        f"{per_second(rate)}, {most.median('cost') * 1e6:.0f} us of the processor, {most.lost} lost",
        f"bare {per_second(yardstick)}",
        f"{rate / yardstick:.2f}",
        f">= {per_second(TARGET)}",
        RUNS,
        most.others,
        rate >= TARGET and not most.lost,
        figures,
    )


def _latency(half: Runs, bare_half: Runs) -> Result:
    latency, yardstick = half.median("p50"), bare_half.median("p50")
    figures = {**half.figures(), "p50 of the yardstick": figure("s", [yardstick])}
    return Result(
        f"latency at {per_second(TARGET / 2)}",
        f"{half.latency()}, {half.lost} lost",
        f"bare {bare_half.latency()}",
        f"{latency / yardstick:.1f}",
        f"median < {milliseconds(LATENCY)}",
        RUNS,
        half.others,
        latency < LATENCY and not half.lost,
        figures,
    )
