"""When servers are checked, by whom, and what follows: the control function over fake switches, with servers that do as
they are told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbctl.entries.access_table import Entry
from lbctl.frames import icmp, packets
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.health_checks.checker import BURST, Flight
from lbctl.openflow.cookies import MARK, Kind
from lbctl.openflow.messages import PacketOut
from lbctl.openflow.meters import MOST_CHECKS
from lbctl.servers.states import Down
from lbctl.site.model import CHECK_PORTS, HealthCheck, Server, ServiceName, Site
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import inverse_key, pack_key, unpack_key
from lbctl.values.protocols import TCP, UDP
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy
from tests.unit.effects import use_file
from tests.unit.fake_site import ROUTER_MAC, FakeSite, site
from tests.unit.fake_switch import packet_in

CHECK = HealthCheck("tcp", interval=1.0, timeout=0.5, rise=2, fall=3)
PLACE = TCP, 80
ONE, TWO = Endpoint(IPv4Address("10.0.0.10"), 80), Endpoint(IPv4Address("10.0.0.11"), 8080)


def checked(plain: Site, check: HealthCheck | None = CHECK) -> Site:
    return replace(
        plain,
        external_ips=tuple(
            replace(ip, services=tuple(replace(service, health_check=check) for service in ip.services))
            for ip in plain.external_ips
        ),
    )


class CheckedSite(FakeSite):
    """manners: what a server does with a check: accepts (the default), refuses, silent, 200, 503, echoes,
    port-unreachable."""

    def __init__(self, configuration: Site) -> None:
        self.manners: dict[str, str] = {}
        self.checks: list[tuple[float, str, packets.Packet]] = []
        """When, by which LB, and the first packet."""
        self.resets = 0
        self._by = ""
        super().__init__(configuration)

    def _out_of_switch(self, name, sent, events) -> None:
        self._by = name
        super()._out_of_switch(name, sent, events)

    def _at_server(self, frame: bytes) -> None:
        packet = packets.decode(frame)
        if packet.src_port is None or not CHECK_PORTS[0] <= packet.src_port <= CHECK_PORTS[1]:
            super()._at_server(frame)
            return
        assert frame[:6] == self.server_mac(packet.dst) and packet.ttl == 63, "the way of clients' packets"
        if packet.tcp_flags & RST:
            self.resets += 1
            return
        if packet.protocol == UDP or packet.tcp_flags & SYN:
            self.checks.append((self.now, self._by, packet))
        self._answer(packet, frame, self.manners.get(str(IPv4Address(packet.dst)), "accepts"))

    def _answer(self, packet: packets.Packet, frame: bytes, manner: str) -> None:
        name = self._route(packet.src, stale=False)
        if manner == "silent" or name is None:
            return
        mac, own = bytes.fromhex(self.switches[name].ports[1].mac.replace(":", "")), self.server_mac(packet.dst)
        ends = mac, own, packet.dst, packet.dst_port, packet.src, packet.src_port
        if manner == "port-unreachable":
            self.inject(name, icmp.error(own + mac + frame[12:], icmp.PORT_UNREACHABLE, own, packet.dst), 2)
        elif packet.protocol == UDP:
            self.inject(name, packets.udp_datagram(*ends, b"answer"), 2)
        elif manner == "refuses":
            self.inject(name, packets.tcp_segment(*ends, flags=RST | ACK, ack=packet.seq + 1 & 0xFFFFFFFF), 2)
        elif packet.tcp_flags & SYN:
            self.inject(name, packets.tcp_segment(*ends, flags=SYN | ACK, seq=99, ack=packet.seq + 1 & 0xFFFFFFFF), 2)
        elif packet.payload_length:
            answer = f"HTTP/1.1 {manner} \r\n\r\n".encode()
            ack = packet.seq + packet.payload_length & 0xFFFFFFFF
            for flags, seq, payload in ((ACK, 100, answer), (ACK | FIN, 100 + len(answer), b"")):
                self.inject(name, packets.tcp_segment(*ends, flags=flags, seq=seq, ack=ack, payload=payload), 2)

    def down(self, place: int = 0) -> dict[str, str]:
        """Server -> reason, of the external IP at that place."""
        serving = self.serving(self.site.external_ips[place].address)
        return {str(endpoint): down.reason for (_, endpoint), down in serving.servers.down.items()}


def world_of(check: HealthCheck = CHECK, **options) -> CheckedSite:
    world = CheckedSite(checked(site(**options), check))
    world.settle(3.0, 0.05)
    return world


@pytest.fixture
def world() -> CheckedSite:
    return world_of()


def in_flight(world: CheckedSite, place: int = 0) -> list[Flight]:
    """The checks that are under way, of the external IP at that place."""
    address = world.site.external_ips[place].address
    return [flight for flight in world.control.checker.under_way if flight.target.serving.address == address]


def until_in_flight(world: CheckedSite) -> list[Flight]:
    """Those that nobody has answered yet."""
    while not in_flight(world):
        world.tick(0.05)
        world.drain()
    return in_flight(world)


def counted(world: CheckedSite, result: str) -> int:
    return world.control.checker.counters[result]


# Up and down.


def test_each_server_is_checked_every_interval_by_the_lb_that_serves(world) -> None:
    del world.checks[:]
    world.settle(10.0, 0.05)
    per_server = Counter((packet.dst, packet.dst_port) for _, _, packet in world.checks)
    assert len(per_server) == 4 and all(9 <= count <= 11 for count in per_server.values())
    assert {(lb, str(IPv4Address(packet.src))) for _, lb, packet in world.checks} == {
        ("lb-a", "10.0.0.1"),
        ("lb-a", "10.0.0.2"),
    }
    assert {when % 1.0 for when, _, _ in world.checks} != {world.checks[0][0] % 1.0}, "not all at once"
    assert world.down() == {} and world.violations == [] and world.resets >= 36, "nothing stays at a server"


def test_down_after_fall_and_up_after_rise(world) -> None:
    world.manners["10.0.0.10"] = "refuses"
    failed = counted(world, "refused")
    while counted(world, "refused") < failed + 2:
        world.settle(0.05, 0.05)
    assert world.down() == {}
    world.settle(1.1, 0.05)
    assert world.down() == {"10.0.0.10:80": "connection refused"} and world.down(1) == {}
    assert [world.open(0) and world.drain() or world.conversations[-1].server for _ in range(4)] == [TWO] * 4
    world.manners["10.0.0.10"] = "silent"
    world.settle(2.0, 0.05)
    assert world.down() == {"10.0.0.10:80": "no answer within 0.5 s"}
    while in_flight(world):
        world.settle(0.05, 0.05)
    world.manners.clear()
    before = len(world.checks)
    while world.down():
        world.settle(0.05, 0.05)
    assert sum(packet.dst == ONE.address.packed for _, _, packet in world.checks[before:]) == 2


@pytest.mark.parametrize(
    ("manner", "reason"), [("200", None), ("503", "status 503"), ("accepts", "the answer is not HTTP")]
)
def test_http(manner: str, reason: str | None) -> None:
    world = world_of(replace(CHECK, type="http"))
    world.manners = {"10.0.0.10": manner, "10.0.0.11": "200"}
    world.settle(4.0, 0.05)
    assert world.down() == ({"10.0.0.10:80": reason} if reason else {})


@pytest.mark.parametrize(("answer", "manner", "reason"), [
    (b"answer", "accepts", None), (b"other", "accepts", "another answer than expected"), (None, "silent", None),
    (None, "port-unreachable", "unreachable (ICMP)"), (b"", "silent", "no answer within 0.5 s")])
def test_udp(answer: bytes | None, manner: str, reason: str | None) -> None:
    world = world_of(replace(CHECK, type="udp", request=b"hello", answer=answer))
    world.manners["10.0.0.10"] = manner
    others = {"10.0.0.11": "accepts"} if answer == b"" else {}
    world.manners |= others
    world.settle(4.0, 0.05)
    if answer == b"other":
        assert world.down() == {} and reason in health_of(world), "no server answers so"
        return
    assert world.down().get("10.0.0.10:80") == reason and {packet.protocol for _, _, packet in world.checks} == {UDP}


def test_a_server_that_answers_no_arp() -> None:
    world = CheckedSite(checked(site()))
    world.present = world.present - {ONE.address.packed}
    world.settle(6.0, 0.05)
    assert world.down() == {"10.0.0.10:80": "no answer to ARP"} and ONE.address.packed not in {
        item[2].dst for item in world.checks
    }


def test_a_checks_own_port(world) -> None:
    other = world_of(replace(CHECK, port=9000))
    assert {packet.dst_port for _, _, packet in other.checks} == {9000}
    assert {packet.dst_port for _, _, packet in world.checks} == {80, 8080}


# What becomes of connections.


@pytest.mark.parametrize("when_down", ["reset", "leave"])
def test_old_connections_are_reset_or_left(when_down: str) -> None:
    world = world_of(replace(CHECK, when_down=when_down))
    old = [world.open(0) for _ in range(6)]
    other = world.open(1)
    world.drain()
    assert {conversation.server for conversation in old} == {ONE, TWO}
    world.manners["10.0.0.10"] = "refuses"
    world.settle(4.0, 0.05)
    for conversation in [*old, other]:
        world.from_client(conversation)
    world.drain()
    gone = [conversation.number for conversation in old if conversation.server == ONE and when_down == "reset"]
    assert world.violations == [f"the client of live connection {number} got a RST" for number in gone]


def test_a_syn_that_was_lost_goes_to_another_server_when_it_comes_again() -> None:
    world = world_of(replace(CHECK, when_down="leave"))
    world.manners["10.0.0.10"] = "refuses"
    accept, world.accept = world.accept, lambda packet: None
    for _ in range(2):
        world.open(0)
        world.drain()
    world.accept = accept
    world.settle(4.0, 0.05)
    for conversation in world.conversations:
        world.from_client(conversation, SYN)
    world.drain()
    assert [conversation.server for conversation in world.conversations] == [TWO, TWO] and world.violations == []


# Moves and LBs that fail.


@pytest.mark.parametrize("strategy", list(Strategy))
def test_checks_go_on_from_the_other_lb(strategy: Strategy) -> None:
    world = world_of(grace=1.0)
    world.manners["10.0.0.11"] = "refuses"
    world.settle(4.0, 0.05)
    before = counted(world, "refused"), counted(world, "passed")
    for target in ("lb-b", "lb-a"):
        _, out = world.control.movement.start(world.site.external_ips[0].address, target, strategy, world.now)
        world.post(out)
        world.settle(5.0, 0.05)
        assert world.serving(world.site.external_ips[0].address).assigned == target
        del world.checks[:]
        world.settle(2.0, 0.05)
        assert {lb for _, lb, packet in world.checks if packet.src == bytes([10, 0, 0, 1])} == {target}
        assert world.down() == {"10.0.0.11:8080": "connection refused"}, "what is known of servers moves as well"
    assert counted(world, "refused") - before[0] >= 10 and counted(world, "timeout") == 0
    assert counted(world, "passed") - before[1] >= 30


def test_what_is_lost_while_the_route_changes_does_not_count() -> None:
    world = world_of(replace(CHECK, fall=1))
    address = world.site.external_ips[0].address
    world.manners = {"10.0.0.10": "silent", "10.0.0.11": "silent"}
    lost = until_in_flight(world)
    _, out = world.control.movement.start(address, "lb-b", Strategy.PRECOPY, world.now)
    world.post(out)
    world.drain()
    assert world.serving(address).assigned == "lb-b"
    while not all(flight.over for flight in lost):
        world.tick(0.05)
        world.drain()
    assert world.down() == {} and counted(world, "not_counted") == len(lost)
    world.settle(1.6, 0.05)
    assert len(world.down()) == 2, "what fails after the move does"


def test_no_verdict_without_the_lb() -> None:
    world = world_of(replace(CHECK, fall=1))
    world.manners = dict.fromkeys(("10.0.0.10", "10.0.0.11", "10.0.0.20", "10.0.0.21"), "silent")
    until_in_flight(world)
    world.disconnect("lb-a")
    for _ in range(100):
        world.tick(0.05)
    assert world.down() == world.down(1) == {} and counted(world, "timeout") == 0 and counted(world, "not_sent") > 4


def test_no_check_by_a_port_that_is_down(world) -> None:
    ports = [world.switches["lb-a"].ports[0], replace(world.switches["lb-a"].ports[1], up=False)]
    world.control.ports_changed("lb-a", ports, world.now)
    del world.checks[:]
    for _ in range(60):
        world.tick(0.05)
        world.drain()
    assert world.checks == [] and world.down() == {}


def test_a_control_function_that_was_busy_blames_no_server() -> None:
    world = world_of(replace(CHECK, fall=1))
    while not world.control.checker.under_way:
        world.now += 0.05
        world.post(world.control.tick(world.now))
    world.now += 3.0
    for name in world.switches:
        world.deliver(name)  # the answers wait
    world.post(world.control.tick(world.now))
    world.drain()
    assert world.down() == {} and counted(world, "timeout") == 0


def test_an_lb_that_is_not_heard_any_more_blames_no_server() -> None:
    """Its connection is cut, and nobody has noticed yet."""
    world = world_of(replace(CHECK, fall=1))
    before = counted(world, "not_counted")
    for _ in range(240):
        world.tick(0.05)
        world.to_switch["lb-a"].clear()
    assert world.down() == world.down(1) == {} and counted(world, "timeout") == 0
    assert counted(world, "not_counted") - before >= 4
    world.settle(world.site.settings.barrier_timeout + 1.0, 0.05)
    world.manners["10.0.0.10"] = "silent"
    world.settle(2.0, 0.05)
    assert len(world.down()) == 1, "it is heard again"


def test_what_is_down_stays_down_over_a_restart(world) -> None:
    world.manners["10.0.0.10"] = "refuses"
    world.settle(5.0, 0.05)
    since = world.serving(world.site.external_ips[0].address).servers.down
    world.restart_control()
    assert world.serving(world.site.external_ips[0].address).servers.down == since
    world.settle(0.5, 0.05)
    for _ in range(8):
        world.open(0)
    world.drain()
    assert {conversation.server for conversation in world.conversations} == {TWO}
    world.manners.clear()
    world.settle(4.0, 0.05)
    assert world.down() == {}, "it is up by its checks"


def test_after_a_restart_with_another_check_all_are_up(world) -> None:
    world.manners["10.0.0.10"] = "refuses"
    world.settle(5.0, 0.05)
    world.site = checked(world.site, replace(CHECK, rise=3))
    world.restart_control()
    assert world.down() == {}
    world.settle(4.0, 0.05)
    assert len(world.down()) == 1


# Fail open.


def all_of(world: CheckedSite, manner: str) -> None:
    world.manners = {str(server.address): manner for ip in world.site.external_ips[:1]
                     for service in ip.services for server in service.servers}


def health_of(world: CheckedSite) -> str | None:
    return world.serving(world.site.external_ips[0].address).servers.fails_open(PLACE)


@pytest.mark.parametrize("when_all_down", ["serve", "refuse"])
def test_if_all_servers_fail_at_once_no_connection_is_reset(when_all_down: str) -> None:
    world = world_of(replace(CHECK, when_all_down=when_all_down))
    old = [world.open(0) for _ in range(6)]
    world.drain()
    all_of(world, "silent")
    world.settle(6.0, 0.05)
    assert len(world.down()) == 2
    assert health_of(world) == ("all servers are down" if when_all_down == "serve" else None)
    for conversation in old:
        world.from_client(conversation)
    new = [world.open(0) for _ in range(4)]
    world.drain()
    assert world.violations == []
    assert {each.server for each in new} == ({ONE, TWO} if when_all_down == "serve" else {None})
    # One comes back: the other one fails alone.
    world.violations.clear()
    del world.manners["10.0.0.11"]
    world.settle(4.0, 0.05)
    assert health_of(world) is None and len(world.down()) == 1
    for conversation in old:
        world.from_client(conversation)
    world.drain()
    gone = [conversation.number for conversation in old if conversation.server == ONE]
    assert world.violations == [f"the client of live connection {number} got a RST" for number in gone]


@settings(max_examples=15)
@given(st.lists(st.floats(2.0, 9.0), min_size=1, max_size=5), st.sampled_from(["silent", "refuses"]))
def test_what_all_servers_do_at_once_ends_nothing_and_refuses_nobody(pauses: list[float], manner: str) -> None:
    """They fail and recover together, whenever; who is seen to do it first is only who is asked first."""
    world = world_of()
    old = [world.open(0) for _ in range(4)]
    world.drain()
    for number, pause in enumerate(pauses):
        all_of(world, "accepts" if number % 2 else manner)
        until = world.now + pause
        while world.now < until:
            world.settle(0.5, 0.05)
            for conversation in (*old, world.open(0)):
                world.from_client(conversation)
            world.drain()
    assert world.violations == [] and all(conversation.server for conversation in world.conversations)


@pytest.mark.parametrize("when_all_down", ["serve", "refuse"])
def test_a_check_that_has_never_passed_takes_no_server_out(world, when_all_down: str) -> None:
    """The operator has mistyped it."""
    old = [world.open(0) for _ in range(6)]
    world.drain()
    typo = checked(world.site, replace(CHECK, type="http", path="/typo", when_all_down=when_all_down))
    all_of(world, "404")
    world.post(use_file(world.control, typo, world.now))
    world.settle(8.0, 0.05)
    assert world.down() == {} and "status 404" in health_of(world)
    new = [world.open(0) for _ in range(4)]
    for conversation in old:
        world.from_client(conversation)
    world.drain()
    assert world.violations == [] and {each.server for each in new} == {ONE, TWO}
    world.post(use_file(world.control, checked(world.site, None), world.now))
    world.settle(2.0, 0.05)
    assert health_of(world) is None, "it is taken away"
    world.post(use_file(world.control, typo, world.now))
    world.settle(5.0, 0.05)
    # It is mended, or one server learns what is asked: from now on it counts.
    world.manners["10.0.0.11"] = "200"
    world.settle(3.0, 0.05)
    assert health_of(world) is None and world.down() == {"10.0.0.10:80": "status 404"}


def test_a_server_that_is_down_stays_so_when_the_check_changes(world) -> None:
    world.manners["10.0.0.10"] = "refuses"
    world.settle(5.0, 0.05)
    world.post(use_file(world.control, checked(world.site, replace(CHECK, type="http")), world.now))
    world.settle(4.0, 0.05)
    assert list(world.down()) == ["10.0.0.10:80"], "the other one stays up, though it does not speak HTTP"


# The site file.


def test_another_site_file(world) -> None:
    world.manners["10.0.0.10"] = "refuses"
    world.settle(4.0, 0.05)
    [since] = [down.since for down in world.serving(world.site.external_ips[0].address).servers.down.values()]

    def apply(check: HealthCheck | None, keep: slice = slice(None)) -> None:
        changed = checked(world.site, check)
        first = changed.external_ips[0]
        services = tuple(replace(service, servers=service.servers[keep]) for service in first.services)
        kept = replace(first, services=services)
        file = replace(changed, external_ips=(kept, changed.external_ips[1]))
        world.post(use_file(world.control, file, world.now))
        world.settle(1.5, 0.05)

    apply(replace(CHECK, timeout=0.1))
    assert world.serving(world.site.external_ips[0].address).servers.down == {
        (PLACE, ONE): Down("connection refused", since)
    }
    world.manners.clear()
    world.settle(2.5, 0.05)
    assert world.down() == {}
    world.manners["10.0.0.10"] = "refuses"
    world.settle(4.0, 0.05)
    assert len(world.down()) == 1
    apply(CHECK, slice(1, 2))
    assert world.down() == {}
    del world.checks[:]
    apply(CHECK, slice(1, 2))
    assert ONE.address.packed not in {packet.dst for _, _, packet in world.checks} != set()
    apply(CHECK)
    assert world.down() == {}, "it begins anew"
    world.settle(4.0, 0.05)
    assert len(world.down()) == 1
    apply(None)
    assert world.down() == {}, "nobody would find out that it is up again"
    del world.checks[:]
    world.settle(3.0, 0.05)
    assert world.checks == []


def test_servers_that_are_ordered_at_run_time(world) -> None:
    name = ServiceName(world.site.external_ips[0].address, "tcp", 80)
    new = Server(IPv4Address("10.0.0.15"), 8015)
    world.manners["10.0.0.15"] = "refuses"
    world.present = world.present | {new.address.packed}
    world.post(world.control.services.add_server(name, new))
    world.settle(8.0, 0.05)
    assert world.down() == {"10.0.0.15:8015": "connection refused"}
    world.post(world.control.services.change_server(name, ONE, {}, True))
    world.manners["10.0.0.10"] = "refuses"
    world.settle(4.0, 0.05)
    assert world.down() == {"10.0.0.15:8015": "connection refused", "10.0.0.10:80": "connection refused"}, (
        "a drained one is checked"
    )
    world.post(world.control.services.remove_server(name, new.endpoint))
    del world.checks[:]
    world.settle(3.0, 0.05)
    assert world.down() == {"10.0.0.10:80": "connection refused"}
    assert new.address.packed not in {packet.dst for _, _, packet in world.checks} != set()


def test_services_that_change_often_leave_nothing_behind(world) -> None:
    name = ServiceName(world.site.external_ips[0].address, "tcp", 80)
    del world.checks[:]
    for weight in range(1, 40):
        world.post(world.control.services.change_server(name, ONE, {"weight": weight}, None))
        world.settle(0.2, 0.05)
    assert world.control.checker.planned <= 8 and world.down() == {}
    assert sum(packet.dst == ONE.address.packed for _, _, packet in world.checks) >= 6, "nor more seldom"
    del world.checks[:]
    world.settle(3.0, 0.05)
    assert sum(packet.dst == ONE.address.packed for _, _, packet in world.checks) in (2, 3, 4), (
        "and none is checked more often"
    )


def test_an_external_ip_that_goes_takes_its_checks_along(world) -> None:
    world.manners = dict.fromkeys(("10.0.0.10", "10.0.0.11"), "silent")
    until_in_flight(world)
    world.post(
        use_file(world.control, replace(world.site, external_ips=world.site.external_ips[1:]), world.now)
    )
    world.settle(3.0, 0.05)
    assert not any(packet.src == bytes([10, 0, 0, 1]) for when, _, packet in world.checks if when > world.now - 1)
    assert world.control.checker.under_way == ()


def test_what_ends_after_its_server_has_gone_says_nothing() -> None:
    said: list[str] = []
    world = world_of(replace(CHECK, fall=1))
    world.control.ground.log = lambda event, **_: said.append(event)
    world.manners = dict.fromkeys(("10.0.0.10", "10.0.0.11"), "silent")
    until_in_flight(world)
    first = checked(world.site, None).external_ips[0]
    world.post(
        use_file(world.control,
            replace(world.site, external_ips=(first, world.site.external_ips[1])), world.now
        )
    )
    world.settle(3.0, 0.05)
    assert "server down" not in said and "site applied" in said


# What is lost.


def test_a_check_is_sent_three_times_within_its_time() -> None:
    world = world_of(replace(CHECK, interval=5.0, timeout=2.0))
    world.manners["10.0.0.10"] = "silent"
    while ONE not in {flight.target.server.endpoint for flight in in_flight(world)}:
        world.tick(0.05)
        world.drain()
    del world.checks[:-1]
    world.settle(2.5, 0.05)
    times = [when for when, _, packet in world.checks if packet.dst == ONE.address.packed]
    assert [round(when - times[0], 1) for when in times] == [0.0, 0.5, 1.5]
    assert (
        len({(packet.seq, packet.src_port) for _, _, packet in world.checks if packet.dst == ONE.address.packed}) == 1
    )
    assert counted(world, "timeout") == 1


def test_a_timeout_as_long_as_the_interval_delays_nothing() -> None:
    world = world_of(replace(CHECK, interval=0.5, timeout=0.5))
    world.manners["10.0.0.10"] = "silent"
    begun = world.now
    while not world.down():
        world.settle(0.05, 0.05)
    assert world.now - begun < 3 * 0.5 + 0.5 + 0.3


def test_an_answer_to_the_second_packet_will_do(world) -> None:
    world.manners["10.0.0.10"] = "silent"
    for _ in range(8):
        while ONE not in {flight.target.server.endpoint for flight in in_flight(world)}:
            world.tick(0.05)
            world.drain()
        world.manners.clear()
        while in_flight(world):
            world.tick(0.05)
            world.drain()
        world.manners["10.0.0.10"] = "silent"
    assert world.down() == {} and counted(world, "timeout") == 0


# Ports and bounds.


def test_full_nat_checks_from_an_internal_ip_that_answers_to_each_external_ip() -> None:
    world = world_of(nat="full")
    assert {str(IPv4Address(packet.src)) for _, _, packet in world.checks} == {"10.0.0.111", "10.0.0.121"}
    assert world.down() == {} and counted(world, "passed") >= 8
    [world.open(0) for _ in range(8)]
    world.drain()
    assert all(conversation.live for conversation in world.conversations) and world.violations == []


def test_a_port_that_a_connection_has_is_left_to_it(world) -> None:
    """A client with the gateway's address is forged; its connection must not hide a server from its checks."""
    serving = world.serving(world.site.external_ips[0].address)
    key = inverse_key(next(pack_key(packet.protocol, packet.src, packet.src_port, packet.dst, packet.dst_port)
                           for _, _, packet in world.checks if packet.dst == ONE.address.packed))
    _, _, _, gateway, port = unpack_key(key)
    entry = Entry(pack_key(TCP, gateway, port, serving.address.packed, 80), key, bytes(6), world.now)
    serving.table.add(entry)
    del world.checks[:]
    world.settle(3.0, 0.05)
    assert port not in {packet.src_port for _, _, packet in world.checks if packet.dst == ONE.address.packed} != set()
    assert world.down() == {}


