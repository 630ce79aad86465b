"""Full NAT: what a new controller, or one with another site file, knows of the ports that are taken."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbctl.site.model import ExternalIp, Site
from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.frames import SYN
from tests.bed.sites import full_nat_site
from tests.bed.traffic import RawPort, connect
from tests.integration.hands import entries_of, external_mac, internal_mac, metric, server_space
from tests.integration.moving import FIRST, SECOND, Talks, wait_reached

SERVER = "10.0.0.11"
MANY = 20_000
BATCH = 200
"""Well below the switch's queue of packets for the controller."""
PORTS_OF_A_CLIENT = 1000
MANY_HALF_OPEN = {"new_rate": 100_000, "half_open_timeout": 1000.0}
"""open_many() is a flood, of connections that are to stay."""
BED = {"site": full_nat_site(
    settings={"grace": 0.5, "linger": 1, "arp_interval": 2.0, "time_wait": 100.0, **MANY_HALF_OPEN})}


def with_first(change: Callable[[ExternalIp], ExternalIp]) -> Site:
    one, *rest = BED["site"].external_ips
    return replace(BED["site"], external_ips=(change(one), *rest))


def internal_ips(*numbers: int) -> tuple[IPv4Address, ...]:
    return tuple(IPv4Address(f"10.0.0.{number}") for number in numbers)


def flows_hash(bed: Bed) -> int:
    """Without meters: how many connections a busy machine lets in changes meanwhile."""
    node = bed.lbs["lb-a"]
    return hash(node.ovs.dump_flows(node.bridge))


def open_many(bed: Bed, count: int, before: int = 0) -> None:
    """So many connection requests through lb-a, each from another client or port; the answers reach nobody."""
    gateway = external_mac(bed, "lb-a")
    known = connections(bed)
    with RawPort(bed.clients[0], "eth0") as port:
        for start in range(before, before + count, BATCH):
            asked = range(start, min(start + BATCH, before + count))
            wanted = known + asked[-1] + 1 - before
            ask = Asking(port, [syn(port.mac, gateway, number) for number in asked])
            bed.wait_until(lambda: connections(bed) >= wanted or ask.again(), 10, f"{wanted} connections")  # noqa: B023
            port.drain()


class Asking:
    """SYNs that are sent again after a second, as clients would: a busy controller drops some of a flood."""

    def __init__(self, port: RawPort, syns: list[bytes]) -> None:
        self._port, self._syns = port, syns
        self._sent = float("-inf")

    def again(self) -> bool:
        if time.monotonic() > self._sent + 1.0:
            self._port.send(*self._syns)
            self._sent = time.monotonic()
        return False


def syn(mac: str, gateway: str, number: int) -> bytes:
    client, own = divmod(number, PORTS_OF_A_CLIENT)
    return frames.tcp((mac, gateway), (f"198.51.100.{120 + client}", 20_000 + own), (FIRST, 80), SYN, seq=number)


def connections(bed: Bed) -> int:
    return bed.rest("GET", f"/v1/external-ips/{FIRST}").json["connections"]


def places(bed: Bed, lb: str = "lb-a") -> dict[tuple, tuple]:
    """Client -> server and internal IP with their ports, as the controller knows them."""
    names = ("server", "server_port", "internal_ip", "internal_port")
    return {(entry["client"], entry["client_port"]): tuple(entry[name] for name in names) for entry in bed.entries(lb)}


def places_in_switch(bed: Bed, lb: str = "lb-a") -> list[tuple]:
    """The same of each flow of table access_out."""
    found = re.findall(
        r"table=21,.*?nw_src=([\d.]+),nw_dst=([\d.]+),tp_src=(\d+),tp_dst=(\d+)", bed.lbs[lb].dump_flows()
    )
    return [(server, int(server_port), internal, int(port)) for server, internal, server_port, port in found]


# A controller that dies.


def test_a_new_controller_knows_every_port_of_20000_connections(fresh: Bed) -> None:
    with Talks(fresh.clients[0], FIRST, 20) as near, Talks(fresh.remote, FIRST, 20) as far:
        open_many(fresh, MANY)
        before, hashed = places(fresh), flows_hash(fresh)
        assert len(before) == MANY + 40 and len(set(before.values())) == MANY + 40
        fresh.controller.kill()
        fresh.start_controller(wait=False)
        fresh.wait_ready(30)
        assert places(fresh) == before
        assert flows_hash(fresh) == hashed
        open_many(fresh, 1000, before=MANY)
        with Talks(fresh.clients[1], FIRST, 20) as new:
            now, held = places(fresh), places_in_switch(fresh)
            assert len(now) == MANY + 1060 and before.items() <= now.items()
            assert len(held) == len(set(held)) == MANY + 1060, "a port was given twice"
            assert sorted(held) == sorted(now.values())
            assert near.broken() == far.broken() == new.broken() == []


def test_a_new_controller_gives_only_what_is_left(fresh: Bed) -> None:
    """Six ports for two servers: most are taken."""
    apply(fresh, with_first(lambda ip: replace(ip, internal_ips=internal_ips(111), port_range=(7000, 7005))))
    with Talks(fresh.clients[0], FIRST, 9) as talks:
        before = places(fresh)
        fresh.restart_controller()
        assert places(fresh) == before
        with Talks(fresh.clients[1], FIRST, 3) as new:
            with pytest.raises(ConnectionRefusedError):
                connect(fresh.clients[1], FIRST)
            held = places_in_switch(fresh)
            assert len(held) == len(set(held)) == 12
            assert talks.broken() == new.broken() == []


