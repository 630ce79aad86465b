"""The controller is cut off, and not the LBs: nothing moves that need not (docs/failover.md, "Was it me?")."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from lbctl.failures.outage import PATIENCE
from tests.unit.fake_site import LB_NAMES
from tests.unit.faulty_site import FaultySite, kept_site

OPTIONS = {"lbs": 3, "ips": 3, "relieve_after": 1.0, "hold_down": 2.0, "grace": 0.3, "barrier_timeout": 1.0}
FIRST, *OTHERS = LB_NAMES


@pytest.fixture
def world() -> FaultySite:
    """All LBs are watched; lb-a has all external IPs, and connections of each."""
    world = FaultySite(kept_site(**OPTIONS))
    world.rest(step=0.1)
    for place in range(3):
        world.open(place)
    world.drain()
    return world


def go_on(world: FaultySite, seconds: float, unreachable: Collection[str] = ()) -> None:
    """Time passes, while nothing goes to or comes from those LBs: as in a black hole."""
    for number in range(round(seconds / 0.05)):
        world.tick(0.05)
        reachable = [name for name in LB_NAMES if name not in unreachable]
        while any([*(world.deliver(name) for name in reachable), *(world.hear(name) for name in reachable),
                   world.save()]):
            pass
        if number % 10 == 0:
            world.check_now()
            world.check_one_answers()


def lose(world: FaultySite, *names: str) -> None:
    for name in names:
        world.disconnect(name)


def moved(world: FaultySite) -> list[str]:
    """Why external IPs have been moved."""
    return [move.cause or move.kind for move in world.control.movement.records().values()]


def told(world: FaultySite) -> list[str]:
    return [event for event, _ in world.told if "cut off" in event or "reaches" in event]


@pytest.mark.parametrize("seconds", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("first", LB_NAMES)
def test_a_black_hole_that_ends_for_one_after_the_other(world, seconds, first) -> None:
    second, third = (name for name in LB_NAMES if name != first)
    go_on(world, seconds, LB_NAMES)
    go_on(world, 2.0, (second, third))
    go_on(world, 2.0, (third,))
    go_on(world, 2.0)
    assert moved(world) == []


@pytest.mark.parametrize("seconds", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("black_hole", [0.0, 4.0])
@pytest.mark.parametrize("first", LB_NAMES)
def test_all_connections_are_lost_and_come_back_one_after_the_other(world, seconds, black_hole, first) -> None:
    second, third = (name for name in LB_NAMES if name != first)
    go_on(world, black_hole, LB_NAMES)
    lose(world, *LB_NAMES)
    go_on(world, seconds)
    assert told(world) == ["the controller is cut off from most load balancers"]
    world.connect(first)
    go_on(world, 7.0)
    world.connect(second)
    go_on(world, 7.0)
    world.connect(third)
    go_on(world, 3.0)
    assert moved(world) == [] and told(world)[1:] == ["the controller reaches most load balancers again"]


@pytest.mark.parametrize("back", [(1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("black_hole", [0.0, 4.0])
def test_one_that_dies_meanwhile_is_taken_over(world, back, black_hole) -> None:
    go_on(world, black_hole, LB_NAMES)
    lose(world, *LB_NAMES)
    go_on(world, 2.0)
    world.kill(FIRST)
    go_on(world, 2.0)
    for seconds, name in sorted(zip(back, OTHERS, strict=True)):
        go_on(world, seconds)
        world.connect(name)
    go_on(world, 1.0)
    assert len(moved(world)) == 3 and FIRST not in {serving.assigned for serving in world.control.ground.external_ips}


def test_one_that_does_not_come_back_is_relieved_later(world) -> None:
    lose(world, *LB_NAMES)
    go_on(world, 5.0)
    world.connect("lb-b")
    world.connect("lb-c")
    go_on(world, PATIENCE - 0.5)
    assert moved(world) == []
    go_on(world, 1.0)
    assert len(moved(world)) == 3 and all("no OpenFlow connection" in cause for cause in moved(world))


def test_most_of_them_are_waited_for(world) -> None:
    """The third one stays connected, and could take all over."""
    lose(world, "lb-a", "lb-b")
    go_on(world, PATIENCE - 0.5)
    assert moved(world) == [] and told(world) == ["the controller is cut off from most load balancers"]
    go_on(world, 1.0)
    assert len(moved(world)) == 3


def test_one_of_them_is_not_the_controllers_trouble(world) -> None:
    lose(world, "lb-a")
    go_on(world, 2.0)
    assert len(moved(world)) == 3 and told(world) == []