def many(count: int, interval: float) -> Site:
    plain = checked(site(ips=1), replace(CHECK, interval=interval, timeout=min(interval, 1.0)))
    [ip] = plain.external_ips
    servers = tuple(Server(IPv4Address("10.0.0.10"), port) for port in range(1, count + 1))
    return replace(plain, external_ips=(replace(ip, services=(replace(ip.services[0], servers=servers),)),))


def test_checks_are_spread_over_the_interval() -> None:
    world = CheckedSite(many(400, 2.0))
    world.settle(4.0, 0.05)
    starts = Counter(round(when / 0.05) for when, _, _ in world.checks if when > world.now - 2.0)
    assert sum(starts.values()) in range(390, 411) and max(starts.values()) < 30, "ten each, were they spread evenly"


@pytest.mark.long
def test_more_than_the_site_may_send_is_put_off_and_counted() -> None:
    world = CheckedSite(many(1500, 1.0))
    world.manners["10.0.0.10"] = "refuses"
    world.settle(6.0, 0.05)
    for second in range(3):
        begun = [packet for when, _, packet in world.checks if world.now - second - 1 < when <= world.now - second]
        assert 0.9 * MOST_CHECKS < len(begun) <= MOST_CHECKS * (1 + BURST)
    assert counted(world, "put_off") > 500
    per_server = Counter(packet.dst_port for _, _, packet in world.checks)
    assert len(per_server) == 1500 and max(per_server.values()) - min(per_server.values()) <= 2, "all wait alike"


