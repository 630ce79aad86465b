"""Connections that died silently are found by their packet counters, and only those."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbctl.connections.sweep import ASKED_AT_ONCE, LONGEST, SHORTEST, Sweep, interval
from lbctl.entries.access_table import FIN_IN, Entry
from lbctl.frames.packets import ACK, FIN, SYN
from lbctl.ground.serving import Serving
from lbctl.openflow.cookies import MASK_ALL
from lbctl.openflow.entry_flows import entry_flows
from lbctl.openflow.messages import AddEntries, ReadFlows
from lbctl.site.model import Settings
from lbctl.values.keys import pack_key, reply_key, unpack_key
from lbctl.values.protocols import UDP
from lbctl.values.transfer import Strategy
from tests.unit.fake_ground import fake_ground
from tests.unit.fake_site import EXTERNAL, INTERNAL, ROUTER_MAC, FakeSite, site
from tests.unit.fake_switch import Installed
from tests.unit.frames import datagram
from tests.unit.kinds import EXTERNAL_IPS

IDLE = 20.0


@pytest.fixture
def world() -> FakeSite:
    world = FakeSite(site(idle_timeout=IDLE))
    world.settle(1.0)
    for _ in range(4):
        world.open(0)
    world.settle(1.0)
    return world


def left(world: FakeSite) -> set[int]:
    """The numbers of the connections that still have an entry; controller and switches must agree."""
    table = world.serving(world.site.external_ips[0].address).table
    known = {entry.key for entry in table.entries()}
    home = world.serving(world.site.external_ips[0].address).assigned
    assert world.switches[home].entries().keys() == known
    return {conversation.number for conversation in world.conversations if world.key(conversation) in known}


def wait(world: FakeSite, seconds: float, talking: tuple[int, ...] = ()) -> None:
    for _ in range(int(seconds)):
        for conversation in world.conversations:
            if conversation.number in talking:
                world.from_client(conversation)
        world.settle(1.0)


def test_only_silent_connections_end(world) -> None:
    wait(world, IDLE - 3, talking=(1, 3))
    assert left(world) == {1, 2, 3, 4}
    wait(world, 2 * IDLE / 4 + 5, talking=(1, 3))
    assert left(world) == {1, 3}
    assert world.control.ground.counters["entries_expired"] == 2


def test_a_connection_that_only_the_server_uses_does_not_end(world) -> None:
    """TCP acknowledges, so there are packets both ways."""
    for _ in range(40):
        world.from_server(world.conversations[0])
        world.from_client(world.conversations[0])
        world.settle(1.0)
    assert left(world) == {1}


@pytest.mark.parametrize("lose_tables", [False, True])
def test_nothing_ends_while_the_lb_is_away(world, lose_tables) -> None:
    world.disconnect("lb-a", lose_tables)
    for _ in range(100):
        world.tick(1.0)
    assert len(world.serving(world.site.external_ips[0].address).table) == 4
    world.settle(5.0)
    assert left(world) == {1, 2, 3, 4}


def test_time_counts_anew_after_a_restart_of_the_controller(world) -> None:
    wait(world, IDLE - 3)
    world.restart_control()
    world.settle(1.0)
    wait(world, IDLE - 6)
    assert left(world) == {1, 2, 3, 4}


def test_a_move_does_not_end_what_talks(world) -> None:
    wait(world, IDLE - 5, talking=(1,))
    world.post(world.control.movement.start(world.site.external_ips[0].address, "lb-b", Strategy.PRECOPY, world.now)[1])
    wait(world, 30, talking=(1,))
    assert world.serving(world.site.external_ips[0].address).assigned == "lb-b"
    assert left(world) == {1}


def test_leftovers_in_a_switch_are_deleted(world) -> None:
    """Nobody but the switch knows this one; its bucket has another entry, so it is read."""
    known = next(iter(world.serving(world.site.external_ips[0].address).table.entries()))
    protocol, client, port, address, external_port = unpack_key(known.key)
    key = pack_key(protocol, bytes([204]) + client[1:], port, address, external_port)
    stranger = Entry(key, reply_key(key, bytes([10, 0, 0, 10]), 80), known.next_hop, world.now)
    assert stranger.bucket == known.bucket
    world.switches["lb-a"].apply(AddEntries((stranger,)), world.now)
    wait(world, 12, talking=(1, 2, 3, 4))
    assert left(world) == {1, 2, 3, 4}


def test_requests_are_spread_over_time() -> None:
    world = FakeSite(site(idle_timeout=400.0))
    world.settle(1.0)
    for _ in range(100):
        world.open(0)
    world.drain()
    most, total = 0, 0
    for _ in range(1300):
        world.tick(0.1)
        asked = sum(isinstance(message, ReadFlows) and message.mask == MASK_ALL for message in world.to_switch["lb-a"])
        most, total = max(most, asked), total + asked
        world.drain()
    # Each bucket is asked for twice (both directions), a tenth of them at once.
    assert total >= 200 and most <= 24, (total, most)


def test_an_lb_that_does_not_answer_ends_nothing(world) -> None:
    for _ in range(100):
        world.tick(1.0)
    assert len(world.serving(world.site.external_ips[0].address).table) == 4


# Half-closed connections.

HALF_CLOSED_TIMEOUT = 20.0


def half_closed() -> FakeSite:
    """Three connections; of the first the client has sent its FIN, of the second the server."""
    world = FakeSite(site(half_closed_timeout=HALF_CLOSED_TIMEOUT, idle_timeout=1000.0))
    world.settle(1.0)
    for _ in range(3):
        world.open(0)
    world.settle(1.0)
    world.from_client(world.conversations[0], FIN | ACK)
    world.from_server(world.conversations[1], FIN)
    world.settle(world.site.settings.linger + 1.0)
    return world


def test_what_is_half_closed_and_silent_ends_sooner() -> None:
    world = half_closed()
    world.settle(HALF_CLOSED_TIMEOUT - 5.0)
    assert left(world) == {1, 2, 3}
    world.settle(HALF_CLOSED_TIMEOUT)
    assert left(world) == {3}


@pytest.mark.parametrize("client_closed", [True, False])
def test_what_is_half_closed_goes_on_as_long_as_it_carries_something(client_closed: bool) -> None:
    """The one that has not closed sends data, less often than flows run out; the other acknowledges."""
    world = half_closed()
    conversation = world.conversations[0 if client_closed else 1]
    for _ in range(10):
        world.settle(HALF_CLOSED_TIMEOUT - 5.0)
        (world.from_server if client_closed else world.from_client)(conversation)
        (world.from_client if client_closed else world.from_server)(conversation)
    assert left(world) == {conversation.number, 3} and not world.violations


def test_it_speaks_again_after_its_end() -> None:
    """Until it would have ended if it had been open."""
    world = half_closed()
    world.settle(500.0)
    assert left(world) == {3}
    first, second = world.conversations[:2]
    world.from_server(first)
    world.from_client(second)
    world.drain()
    assert all(data.arrivals for data in world.data) and not world.violations
    world.settle(HALF_CLOSED_TIMEOUT * 2)
    assert left(world) == {1, 2, 3}, "as open ones: who knows what that FIN was"


def test_it_speaks_no_more_after_its_idle_timeout() -> None:
    world = half_closed()
    world.settle(1100.0)
    assert left(world) == set()
    world.from_server(world.conversations[0])
    world.drain()
    assert world.violations == ["the server of live connection 1 got a RST"]


def test_a_new_connection_takes_its_ports() -> None:
    world = half_closed()
    world.settle(HALF_CLOSED_TIMEOUT * 2)
    world.conversations[0].forfeited = True  # its client has gone, and says nothing about it
    again = world.open(0, world.conversations[0])
    world.drain()
    world.from_client(again)
    world.from_server(again)
    world.drain()
    assert left(world) == {1, 3, again.number} and not world.violations


@pytest.mark.long
@given(st.lists(st.tuples(st.sampled_from(["client", "server", "close"]), st.floats(0.0, HALF_CLOSED_TIMEOUT * 3)),
                max_size=8), st.booleans())
@settings(max_examples=25)
def test_half_closed_or_not_a_live_connection_never_breaks(steps: list[tuple[str, float]], by_client: bool) -> None:
    """Whoever has not closed sends data, in whatever intervals, and the other acknowledges. And in the end all goes."""
    world = FakeSite(site(half_closed_timeout=HALF_CLOSED_TIMEOUT, idle_timeout=200.0))
    world.settle(1.0)
    conversation = world.open(0)
    world.drain()
    hosts = {"client": world.from_client, "server": world.from_server}
    closer = "client" if by_client else "server"
    for who, pause in [("client", 0.1), *steps]:
        if who == "close":
            hosts[closer](conversation, FIN | ACK)
        else:
            hosts[who](conversation)
            world.drain()
            hosts["server" if who == "client" else "client"](conversation)
        world.settle(pause, 1.0)
    assert all(data.arrivals for data in world.data) and not world.violations
    world.settle(300.0, 2.0)
    assert left(world) == set()


def test_nothing_is_taken_for_silent_that_has_not_been_read() -> None:
    """In a large site a reading may take longer than the timeout."""
    found = Serving(site().external_ips[0], "lb-a", Settings(half_closed_timeout=10.0, idle_timeout=20.0))
    key = pack_key(6, bytes(4), 40001, bytes([198, 51, 100, 1]), 80)
    entry = Entry(key, reply_key(key, bytes([10, 0, 0, 10]), 80), ROUTER_MAC, 100.0)
    entry.flags = FIN_IN
    found.table.add(entry)
    for now, read_since in ((115.0, 90.0), (109.0, 101.0), (130.0, 100.0)):
        assert found.idle_since(found.table.entries(), now, read_since) == []
    assert found.idle_since(found.table.entries(), 115.0, 101.0) == [entry]


# Half-open connections.

HALF_OPEN_TIMEOUT = 10.0


def flooded(number: int = 3) -> FakeSite:
    """SYNs of clients that say nothing more, and one connection that is open and silent."""
    world = FakeSite(site(half_open_timeout=HALF_OPEN_TIMEOUT, idle_timeout=1000.0))
    world.settle(1.0)
    for _ in range(number):
        world.open(0)
    world.settle(1.0)
    world.from_client(world.conversations[0])
    return world


def test_what_never_opened_ends_soon() -> None:
    """Field report F2."""
    world = flooded()
    world.settle(HALF_OPEN_TIMEOUT - 3.0)
    assert left(world) == {1, 2, 3}
    world.settle(HALF_OPEN_TIMEOUT * 2)
    assert left(world) == {1}
    assert world.control.ground.counters["half_open_expired"] == 2


def test_syns_that_come_again_open_nothing() -> None:
    world = flooded(1)
    world.open(0)
    for _ in range(3):
        world.from_client(world.conversations[1], SYN)
    world.settle(HALF_OPEN_TIMEOUT * 3)
    assert left(world) == {1}


@pytest.mark.parametrize("what", ["a move", "an outage", "a restart of the controller", "a lost flow"])
def test_where_the_counters_begin_anew_nothing_is_taken_for_half_open(what: str) -> None:
    """The client's packets have been counted elsewhere, or nowhere."""
    world = flooded(1)
    address = world.site.external_ips[0].address
    world.settle(1.0)
    if what == "a move":
        world.post(world.control.movement.start(address, "lb-b", Strategy.PRECOPY, world.now)[1])
    elif what == "an outage":
        world.disconnect("lb-a", lose_tables=True)
        world.tick(0.1)
        world.connect("lb-a")
    elif what == "a restart of the controller":
        world.restart_control()
    else:
        for rows in world.switches["lb-a"].tables.values():
            for identity in [identity for identity, item in rows.items() if item.entry]:
                del rows[identity]
        world.from_client(world.conversations[0])
    world.settle(HALF_OPEN_TIMEOUT * 5)
    assert left(world) == {1} and not world.violations


