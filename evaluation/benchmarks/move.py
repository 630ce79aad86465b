"""The move of an external IP, as a client notices it: the longest gap of a 1 kHz probe, by number of entries; with
sliced services, by number of live connections, which have none.

Yardstick: the longest gap of the same probe, in the same run, in an equally long time without a move.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from evaluation.benchmarks.scene import Scene
from evaluation.benchmarks.seed import connections, seed
from evaluation.measuring.findings import Findings, Result, Unusable, median, milliseconds, of_results
from evaluation.measuring.others import undisturbed
from evaluation.measuring.record import figure
from lbctl.site.model import Site
from tests.bed.faults import Established, wait_reached
from tests.bed.namespaces import Namespace
from tests.bed.sites import simple_site, with_slices
from tests.bed.traffic import Script

SIZES = (1_000, 10_000, 100_000)
RUNS = 5
AFTER = 1.0
"""Seconds after a move that still count: caches may follow late."""
GAP_TARGET, GROWTH_TARGET, SLICED_GROWTH_TARGET = 0.020, 1.5, 1.2
LIVE, SERVERS = 100_000, 8
"""Connections of sliced services, and servers, each of which may have 20 000 files open."""
LINE_INTERVAL = 0.01
"""Seconds from one line to the next, over the live connections in turn."""


@dataclass(frozen=True)
class Run:
    """One move. Times in seconds. `lost`: TCP retransmissions of the probe's client and its servers.

    `others`: see Result.
    """

    gap: float
    gap_without: float
    lost: int
    copy: float
    others: float


@dataclass(frozen=True)
class Window:
    """A span of the monotonic clock, and the retransmissions in it."""

    begun: float
    ended: float
    lost: int
    copy: float = 0.0


class Probe:
    """The probe, running on the first client."""

    def __init__(self, scene: Scene) -> None:
        self._path = scene.directory / "probe.bin"
        program = Path(__file__).resolve().with_name("probe.py")
        address, port = scene.site.external_ips[0].address, scene.site.external_ips[0].services[0].port
        self._script = Script(scene.clients[0], scene.directory / "probe.log", str(program), address, port, self._path)

    def finish(self) -> array[float]:
        """The times of all answers. Raises TrafficError if the connection broke."""
        self._script.finish()
        answers = array("d")
        answers.frombytes(self._path.read_bytes())
        return answers


def main() -> Findings:
    """Measures: a line for each size, and one for the growth."""
    runs = {size: measure(size) for size in SIZES}
    results = [result(size, runs[size]) for size in SIZES]
    small, large = (median([run.gap for run in runs[size]]) for size in (SIZES[0], SIZES[-1]))
    others = max(run.others for size in SIZES for run in runs[size])
    results.append(_growth(f"longest gap, {SIZES[-1]} entries against {SIZES[0]}", large, small, GROWTH_TARGET, others))
    without, with_all = measure_sliced()
    results += [result(0, without, "live connections, sliced"), result(LIVE, with_all, "live connections, sliced")]
    small, large = (median([run.gap for run in each]) for each in (without, with_all))
    others = max(run.others for run in (*without, *with_all))
    results.append(_growth(f"longest gap, sliced, {LIVE} live connections against none", large, small,
                           SLICED_GROWTH_TARGET, others))
    return of_results(results)


def _growth(what: str, large: float, small: float, target: float, others: float) -> Result:
    return Result(
        what, milliseconds(large), milliseconds(small), f"{large / small:.2f}", f"<= {target}", RUNS, others,
        large / small <= target, {"gap with many": figure("s", [large]), "gap with few": figure("s", [small])},
    )


def measure(size: int, site: Site | None = None) -> list[Run]:
    """Moves of the site's first external IP, with so many entries."""
    with Scene(site or simple_site(lbs=2, external_ips=1, servers=2), clients=1) as scene:
        seed(scene, size)
        probe = Probe(scene)
        windows = [undisturbed(lambda: _pair(scene), scene.namespaces) for _ in range(RUNS)]
        if (left := connections(scene, scene.site.external_ips[0].address)) != size + 1:
            raise Unusable(f"{left} connections are left of {size + 1}")
        answers = probe.finish()
    return _runs(answers, windows)