# Another site file.


def apply(bed: Bed, site: Site) -> None:
    """Writes the file, sends SIGHUP, and waits until it is applied."""
    said = bed.controller.logged("site applied")
    bed.controller.reload(site)
    bed.wait_until(lambda: bed.controller.logged("site applied") > said, 5, "the site file is applied")
    bed.wait_ready()


def refused(bed: Bed, site: Site) -> str:
    """Why another file is refused."""
    name = 'lbctl_controller_events_total{event="site_files_refused"}'
    before = metric(bed, name)
    bed.controller.reload(site)
    bed.wait_until(lambda: metric(bed, name) > before, 5, "the site file is refused")
    return bed.controller.log_tail(20)


def internal_ip(bed: Bed, talks: Talks, lb: str = "lb-a") -> set[str]:
    return {entries_of(bed, talk.getsockname(), lb)[0]["internal_ip"] for talk in talks.sockets}


def arp_answers(bed: Bed, target: str) -> set[str]:
    """The MACs that answer; the server's kernel may ask at the same time."""
    with RawPort(server_space(bed, SERVER), "eth0") as port:
        port.send(frames.arp_request(port.mac, SERVER, target))
        return {
            frame.arp_src_mac
            for frame in port.collect(lambda frame: frame.answers_arp and str(frame.src) == target, 0.25)
        }


def test_internal_ips_are_changed_under_connections(fresh: Bed) -> None:
    """Those that were dropped are answered for as long as connections use them, also by another LB and another
    controller."""
    changed = with_first(lambda ip: replace(ip, internal_ips=internal_ips(112, 113)))
    with Talks(fresh.clients[0], FIRST, 4) as old, Talks(fresh.clients[0], SECOND, 2) as others:
        assert internal_ip(fresh, old) == {"10.0.0.111", "10.0.0.112"}
        before = places(fresh)
        apply(fresh, changed)
        with Talks(fresh.clients[1], FIRST, 4) as new:
            assert internal_ip(fresh, new) == {"10.0.0.112", "10.0.0.113"}
            assert before.items() <= places(fresh).items()
            forget_neighbours(fresh)
            assert old.broken() == new.broken() == others.broken() == []
            wait_reached(fresh)
            assert fresh.move(FIRST, "lb-b")["packets_lost"] == 0
            forget_neighbours(fresh)
            assert arp_answers(fresh, "10.0.0.111") == {internal_mac(fresh, "lb-b")}
            assert old.broken() == new.broken() == others.broken() == []
            fresh.restart_controller()
            forget_neighbours(fresh)
            assert old.broken() == new.broken() == others.broken() == []
            assert before.items() <= places(fresh, "lb-b").items()
    fresh.wait_until(lambda: fresh.entries("lb-b") == [], 8, "they have ended")
    apply(fresh, changed)
    assert arp_answers(fresh, "10.0.0.111") == set()
    assert arp_answers(fresh, "10.0.0.113") == {internal_mac(fresh, "lb-b")}


def forget_neighbours(bed: Bed) -> None:
    """So that the servers ask for the internal IPs again."""
    for server in bed.servers:
        server.ip("neigh", "flush", "all")


def test_the_port_range_is_changed_under_connections(fresh: Bed) -> None:
    with Talks(fresh.clients[0], FIRST, 6) as old:
        before = places(fresh)
        apply(fresh, with_first(lambda ip: replace(ip, port_range=(7000, 7000))))
        with Talks(fresh.clients[1], FIRST, 4) as new:
            assert {place[3] for place in places(fresh).values() if place not in before.values()} == {7000}
            with pytest.raises(ConnectionRefusedError):
                connect(fresh.clients[1], FIRST)
            assert before.items() <= places(fresh).items()
            assert old.broken() == new.broken() == []


def test_a_port_that_rests_goes_on_to_rest(fresh: Bed) -> None:
    small = with_first(lambda ip: replace(ip, internal_ips=internal_ips(111), port_range=(7000, 7000)))
    apply(fresh, small)
    with Talks(fresh.clients[0], FIRST, 2):
        pass
    fresh.wait_until(lambda: connections(fresh) == 0, 6, "they have ended")
    apply(fresh, with_first(lambda ip: replace(ip, internal_ips=internal_ips(111, 113), port_range=(7000, 7000))))
    with Talks(fresh.clients[1], FIRST, 2) as new:
        assert internal_ip(fresh, new) == {"10.0.0.113"}
        with pytest.raises(ConnectionRefusedError):
            connect(fresh.clients[1], FIRST)


def test_what_connections_use_is_not_given_to_others(fresh: Bed) -> None:
    one, two = BED["site"].external_ips
    with Talks(fresh.clients[0], FIRST, 2) as talks:
        stolen = (replace(one, internal_ips=internal_ips(113)), replace(two, internal_ips=internal_ips(111, 121)))
        assert "10.0.0.111 still has connections of 198.51.100.1" in refused(
            fresh, replace(BED["site"], external_ips=stolen)
        )
        servers = replace(one.services[0], servers=one.services[0].servers[:1])
        other = replace(one, nat="destination", gateway=IPv4Address("10.0.0.1"), internal_ips=(), services=(servers,))
        two_alone = replace(two, services=(replace(two.services[0], servers=two.services[0].servers[1:]),))
        text = refused(fresh, replace(BED["site"], external_ips=(other, two_alone)))
        assert "the kind of NAT of a connection can't change" in text
        assert talks.broken() == []