# UDP, whose connections end by silence alone.

UDP_IDLE = 8.0
CLIENT = bytes([203, 0, 113, 9])


@pytest.fixture(params=["destination", "full"])
def dns(request) -> FakeSite:
    """A UDP service beside the TCP one; one connection of each has just begun."""
    world = FakeSite(site(nat=request.param, udp=True, idle_timeout=100.0, udp_idle_timeout=UDP_IDLE))
    world.settle(1.0)
    world.open(0)
    ask(world)
    world.settle(1.0)
    assert [place for place, _ in world.datagrams] == ["server"]
    return world


def ask(world: FakeSite, port: int = 5000) -> None:
    home = world.switches[world.serving(world.site.external_ips[0].address).assigned]
    mac = bytes.fromhex(home.ports[0].mac.replace(":", ""))
    address = world.site.external_ips[0].address.packed
    world.inject(home.name, datagram(CLIENT, address, port, 53, eth_dst=mac, eth_src=ROUTER_MAC), EXTERNAL)


def answer(world: FakeSite, entry: Entry) -> None:
    """What its server sends, unasked."""
    home = world.switches[world.serving(world.site.external_ips[0].address).assigned]
    mac = bytes.fromhex(home.ports[1].mac.replace(":", ""))
    _, server, server_port, peer, peer_port = unpack_key(entry.reply)
    world.inject(
        home.name,
        datagram(server, peer, server_port, peer_port, eth_dst=mac, eth_src=world.server_mac(server)),
        INTERNAL,
    )


