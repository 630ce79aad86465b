"""What external IPs carry: no spike and no gap, whatever becomes of the flows that are counted."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from lbctl.load.loads import Loads
from lbctl.openflow.cookies import MARK, Kind
from lbctl.openflow.inbound import FlowStats
from lbctl.site.model import Settings
from tests.unit.fake_ground import fake_ground

OWNER = 0xC6336401
PERIOD = 2.0


def switch(name: str, ready: bool = True, served_version: int = 0):
    return SimpleNamespace(lb=SimpleNamespace(name=name), ready=ready, served_version=served_version)


class Directory(list):
    """Of external IPs."""

    @property
    def by_owner(self) -> dict[int, object]:
        return {serving.owner: serving for serving in self}


class World:
    """Switches whose flows carry `rate` packets of 100 bytes a second."""

    def __init__(self) -> None:
        self.ground = fake_ground({}, settings=Settings(load_period=PERIOD))
        self.loads = Loads(self.ground, decode=lambda flows: flows)
        self.serving = SimpleNamespace(owner=OWNER, opened=0, assigned="lb-a")
        self.now = 1000.0
        self.flows: dict[str, dict[int, list[float]]] = {"lb-a": {}, "lb-b": {}}
        """LB -> cookie -> [packets, since when]"""
        self.ready = {"lb-a", "lb-b"}
        self.served_version: Counter[str] = Counter()
        self.read: Counter[str] = Counter()
        self.seen: list[float] = []

    def cookie(self, digest: int = 1, kind: Kind = Kind.MODE) -> int:
        return MARK << 56 | kind << 48 | digest << 32 | OWNER

    def install(self, lb: str, digest: int = 1, packets: float = 0.0) -> None:
        self.flows[lb][self.cookie(digest)] = [packets, self.now]
        self.served_version[lb] += 1

    def forget(self, lb: str) -> None:
        """The flow of the external IP there becomes one that answers with errors, with the same counters."""
        self.flows[lb][self.cookie(2, Kind.UNASSIGNED)] = self.flows[lb].pop(self.cookie())
        self.served_version[lb] += 1

    def come_back(self, lb: str) -> None:
        self.flows[lb][self.cookie()] = self.flows[lb].pop(self.cookie(2, Kind.UNASSIGNED))
        self.served_version[lb] += 1

    def run(self, seconds: float, rate: float, lb: str = "lb-a", digest: int = 1, step: float = 0.5) -> None:
        for _ in range(int(seconds / step)):
            self.now += step
            if self.cookie(digest) in self.flows[lb]:
                self.flows[lb][self.cookie(digest)][0] += rate * step
            self.ground.switches = {name: switch(name, name in self.ready, self.served_version[name])
                                    for name in self.flows}
            self.ground.external_ips = Directory([self.serving])
            for name, message in self.loads.tick(self.now):
                stats = [
                    FlowStats(10, cookie, int(packets), int(packets) * 100)
                    for cookie, (packets, _) in self.flows[name].items()
                    if cookie & message.mask == message.cookie
                ]
                self.read[name] += len(stats)
                self.ground.tokens.flows_read(message.token, stats, False, self.now)
            self.seen.append(self.loads.of(self.serving).packets)

    def settled(self, rate: float) -> None:
        assert self.loads.of(self.serving).packets == pytest.approx(rate, rel=0.05)
        assert self.loads.of(self.serving).bytes == pytest.approx(rate * 100, rel=0.05)


@pytest.fixture
def world() -> World:
    world = World()
    world.install("lb-a")
    world.run(40, 500)
    world.settled(500)
    world.seen.clear()
    return world


def steady(world: World, rate: float = 500) -> None:
    """Neither spike nor gap, but for what fits between two readings."""
    assert max(world.seen) < rate * 1.05 and min(world.seen) > rate * 0.75, (min(world.seen), max(world.seen))
    world.settled(rate)


def test_what_a_new_control_function_finds_is_no_spike() -> None:
    world = World()
    world.flows["lb-a"][world.cookie()] = [1e9, world.now - 3600]
    world.run(60, 500)
    assert max(world.seen) < 525
    world.settled(500)


def test_a_switch_that_was_restarted(world: World) -> None:
    world.flows["lb-a"][world.cookie()] = [0.0, world.now]
    world.run(40, 500)
    steady(world)


def test_another_role_has_another_flow_with_the_same_counters(world: World) -> None:
    world.install("lb-a", 2, world.flows["lb-a"].pop(world.cookie())[0])
    world.run(40, 500, digest=2)
    steady(world)


def test_a_move(world: World) -> None:
    """The old LB's flow stays for a while and carries nothing more."""
    world.serving.assigned = "lb-b"
    world.install("lb-b")
    world.run(3, 500, lb="lb-b")
    world.run(40, 500, lb="lb-b")
    steady(world)
    assert world.loads.totals["lb-a", OWNER, "packets"] == pytest.approx(20_000, rel=0.05)
    assert world.loads.totals["lb-b", OWNER, "packets"] == pytest.approx(21_500, rel=0.05)


def test_there_and_back(world: World) -> None:
    """Between its stays only errors are counted where it was, and they are not read; what was carried before is
    counted once."""
    for source, target in (("lb-a", "lb-b"), ("lb-b", "lb-a")):
        world.serving.assigned = target
        (world.come_back if world.flows[target] else world.install)(target)
        world.run(3, 500, lb=target)
        world.forget(source)
        world.run(7, 500, lb=target)
        read = world.read[source]
        world.run(30, 500, lb=target)
        assert world.read[source] == read
    steady(world)
    assert world.loads.totals["lb-a", OWNER, "packets"] == pytest.approx(40_000, rel=0.05)
    assert world.loads.totals["lb-b", OWNER, "packets"] == pytest.approx(20_000, rel=0.05)


def test_many_lbs_are_asked_a_few_at_a_tick() -> None:
    switches = {f"lb-{number}": switch(f"lb-{number}") for number in range(120)}
    loads = Loads(fake_ground(switches, Directory(), Settings(load_period=PERIOD)))
    asked = [[name for name, _ in loads.tick(1000 + number / 20)] for number in range(20)]
    assert max(map(len, asked)) <= 25
    assert sorted(name for names in asked for name in names) == sorted(switches), "each once in a period"


def test_a_switch_that_reconnects_has_counted_on(world: World) -> None:
    """It forwards meanwhile, and its counters tell so afterwards."""
    world.ready.discard("lb-a")
    world.run(20, 500)
    world.ready.add("lb-a")
    world.run(60, 500)
    steady(world)
    assert world.loads.totals["lb-a", OWNER, "packets"] == pytest.approx(60_000, rel=0.05)


def test_an_lb_that_dies_is_not_counted_beside_its_successor(world: World) -> None:
    world.ready.discard("lb-a")
    world.serving.assigned = "lb-b"
    world.install("lb-b")
    world.run(40, 500, lb="lb-b")
    assert max(world.seen) < 1.4 * 500, "for two periods at most"
    world.settled(500)


def test_new_connections(world: World) -> None:
    for _ in range(40):
        world.serving.opened += 5
        world.run(0.5, 500)
    assert world.loads.of(world.serving).opened == pytest.approx(10, rel=0.1)


def test_a_switch_that_does_not_answer_is_asked_again() -> None:
    serving = SimpleNamespace(owner=OWNER, opened=0, assigned="lb-a")
    loads = Loads(fake_ground({"lb-a": switch("lb-a")}, Directory([serving]), Settings(load_period=PERIOD)))
    asked = [len(loads.tick(float(now))) for now in range(0, 40)]
    assert 3 <= sum(asked) <= 7