def _runs(answers: array[float], windows: Sequence[tuple[tuple[Window, Window], float]]) -> list[Run]:
    """windows: without a move, with one; and what others took of the machine meanwhile."""
    return [
        Run(_longest_gap(answers, moved), _longest_gap(answers, still), moved.lost, moved.copy, others)
        for (still, moved), others in windows
    ]


def measure_sliced() -> tuple[list[Run], list[Run]]:
    """Moves of an external IP with a sliced service, without other connections, and with so many that live."""
    site = with_slices(simple_site(lbs=2, external_ips=1, servers=SERVERS))
    address = site.external_ips[0].address
    with Scene(site, clients=2) as scene:
        scene.start_controller()
        wait_reached(scene)
        probe = Probe(scene)
        without = [undisturbed(lambda: _pair(scene), scene.namespaces) for _ in range(RUNS)]
        live = [Established(scene, space, address, LIVE // len(scene.clients), interval=LINE_INTERVAL)
                for space in scene.clients]
        with_all = [undisturbed(lambda: _pair(scene), scene.namespaces) for _ in range(RUNS)]
        answers = probe.finish()
        fates = [each.finish() for each in live]
        if (alive := sum(each.alive for each in fates)) != LIVE // len(scene.clients) * len(scene.clients):
            raise Unusable(f"{alive} connections are alive of {LIVE}")
    return _runs(answers, without), _runs(answers, with_all)


def _pair(scene: Scene) -> tuple[Window, Window]:
    """A move to the other LB, and then an equally long time without one."""
    address = scene.site.external_ips[0].address
    here = scene.rest("GET", f"/v1/external-ips/{address}").json["load_balancer"]
    there = next(name for name in scene.lbs if name != here)
    lost, begun = _retransmissions(scene), time.monotonic()
    record = scene.move(address, there)
    if record["state"] != "done":
        raise Unusable(f"the move did not end well: {record}")
    time.sleep(AFTER)
    ended = time.monotonic()
    copy = next(step["seconds"] for step in record["steps"] if step["name"] == "copy")
    moved = Window(begun, ended, _retransmissions(scene) - lost, copy)
    time.sleep(5.0)  # the gratuitous ARP of the move goes on for so long
    begun = time.monotonic()
    time.sleep(moved.ended - moved.begun)
    return Window(begun, time.monotonic(), 0), moved


def _longest_gap(answers: array[float], window: Window) -> float:
    inside = [when for when in answers if window.begun <= when <= window.ended]
    return max((late - early for early, late in pairwise(inside)), default=window.ended - window.begun)


def _retransmissions(scene: Scene) -> int:
    return sum(_segments_sent_again(space) for space in (scene.clients[0], *scene.servers))


def _segments_sent_again(space: Namespace) -> int:
    text = space.call(lambda: Path("/proc/thread-self/net/snmp").read_text())
    names, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def result(size: int, runs: list[Run], what: str = "entries") -> Result:
    """The line of the table for moves with so many entries."""
    gap, without = median([run.gap for run in runs]), median([run.gap_without for run in runs])
    lost = sum(run.lost for run in runs)
    shown = (
        f"{milliseconds(gap)} (worst {milliseconds(max(run.gap for run in runs))}), {lost} lost, "
        f"copied in {median([run.copy for run in runs]):.2f} s"
    )
    figures = {
        "gap": figure("s", [run.gap for run in runs]),
        "gap without a move": figure("s", [run.gap_without for run in runs]),
        "copy": figure("s", [run.copy for run in runs]),
        "retransmissions": figure("segments", [run.lost for run in runs]),
    }
    return Result(
        f"longest gap in a move, {size} {what}",
        shown,
        f"no move {milliseconds(without)}",
        f"{gap / without:.2f}",
        f"< {milliseconds(GAP_TARGET)}, 0 lost",
        len(runs),
        max(run.others for run in runs),
        gap < GAP_TARGET and lost == 0,
        figures,
    )
