"""Who is asked for a MAC, and how many at once."""

from __future__ import annotations

import itertools

from lbctl.networks.neighbourhood import ASKED_AT_ONCE, LOOKED_AT_ONCE, Walk
from lbctl.openflow.messages import PacketOut
from tests.unit.fake_site import FakeSite, site


def question(number: int) -> tuple[str, PacketOut]:
    return f"lb-{number}", PacketOut(b"", 0, 1)


def test_a_walk_goes_on_where_it_stopped_and_begins_anew_when_it_is_due() -> None:
    walk = Walk(lambda: map(question, range(120)))
    steps = [walk.step(now, 10.0) for now in range(12)]
    assert [len(step) for step in steps] == [ASKED_AT_ONCE, ASKED_AT_ONCE, 20, *[0] * 7, ASKED_AT_ONCE, ASKED_AT_ONCE]
    assert [name for name, _ in itertools.chain(*steps[:3])] == [f"lb-{number}" for number in range(120)]


def test_a_walk_that_takes_longer_than_its_interval_is_finished_first() -> None:
    walk = Walk(lambda: map(question, range(200)))
    names = [name for now in range(4) for name, _ in walk.step(float(now), 1.0)]
    assert len(set(names)) == 200


def test_a_walk_does_not_look_at_everyone_at_once() -> None:
    walk = Walk(
        lambda: (question(number) if number == 2 * LOOKED_AT_ONCE else None for number in range(2 * LOOKED_AT_ONCE + 1))
    )
    assert [len(walk.step(float(now), 1.0)) for now in range(3)] == [0, 0, 1]


def test_each_lb_asks_for_every_server() -> None:
    """Also for those of external IPs that it does not have: it may get them."""
    world = FakeSite(site())
    world.settle(1.0)
    hops = world.control.ground.external_ips.hops()
    assert all(switch.neighbours.keys() == hops.keys() for switch in world.control.ground.switches.values())
    asked = {(lb, message.frame[38:42]) for _ in range(300) for lb, message in world.control.neighbourhood.tick(
        world.now + 1000, eager=False) if isinstance(message, PacketOut)}
    assert asked >= {(lb, hop.packed) for lb in world.control.ground.switches for hop in hops}, (
        "known ones are asked for again"
    )
