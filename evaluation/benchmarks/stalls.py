"""How long the controller's event loop lets packets wait at most, while it does what is large.

evaluation/benchmarks/turns_app.py, in the controller's process, tells each time that it had to wait for its turn. Large
sites have simulated switches (evaluation/benchmarks/capacity.py); 100 000 entries are those of an Open vSwitch.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.benchmarks.capacity import FIRST_SERVER, Loaded, controlled, site
from evaluation.benchmarks.scene import Scene
from evaluation.benchmarks.seed import seed
from evaluation.measuring.findings import Findings, Result, Unusable, milliseconds, of_results
from evaluation.measuring.others import watched
from evaluation.measuring.record import figure
from lbctl.site.model import Keeper, Keepers, Site
from tests.bed import many_keepers
from tests.bed.controller import APPS, CHECKOUT, Controller, environment
from tests.bed.keepers import TOKEN_FILE
from tests.bed.namespaces import Namespace
from tests.bed.sites import simple_site

WITH_TURNS = (*APPS, "evaluation/benchmarks/turns_app.py")
TARGET = 0.02
"""Seconds."""
ENTRIES = 100_000
ROUND = 20.0
"""Seconds for a round of the sweep, about: a quarter of the site's half_closed_timeout."""
PAGES = 5
KEEPERS, EXTERNAL_IPS_KEPT = 100, 10
RATE = 3000.0
"""Set-ups/s that make the entries which the keepers get."""
LARGE, SERVERS = 1000, 10
SERVED_WITHIN = 1.0
"""Seconds from an LB's death until all its external IPs are served elsewhere."""
HUGE, LBS = 10_000, 3
PATIENCE = 120.0
REPORTED = re.compile(r"^turn ([\d.]+) ([\d.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Waits:
    """While something was done: the longest wait for a turn, and how many were longer than TARGET. `others`: see
    Result."""

    longest: float
    long: int
    others: float | None

    def result(self, what: str) -> Result:
        shown = milliseconds(self.longest) + (f", {self.long} above {milliseconds(TARGET)}" if self.long else "")
        return Result(what, shown, "none", "", f"<= {milliseconds(TARGET)}", 1, self.others, self.longest <= TARGET,
                      {"longest": figure("s", [self.longest])})


def waits(controller: Controller, spaces: list[Path], act: Callable[[], object]) -> Waits:
    """Of what begins and ends with `act`."""
    begun = time.monotonic()
    _, others = watched(act, spaces)
    time.sleep(0.1)
    return waits_since(begun, controller, others)


def waits_since(begun: float, controller: Controller, others: float | None) -> Waits:
    """Those that have ended since then (of time.monotonic)."""
    found = [float(late) for ended, late in REPORTED.findall(controller.log_file.read_text())
             if float(ended) > begun]
    return Waits(max(found, default=0.0), sum(late > TARGET for late in found), others)


def main() -> Findings:
    return of_results([*_entries(), *_keepers(), *_another_file(), *_failover(), *_huge_site()])


def _entries() -> Iterator[Result]:
    given = simple_site(lbs=1, external_ips=1, servers=2, settings={"half_closed_timeout": 4 * ROUND})
    with Scene(given, clients=1, apps=WITH_TURNS) as scene:
        seed(scene, ENTRIES)
        path = f"/v1/load-balancers/{given.load_balancers[0].name}"

        def measured(act: Callable[[], object]) -> Waits:
            return waits(scene.controller, scene.namespaces, act)

        def read_back() -> None:
            scene.start_controller(wait=False)
            scene.wait_until(lambda: scene.rest("GET", path).json["state"] == "ready", 60.0, "read back")
            time.sleep(1.0)

        yield measured(lambda: time.sleep(1.5 * ROUND)).result(f"sweeps of {ENTRIES} entries")
        pages = f"{path}/access-table?limit=1000"
        yield measured(lambda: [scene.rest("GET", pages) for _ in range(PAGES)]).result("pages of 1 000 entries")
        scene.controller.kill()
        yield measured(read_back).result(f"read-back of {ENTRIES} entries")


def _keepers() -> Iterator[Result]:
    """All keepers have lost their copies, and get new ones."""
    given = site(EXTERNAL_IPS_KEPT, EXTERNAL_IPS_KEPT, KEEPERS // EXTERNAL_IPS_KEPT)
    keepers = tuple(Keeper(FIRST_SERVER + number, many_keepers.url(number)) for number in range(KEEPERS))
    given = replace(given, keepers=Keepers(keepers, TOKEN_FILE),
                    external_ips=tuple(replace(ip, copies=("keeper",)) for ip in given.external_ips))
    with controlled(given, WITH_TURNS) as (controller, loaded, _):
        with _kept(loaded.space, controller.directory.parent / "keepers"):
            loaded.measure(rate=RATE, seconds=ENTRIES / RATE)
            _wait(lambda: _copied(controller) >= KEEPERS, "all keepers have their copies")
        before = _copied(controller)

        def renewed() -> None:
            with _kept(loaded.space, controller.directory.parent / "keepers"):
                _wait(lambda: _copied(controller) >= before + KEEPERS, "all keepers have their copies again")

        entries = sum(ip["connections"] for ip in controller.rest("GET", "/v1/external-ips").json["external_ips"])
        yield waits(controller, [loaded.space.path], renewed).result(
            f"full copies to {KEEPERS} keepers, {entries} entries in all")


@contextmanager
def _kept(space: Namespace, directory: Path) -> Iterator[None]:
    """The keepers, which have nothing at first."""
    command = (sys.executable, "-m", "tests.bed.many_keepers", directory, KEEPERS, FIRST_SERVER)
    process = space.popen(*command, cwd=CHECKOUT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)


def _copied(controller: Controller) -> int:
    """How many full copies keepers have acknowledged."""
    keepers = controller.rest("GET", "/v1/keepers").json["keepers"]
    return sum(keeper["counters"].get("full_copies", 0) for keeper in keepers)


def _another_file() -> Iterator[Result]:
    """One server of each service has another weight."""
    given = site(3, LARGE, SERVERS, arp_rate=100_000)
    with controlled(given, WITH_TURNS) as (controller, loaded, _):
        other = _other_weights(given)

        def reload() -> None:
            read = controller.site_files_read()
            controller.reload(other)
            _wait(lambda: controller.site_files_read() > read, "the site file read")
            time.sleep(2.0)

        yield waits(controller, [loaded.space.path], reload).result(
            f"SIGHUP, {LARGE} external IPs of {SERVERS} servers")
        asked = ("/v1/external-ips", "/v1/load-balancers", "/metrics")
        yield waits(controller, [loaded.space.path], lambda: [controller.rest("GET", path) for path in asked]).result(
            "state of all of them, and their metrics")


def _failover() -> Iterator[Result]:
    """All external IPs are one LB's, which dies."""
    given = _all_on_first(site(3, LARGE, announce_rate=LARGE * 10, arp_rate=100_000))
    with controlled(given, WITH_TURNS) as (controller, loaded, _):
        yield from _death(controller, loaded)


def _death(controller: Controller, loaded: Loaded) -> Iterator[Result]:
    found: dict[str, float] = {}
    died = waits(controller, [loaded.space.path], lambda: found.update(loaded.kill(1, 10.0)))
    if found["announced"] != LARGE:
        raise Unusable(f"{found['announced']:.0f} external IPs were announced of {LARGE}; {controller.log_tail(400)}")
    yield died.result(f"failover of {LARGE} external IPs")
    yield Result("from the LB's death until the last of them is announced by others", f"{found['last']:.2f} s", "none",
                 "", f"<= {SERVED_WITHIN:g} s", 1, died.others, found["last"] <= SERVED_WITHIN,
                 {"served": figure("s", [found["last"]])})


def _huge_site() -> Iterator[Result]:
    """All LBs connect, and have nothing yet; later, one is drained."""
    with controlled(site(LBS, HUGE, 1, arp_rate=100_000), WITH_TURNS) as (controller, loaded, start):
        yield waits_since(start.begun, controller, None).result(
            f"{LBS} LBs connect, and get the flows of {HUGE} external IPs")

        def drain() -> None:
            answer = controller.rest("POST", "/v1/load-balancers/lb-1/drain", {}, timeout=60.0)
            if answer.status >= 400:
                raise Unusable(f"the LB was not drained: {answer.text}")
            time.sleep(15.0)

        yield waits(controller, [loaded.space.path], drain).result(
            f"rebalancing of {HUGE} external IPs on {LBS} LBs: one is drained, the first 15 s")


def _all_on_first(given: Site) -> Site:
    first = given.load_balancers[0].name
    return replace(given, external_ips=tuple(replace(ip, load_balancer=first) for ip in given.external_ips))


def _other_weights(given: Site) -> Site:
    """The same, but for one server of each service."""
    return replace(given, external_ips=tuple(
        replace(ip, services=tuple(
            replace(service, servers=(replace(service.servers[0], weight=2), *service.servers[1:]))
            for service in ip.services))
        for ip in given.external_ips))


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Unusable(f"not in time: {what}")
        time.sleep(0.2)
