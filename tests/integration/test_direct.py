"""Direct server return: servers have the external IP on their loopback device, and answer clients past the LBs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from lbctl.site.model import HealthCheck, Site
from lbctl.values.side import EXTERNAL, INTERNAL, Side
from tests.bed.bed import Bed
from tests.bed.direct import let_answer
from tests.bed.patience import limit
from tests.bed.sites import simple_site, together, with_keepers
from tests.bed.traffic import request
from tests.integration.failing import begin
from tests.integration.hands import counters, metric, server_space
from tests.integration.icmp_tools import REACHED, trace
from tests.integration.moving import FIRST, Talks, assert_unharmed, mixed_load
from tests.integration.test_field_packets import LARGE, Plug
from tests.integration.test_icmp import MUCH, bottleneck, download
from tests.integration.test_sliced_views import where
from tests.integration.test_slices import SETTINGS, all_die, drain, plain, wait_divided
from tests.integration.test_slices_kinds import by_udp

FIRST_6 = "2001:db8:1::2"
ADDRESSES = pytest.mark.parametrize("address", [FIRST, FIRST_6])
SERVERS = "10.0.0.11", "10.0.0.12", "10.0.0.13"


def direct(version: int = 4) -> Site:
    """Two external IPs with three servers each, that answer TCP and UDP on port 80."""
    settings = {**SETTINGS, "half_closed_timeout": 3}
    site = simple_site(servers=3, ports={80: 80}, settings=settings, version=version)
    return replace(site, external_ips=tuple(replace(ip, nat="none", services=tuple(
        each for service in ip.services
        for each in (replace(service, entries="slices"), replace(by_udp(service), servers=service.servers))
    )) for ip in site.external_ips))


def both() -> Site:
    """The first external IP of IPv4 and the second one of IPv6, on lb-a."""
    ipv4, ipv6 = direct(4), direct(6)
    site = together(replace(ipv4, external_ips=ipv4.external_ips[:1]),
                    replace(ipv6, external_ips=ipv6.external_ips[1:]))
    return replace(site, external_ips=tuple(replace(ip, load_balancer="lb-a") for ip in site.external_ips))


BED = {"site": with_keepers(both(), "sockets")}


def prepare(bed: Bed) -> None:
    """UDP at every server, too: from a socket that has the external IP, else the answer comes from another address."""
    let_answer(bed)
    for ip in bed.site.external_ips:
        for address in ip.server_addresses():
            bed.serve(server_space(bed, str(address)), "udp_server.py", address, f"80@{ip.address}")


# As clients see it

@ADDRESSES
def test_connections_and_datagrams_near_and_far(bed: Bed, address: str) -> None:
    for space in (bed.clients[0], bed.remote):
        assert len({request(space, address)["server"] for _ in range(20)}) == 3, "all servers"
        with Plug(space, address) as plug:
            assert plug.ask(10)
            assert plug.ask(LARGE), "in fragments"


def test_where_says_what_the_switch_says(bed: Bed) -> None:
    answer = where(bed, "203.0.113.9:40000")
    verdict = answer["verdicts"]["syn"]
    assert verdict["outcome"] == "server" and verdict["sentence"].endswith("which answers the client itself")
    assert [hit["table"] for hit in verdict["path"]] == [0, 5, 10, 11, 40]
    actions = answer["trace"].rpartition("Datapath actions: ")[2]
    assert "set(eth(" in actions and "set(ipv4(ttl=" in actions and "set(tcp" not in actions, "nothing else is written"


def test_half_of_the_packets_pass_the_lb(bed: Bed) -> None:
    """Nothing of what servers answer, and nothing of a connection is kept or shown to the controller."""
    request(bed.remote, FIRST)
    before, inside, outside = counters(bed)["packet_ins"], received(bed, INTERNAL), received(bed, EXTERNAL)
    for _ in range(10):
        assert request(bed.remote, FIRST)["client"][0] == "203.0.113.1"
    assert counters(bed)["packet_ins"] == before
    assert received(bed, INTERNAL) == inside and received(bed, EXTERNAL) >= outside + 40


def received(bed: Bed, side: Side) -> int:
    """IP packets that have come to lb-a by that port."""
    node = bed.lbs["lb-a"]
    node.ovs.purge()  # which makes the flows' counters exact
    found = node.ovs.ofctl("dump-aggregate", node.bridge, f"table=0,ip,in_port={1 + side.number}")
    return int(re.search(r"packet_count=(\d+)", found)[1])


@ADDRESSES
def test_a_bottleneck_on_the_way_to_the_client(bed: Bed, address: str) -> None:
    """What tells a server to send less comes to the LB."""
    with bottleneck(bed.router, "eth1", *bed.servers):
        for _ in range(3):
            assert download(bed.remote, address, limit(3.0)) > MUCH


@ADDRESSES
def test_traceroute(bed: Bed, address: str) -> None:
    assert trace(bed.remote, "tcp", address, 80)[1:] == [address, REACHED]


# Under fire

@ADDRESSES
def test_moves_break_nothing(bed: Bed, address: str) -> None:
    loads = mixed_load(bed, address)
    for to in ("lb-b", "lb-a"):
        record = bed.move(address, to)
        assert record["state"] == "done" and record["entries_copied"] == 0, record
    assert_unharmed(loads)


def test_servers_come_and_go_while_connections_run(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST, lines=30, requests=4)
    for drained, having in ((True, SERVERS[1:]), (False, SERVERS)):
        drain(bed, drained, f"{SERVERS[0]}:80")
        wait_divided(bed, *having)
    assert_unharmed(loads)
    bed.wait_until(lambda: plain(bed), 10, "all slices are plain again")


def test_lb_controller_and_keepers_die_at_once(quiet_bed: Bed) -> None:
    bed = quiet_bed
    begin(bed)
    with Talks(bed.clients[0], FIRST, 20) as near, Talks(bed.remote, FIRST_6, 20) as far:
        assert all_die(bed)["entries_from"] == {}
        assert near.broken() == far.broken() == []


# What servers need

def test_health_checks_ask_for_the_external_ip(quiet_bed: Bed) -> None:
    """A server that has not got it does not serve, whatever its processes say."""
    bed = quiet_bed
    check = HealthCheck("tcp", interval=0.5, timeout=0.5, rise=1, fall=2)
    begin(bed, replace(bed.site, external_ips=tuple(replace(ip, services=tuple(
        replace(service, health_check=check if service.protocol == "tcp" else None) for service in ip.services))
        for ip in bed.site.external_ips)))
    bed.wait_until(lambda: metric(bed, 'lbctl_health_checks_total{result="passed"}') > 10, 10, "all have passed checks")
    space = server_space(bed, SERVERS[0])
    space.ip("addr", "del", f"{FIRST}/32", "dev", "lo")
    try:
        wait_divided(bed, *SERVERS[1:])
        assert {request(bed.clients[0], FIRST)["server"] for _ in range(20)} == set(SERVERS[1:])
    finally:
        space.ip("addr", "add", f"{FIRST}/32", "dev", "lo")
    wait_divided(bed, *SERVERS)


def test_doctor_finds_a_server_that_answers_arp_for_it(bed: Bed) -> None:
    assert not strangers(bed)
    space = server_space(bed, SERVERS[0])
    space.sysctl(ipv4__conf__all__arp_ignore=0)
    try:
        found = strangers(bed)
        assert found and all("arp_ignore=1" in finding["mend"] for finding in found)
    finally:
        space.sysctl(ipv4__conf__all__arp_ignore=1)


def strangers(bed: Bed) -> list[dict[str, str]]:
    """What `lbctl doctor` says of other hosts that answer for an external IP."""
    done = bed.controller.cli(
        "doctor", "--ovs-rundir", bed.lbs["lb-a"].ovs.rundir, "--site", bed.controller.site_file, "--json"
    )
    return [each for each in json.loads(done.stdout)["findings"] if "no load balancer's, answers" in each["what"]]
