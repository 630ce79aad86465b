"""Any interleaving of connections, faults, returns, delays and restarts ends with one live LB that serves each
external IP.

hypothesis chooses the events; the site of faulty_site.py plays them against the control function. The twins at the
end break the product on purpose, and show that these tests would notice.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lbctl.control import ControlFunction
from lbctl.failures.comeback import Comebacks
from lbctl.failures.detection import Detection
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.moves import movement
from lbctl.moves.actions import Fence
from lbctl.moves.takeover import Takeover
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy
from tests.unit.effects import fail_over
from tests.unit.exploring import explore
from tests.unit.fake_site import LB_NAMES
from tests.unit.faulty_site import PORTS, FaultySite, kept_site
from tests.unit.test_move_machine import ANY, FEW, IPS, RARELY

LBS = st.sampled_from(LB_NAMES)
LATE = 2
"""Ticks after which what is under way has arrived, from and to all that are not frozen."""


class Failures(RuleBasedStateMachine):
    """Connections come, talk and go, while LBs, the controller and keepers fail and come back."""

    control_class = ControlFunction
    copies: tuple[str, ...] = ("controller",)
    nat = "destination"
    failover = "when-remote"

    @initialize()
    def prepare(self) -> None:
        self.world = FaultySite(
            kept_site(
                self.copies,
                lbs=3,
                nat=self.nat,
                idle_timeout=600.0,
                time_wait=5.0,
                probe_misses=4,
                failover=self.failover,
                relieve_after=1.0,
                hold_down=0.5,
                grace=0.3,
                barrier_timeout=1.0,
            ),
            self.control_class,
        )
        self.ticks = 0
        self.gone: set[str] = set()
        self.world.rest(step=0.1)
        for place in (0, 1, 0):
            self.world.open(place)
        self.world.drain()

    def one_of(self, conversations, number: int):
        return conversations[number % len(conversations)] if conversations else None

    def live(self, number: int):
        return self.one_of([each for each in self.world.conversations if each.live], number)

    # Clients and servers.

    @rule(place=IPS)
    def open(self, place) -> None:
        self.world.open(place)

    @rule(number=ANY)
    def repeat_syn(self, number) -> None:
        waiting = [each for each in self.world.conversations if not each.ended and not each.forfeited and not each.fins]
        if conversation := self.one_of(waiting, number):
            self.world.from_client(conversation, SYN)

    @rule(number=ANY, inward=st.booleans(), stale=st.booleans())
    def talk(self, number, inward, stale) -> None:
        if conversation := self.live(number):
            (self.world.from_client if inward else self.world.from_server)(conversation, ACK, stale)

    @rule(number=ANY, inward=st.booleans())
    def finish(self, number, inward) -> None:
        conversation = self.live(number)
        if conversation and ("client" if inward else "server") not in conversation.fins:
            (self.world.from_client if inward else self.world.from_server)(conversation, FIN | ACK)

    @rule(number=ANY, inward=st.booleans())
    def reset(self, number, inward) -> None:
        if conversation := self.live(number):
            (self.world.from_client if inward else self.world.from_server)(conversation, RST)

    @rule()
    def neighbours_ask(self) -> None:
        self.world.neighbours_ask()

    # Faults, and their ends.

    @rule(name=LBS, for_good=RARELY)
    def kill(self, name, for_good) -> None:
        if name not in self.world.dead:
            self.world.kill(name)
            if for_good and len(self.gone) < 2:
                self.gone.add(name)

    @rule(name=LBS)
    def revive(self, name) -> None:
        if name not in self.gone:
            self.world.revive(name)

    @rule(name=LBS)
    def lose_control(self, name) -> None:
        self.world.disconnect(name)

    @rule(name=LBS)
    def connect(self, name) -> None:
        if name not in self.world.connected:
            self.world.connect(name)

    @rule(name=LBS, port=st.sampled_from(PORTS), seen=st.booleans())
    def cut_off(self, name, port, seen) -> None:
        self.world.cut_off(name, port, seen)

    @rule(name=LBS, port=st.sampled_from(PORTS))
    def mend(self, name, port) -> None:
        self.world.mend(name, port)

    @rule(name=LBS)
    def freeze(self, name) -> None:
        if name not in self.world.dead:
            self.world.freeze(name)

    @rule(name=LBS)
    def thaw(self, name) -> None:
        self.world.thaw(name)

    @rule(rarely=RARELY)
    def restart_control(self, rarely) -> None:
        if rarely:
            self.world.restart_control()

    @rule(number=ANY, lose=st.booleans())
    def keeper(self, number, lose) -> None:
        if self.world.copies:
            server = sorted(self.world.copies)[number % len(self.world.copies)]
            (self.world.lost_keepers.add if lose else self.world.lost_keepers.discard)(server)

    # Orders.

    @rule(place=IPS, to=LBS, strategy=st.sampled_from(Strategy), from_copies=st.booleans())
    def move(self, place, to, strategy, from_copies) -> None:
        world = self.world
        try:
            _, out = world.control.movement.start(
                world.site.external_ips[place].address, to, strategy, world.now, from_copies
            )
        except Refused:
            return
        world.post(out)

    @rule(name=LBS)
    def order(self, name) -> None:
        try:
            _, out = fail_over(self.world.control, name, self.world.now)
        except Refused:
            return
        self.world.post(out)

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

    @rule(outcome=st.sampled_from(["answered", "answered", "unheard", "unasked"]))
    def call(self, outcome) -> None:
        self.world.call(outcome)

    @rule(times=st.integers(1, 4))
    def round(self, times) -> None:
        for _ in range(times):
            self.world.round()
            self.check()

    @rule(part=st.integers(1, 10))
    def tick(self, part) -> None:
        """Time passes; what is older than LATE ticks has arrived before."""
        self.ticks += 1
        if self.ticks % LATE == 0:
            self.world.drain()
        self.world.tick(0.01 * part)

    @rule(ticks=st.integers(2, 30), seconds=st.sampled_from([0.05, 0.05, 0.2]))
    def go_on(self, ticks, seconds) -> None:
        for _ in range(ticks):
            self.world.tick(seconds)
            self.world.drain()
            self.check()

    # What must be so.

    @invariant()
    def check(self) -> None:
        if hasattr(self, "world"):
            self.world.check_now()
            self.world.check_one_answers()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.heal()
            self.check_end()

    def heal(self) -> None:
        """All comes back but what is gone for good."""
        world = self.world
        for name in LB_NAMES:
            world.thaw(name)
            for port in PORTS:
                world.mend(name, port)
            if name not in self.gone:
                world.revive(name)
        world.lost_keepers.clear()
        world.rest()
        world.tell_hops()

    def check_end(self) -> None:
        world = self.world
        world.check_now()
        world.check_one_answers()
        world.check_settled()
        assert not world.excused
        for move in [*world.moves, *world.control.movement.records().values()]:
            held = move
            assert not move.ended or held.packets_held == held.packets_released + held.packets_lost, held
        for conversation in world.conversations:
            serving = world.serving(conversation.external.address)
            if (
                conversation.forfeited
                and not conversation.ended
                and serving.table.by_key(world.key(conversation)) is None
            ):
                world.from_client(conversation)
                world.drain()
                assert conversation.number in world.resets, (
                    f"connection {conversation.number} is lost, and its client is not told"
                )
        world.check_now()


def of(**options) -> type[Failures]:
    return type("Failures", (Failures,), options)


WAYS = [(("controller",), "destination", "copy-first"), (("controller", "sockets"), "destination", "when-remote"),
        (("sockets", "keeper"), "destination", "transition"), (("keeper",), "full", "copy-first"),
        (("keeper", "controller"), "full", "transition")]
FEWER = settings().max_examples // 3 or 1


@pytest.mark.parametrize(("copies", "nat", "failover"), WAYS)
def test_faults_end_with_one_live_lb_that_serves(copies, nat, failover) -> None:
    explore(of(copies=copies, nat=nat, failover=failover), max_examples=FEWER, stateful_step_count=30)


class NoFence(Takeover):
    """Nobody makes sure that the old LB answers no more."""

    def _steps(self):
        for actions in super()._steps():
            kept = [action for action in actions if not isinstance(action, Fence)]
            if kept:
                yield kept


class NoWithdraw(Takeover):
    """The old LB is told nothing before another one has the external IP."""

    def _steps(self):
        for actions in super()._steps():
            kept = [action for action in actions if getattr(action, "lb", "") != self.record.source]
            if kept:
                yield kept


class NoFetch(Takeover):
    """The new LB serves before it has the entries."""

    def _copy(self):
        return iter(())


def loses_control(world: FaultySite) -> None:
    world.disconnect("lb-a")


def port_goes_down(world: FaultySite) -> None:
    world.cut_off("lb-a", PORTS[1], seen=True)


def is_killed(world: FaultySite) -> None:
    world.kill("lb-a")


def play(fault) -> None:
    """One interleaving, and the end of any other."""
    machine = of()()
    machine.prepare()
    fault(machine.world)
    machine.go_on(40, 0.05)
    machine.teardown()


@pytest.mark.parametrize("fault", [loses_control, port_goes_down, is_killed])
@pytest.mark.parametrize("failover", ["copy-first", "transition"])
def test_the_faults_of_the_twins(fault, failover, monkeypatch) -> None:
    monkeypatch.setattr(Failures, "failover", failover)
    play(fault)


@pytest.mark.parametrize(
    ("broken", "fault"), [(NoFence, loses_control), (NoWithdraw, port_goes_down), (NoFetch, is_killed)]
)
def test_a_broken_takeover_is_noticed(broken, fault, monkeypatch) -> None:
    monkeypatch.setattr(movement, "Takeover", broken)
    with pytest.raises(AssertionError):
        play(fault)


def test_a_fence_that_is_not_waited_for_is_noticed(monkeypatch) -> None:
    monkeypatch.setattr(Detection, "fenced", lambda self, name: True)
    with pytest.raises(AssertionError):
        play(loses_control)


def both_restart(copies: tuple[str, ...]) -> Failures:
    """LB and control function, so soon that nobody takes the LB for failed."""
    machine = of(copies=copies)()
    machine.prepare()
    machine.go_on(40, 0.1)
    machine.world.kill("lb-a")
    machine.world.restart_control()
    machine.world.revive("lb-a")
    machine.world.connect("lb-a")
    machine.go_on(40, 0.05)
    return machine


@pytest.mark.parametrize("copies", [("sockets",), ("controller", "keeper")], ids="-".join)
def test_an_lb_that_restarts_with_the_controller_gets_its_entries_back(copies) -> None:
    machine = both_restart(copies)
    assert "restoration" in {move.kind for move in machine.world.control.movement.records().values()}
    machine.teardown()
    assert not any(conversation.forfeited for conversation in machine.world.conversations)


def test_without_restoration_they_are_lost(monkeypatch) -> None:
    monkeypatch.setattr(Comebacks, "_came_back_empty", lambda *_: [])
    with pytest.raises(AssertionError):
        both_restart(("sockets",)).teardown()