# What comes from elsewhere.


def test_what_a_server_still_says_is_reset(world) -> None:
    switch = world.switches["lb-a"]
    mac = bytes.fromhex(switch.ports[1].mac.replace(":", ""))
    resets = world.resets
    ends = mac, world.server_mac(ONE.address.packed), ONE.address.packed, 80, bytes([10, 0, 0, 1]), CHECK_PORTS[1]
    for flags, more in ((SYN | ACK, 1), (ACK | FIN, 1), (RST | ACK, 0)):
        world.inject("lb-a", packets.tcp_segment(*ends, flags=flags, seq=5, ack=77), 2)
        world.drain()
        resets += more
        assert world.resets == resets


@given(st.binary(max_size=80), st.integers(0, 0xFFFF), st.sampled_from([6, 17, 1, 99]))
def test_any_answer_is_survived(data: bytes, port: int, protocol: int) -> None:
    world = test_any_answer_is_survived.world
    for frame in (
        data,
        packets.ip_frame(
            bytes(6),
            world.server_mac(ONE.address.packed),
            ONE.address.packed,
            bytes([10, 0, 0, 1]),
            protocol,
            (80).to_bytes(2) + port.to_bytes(2) + data,
        ),
    ):
        for kind in (Kind.CHECKED, Kind.TRANSLATE_ICMP):
            event = packet_in(MARK << 56 | kind << 48, 2, frame)
            out = world.control.packet_in("lb-a", *event.arguments, world.now)
            assert all(isinstance(message, PacketOut) for _, message in out)


