"""What makes an LB failed, and what does not: each rule of lbctl/failures/detection.py and relief.py, in the site of
faulty_site.py."""

from __future__ import annotations

import itertools
from dataclasses import replace
from ipaddress import IPv4Address
from types import SimpleNamespace

import pytest

from lbctl.failures.detection import Detection
from lbctl.failures.probing import NETWORKS
from lbctl.frames import packets
from lbctl.openflow.messages import Barrier, PacketOut, ReadPorts
from lbctl.openflow.ports import Port, Ports
from lbctl.openflow.probe_rules import FENCE_SECONDS, LEARNED_COOKIE, Watched
from lbctl.store import FileStore, State, StoreError, new_fence_code
from lbctl.switches.switch import PortState
from lbctl.values.refused import Refused
from tests.unit.effects import fail_over, use_file
from tests.unit.fake_ground import fake_ground
from tests.unit.fake_site import EXTERNAL, INTERNAL, LB_NAMES, ROUTER_MAC
from tests.unit.faulty_site import FaultySite, kept_site

OPTIONS = {"lbs": 3, "ips": 3, "relieve_after": 1.0, "hold_down": 2.0, "grace": 0.3, "barrier_timeout": 1.0}


@pytest.fixture
def world() -> FaultySite:
    """All LBs are watched; lb-a has all external IPs."""
    world = FaultySite(kept_site(**OPTIONS))
    world.rest(step=0.1)
    assert {health(world, name) for name in LB_NAMES} == {"well"}
    return world


def health(world: FaultySite, name: str) -> str:
    return world.control.detection.state(name)[0]


def go_on(world: FaultySite, ticks: int, seconds: float = 0.05) -> None:
    for _ in range(ticks):
        world.tick(seconds)
        world.drain()
        world.check_now()
        world.check_one_answers()


def ticks_until(world: FaultySite, name: str, state: str = "failed", most: int = 100) -> int:
    for ticks in range(most):
        if health(world, name) == state:
            return ticks
        go_on(world, 1)
    raise AssertionError(f"{name} is {world.control.detection.state(name)} after {most} ticks")


def cause(world: FaultySite, name: str) -> str:
    return world.control.detection.state(name)[1]


def places(world: FaultySite) -> list[str]:
    return [serving.assigned for serving in world.control.ground.external_ips]


def test_a_killed_lb_is_relieved_at_once(world) -> None:
    for place in (0, 1, 2):
        world.open(place)
    world.drain()
    world.kill("lb-a")
    assert ticks_until(world, "lb-a") <= 5
    assert "answers no probe" in cause(world, "lb-a")
    world.rest()
    assert sorted(places(world)) == ["lb-b", "lb-b", "lb-c"], "spread"
    world.check_settled()
    assert all(conversation.live for conversation in world.conversations)


@pytest.mark.parametrize("port", [EXTERNAL, INTERNAL])
def test_a_port_that_is_down(world, port) -> None:
    world.cut_off("lb-a", port, seen=True)
    assert ticks_until(world, "lb-a") <= 2
    assert "is down" in cause(world, "lb-a")
    world.rest()
    assert "lb-a" not in places(world)


@pytest.mark.parametrize("port", [EXTERNAL, INTERNAL])
def test_a_cut_that_nobody_sees_needs_evidence(world, port) -> None:
    world.cut_off("lb-a", port, seen=False)
    ticks_until(world, "lb-a")
    assert "no frame reaches" in cause(world, "lb-a")
    assert [health(world, name) for name in ("lb-b", "lb-c")] == ["well", "well"], (
        "who misses it is not taken for cut off"
    )


def test_without_its_connection_it_is_relieved_later(world) -> None:
    conversation = world.open(0)
    world.drain()
    world.disconnect("lb-a")
    go_on(world, 10)
    assert health(world, "lb-a") == "unmanaged"
    assert set(places(world)) == {"lb-a"}
    world.from_client(conversation)
    assert world.data[-1].arrivals == 1, "it goes on forwarding"
    assert ticks_until(world, "lb-a") >= 5
    go_on(world, 3)
    assert "lb-a" not in places(world)