def of_udp(world: FakeSite) -> list[Entry]:
    """Controller and switches must agree."""
    serving = world.serving(world.site.external_ips[0].address)
    assert world.switches[serving.assigned].entries(serving.address).keys() == {
        entry.key for entry in serving.table.entries()
    }
    return [entry for entry in serving.table.entries() if entry.key[0] == UDP]


def test_silent_udp_ends_after_its_own_timeout(dns) -> None:
    """Two rounds later at most; TCP connections stay."""
    dns.settle(UDP_IDLE - 2.0)
    assert len(of_udp(dns)) == 1
    dns.settle(2.0 + 2 * UDP_IDLE / 4 + 1.0)
    assert not of_udp(dns)
    assert len(dns.serving(dns.site.external_ips[0].address).table) == 1


@pytest.mark.parametrize("way", ["questions", "answers"])
def test_udp_that_talks_one_way_only_does_not_end(dns, way) -> None:
    (entry,) = of_udp(dns)
    for _ in range(int(4 * UDP_IDLE)):
        ask(dns) if way == "questions" else answer(dns, entry)
        dns.settle(1.0)
    assert of_udp(dns) == [entry]
    assert dns.datagrams.count(dns.datagrams[-1]) > 3 * UDP_IDLE
    dns.settle(2 * UDP_IDLE)
    assert not of_udp(dns)