test_any_answer_is_survived.world = world_of()


def test_nothing_is_checked_where_nothing_is_to_be() -> None:
    world = CheckedSite(site())
    world.settle(5.0, 0.05)
    assert world.checks == [] and not any("0x1b14" in item.flow.text() for item in world.switches["lb-a"].flows())
    with pytest.raises(Refused):
        world.control.movement.start(world.site.external_ips[0].address, "lb-a", Strategy.PRECOPY, world.now)


# ICMP errors about checks.


def icmp_error_about(world: CheckedSite, packet: packets.Packet, port: int) -> None:
    """A port-unreachable that quotes that check's packet, by the LB's port of that number."""
    name = world.serving(world.site.external_ips[0].address).assigned
    mac = bytes.fromhex(world.switches[name].ports[port - 1].mac.replace(":", ""))
    sent = packets.udp_datagram(mac, ROUTER_MAC, packet.src, packet.src_port, packet.dst, packet.dst_port, b"hello")
    world.inject(name, icmp.error(sent, icmp.PORT_UNREACHABLE, ROUTER_MAC, packet.dst), port)


def silent_udp() -> CheckedSite:
    world = world_of(replace(CHECK, type="udp", request=b"hello", answer=None))
    world.manners = {"10.0.0.10": "silent", "10.0.0.11": "silent"}
    world.settle(2.0, 0.05)
    return world


def test_errors_about_checks_that_come_from_outside_are_nothing() -> None:
    """Ports and addresses are easily guessed there, and a check goes inside."""
    world = silent_udp()
    for _ in range(100):
        world.tick(0.05)
        world.drain()
        for flight in in_flight(world):
            icmp_error_about(world, world.checks[-1][2], 1)
            assert not flight.unreachable
        world.drain()
    assert world.down() == {}


def test_a_server_that_answers_after_an_error_is_there() -> None:
    """One error may be forged, or be of a router's bad moment."""
    world = world_of(replace(CHECK, type="udp", request=b"hello", answer=b"answer"))
    for _ in range(200):
        world.tick(0.05)
        for flight in in_flight(world):
            if not flight.unreachable:
                world.post(world.control.checker.unreachable(flight, world.now))
        world.drain()
    assert world.down() == {}
