"""Tokens: each is nobody else's, knows whom to tell, and is told once."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest

from lbctl.ground.tokens import Confirmation, FlowsAnswer, PortsAnswer, RowsAnswer, Tokens
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy
from tests.unit.faulty_site import PORTS, FaultySite, kept_site


class Asker:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def confirmed(self, now):
        self.told.append(("confirmed", now))
        return ["more"]

    def part(self, body, more, now):
        self.told.append((body, more, now))
        return []

    def ports(self, received):
        self.told.append(("ports", received))

    def rows(self, rows, now):
        self.told.append(("rows", rows, now))
        return []

    def failed(self, reason, now):
        self.told.append(("failed", reason, now))
        return ["undo"]


@pytest.mark.long
def test_they_start_again_after_24_bits_and_leave_out_those_that_are_out() -> None:
    tokens, asker = Tokens(), Asker()
    first = tokens.new(Confirmation("lb-a", asker.confirmed))
    for _ in range(0xFFFFFF - 1):
        tokens.cancel(tokens.new(Confirmation(None, asker.confirmed)))
    assert (first, tokens.new(Confirmation("lb-a", asker.confirmed))) == (1, 2)


def test_each_answer_reaches_who_has_asked_and_no_other_kind_of_answer_does() -> None:
    tokens, asker = Tokens(), Asker()
    confirmation = tokens.new(Confirmation("lb-a", asker.confirmed))
    flows = tokens.new(FlowsAnswer("lb-a", asker.part))
    ports = tokens.new(PortsAnswer("lb-a", asker.ports))
    rows = tokens.new(RowsAnswer(asker.rows))
    assert (
        tokens.confirmed(flows, 1.0)
        == tokens.flows_read(rows, b"", False, 1.0)
        == tokens.rows_fetched(ports, [], 1.0)
        == []
    )
    tokens.ports_read(confirmation, {})
    assert asker.told == []
    assert tokens.confirmed(confirmation, 1.0) == ["more"]
    tokens.flows_read(flows, b"a", True, 2.0)
    tokens.flows_read(flows, b"b", False, 3.0)
    tokens.ports_read(ports, {1: 5})
    tokens.rows_fetched(rows, None, 4.0)
    told = [("confirmed", 1.0), (b"a", True, 2.0), (b"b", False, 3.0), ("ports", {1: 5}), ("rows", None, 4.0)]
    assert asker.told == told and len(tokens) == 0
    tokens.confirmed(confirmation, 5.0)
    tokens.flows_read(flows, b"c", False, 5.0)
    assert asker.told == told


def test_a_failure_is_told_to_who_minds() -> None:
    tokens, asker = Tokens(), Asker()
    minds = tokens.new(Confirmation("lb-a", asker.confirmed, asker.failed))
    does_not = tokens.new(FlowsAnswer("lb-a", asker.part))
    assert tokens.failed(minds, "table full", 1.0) == ["undo"]
    assert tokens.failed(does_not, "table full", 1.0) == tokens.failed(minds, "again", 1.0) == []
    assert asker.told == [("failed", "table full", 1.0)] and len(tokens) == 0


def test_what_a_lost_lb_was_asked_is_forgotten() -> None:
    tokens, asker = Tokens(), Asker()
    lost = [tokens.new(Confirmation("lb-a", asker.confirmed)), tokens.new(FlowsAnswer("lb-a", asker.part))]
    others = [tokens.new(Confirmation("lb-b", asker.confirmed)), tokens.new(Confirmation(None, asker.confirmed))]
    tokens.lost("lb-a")
    for token in lost + others:
        tokens.confirmed(token, 1.0)
    assert asker.told == [("confirmed", 1.0)] * 2


def test_none_is_out_after_a_thousand_faults() -> None:
    """Every wait ends: with an answer, with the connection, or because nobody wants to know any more."""
    for seed in range(5):
        world, chance = FaultySite(kept_site(("keeper", "controller"), lbs=3, ips=2)), random.Random(seed)
        world.rest()
        for _ in range(200):
            _fault(world, chance)
            world.tick(chance.choice((0.05, 0.2, 1.0)))
            for name in world.switches:
                world.hear(name, chance.randrange(20))
                world.deliver(name, chance.randrange(20))
            world.save(chance.randrange(2))
            world.call(chance.choice(("answered", "unheard", "unasked")))
        _heal(world)
        for _ in range(100):
            world.tick(1.0)
            world.drain()
        assert len(world.control.ground.tokens) == 0, (seed, world.control.ground.tokens._out)


def _fault(world: FaultySite, chance: random.Random) -> None:
    name, port = chance.choice(list(world.switches)), chance.choice(PORTS)
    match chance.randrange(9):
        case 0:
            world.kill(name)
        case 1:
            world.revive(name)
            if name not in world.connected:
                world.connect(name)
        case 2:
            world.freeze(name)
        case 3:
            world.thaw(name)
        case 4:
            world.cut_off(name, port, chance.random() < 0.5)
        case 5:
            world.mend(name, port)
        case 6:
            world.disconnect(name)
        case 7:
            world.lost_keepers = {server for server in world.copies if chance.random() < 0.3}
        case 8:
            world.open(chance.randrange(2))
            try:
                address = IPv4Address(f"198.51.100.{chance.randrange(2) + 1}")
                world.post(world.control.movement.start(address, name, Strategy.PRECOPY, world.now)[1])
            except Refused:
                pass


def _heal(world: FaultySite) -> None:
    world.lost_keepers.clear()
    for name in world.switches:
        world.revive(name)
        world.thaw(name)
        for port in PORTS:
            world.mend(name, port)
        if name not in world.connected:
            world.connect(name)