def test_it_stays_fenced_and_failed_until_it_has_been_read(world) -> None:
    world.disconnect("lb-a")
    ticks_until(world, "lb-a")
    go_on(world, 3)
    fence = [item for item in world.switches["lb-a"].flows() if item.flow.cookie == LEARNED_COOKIE]
    assert len(fence) == 2
    go_on(world, 40, 1.0)
    assert health(world, "lb-a") == "failed"
    world.connect("lb-a")
    world.tick(0.05)
    assert health(world, "lb-a") == "failed", "it is being read"
    world.rest()
    assert health(world, "lb-a") == "well"
    assert not [item for item in world.switches["lb-a"].flows() if item.flow.cookie == LEARNED_COOKIE]


def test_a_fence_that_comes_late_is_taken_back(world) -> None:
    """It had waited in the queue of an LB that was frozen."""
    world.freeze("lb-b")
    world.disconnect("lb-a")
    go_on(world, 40)
    world.connect("lb-a")
    while not world.control.ground.switches["lb-a"].ready:
        world.hear("lb-a")
        if not world.control.ground.switches["lb-a"].ready:
            world.deliver("lb-a")
    world.thaw("lb-b")
    assert any(isinstance(message, PacketOut) for message in world.to_switch["lb-b"])
    world.deliver("lb-b")
    assert any(item.flow.cookie == LEARNED_COOKIE for item in world.switches["lb-a"].flows()), (
        "else this test shows nothing"
    )
    go_on(world, 4)
    assert not any(item.flow.cookie == LEARNED_COOKIE for item in world.switches["lb-a"].flows())


def test_who_was_never_heard_is_not_relieved() -> None:
    world = FaultySite(kept_site(**OPTIONS))
    for port in (EXTERNAL, INTERNAL):
        world.cut_off("lb-a", port, seen=False)
    for name in LB_NAMES:
        world.connect(name)
    go_on(world, 20)
    assert health(world, "lb-a") == "unwatched"
    world.kill("lb-a")
    go_on(world, 60)
    assert set(places(world)) == {"lb-a"}


def test_a_frozen_lb_is_failed_after_more_rounds(world) -> None:
    world.freeze("lb-a")
    assert 10 <= ticks_until(world, "lb-a") <= 20
    assert "neither probes nor OpenFlow" in cause(world, "lb-a")
    world.thaw("lb-a")
    world.rest()
    assert health(world, "lb-a") == "well"
    world.check_settled()


def test_a_busy_controller_takes_nobody_for_dead(world) -> None:
    for _ in range(20):
        go_on(world, 1, seconds=2.0)
    assert {health(world, name) for name in LB_NAMES} == {"well"}
    assert not world.control.movement.records()


def test_hold_down_doubles(world) -> None:
    downs = []
    for _ in range(3):
        world.cut_off("lb-c", EXTERNAL, seen=True)
        ticks_until(world, "lb-c")
        world.mend("lb-c", EXTERNAL)
        ticks_until(world, "lb-c", "well")
        start = world.now
        while world.control.detection.held_down("lb-c", world.now):
            world.tick(0.05)
            world.drain()
        downs.append(world.now - start)
    assert downs == pytest.approx([2.0, 4.0, 8.0], abs=0.2)


def test_switched_off_nothing_is_sent_and_nobody_fails() -> None:
    world = FaultySite(kept_site(**OPTIONS, automatic_failover=False))
    world.rest()
    world.kill("lb-a")
    go_on(world, 20)
    assert set(places(world)) == {"lb-a"}
    assert health(world, "lb-b") == "unwatched"


# Relief.


def test_one_that_has_failed_lately_comes_last(world) -> None:
    world.cut_off("lb-b", EXTERNAL, seen=True)
    ticks_until(world, "lb-b")
    world.mend("lb-b", EXTERNAL)
    ticks_until(world, "lb-b", "well")
    world.kill("lb-a")
    world.rest()
    assert set(places(world)) == {"lb-c"}


