"""Any interleaving of connections, moves, delays and failures ends with one LB that serves every live connection.

hypothesis chooses the events; the site of fake_site.py plays them against the control function. The twins at the end
break the product on purpose, and show that these tests would notice.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from evaluation.demonstration.naive import PriorArtStrays
from lbctl.connections.strays import Strays
from lbctl.control import ControlFunction
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.moves import movement
from lbctl.moves.actions import Announce, Assign, Confirm, Forget, SetHolder, SetRole
from lbctl.moves.move import Move
from lbctl.openflow.rules import ABSENT, SERVING
from lbctl.values.keys import server_key
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy
from tests.unit.exploring import explore
from tests.unit.fake_site import LB_NAMES, FakeSite, site

TWINS = settings(derandomize=True, database=None, max_examples=500, stateful_step_count=60, phases=[Phase.generate],
                 suppress_health_check=list(HealthCheck))
"""The same in every run: they only show that what they break would be noticed."""
FEW = st.sampled_from([1, 1, 2, 3, 8, 40, 1 << 30])
LBS = st.sampled_from(LB_NAMES[:2])
IPS = st.integers(0, 1)
ANY = st.integers(0, 1 << 16)
RARELY = st.integers(0, 7).map(lambda number: number == 7)


class Traffic(RuleBasedStateMachine):
    """Connections come, talk and go; external IPs move; messages take their time."""

    control_class = ControlFunction
    nat = "destination"
    max_step = 0.3

    @initialize()
    def prepare(self) -> None:
        self.world = FakeSite(site(idle_timeout=600.0, nat=self.nat, time_wait=5.0), self.control_class)
        self.world.settle(0.5)
        for place in (0, 1):
            self.world.open(place)
        self.world.drain()
        self.undelivered_since = self.world.now

    def some(self, number: int, live: bool = True):
        conversations = [c for c in self.world.conversations if c.live == live and c.server]
        return conversations[number % len(conversations)] if conversations else None

    # Clients and servers.

    @rule(place=IPS)
    def open(self, place) -> None:
        self.world.open(place)

    @rule(number=ANY)
    def repeat_syn(self, number) -> None:
        waiting = [c for c in self.world.conversations if not c.ended and not c.forfeited and not c.fins]
        if waiting:
            self.world.from_client(waiting[number % len(waiting)], SYN)

    @rule(number=ANY, inward=st.booleans(), stale=st.booleans())
    def talk(self, number, inward, stale) -> None:
        conversation = self.some(number)
        if conversation:
            (self.world.from_client if inward else self.world.from_server)(conversation, ACK, stale)

    @rule(number=ANY, inward=st.booleans())
    def finish(self, number, inward) -> None:
        conversation = self.some(number)
        if conversation and ("client" if inward else "server") not in conversation.fins:
            (self.world.from_client if inward else self.world.from_server)(conversation, FIN | ACK)

    @rule(number=ANY, inward=st.booleans())
    def reset(self, number, inward) -> None:
        conversation = self.some(number)
        if conversation:
            (self.world.from_client if inward else self.world.from_server)(conversation, RST)

    @rule(number=ANY)
    def use_port_again(self, number) -> None:
        """Not at once: flows of two connections are told apart by their age, as exactly as the clocks are."""
        ended = [c for c in self.world.conversations if c.ended and self.world.now - c.opened > 2.0 and not any(
            other.client == c.client and other.number > c.number for other in self.world.conversations)]
        if ended:
            self.world.open(0, reuse=ended[number % len(ended)])

    # Moves.

    @rule(place=IPS, to=LBS, strategy=st.sampled_from(Strategy))
    def move(self, place, to, strategy) -> None:
        world = self.world
        try:
            _, out = world.control.movement.start(world.site.external_ips[place].address, to, strategy, world.now)
        except Refused:
            return
        world.post(out)

    @rule(rarely=RARELY)
    def abort(self, rarely) -> None:
        for move in list(self.world.control.movement.records()) if rarely else ():
            try:
                self.world.post(self.world.control.movement.abort(move, self.world.now))
            except Refused:
                pass

    # Delays.

    @rule(name=LBS, count=FEW)
    def deliver(self, name, count) -> None:
        self.world.deliver(name, count)

    @rule(name=LBS, count=FEW)
    def hear(self, name, count) -> None:
        self.world.hear(name, count)

    @rule()
    def save(self) -> None:
        self.world.save(1)

    @rule(inward=st.booleans(), new=st.booleans(), times=st.integers(1, 4))
    def round(self, inward, new, times) -> None:
        """Rounds of messages, while everybody talks."""
        for _ in range(times):
            self.world.round()
            if new:
                self.world.open(0)
            for conversation in [c for c in self.world.conversations if c.live]:
                (self.world.from_client if inward else self.world.from_server)(conversation)
            self.world.check_now()

    @rule(part=st.integers(1, 10))
    def tick(self, part) -> None:
        self.world.tick(self.max_step * part / 10)

    @invariant()
    def right_now(self) -> None:
        if hasattr(self, "world"):
            self.world.check_now()

    @invariant()
    def connections_are_counted(self) -> None:
        """By server, whatever entries come from: new, taken over after a restart, moved, put back."""
        for serving in self.world.control.ground.external_ips if hasattr(self, "world") else ():
            expected = Counter(server_key(entry.key[0], *entry.server) for entry in serving.table.entries())
            assert serving.table.connections_to == expected

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.settle(20.0)
        self.check_end()

    def check_end(self) -> None:
        world = self.world
        world.check_now()
        world.check_settled()
        for move in [*world.moves, *world.control.movement.records().values()]:
            held = move
            assert not move.ended or held.packets_held == held.packets_released + held.packets_lost, held
        world.check_now()


class Lossless(Traffic):
    """As long as no switch and no controller fails, and all confirm in time, no packet is lost or repeated."""

    @rule(part=st.integers(1, 10))
    def tick(self, part) -> None:
        if self.world.now - self.undelivered_since > 4.0:
            self.world.drain()
            self.undelivered_since = self.world.now
        self.world.tick(self.max_step * part / 10)

    def check_end(self) -> None:
        super().check_end()
        for number, data in enumerate(self.world.data, 1):
            if data.conversation.live:
                assert data.arrivals == 1, f"packet {number} of {data.conversation} arrived {data.arrivals} times"
        for move in self.world.control.movement.records().values():
            assert move.state in ("done", "aborted"), move
            assert not move.packets_lost
        self.close_all()

    def close_all(self) -> None:
        """Nothing is left of ended connections: neither at the controller nor in the switches."""
        world = self.world
        for conversation in world.conversations:
            if conversation.live:
                for flags, send, side in (
                    (FIN | ACK, world.from_client, "client"),
                    (FIN | ACK, world.from_server, "server"),
                ):
                    if side not in conversation.fins:
                        send(conversation, flags)
        world.settle(15.0, 1.0)
        world.settle(800.0, 10.0)
        for serving in world.control.ground.external_ips:
            assert not len(serving.table), serving.table.snapshot()
        for switch in world.switches.values():
            assert not switch.entries(), (switch.name, switch.entries())


class Faults(Traffic):
    """Switches lose their connection or their tables, controllers die, confirmations come too late."""

    @rule(part=st.integers(1, 10), long=st.booleans())
    def tick(self, part, long) -> None:
        self.world.tick((6.0 if long and part > 7 else self.max_step) * part / 10)

    @rule(name=LBS, lose_tables=st.booleans(), rarely=RARELY)
    def disconnect(self, name, lose_tables, rarely) -> None:
        if rarely:
            self.world.disconnect(name, lose_tables)

    @precondition(lambda self: hasattr(self, "world") and len(self.world.connected) < 2)
    @rule(name=LBS)
    def connect(self, name) -> None:
        if name not in self.world.connected:
            self.world.connect(name)

    @rule(rarely=RARELY)
    def restart_control(self, rarely) -> None:
        if rarely:
            self.world.restart_control()


def of(machine: type[Traffic], nat: str) -> type[Traffic]:
    return type(machine.__name__, (machine,), {"nat": nat})


NATS = pytest.mark.parametrize("nat", ["destination", "full"])


@NATS
def test_nothing_is_lost_without_faults(nat) -> None:
    explore(of(Lossless, nat), stateful_step_count=60)


@NATS
def test_faults_end_with_one_lb_that_serves(nat) -> None:
    explore(of(Faults, nat), stateful_step_count=60)


class TableFirst(Move):
    """The entries change hands before the route does: the seed's problem."""

    def _steps(self):
        source, target = self.record.source, self.record.target
        yield [SetHolder(target, True)]
        yield from self._copy()
        yield [SetHolder(source, False), Forget(source), Confirm(source, "table")]
        yield from self._pause(self._now + 1.0)  # in which packets still come to the source
        self._routed = True
        yield [
            SetRole(source, ABSENT),
            SetRole(target, SERVING),
            Assign(target, False),
            Announce(target),
            Confirm(target, "route"),
        ]