def test_a_question_after_the_end_begins_anew(dns) -> None:
    dns.settle(2 * UDP_IDLE)
    assert not of_udp(dns)
    ask(dns)
    dns.settle(0.5)
    assert len(of_udp(dns)) == 1 and len(dns.datagrams) == 2


def test_packets_and_bytes_of_both_directions_are_counted(dns) -> None:
    (entry,) = of_udp(dns)
    for _ in range(3):
        ask(dns)
    answer(dns, entry)
    dns.settle(UDP_IDLE / 2)
    assert (entry.packets, entry.bytes) == (5, 5 * 60), "the fake switch says 60 bytes of each packet"


def test_udp_that_moves_keeps_its_time(dns) -> None:
    """A move copies it; at the new LB its counters start anew, which is no sign of life for ever."""
    (entry,) = of_udp(dns)
    _, out = dns.control.movement.start(dns.site.external_ips[0].address, "lb-b", Strategy.PRECOPY, dns.now)
    dns.post(out)
    dns.settle(4.0)
    assert dns.serving(dns.site.external_ips[0].address).assigned == "lb-b" and of_udp(dns) == [entry]
    dns.settle(2 * UDP_IDLE + 2.0)
    assert not of_udp(dns)


def test_leftovers_of_one_direction_are_deleted(dns) -> None:
    """Only the flow from the server is there; nobody but the switch knows it."""
    (entry,) = of_udp(dns)
    protocol, client, port, address, external_port = unpack_key(entry.key)
    key = pack_key(protocol, bytes([204]) + client[1:], port, address, external_port)
    stranger = Entry(key, reply_key(key, bytes([10, 0, 0, 10]), 80), entry.next_hop, dns.now)
    assert stranger.bucket == entry.bucket
    outward = entry_flows(stranger, 5)[1]
    dns.switches["lb-a"].tables["access_out"][outward.identity] = Installed(outward, dns.now, dns.now)
    dns.settle(UDP_IDLE)
    assert key not in dns.switches["lb-a"].entries()