def test_nobody_is_left_then_somebody_comes(world) -> None:
    world.kill("lb-b")
    world.kill("lb-c")
    world.kill("lb-a")
    go_on(world, 20)
    assert [event for event, _ in world.told].count("no load balancer can take over") <= 1, "it is told once"
    world.revive("lb-b")
    world.rest()
    assert set(places(world)) == {"lb-b"}


def test_retries_are_rarer_each_time(world) -> None:
    """The only other LB never confirms, and is not silent."""
    switch = world.switches["lb-b"]
    apply = switch.apply
    switch.apply = lambda message, now: ([], []) if isinstance(message, Barrier) else apply(message, now)
    world.kill("lb-c")
    ticks_until(world, "lb-c")
    world.kill("lb-a")
    for _ in range(200):
        world.tick(0.05)
        world.drain()
    first = world.site.external_ips[0].address
    starts = [move.started for move in world.control.movement.records().values() if move.external_ip == first]
    gaps = [after - before for before, after in zip(starts, starts[1:], strict=False)]
    assert len(gaps) >= 2 and gaps == sorted(gaps)


def test_an_order_returns_what_is_running_already(world) -> None:
    moves, out = fail_over(world.control, "lb-a", world.now)
    world.post(out)
    assert len(moves) == 3
    again, out = fail_over(world.control, "lb-a", world.now)
    assert again == moves and not out
    world.rest()
    assert "lb-a" not in places(world)
    with pytest.raises(Refused):
        fail_over(world.control, "lb-x", world.now)


def test_an_order_for_one_that_is_not_connected(world) -> None:
    """It is fenced though nobody has taken it for failed yet, and stays so."""
    world.disconnect("lb-a")
    _, out = fail_over(world.control, "lb-a", world.now)
    world.post(out)
    go_on(world, 8)
    assert "lb-a" not in places(world)
    assert health(world, "lb-a") == "failed"


def test_connection_lost_before_it_has_confirmed_is_fenced_first(world) -> None:
    world.cut_off("lb-a", INTERNAL, seen=True)
    world.hear("lb-a")
    world.tick(0.05)
    assert [move.step for move in world.control.movement.records().values()] == ["withdraw"] * 3
    world.disconnect("lb-a")
    go_on(world, 30)
    assert "lb-a" not in places(world)


def test_a_site_file_may_not_drop_an_lb_of_a_running_failover(world) -> None:
    world.disconnect("lb-a")
    while not world.control.movement.records():
        world.tick(0.05)
        world.drain()
    balancers = tuple(lb for lb in world.site.load_balancers if lb.name != "lb-a")
    ips = tuple(replace(ip, load_balancer="lb-b") for ip in world.site.external_ips)
    with pytest.raises(Refused, match="lb-a still has"):
        use_file(world.control, replace(world.site, load_balancers=balancers, external_ips=ips), world.now)


def test_one_that_the_site_has_no_more_is_forgotten(world) -> None:
    world.kill("lb-c")
    ticks_until(world, "lb-c")
    use_file(world.control, replace(world.site, load_balancers=world.site.load_balancers[:2]), world.now)
    world.tick(0.05)
    assert "lb-c" not in world.control.detection.health and "lb-c" not in world.control.detection.watched
    assert not world.control.detection.doubtful


def test_a_witness_that_the_site_has_no_more_is_forgotten(world) -> None:
    world.cut_off("lb-a", EXTERNAL, seen=False)
    ticks_until(world, "lb-a", "silent")
    go_on(world, 2)
    use_file(world.control, replace(world.site, load_balancers=world.site.load_balancers[:2]), world.now)
    for _ in range(20):
        world.tick(0.05)
    assert health(world, "lb-a") in ("failed", "silent")


def test_a_damaged_fence_code(tmp_path) -> None:
    store = FileStore(tmp_path / "state.json")
    code = new_fence_code()
    store.save(State(fence_code=code, fences={"lb-a": 3}, watched=frozenset({"lb-a"})))
    assert store.load() == State(fence_code=code, fences={"lb-a": 3}, watched=frozenset({"lb-a"}))
    for damaged in ("nonsense", "00", "1.2.3"):
        store.save(State(fence_code=damaged))
        with pytest.raises(StoreError, match="can't be read"):
            store.load()