class RouteFirst(Move):
    """The route changes before the entries do, and nothing is held."""

    def _steps(self):
        source, target = self.record.source, self.record.target
        self._begin("route")
        self._routed = True
        yield [SetRole(source, ABSENT), Confirm(source, "absent")]
        yield [
            SetRole(target, SERVING),
            SetHolder(target, True),
            Assign(target, False),
            Announce(target),
            Confirm(target, "route"),
        ]
        yield from self._copy()
        yield [SetHolder(source, False), Forget(source)]


class TargetFirst(Move):
    """The target becomes normal before the source has left off."""

    def _finish(self):
        source, target = self.record.source, self.record.target
        self._begin("normal")
        yield [SetRole(target, SERVING), Confirm(target, "normal-target")]
        yield [SetRole(source, ABSENT), SetHolder(source, False), Forget(source), Assign(target, False)]


class NeverForgets(Move):
    """The source keeps the entries."""

    def _steps(self):
        for actions in super()._steps():
            yield [action for action in actions if not isinstance(action, Forget)]


class NoNewEntries(Move):
    """The target is not given the entries that are made while it is filled."""

    def _steps(self):
        for actions in super()._steps():
            yield [action for action in actions if action != SetHolder(self.record.target, True)]


@NATS
@pytest.mark.parametrize("broken", [TableFirst, RouteFirst, TargetFirst, NeverForgets, NoNewEntries])
@pytest.mark.long
def test_a_broken_move_is_noticed(broken, nat, monkeypatch) -> None:
    monkeypatch.setattr(movement, "Move", broken)
    if broken is TableFirst:  # else who knows the entries puts back what the source has lost
        monkeypatch.setattr(Strays, "put_back", PriorArtStrays.put_back)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(of(Lossless, nat), settings=TWINS)
