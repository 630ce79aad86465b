"""The management network is away, or the controller stands still: what becomes of three LBs that forward all the while.

No external IP moves that need not, never do two LBs have one, no connection breaks; and an LB that dies meanwhile is
taken over.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from evaluation.benchmarks.scene import Scene
from evaluation.measuring.findings import Findings, Result, milliseconds, of_results, percent
from evaluation.measuring.others import watched
from evaluation.measuring.record import Row, Table, figure
from lbctl.failures.outage import PATIENCE
from tests.bed.bed import NotInTime
from tests.bed.faults import Established, cut, cut_silently, kill, mend, wait_reached
from tests.bed.owners import Owners, Question
from tests.bed.sites import simple_site

LBS = ("lb-a", "lb-b", "lb-c")
ADDRESSES = ("198.51.100.1", "198.51.100.2", "198.51.100.3")
"""One for each LB."""
CONNECTIONS = 200
"""Established ones, of each external IP."""
RELIEVE_AFTER = 3.0
NOTICED = 8.0
"""Seconds after which a connection that has fallen into a black hole is known to be lost."""
STAGGER = 2.0
"""Seconds between the returns of two LBs, one after the other."""
BACK, DONE, AFTER = 40.0, 20.0, 5.0
"""Seconds within which LBs are ready again and failovers done; and those in which something might still follow."""
AWAKE, ASLEEP = 0.1, 0.9
"""Seconds that a starved controller runs and stands, in turns."""
COLUMNS = ("away", "for", "how", "back", "controller", "LB killed", "moves", "needed", "owners at once", "broken",
           "longest silence", "told", "others", "")


@dataclass(frozen=True)
class Outage:
    """lbs: how many of the three lose the controller. silently: nothing is told of it, else links are down. staggered:
    they come back one after the other. controller: runs, hangs, is killed, is starved. dies: an LB is killed meanwhile.
    """

    lbs: int
    seconds: float
    silently: bool = True
    staggered: bool = False
    controller: str = "runs"
    dies: bool = False

    @property
    def needed(self) -> int:
        """External IPs that are to move: a dead LB's; and, to one that is reached, those of LBs that nobody can tell
        anything for long, from when their connections are known to be lost."""
        patience = (RELIEVE_AFTER if self.lbs == 1 else PATIENCE) + (NOTICED if self.silently else 0.0)
        relieved = self.lbs < len(LBS) and not self.dies and self.controller == "runs" and self.seconds > patience
        return int(self.dies) + (self.lbs if relieved else 0)

    def cells(self) -> tuple[str, ...]:
        return (f"{self.lbs} of 3" if self.lbs else "none", f"{self.seconds:g} s",
                ("black hole" if self.silently else "errors") if self.lbs else "",
                ("one by one" if self.staggered else "at once") if self.lbs else "", self.controller,
                "yes" if self.dies else "")


OUTAGES = (
    Outage(3, 1), Outage(3, 1, silently=False, staggered=True), Outage(2, 1, staggered=True),
    Outage(1, 1, silently=False),
    Outage(3, 5, staggered=True), Outage(3, 5, silently=False), Outage(2, 5, silently=False, staggered=True),
    Outage(1, 5),
    Outage(3, 30), Outage(3, 30, silently=False, staggered=True), Outage(2, 12, staggered=True),
    Outage(2, 30, staggered=True),
    Outage(1, 30, silently=False),
    Outage(3, 120, staggered=True),
    Outage(0, 5, controller="hangs"), Outage(0, 30, controller="hangs"), Outage(3, 5, controller="hangs"),
    Outage(0, 30, controller="is starved"), Outage(3, 5, staggered=True, controller="is starved"),
    Outage(3, 5, staggered=True, controller="is killed"), Outage(2, 30, silently=False, controller="is killed"),
    Outage(3, 5, staggered=True, dies=True), Outage(2, 20, silently=False, dies=True),
    Outage(0, 5, controller="hangs", dies=True),
)


@dataclass(frozen=True)
class Run:
    """moves: what was moved. owners: addresses that two LBs have answered for. broken: connections. silence: the
    longest of any external IP whose LB did not die, in seconds. told: did the controller say that it is cut off?"""

    moves: int
    owners: int
    broken: int
    silence: float
    told: bool
    others: float


def main() -> Findings:
    runs = [(outage, run(outage)) for outage in OUTAGES]
    right = [_is_right(outage, found) for outage, found in runs]
    rows = tuple(_row(*pair) for pair in runs)
    result = Result("outages in which only what needs to has moved, and nothing broke", f"{sum(right)} of {len(right)}",
                    "", "", "all", 1, max(found.others for _, found in runs), all(right),
                    {"right": figure("outages", [sum(right)])})
    note = f"Three LBs with an external IP and {CONNECTIONS} established connections each."
    return replace(of_results([result], {"outages": Table(columns=COLUMNS, rows=rows)}), notes=(note,))


def _is_right(outage: Outage, found: Run) -> bool:
    return (found.moves, found.owners, found.broken) == (outage.needed, 0, 0)


def _row(outage: Outage, found: Run) -> Row:
    cells = (*outage.cells(), str(found.moves), str(outage.needed), str(found.owners), str(found.broken),
             milliseconds(found.silence), "cut off" if found.told else "", percent(found.others),
             "PASS" if _is_right(outage, found) else "FAIL")
    return Row(cells=cells, figures={"silence": figure("s", [found.silence])})


def run(outage: Outage) -> Run:
    """In a bed of its own; says how it went on standard error."""
    settings = {"relieve_after": RELIEVE_AFTER, "hold_down": 1.0}
    with Scene(simple_site(lbs=3, external_ips=3, servers=1, settings=settings), clients=2) as scene:
        scene.start_controller()
        wait_reached(scene)
        loads = [Established(scene, scene.remote, address, CONNECTIONS, interval=0.005) for address in ADDRESSES]
        scene.wait_until(lambda: _all_well(scene), 15.0, "every LB watched")
        questions = [Question(scene.clients[1], "198.51.100.102", address) for address in ADDRESSES]
        with Owners(questions) as owners:
            time.sleep(1.0)
            begun, others = watched(lambda: _strike(scene, outage), scene.namespaces)
            fates = [load.finish() for load in loads]
        moves = scene.rest("GET", "/v1/moves").json["moves"]
        told = scene.controller.logged("the controller is cut off from most load balancers") > 0
        moved = [move["external_ip"] for move in moves if move["state"] == "done"]
        doubled = sum(len(owners.turns(address)) > 1 + moved.count(address) for address in ADDRESSES)
    silences = [found.silence(begun) for found in fates[outage.dies:]]
    found = Run(len(moves), doubled, sum(CONNECTIONS - fate.alive for fate in fates),
                max(silence.length if silence else float("inf") for silence in silences), told, others)
    print(f"    {outage}: {found}", file=sys.stderr, flush=True)
    return found


def _all_well(scene: Scene, but: Sequence[str] = ()) -> bool:
    balancers = scene.rest("GET", "/v1/load-balancers").json["load_balancers"]
    return all((lb["state"], lb["health"]) == ("ready", "well") for lb in balancers if lb["name"] not in but)


def _strike(scene: Scene, outage: Outage) -> float:
    """When it began (monotonic clock). Returns when all is over."""
    begun = time.monotonic()
    away = LBS[len(LBS) - outage.lbs:]
    for lb in away:
        (cut_silently if outage.silently else cut)(scene, lb, "management")
    with _troubled(scene, outage.controller):
        time.sleep(outage.seconds / 2)
        if outage.dies:
            kill(scene, LBS[0])
        time.sleep(outage.seconds / 2)
    for lb in away:
        mend(scene, lb, "management")
        if outage.staggered:
            time.sleep(STAGGER)
    dead = LBS[:1] if outage.dies else ()
    try:
        scene.wait_until(lambda: _all_well(scene, dead), BACK, "every LB back")
        scene.wait_until(lambda: _moved(scene) >= outage.needed, DONE, "what has to has moved")
    except NotInTime as late:
        print(str(late).partition("\n")[0], file=sys.stderr)
    time.sleep(AFTER)
    return begun


def _moved(scene: Scene) -> int:
    return sum(move["state"] == "done" for move in scene.rest("GET", "/v1/moves").json["moves"])


@contextmanager
def _troubled(scene: Scene, how: str) -> Iterator[None]:
    """The controller, meanwhile."""
    if how == "hangs":
        scene.controller.signal(signal.SIGSTOP)
        yield
        scene.controller.signal(signal.SIGCONT)
    elif how == "is starved":
        over = threading.Event()
        starving = threading.Thread(target=_starve, args=(scene, over))
        starving.start()
        yield
        over.set()
        starving.join()
    else:
        if how == "is killed":
            scene.controller.kill()
        yield
        if how == "is killed":
            scene.controller.start()


def _starve(scene: Scene, over: threading.Event) -> None:
    while not over.is_set():
        scene.controller.signal(signal.SIGSTOP)
        over.wait(ASLEEP)
        scene.controller.signal(signal.SIGCONT)
        time.sleep(AWAKE)
