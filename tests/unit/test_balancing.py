"""Plans are carried out a few moves at a time, and stopped for cause; by itself nothing flaps."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbctl.assignment import Plan, PlannedMove, Unassignable, assign
from lbctl.ground.effects import Solve
from lbctl.load.loads import PERIODS, Load
from lbctl.site.model import PACKETS_PER_CONNECTION, Rebalance
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy
from tests.unit.effects import fail_over, use_file
from tests.unit.fake_site import FakeSite, site

IPS = tuple(IPv4Address(f"198.51.100.{number}") for number in range(1, 5))

SHARE = 1 - math.exp(-1 / PERIODS)
"""Of a new value in the smoothed one."""


class World(FakeSite):
    """Four external IPs at lb-a, of three LBs; `loads`: packets/s of each."""

    def __init__(self, **rebalance) -> None:
        super().__init__(replace(site(ips=4, lbs=3, grace=0.5, load_period=2.0), rebalance=Rebalance(**rebalance)))
        self.loads = dict.fromkeys(IPS, 100.0)
        self.settle(2.0)
        self.control.loads.of = lambda serving: Load(self.loads[serving.address])
        self.plans = 0

    def post(self, out) -> None:
        """Plans are found at once."""
        super().post([effect for effect in out if not isinstance(effect, Solve)])
        for message in [effect for effect in out if isinstance(effect, Solve)]:
            self.plans += 1
            plan = assign(message.problem(lambda: None), message.algorithm)
            super().post(self.control.balancing.solved(plan, self.now))

    def run(self, seconds: float, step: float = 0.5) -> None:
        end = self.now + seconds
        while self.now < end:
            self.tick(step)
            self.drain()

    @property
    def shares(self) -> dict[str, float]:
        control = self.control
        return {
            name: sum(self.loads[ip] for ip in IPS if self.serving(ip).assigned == name)
            for name in control.ground.switches
        }

    @property
    def made(self) -> int:
        return len(self.control.movement.records())


def begin(world: World):
    run, out = world.control.balancing.begin(assign(world.control.balancing.problem()), world.now)
    world.post(out)
    return run


def test_a_plan_is_carried_out_so_many_moves_at_a_time() -> None:
    world = World(at_once=1)
    run = begin(world)
    assert len(run.plan.moves) == 2 and world.made == 1
    with pytest.raises(Refused):
        world.control.balancing.begin(run.plan, world.now)
    world.run(10)
    assert (run.state, world.made) == ("done", 2)
    assert max(world.shares.values()) == 200
    world.check_settled()


def test_it_stops_when_a_move_fails() -> None:
    world = World(at_once=1)
    run = begin(world)
    world.post(world.control.movement.abort(run.moves[0], world.now))
    world.run(5)
    assert run.state == "stopped" and "on request" in run.reason
    assert world.made == 1


def test_it_stops_when_the_load_has_changed() -> None:
    world = World(at_once=1)
    run = begin(world)
    world.loads[run.plan.moves[1].address] = 1000.0
    world.loads[run.plan.moves[0].address] = 1000.0
    for ip in IPS:
        if ip not in {move.address for move in run.plan.moves}:
            world.loads[ip] = 0.0
    run.waiting[0] = replace(run.waiting[0], target=run.plan.moves[0].target)
    world.run(10)
    assert run.state == "stopped" and "the load has changed" in run.reason


def test_what_has_moved_meanwhile_is_not_moved_again() -> None:
    world = World(at_once=1)
    run = begin(world)
    address = run.plan.moves[1].address
    _, out = world.control.movement.start(
        address, "lb-c" if run.plan.moves[1].target == "lb-b" else "lb-b", Strategy.PRECOPY, world.now
    )
    world.post(out)
    world.run(10)
    assert run.state == "stopped" and "is not at lb-a any more" in run.reason


def test_it_stops_when_a_target_has_gone_from_the_site_file() -> None:
    world = World(at_once=1)
    run = begin(world)
    gone = next(name for name in world.switches if name not in ("lb-a", run.plan.moves[0].target))
    run.waiting[0] = replace(run.waiting[0], target=gone)
    world.disconnect(gone)
    world.post(use_file(world.control, replace(world.site, load_balancers=tuple(
        lb for lb in world.site.load_balancers if lb.name != gone)), world.now))
    for _ in range(20):
        world.tick(0.5)
        world.drain()
    assert run.state == "stopped" and f"{gone} can't take" in run.reason


def test_a_plan_that_was_computed_before_an_lb_was_drained_does_not_use_it() -> None:
    world = World(mode="automatic")
    plan = assign(world.control.balancing.problem())
    for name in ("lb-b", "lb-c"):
        world.post(world.control.balancing.set_drained(name, True))
    world.post(world.control.balancing.solved(plan, world.now))
    assert world.made == 0 and "been drained" in world.control.balancing.last.reason


def test_draining_empties_an_lb_and_is_kept() -> None:
    world = World()
    world.post(world.control.balancing.set_drained("lb-a", True))
    run = begin(world)
    world.run(20)
    assert run.state == "done" and world.shares["lb-a"] == 0
    assert world.stored.drained == {"lb-a"}
    world.restart_control()
    assert world.control.balancing.is_drained("lb-a")
    world.post(world.control.balancing.set_drained("lb-a", False))
    assert not world.control.balancing.is_drained("lb-a")
    with pytest.raises(Refused):
        world.control.balancing.set_drained("lb-x", True)


def test_a_drained_lb_takes_nothing_over_unless_it_is_the_last() -> None:
    world = World()
    world.post(world.control.balancing.set_drained("lb-b", True))
    world.disconnect("lb-a", lose_tables=True)
    moves, out = fail_over(world.control, "lb-a", world.now)
    assert {move.target for move in moves} == {"lb-c"}
    world.post(out)


def test_what_is_failed_or_not_connected_has_no_capacity() -> None:
    world = World()
    world.disconnect("lb-c")
    assert {lb.name: lb.drained for lb in world.control.balancing.problem().capacities} == {
        "lb-a": False,
        "lb-b": False,
        "lb-c": True,
    }


@pytest.mark.long
def test_by_itself_once_and_then_never_again() -> None:
    world = World(mode="automatic", threshold=0.2, cooldown=10.0)
    world.run(30)
    assert world.made == 2 and max(world.shares.values()) == 200
    world.run(3600, step=2.0)
    assert world.made == 2, "under the same load nothing moves, though no assignment is quite even"


@pytest.mark.long
def test_under_noise_it_does_not_flap() -> None:
    """Two hours of loads that change by up to a fifth every two seconds, smoothed as measured ones are."""
    world, noise = World(mode="automatic", threshold=0.5, cooldown=10.0), random.Random(1)
    world.run(30)
    settled = world.made
    for _ in range(3600):
        world.loads = {ip: load + SHARE * (100.0 * noise.uniform(0.8, 1.2) - load) for ip, load in world.loads.items()}
        world.run(2.0, step=2.0)
    assert world.made == settled


def test_after_a_step_of_load_it_settles_in_one_round() -> None:
    world = World(mode="automatic", threshold=0.2, cooldown=10.0)
    world.run(60)
    before = world.plans
    fullest = max(world.shares, key=world.shares.get)
    together = [ip for ip in IPS if world.serving(ip).assigned == fullest]
    world.loads.update(dict.fromkeys(together, 300.0))
    world.run(60)
    assert world.plans == before + 1
    assert max(world.shares.values()) == 300
    made = world.made
    world.run(600, step=2.0)
    assert world.made == made


def test_a_problem_without_solution_changes_nothing() -> None:
    world = World(mode="automatic")
    world.post(world.control.balancing.solved(Unassignable("no load balancer is left"), world.now))
    assert world.made == 0 and world.control.balancing.last is None


def test_a_plan_that_gains_little_is_not_worth_its_moves() -> None:
    world = World(mode="automatic", threshold=0.2)
    plan = Plan(
        {}, (PlannedMove(IPS[0], "lb-a", "lb-b", 0, 95.0),), {"lb-a": 100.0}, {"lb-a": 95.0}, 0.0, True, "exact"
    )
    world.post(world.control.balancing.solved(plan, world.now))
    assert world.made == 0


def test_new_connections_weigh_more_than_packets() -> None:
    world = World()
    world.control.loads.of = lambda serving: Load(10.0, 1e9, 2.0)
    assert world.control.loads.weight(world.serving(IPS[0])) == 10 + 2 * PACKETS_PER_CONNECTION
