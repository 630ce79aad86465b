"""Slices that change hands: whatever happens when, each connection has one server from its first packet to its last."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from lbctl.servers.slicing import Change, Slicing, Step
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import pack_key
from lbctl.values.slices import SLICES, slice_of_port
from tests.unit.exploring import exploring

SERVERS = [Endpoint(ip_address(f"10.0.0.{number}"), 80) for number in range(11, 16)]
EXTERNAL = ip_address("198.51.100.1").packed
NUMBERS = (0, 1, 2, 3, 100, 255)
"""Slices that clients are in."""


@dataclass(eq=False)
class Connection:
    """server: that which has answered its SYN; None: it has not answered yet. entry: the server of its entry."""

    key: bytes
    sequence: int
    server: Endpoint | None = None


class Switch(RuleBasedStateMachine):
    """A switch without delays, and the clients. What the datapath's cache does is tried on a real one."""

    connections = Bundle("connections")

    @initialize(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        self.now, self.port = 0.0, 0
        self.slicing, self.leaving = Slicing(), False
        self.weights = dict.fromkeys(SERVERS[:count], 1)
        self.dead: set[Endpoint] = set()
        self.silent: set[Endpoint] = set()
        self.entries: dict[bytes, Endpoint] = {}
        self.alive: list[Connection] = []
        self.slicing.divide(self.weights, lambda _: True, lambda _: False, 0.0)

    def server_of(self, key: bytes, syn: int | None = None) -> Endpoint | None:
        """Where the switch sends that packet; None: it is refused."""
        number = slice_of_port(int.from_bytes(key[5:7]))
        state = self.slicing.state(number)
        if self.leaving and not state.owner and not state.by_entry:
            return self._by_connection(key, syn)
        if not state.by_entry:
            return state.owner
        if syn is not None and state.asking:
            opened = self.slicing.opened(key, syn)
            if opened.table is None and opened.server is not None:
                self.entries.setdefault(key, opened.server)
            elif opened.table is None:
                return self._by_connection(key, syn) if self.leaving else self.entries.get(key)
        return self.entries.get(key, state.default)

    def _by_connection(self, key: bytes, syn: int | None) -> Endpoint | None:
        if syn is not None and self.taking:
            self.entries.setdefault(key, next(iter(self.taking)))
        return self.entries.get(key)

    @rule(target=connections, number=st.sampled_from(NUMBERS), sequence=st.integers(0, 3))
    def opens(self, number: int, sequence: int) -> Connection:
        self.port = self.port % 50 + 1
        port = (number << 1) | 1 | (self.port << 9 & 0xFE00)
        key = pack_key(6, ip_address(f"203.0.113.{self.port}").packed, port, EXTERNAL, 80)
        self.alive = [other for other in self.alive if other.key != key]
        self.entries.pop(key, None)
        connection = Connection(key, sequence)
        connection.server = self.server_of(key, sequence)
        if connection.server:
            self.alive.append(connection)
        return connection

    @rule(connection=connections)
    def sends_its_syn_again(self, connection: Connection) -> None:
        """The SYN-ACK was lost: another server must not answer as well. That is not promised of a SYN that has not come
        for as long as the first step takes."""
        change = self.slicing.change_of(slice_of_port(int.from_bytes(connection.key[5:7])))
        known = change is None or change.step is Step.NARROWED or connection.key in change.syns
        if connection in self.alive and known:
            assert self.server_of(connection.key, connection.sequence) == connection.server

    @rule(connection=consumes(connections))
    def closes(self, connection: Connection) -> None:
        if connection in self.alive:
            self.alive.remove(connection)
            self.entries.pop(connection.key, None)

    @rule(chosen=st.sets(st.sampled_from(SERVERS)), weight=st.integers(1, 3))
    def other_servers(self, chosen: set[Endpoint], weight: int) -> None:
        """Drained, added, or of another weight; none, even."""
        self.weights = {server: weight if server is SERVERS[0] else 1 for server in SERVERS if server in chosen}
        self._divide()

    @rule(server=st.sampled_from(SERVERS))
    def dies(self, server: Endpoint) -> None:
        self.dead.add(server)
        self.alive = [connection for connection in self.alive if connection.server != server]
        self.entries = {key: where for key, where in self.entries.items() if where != server}
        self._divide()

    @rule(server=st.sampled_from(SERVERS))
    def comes_back(self, server: Endpoint) -> None:
        self.dead.discard(server)
        self._divide()

    @rule(server=st.sampled_from(SERVERS))
    def answers_no_more_or_again(self, server: Endpoint) -> None:
        """Its connections go on, for all that is known."""
        self.silent ^= {server}
        self._divide()

    @property
    def taking(self) -> dict[Endpoint, int]:
        well = {server: weight for server, weight in self.weights.items() if server not in self.dead}
        return {server: weight for server, weight in well.items() if server not in self.silent} or well

    @rule()
    def is_to_have_entries_by_connection_or_slices(self) -> None:
        self.leaving = self.slicing.leaving = not self.leaving
        self._divide()

    def _divide(self) -> None:
        taking = self.taking
        if self.leaving:
            self.slicing.leave(self.dead.__contains__, self.now)
            return
        self.slicing.divide(taking, self.dead.__contains__, self.silent.__contains__, self.now)
        self.slicing.mixed |= self.slicing.mixed_of(self._with_entries())

    @rule(data=st.data())
    def goes_on(self, data: st.DataObject) -> None:
        """A change takes its next step."""
        if not self.slicing.changes:
            return
        change = data.draw(st.sampled_from(self.slicing.changes))
        if change.step is Step.NARROWED:
            change.go_on(Step.SWITCHED)
        elif change.step is Step.SWITCHED:
            numbers = data.draw(st.sets(st.sampled_from(sorted(change.before)), min_size=1))
            self._flip(change, numbers)
        elif change.step is Step.FLIPPED and self.leaving:
            self.slicing.depart(change)
            if self.slicing.left:
                self.slicing = Slicing()
                self.slicing.leaving = True
                self._settle()
        elif change.step is Step.FLIPPED:
            change.go_on(Step.SETTLING)
        else:
            self.entries = {key: server for key, server in self.entries.items()
                            if (number := slice_of_port(int.from_bytes(key[5:7]))) not in change.before
                            or self.slicing.owners[number] != server}
            self.slicing.end(change)
            self._settle()
        self._divide()

    def _flip(self, change: Change, numbers: set[int]) -> None:
        """The old servers' sockets are told."""
        for connection in self.alive:
            number = slice_of_port(int.from_bytes(connection.key[5:7]))
            if number in numbers and connection.server == change.before[number]:
                self.entries.setdefault(connection.key, connection.server)
        self.slicing.flip(change, numbers)

    def _settle(self) -> None:
        self.slicing.mixed = self.slicing.mixed_of(self._with_entries())

    def _with_entries(self) -> set[int]:
        return {slice_of_port(int.from_bytes(key[5:7])) for key in self.entries}

    @rule()
    def the_controller_restarts(self) -> None:
        before = {number: server for change in self.slicing.changes for number, server in change.before.items()
                  if change.step in (Step.NARROWED, Step.SWITCHED)}
        self.slicing = Slicing(tuple(self.slicing.owners), before)
        self.slicing.leaving = self.leaving
        self.slicing.mixed = set(range(SLICES))
        self._divide()

    @invariant()
    def every_packet_goes_to_its_server(self) -> None:
        for connection in getattr(self, "alive", ()):
            assert self.server_of(connection.key) == connection.server

    @invariant()
    def shares_are_right_in_the_end(self) -> None:
        if hasattr(self, "slicing") and not self.slicing.changes and not self.leaving:
            taking = self.taking
            for server, weight in taking.items():
                ideal = SLICES * weight / sum(taking.values())
                assert abs(self.slicing.owners.count(server) - ideal) < 1


TestSwitch = Switch.TestCase
TestSwitch.settings = exploring("slicing", stateful_step_count=40)