@pytest.mark.parametrize(
    "kind, settings, expected",
    [
        ("destination", {"idle_timeout": 3600.0, "udp_idle_timeout": 60.0}, 15.0),
        ("destination", {"udp_idle_timeout": 1e6, "half_open_timeout": 7.0}, 7.0),
        ("destination", {"idle_timeout": 20.0}, 5.0),
        ("nat-gateway", {}, 30.0),
        ("nat-gateway", {"udp_idle_timeout": 1e6, "half_open_timeout": 1e6}, LONGEST),
        ("full", {"udp_idle_timeout": 0.01}, SHORTEST),
    ],
)
def test_a_round_is_a_quarter_of_the_shortest_timeout(kind, settings, expected) -> None:
    """Each of these has UDP, so its timeout counts."""
    assert interval(Serving(EXTERNAL_IPS[kind, 4], "lb-a", Settings(**settings))) == expected


def test_tcp_alone_has_longer_rounds() -> None:
    assert interval(Serving(site().external_ips[0], "lb-a", Settings(half_open_timeout=1e6))) == LONGEST


class Table:
    """An entry in each of so many buckets."""

    def __init__(self, buckets: int) -> None:
        self._buckets = buckets
        self.half_open: dict[object, int] = {}

    def __len__(self) -> int:
        return self._buckets

    def buckets(self) -> list[int]:
        return list(range(self._buckets))

    def snapshot(self) -> list[object]:
        return []


def test_a_large_site_is_read_a_little_at_each_tick_and_all_of_it() -> None:
    """600 external IPs with 40 buckets each: more than the half of a round has ticks for."""
    table = Table(40)
    servings = {
        owner: SimpleNamespace(
            owner=owner,
            assigned="lb-a",
            table=table,
            services={(6, 80): None},
            settings=Settings(half_open_timeout=LONGEST),
            idle_since=lambda *_: [],
            idle_timeout_of=lambda _: 7500.0,
        )
        for owner in range(1, 601)
    }
    ended: list[object] = []
    ground = fake_ground({"lb-a": SimpleNamespace(ready=True)}, SimpleNamespace(by_owner=servings))
    sweep, now = Sweep(ground, *2 * [lambda *entries: ended.append(entries) or []]), 1000.0
    asked: Counter[int] = Counter()
    for _ in range(1150):
        now += 0.05
        out = sweep.tick(now)
        assert len(out) <= 2 * ASKED_AT_ONCE and not ended
        asked.update(message.cookie for _, message in out)
    assert len(asked) == 2 * 600 * 40 and set(asked.values()) == {1}


def test_the_requests_of_a_small_site_are_spread() -> None:
    """Over half of a round, so that no switch is asked for all at once."""
    table = Table(100)
    serving = SimpleNamespace(
        owner=1, assigned="lb-a", table=table, services={(6, 80): None}, settings=Settings(half_open_timeout=LONGEST),
        idle_since=lambda *_: [], idle_timeout_of=lambda _: 7500.0,
    )
    ground = fake_ground({"lb-a": SimpleNamespace(ready=True)}, SimpleNamespace(by_owner={1: serving}))
    sweep = Sweep(ground, *2 * [lambda *_: []])
    asked = [len(sweep.tick(1000 + seconds / 10)) for seconds in range(300)]
    assert sum(asked) == 200 and asked[0] == 2 * 11 and max(asked[1:]) <= 4
    assert sum(asked[:150]) == pytest.approx(120, abs=4)