def test_the_fence_code_of_an_earlier_release_is_replaced(tmp_path) -> None:
    """It was short enough to be found out from a fence."""
    store = FileStore(tmp_path / "state.json")
    store.save(State(fence_code="1.2.3.4", watched=frozenset({"lb-a"})))
    assert store.load() == State(watched=frozenset({"lb-a"}))


def test_the_last_one_is_not_failed_because_nobody_asks_it(world) -> None:
    """It had been frozen for a moment, and those that had noticed are dead."""
    world.freeze("lb-b")
    go_on(world, 10)
    world.kill("lb-c")
    world.kill("lb-a")
    world.thaw("lb-b")
    world.rest()
    assert set(places(world)) == {"lb-b"}


def test_the_probes_of_many_lbs_are_sent_at_several_ticks_and_none_is_taken_for_missed() -> None:
    """Also if ticks come late: a round that has not been sent has not been missed."""

    def lb(number: int) -> SimpleNamespace:
        ports = Ports(*[Port(1 + side, f"02:00:0{side}:00:00:{number:02x}") for side in (0, 1)])
        return SimpleNamespace(lb=SimpleNamespace(name=f"lb-{number}"), ready=True, whole=True, state="ready",
                               lost_at=0.0, of_ports=ports, ports=dict.fromkeys(NETWORKS, PortState("p", 1, "", True)),
                               watched=Watched(f"02:09:00:00:00:{number:02x}", "1.2.3.4"))

    switches = {f"lb-{number}": lb(number) for number in range(1, 121)}
    said: list[str] = []
    ground = fake_ground(switches, log=lambda event, **_: said.append(event))
    detection = Detection(ground, set(), 1000.0)
    now, sizes = 1000.0, []
    for step in itertools.chain([0.05] * 60, [0.4] * 60):
        now += step
        out = detection.tick(now)
        sizes.append(len(out))
        for effect in out:
            if isinstance(effect.message, ReadPorts):
                ground.tokens.ports_read(effect.message.token, {})
                continue
            asked = packets.decode_arp(effect.message.frame)
            detection.answered(effect.lb, packets.arp_question(b"\2" * 6, asked.sha, asked.spa, asked.sha, asked.tpa))
    assert max(sizes) <= 100 and sum(sizes) >= 20 * 240
    assert said == [] and {detection.state(name)[0] for name in switches} == {"well"}


# Fences are used once.


def fence(world: FaultySite, name: str, code: str) -> None:
    """A fence with that code comes to that LB, from somebody on its external network."""
    switch = world.control.ground.switches[name]
    mac, identity = (packets.parse_mac(text) for text in (switch.ports["external"].mac, switch.watched.identity))
    asked = packets.arp_question(ROUTER_MAC, mac, (7).to_bytes(4), identity, IPv4Address(code).packed)
    world.inject(name, asked, EXTERNAL)


def is_fenced(world: FaultySite, name: str) -> bool:
    return any(item.flow.cookie == LEARNED_COOKIE for item in world.switches[name].flows())


def test_a_fence_that_was_seen_can_not_be_used_again(world) -> None:
    codes = {name: world.control.ground.switches[name].watched.fence_code for name in LB_NAMES}
    assert len(set(codes.values())) == 3, "each LB has its own"
    world.disconnect("lb-a")
    ticks_until(world, "lb-a", "failed")
    world.rest()
    assert places(world).count("lb-a") == 0 and health(world, "lb-a") == "well"
    world.tick(FENCE_SECONDS + 1)
    assert not is_fenced(world, "lb-a")
    fence(world, "lb-a", codes["lb-a"])
    assert not is_fenced(world, "lb-a")
    assert world.stored.fences == {"lb-a": 1}
    world.restart_control()
    world.rest()
    fence(world, "lb-a", world.control.ground.switches["lb-a"].watched.fence_code)
    assert is_fenced(world, "lb-a"), "a new controller knows the code that is in force"
