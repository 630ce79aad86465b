"""The allocation of translated ports: none given twice, none given while it rests, none kept back."""

from __future__ import annotations

import sys
from ipaddress import ip_address

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbctl.entries.access_table import AccessTable, Entry
from lbctl.entries.translation import Allocation, Slot, Slots, full_reply, outbound_keys
from lbctl.values.keys import inverse_key, pack_key, reply_key, unpack_key
from tests.unit.exploring import exploring

HOP = bytes.fromhex("02000000c0fe")
REST = 60.0
CLIENT = ip_address("203.0.113.9").packed
EXTERNAL = {4: ip_address("198.51.100.1").packed, 6: ip_address("2001:db8::1").packed}
INTERNAL = {4: tuple(ip_address(f"10.0.0.10{n}").packed for n in range(3)),
            6: tuple(ip_address(f"fd00::10{n}").packed for n in range(3))}


class Allocations(RuleBasedStateMachine):
    """What any sequence of connections, ends and restarts may do, against a model that remembers every slot.

    A slot is known to rest only by the controller that freed it.
    """

    @initialize(
        version=st.sampled_from([4, 6]),
        outbound=st.booleans(),
        addresses=st.integers(1, 3),
        first=st.integers(1, 65530),
        count=st.integers(1, 5),
        seed=st.integers(0, 1 << 40),
    )
    def build(self, version: int, outbound: bool, addresses: int, first: int, count: int, seed: int) -> None:
        self.version, self.outbound = version, outbound
        self.addresses = (EXTERNAL[version],) if outbound else INTERNAL[version][:addresses]
        self.ports = first, min(first + count - 1, 65535)
        self.every = {(address, port) for address in self.addresses for port in range(self.ports[0], self.ports[1] + 1)}
        self.seed, self.now, self.number = seed, 1000.0, 0
        self.table = AccessTable()
        self.allocation = self._new(seed)
        self.taken: dict[tuple, dict[Slot, Entry]] = {peer: {} for peer in self.peers()}
        self.resting: dict[tuple, dict[Slot, float]] = {peer: {} for peer in self.peers()}

    def _new(self, seed: int) -> Allocation:
        return Allocation(self.table, self.addresses, self.ports, self.outbound, seed)

    def peers(self) -> list[tuple[int, bytes, int]]:
        host = ip_address("192.0.2.7" if self.version == 4 else "2001:db8:2::7").packed
        return [(6, host, 80), (6, host, 81), (17, host, 80)]

    def _entry(self, peer: tuple[int, bytes, int], slot: Slot) -> Entry:
        self.number += 1
        client = ip_address((0x0A000000 if self.version == 4 else 0xFD << 120) + self.number).packed
        if self.outbound:
            keys = outbound_keys(pack_key(peer[0], client, 5000, peer[1], peer[2]), slot)
            return Entry(*keys, HOP, self.now, inner_hop=HOP)
        key = pack_key(peer[0], client, 5000, EXTERNAL[self.version], 80)
        return Entry(key, full_reply(key, peer[1], peer[2], slot), HOP, self.now)

    def _free(self, peer: tuple[int, bytes, int]) -> set[Slot]:
        rests = {slot for slot, since in self.resting[peer].items() if since + REST > self.now}
        return self.every - self.taken[peer].keys() - rests

    @rule(which=st.integers(0, 2))
    def open(self, which: int) -> None:
        peer = self.peers()[which]
        free = self._free(peer)
        assert self.allocation.available(peer, self.now, REST) == bool(free)
        slot = self.allocation.give(peer, self.now, REST)
        if not free:
            assert slot is None, "given twice, or while it rests"
            return
        assert slot in free, "taken, resting, or of no internal IP" if slot else "exhausted too early"
        entry = self._entry(peer, slot)
        self.table.add(entry)
        self.taken[peer][slot] = entry
        self.resting[peer].pop(slot, None)

    @precondition(lambda self: any(self.taken.values()))
    @rule(data=st.data())
    def end(self, data) -> None:
        peer = data.draw(st.sampled_from([peer for peer in self.peers() if self.taken[peer]]))
        slot = data.draw(st.sampled_from(sorted(self.taken[peer])))
        entry = self.taken[peer].pop(slot)
        self.allocation.freed(entry, self.now)
        self.table.remove(entry)
        self.resting[peer][slot] = self.now

    @rule(seconds=st.sampled_from([0.5, REST / 2, REST, 3 * REST]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def restart(self) -> None:
        """Nobody knows any more what rests; what is taken is in the table."""
        self.seed += 1
        self.allocation = self._new(self.seed)
        self.resting = {peer: {} for peer in self.peers()}

    @rule()
    def forget(self) -> None:
        """The table is looked at anew."""
        self.allocation.forget()

    @rule(addresses=st.integers(1, 3), first=st.integers(1, 65530), count=st.integers(1, 5), near=st.booleans())
    def change(self, addresses: int, first: int, count: int, near: bool) -> None:
        """Another site file. What is taken or rests may be no slot of its own any more."""
        if near:
            first = max(1, self.ports[0] - first % 4)
        self.addresses = (EXTERNAL[self.version],) if self.outbound else INTERNAL[self.version][:addresses]
        self.ports = first, min(first + count - 1, 65535)
        self.every = {(address, port) for address in self.addresses for port in range(self.ports[0], self.ports[1] + 1)}
        self.allocation.change(self.addresses, self.ports)
        for resting in self.resting.values():
            for slot in resting.keys() - self.every:
                del resting[slot]

    @rule()
    def tidy(self) -> None:
        """Drops idle peers only: what is taken or rests stays known."""
        self.allocation.tidy(self.now, REST)

    @invariant()
    def a_place_has_one_connection_to_each_peer(self) -> None:
        for entry in self.table.entries():
            protocol, host, host_port, address, port = unpack_key(entry.key if self.outbound else entry.reply)
            assert self.taken[protocol, host, host_port][address, port] is entry


TestAllocations = Allocations.TestCase
TestAllocations.settings = exploring("allocations", stateful_step_count=60)


def everything(slots: Slots, now: float = 0.0) -> list[Slot]:
    given = []
    while (slot := slots.give(now, REST)) is not None:
        given.append(slot)
    return given


@pytest.mark.parametrize("addresses, ports", [(1, (1024, 65535)), (3, (1, 65535)), (2, (80, 80))])
def test_all_places_are_given_before_it_is_exhausted(addresses, ports) -> None:
    given = everything(Slots(INTERNAL[4][:addresses], ports, 12345))
    assert len(given) == len(set(given)) == addresses * (ports[1] - ports[0] + 1)


def test_the_internal_ips_share_the_connections() -> None:
    slots = Slots(INTERNAL[4], (1024, 65535), 7)
    given = [slots.give(0.0, REST)[0] for _ in range(300)]
    assert {given.count(address) for address in INTERNAL[4]} == {100}


def test_what_has_rested_longest_comes_first() -> None:
    slots = Slots(INTERNAL[4][:1], (1, 4))
    one, two, three, four = everything(slots)
    for now, slot in enumerate((three, one, four)):
        slots.free(slot, float(now))
    assert slots.give(REST - 0.1, REST) is None
    assert [slots.give(REST + 9, REST) for _ in range(4)] == [three, one, four, None]


def test_one_connection_after_the_other_does_not_use_one_port_again() -> None:
    slots = Slots(INTERNAL[4][:1], (1, 1000))
    given = []
    for now in range(50):
        given.append(slots.give(float(now), REST))
        slots.free(given[-1], float(now))
    assert len(set(given)) == 50


def test_a_place_that_was_marked_and_freed_rests_before_its_first_turn() -> None:
    """It was taken before a restart, and lies ahead in the order of fresh slots."""
    slots = Slots(INTERNAL[4][:1], (1, 3), 0)
    slots.mark((INTERNAL[4][0], 3))
    slots.free((INTERNAL[4][0], 3), 0.0)
    assert [slot[1] for slot in everything(slots, 1.0)] == [1, 2]
    assert [slot[1] for slot in everything(slots, REST)] == [3]


def test_a_place_outside_the_range_is_nobody_s() -> None:
    """An entry of before another site file took effect."""
    slots = Slots(INTERNAL[4][:1], (10, 12))
    for slot in ((INTERNAL[4][0], 9), (INTERNAL[4][0], 13), (INTERNAL[4][1], 10)):
        slots.mark(slot)
        slots.free(slot, 0.0)
        slots.start_after(slot)
    assert len(everything(slots)) == 3


def test_after_a_restart_the_ports_after_the_last_one_come_first() -> None:
    """What was freed just before it cannot be known; the slots given longest ago are the likeliest to have rested."""
    table, peer = AccessTable(), (6, CLIENT, 80)
    before = Allocation(table, INTERNAL[4][:1], (1, 100), False, 1)
    given = []
    for number in range(30):
        slot = before.give(peer, float(number), REST)
        key = pack_key(6, CLIENT, 1000 + number, EXTERNAL[4], 80)
        given.append(slot)
        if number % 2:
            table.add(Entry(key, full_reply(key, CLIENT, 80, slot), HOP, float(number)))
    after = Allocation(table, INTERNAL[4][:1], (1, 100), False, 2)
    assert not {after.give(peer, 31.0, REST) for _ in range(70)} & set(given)


def test_other_seeds_start_elsewhere() -> None:
    def first(seed: int) -> Slot | None:
        return Allocation(AccessTable(), INTERNAL[4], (1024, 65535), False, seed).give((6, CLIENT, 80), 0.0, REST)

    assert len({first(seed) for seed in range(20)}) > 15


def test_tidy_keeps_nothing_of_peers_that_are_gone() -> None:
    table = AccessTable()
    allocation = Allocation(table, INTERNAL[4][:1], (1, 60000), True, 1)
    sizes = []
    for minute in range(3):
        for port in range(1000):
            packet = pack_key(17, CLIENT, 5000, (minute * 1000 + port).to_bytes(4), 53)
            slot = allocation.give((17, (minute * 1000 + port).to_bytes(4), 53), minute * 120.0, REST)
            entry = Entry(*outbound_keys(packet, slot), HOP, 0.0, inner_hop=HOP)
            table.add(entry)
            allocation.freed(entry, minute * 120.0)
            table.remove(entry)
        allocation.tidy(minute * 120.0 + REST + 1, REST)
        sizes.append(len(allocation._slots))
    assert sizes == [0, 0, 0]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_giving_is_quick_however_many_are_taken(share) -> None:
    """O(1), but for the taken slots that are skipped once: 60 000 gives and frees of a range that is nearly full.

    It takes a fraction of a second; a search through all slots would take hours.
    """
    slots = Slots(INTERNAL[4][:1], (1, 60_000))
    kept = {slots.give(0.0, REST) for _ in range(int(60_000 * share))}
    for number in range(60_000):
        now = 10.0 + number * REST
        slot = slots.give(now, REST)
        assert slot is not None and slot not in kept
        slots.free(slot, now)


def test_a_peer_costs_little() -> None:
    """A NAT gateway has one for each outside host and port that is spoken to."""
    allocation = Allocation(AccessTable(), INTERNAL[4][:1], (1024, 65535), True, 1)
    slots = allocation._of((17, CLIENT, 53))
    slots.give(0.0, REST)
    assert sum(sys.getsizeof(getattr(slots, name)) for name in ("_taken", "_resting")) + sys.getsizeof(slots) < 2000


# Keys.

@pytest.mark.parametrize("version", [4, 6])
def test_the_keys_of_outbound_nat(version) -> None:
    inside, outside = (
        ip_address("10.0.0.200" if version == 4 else "fd00::200"),
        ip_address("192.0.2.7" if version == 4 else "2001::7"),
    )
    packet = pack_key(17, inside.packed, 5353, outside.packed, 53)
    key, reply = outbound_keys(packet, (EXTERNAL[version], 1024))
    assert reply == packet
    assert unpack_key(key) == (17, outside.packed, 53, EXTERNAL[version], 1024), (
        "what the outside host's answer carries"
    )
    entry = Entry(key, reply, HOP, 0.0, inner_hop=HOP)
    assert not entry.full and entry.shape == (version, 17, False, True)
    assert (entry.external, entry.server, entry.opening_key) == (EXTERNAL[version], (inside.packed, 5353), packet)


@pytest.mark.parametrize("version", [4, 6])
def test_the_keys_of_full_nat(version) -> None:
    client, server = (ip_address(text).packed for text in (
        ("203.0.113.9", "10.0.0.11") if version == 4 else ("2001:db8:c::9", "fd00::11")))
    key = pack_key(6, client, 40000, EXTERNAL[version], 80)
    reply = full_reply(key, server, 8080, (INTERNAL[version][0], 1024))
    assert unpack_key(reply) == (6, server, 8080, INTERNAL[version][0], 1024)
    entry = Entry(key, reply, HOP, 0.0)
    assert entry.full and entry.shape == (version, 6, True, False)
    assert not Entry(key, reply_key(key, server, 8080), HOP, 0.0).full
    assert str(entry.connection.internal) == ("10.0.0.100:1024" if version == 4 else "[fd00::100]:1024")


def test_the_inverse_of_the_inverse() -> None:
    for host, other in ((CLIENT, EXTERNAL[4]), (EXTERNAL[6], INTERNAL[6][0])):
        key = pack_key(17, host, 1, other, 2)
        assert unpack_key(inverse_key(key)) == (17, other, 2, host, 1)
        assert inverse_key(inverse_key(key)) == key
