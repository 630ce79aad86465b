"""Endpoint-independent mapping: one place for each inside port, nobody else's, and the same after whatever happens."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbctl.entries.access_table import AccessTable, Entry
from lbctl.entries.mappings import Mappings
from lbctl.entries.translation import Allocation, outbound_keys
from lbctl.values.keys import pack_key, unpack_key
from tests.unit.exploring import exploring

HOP, OTHER_HOP = bytes.fromhex("02000000c0fe"), bytes.fromhex("02000000beef")
REST = 60.0
EXTERNAL = ip_address("198.51.100.20").packed
INSIDE = [ip_address(f"10.0.0.20{n}").packed for n in range(3)]
OUTSIDE = [ip_address(f"203.0.113.{n}").packed for n in range(1, 4)]
PORTS = 5000, 5003


class Machine(RuleBasedStateMachine):
    """Inside hosts speak, outside hosts answer and come in, entries end, the table is looked at anew; against what
    follows from the entries alone."""

    @initialize(seed=st.integers(0, 1 << 40))
    def build(self, seed: int) -> None:
        self.table, self.now, self.seed, self.ports = AccessTable(), 1000.0, seed, PORTS
        self.mappings = Mappings(self.table, EXTERNAL, self.ports, seed)
        self.rested: dict[tuple[int, int], tuple[float, tuple]] = {}
        """(protocol, external port) -> when its mapping ended, and whose it was."""
        self.ended: list[Entry] = []

    def places(self) -> dict[tuple, int]:
        """(protocol, inside address, inside port) -> external port."""
        found: dict[tuple, int] = {}
        for entry in self.table.entries():
            protocol, inside, port, _, _ = unpack_key(entry.reply)
            place = unpack_key(entry.key)[4]
            assert found.setdefault((protocol, inside, port), place) == place, "two places for one inside port"
        return found

    def free(self, protocol: int, who: tuple) -> set[int]:
        taken = {place for (each, *_), place in self.places().items() if each == protocol}
        rests = {port for (each, port), (since, owner) in self.rested.items()
                 if each == protocol and since + REST > self.now and owner != who}
        return set(range(self.ports[0], self.ports[1] + 1)) - taken - rests

    def add(self, key: bytes, reply: bytes) -> None:
        self.now += 0.001
        self.table.add(Entry(key, reply, HOP, self.now, inner_hop=HOP))
        self.ended = [entry for entry in self.ended if entry.key != key and entry.reply != reply]

    @rule(protocol=st.sampled_from([6, 17]), host=st.sampled_from(INSIDE), port=st.integers(4999, 5001),
          outside=st.sampled_from(OUTSIDE), outside_port=st.integers(1, 2))
    def speak(self, protocol: int, host: bytes, port: int, outside: bytes, outside_port: int) -> None:
        key, who = pack_key(protocol, host, port, outside, outside_port), (protocol, host, port)
        if self.table.by_reply(key):
            return
        mapped, free = self.places().get(who), self.free(protocol, who)
        slot = self.mappings.outward(key, HOP, self.now, REST)
        if mapped is not None:
            assert slot == (EXTERNAL, mapped), "the same towards all"
        elif not free:
            assert slot is None, "given twice, or while it rests"
            return
        else:
            assert slot is not None and slot[1] in free
            mine = [place for (each, place), (_, owner) in self.rested.items() if owner == who and place in free]
            if not mine and port in free:
                assert slot[1] == port, "the inside port is kept"
            self.rested.pop((protocol, slot[1]), None)
        self.add(*outbound_keys(key, slot))

    @rule(protocol=st.sampled_from([6, 17]), place=st.integers(4999, 5004), outside=st.sampled_from(OUTSIDE),
          outside_port=st.integers(1, 4))
    def come_in(self, protocol: int, place: int, outside: bytes, outside_port: int) -> None:
        key = pack_key(protocol, outside, outside_port, EXTERNAL, place)
        owners = [who for who, mapped in self.places().items() if (who[0], mapped) == (protocol, place)]
        mapping = self.mappings.inward(key)
        assert (mapping is not None) == bool(owners)
        if mapping is None:
            return
        [(_, host, port)] = owners
        reply = mapping.reply_to(key)
        assert reply == pack_key(protocol, host, port, outside, outside_port) and mapping.inner_hop == HOP
        spoken = any(unpack_key(entry.key)[1] == outside for entry in self.table.entries()
                     if unpack_key(entry.reply)[:3] == (protocol, host, port))
        assert (outside in mapping.outside) == spoken
        if self.table.by_key(key) is None:
            mapping.joined(outside)
            self.add(key, reply)

    @precondition(lambda self: len(self.table))
    @rule(data=st.data())
    def end(self, data) -> None:
        entry = data.draw(st.sampled_from(sorted(self.table.entries(), key=lambda entry: entry.key)))
        self.mappings.freed(entry, self.now)
        self.table.remove(entry)
        self.ended.append(entry)
        who, place = unpack_key(entry.reply)[:3], unpack_key(entry.key)[4]
        if who not in self.places() and self.ports[0] <= place <= self.ports[1]:
            self.rested[who[0], place] = self.now, who

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def goes_on(self, data) -> None:
        """An entry that had ended (by a forged RST, say)."""
        entry = data.draw(st.sampled_from(self.ended))
        who, place = unpack_key(entry.reply)[:3], unpack_key(entry.key)[4]
        mapped = self.places().get(who)
        if self.mappings.take_back(entry):
            assert mapped in (None, place)
            assert mapped == place or self.rested.pop((who[0], place))[1] == who
            self.ended.remove(entry)
            self.table.add(entry)
        else:
            assert mapped != place

    @rule(seconds=st.sampled_from([0.5, REST / 2, REST, 3 * REST]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def restart(self) -> None:
        self.seed += 1
        self.mappings = Mappings(self.table, EXTERNAL, self.ports, self.seed)
        self.rested, self.ended = {}, []

    @rule()
    def forget(self) -> None:
        self.mappings.forget()

    @rule()
    def tidy(self) -> None:
        self.mappings.tidy(self.now, REST)
        self.rested = {place: rest for place, rest in self.rested.items() if rest[0] + REST > self.now}
        alive = {(unpack_key(e.reply)[0], unpack_key(e.key)[4]) for e in self.table.entries()}
        assert len(self.mappings._of_place) <= len(alive) + len(self.rested)

    @invariant()
    def nobody_shares_a_place(self) -> None:
        places = self.places()
        assert len({(who[0], place) for who, place in places.items()}) == len(places)


TestMappings = Machine.TestCase
TestMappings.settings = exploring("mappings", stateful_step_count=60)


def test_a_place_that_several_had_before_is_nobodys() -> None:
    """The site file said `address-and-port-dependent` before."""
    table = AccessTable()
    before = Allocation(table, (EXTERNAL,), (5000, 5000), True, 1)
    for number, inside in enumerate(INSIDE[:2]):
        key = pack_key(17, inside, 40000, OUTSIDE[number], 53)
        slot = before.outward(key, 0.0, REST)
        assert slot == (EXTERNAL, 5000)
        table.add(Entry(*outbound_keys(key, slot), HOP, float(number), inner_hop=HOP))
    mappings = Mappings(table, EXTERNAL, (5000, 5001), 1)
    assert mappings.inward(pack_key(17, OUTSIDE[2], 9, EXTERNAL, 5000)) is None
    assert mappings.outward(pack_key(17, INSIDE[0], 40000, OUTSIDE[2], 53), HOP, 2.0, REST) == (EXTERNAL, 5001)
    for entry in table.snapshot():
        mappings.freed(entry, 3.0)
        table.remove(entry)
    assert mappings.outward(pack_key(17, INSIDE[1], 40000, OUTSIDE[2], 53), HOP, 4.0, REST) is None, "it rests"
    mappings.tidy(4.0 + REST, REST)
    assert mappings.outward(pack_key(17, INSIDE[1], 40000, OUTSIDE[2], 53), HOP, 4.0 + REST, REST) == (EXTERNAL, 5000)


def test_a_mapping_keeps_its_place_when_the_range_changes() -> None:
    table = AccessTable()
    mappings = Mappings(table, EXTERNAL, (5000, 5001), 1)
    key = pack_key(17, INSIDE[0], 5001, OUTSIDE[0], 53)
    table.add(Entry(*outbound_keys(key, mappings.outward(key, HOP, 0.0, REST)), HOP, 0.0, inner_hop=HOP))
    mappings.change((EXTERNAL,), (6000, 6001))
    other = pack_key(17, INSIDE[0], 5001, OUTSIDE[1], 53)
    slot = mappings.outward(other, OTHER_HOP, 1.0, REST)
    assert slot == (EXTERNAL, 5001)
    table.add(Entry(*outbound_keys(other, slot), HOP, 1.0, inner_hop=OTHER_HOP))
    assert mappings.inward(pack_key(17, OUTSIDE[2], 9, EXTERNAL, 5001)).inner_hop == OTHER_HOP
    for entry in table.snapshot():
        mappings.freed(entry, 2.0)
        table.remove(entry)
    assert mappings.outward(other, HOP, 3.0, REST)[1] in (6000, 6001)
