"""A server that comes gets its share of new connections little by little (field report F18)."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.entries.access_table import AccessTable, Entry
from lbctl.servers.schedulers import scheduler_for
from lbctl.servers.slow_start import LEAST
from lbctl.servers.states import ServerStates
from lbctl.site.model import SCHEDULERS, Server, Service
from lbctl.values.keys import pack_key, reply_key, server_key
from lbctl.values.protocols import TCP

PLACE = (TCP, 80)
SECONDS = 30.0
EXTERNAL = IPv4Address("198.51.100.1").packed
EACH = tuple(Server(IPv4Address(f"10.0.0.{number}"), 80) for number in range(10, 14))
*OLD, NEW = EACH


class World:
    """A service of the servers OLD; NEW may come. All connections stay."""

    def __init__(self, scheduler: str, slow_start: float = SECONDS) -> None:
        self.table, self.now, self.number = AccessTable(), 0.0, 0
        self.states = ServerStates(self.table)
        self.services = {
            count: Service("tcp", 80, scheduler, EACH[:count], slow_start=slow_start) for count in (3, 4)
        }
        self.configure(3)

    def configure(self, servers: int, *drained: Server) -> None:
        self.service = self.services[servers]
        self.states.configure({PLACE: self.service}, [(PLACE, server.endpoint) for server in drained])
        self.scheduler = scheduler_for(self.service, self.table.connections_to)

    def open(self, connections: int) -> Counter[Server]:
        """Whom so many new ones go to, as in NewConnections."""
        chosen: Counter[Server] = Counter()
        for _ in range(connections):
            self.number += 1
            key = pack_key(TCP, (0xCB007100 + self.number).to_bytes(4), 1024 + self.number % 60_000, EXTERNAL, 80)
            server = self.choose(key[1:7])
            assert server is not None
            self.table.add(Entry(key, reply_key(key, server.address.packed, 80), bytes(6), self.now))
            chosen[server] += 1
        return chosen

    def choose(self, client: bytes) -> Server | None:
        def allowed(each: Server) -> bool:
            return self.states.takes(PLACE, each)

        def warm(each: Server) -> bool:
            slow = self.states.slow_start
            return allowed(each) and not slow.passes_over(PLACE, self.service, each, client, self.now)

        server = self.scheduler.choose(client, warm) if self.states.slow_start.warming else None
        return server or self.scheduler.choose(client, allowed)

    def at(self, server: Server) -> int:
        return self.table.connections_to.get(server_key(TCP, server.address.packed, 80), 0)


def test_without_it_least_connections_sends_all_to_the_new_one() -> None:
    """The twin: today's default."""
    world = World("least-connections", 0.0)
    world.open(900)
    world.configure(4)
    assert world.open(300) == {NEW: 300}


@pytest.mark.parametrize("how", ["added", "up again", "drained no more"])
def test_least_connections_fills_it_little_by_little(how: str) -> None:
    world = World("least-connections")
    if how == "added":
        world.open(900)
        world.configure(4)
    elif how == "up again":
        world.configure(4)
        world.states.set_down(PLACE, NEW.endpoint, "refused", 0.0)
        world.open(900)
        world.states.set_up(PLACE, NEW.endpoint)
    else:
        world.configure(4, NEW)
        world.open(900)
        world.configure(4)
    first = world.open(100)
    assert 0 < first[NEW] <= 100 * 3 * LEAST
    for second in range(1, 31):
        world.now = float(second)
        world.open(40)
        others = max(map(world.at, OLD))
        assert world.at(NEW) <= max(second / SECONDS, LEAST) * others + 2
    assert not world.states.slow_start.warming or world.open(1) and not world.states.slow_start.warming
    world.open(300)
    assert world.at(NEW) >= 0.8 * max(map(world.at, OLD)), "it is level in the end"


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_its_part_grows_with_every_scheduler(scheduler: str) -> None:
    world = World(scheduler)
    world.open(2000)
    world.configure(4)
    world.open(1)
    shares = []
    for part in (0.0, 0.5, 1.0):
        world.now = part * SECONDS
        shares.append(world.open(1200)[NEW] / 300)
    assert shares[0] < 0.5 <= shares[2] + 0.3 and shares[0] < shares[1] <= shares[2] + 0.7, shares
    assert not world.states.slow_start.warming


@given(st.sampled_from(SCHEDULERS), st.lists(st.tuples(
    st.sampled_from(["open", "open", "later", "down", "up", "drain", "undo", "less", "more"]), st.integers(0, 3)),
    max_size=40))
def test_whoever_can_take_a_connection_is_found(scheduler: str, steps: list[tuple[str, int]]) -> None:
    """Also if all are warming up; and nobody is remembered who is not."""
    world, count, down, drained = World(scheduler), 3, set(), set()
    for step, number in steps:
        server = EACH[number]
        match step:
            case "later":
                world.now += 5.0 * number
            case "down" if number < count:
                world.states.set_down(PLACE, server.endpoint, "refused", world.now)
                down.add(server)
            case "up":
                world.states.set_up(PLACE, server.endpoint)
                down.discard(server)
            case "drain" | "undo" | "less" | "more":
                count = {"less": 3, "more": 4}.get(step, count)
                (drained.add if step == "drain" else drained.discard)(server)
                drained &= set(EACH[:count])
                down &= set(EACH[:count])
                world.configure(count, *drained)
            case _ if taking := set(EACH[:count]) - down - drained:
                assert set(world.open(1)) <= taking
    warming = {endpoint for _, endpoint in world.states.slow_start.warming}
    assert warming <= {server.endpoint for server in set(EACH[:count]) - down - drained}
