"""Servers behind tunnels: the site file, the flows, and their bytes by Ryu's own parser."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.openflow.delivery_rules import delivery_flows
from lbctl.openflow.inbound import decode_neighbours
from lbctl.openflow.messages import OUTPUT_TABLE, AddFlows, PacketOut
from lbctl.openflow.outbound import EntryCodec, packet_out
from lbctl.openflow.ports import Port, Ports
from lbctl.openflow.rules import SERVING, all_flows, external_ip_flows
from lbctl.openflow.tables import number
from lbctl.site.file import ConfigError, parse
from lbctl.site.file.text import site_text
from lbctl.site.model import Hop, Site, Tunnel
from lbctl.switches.switch import PortState, Switch
from ryu_apps.library.names import ofp as ofproto_v1_4
from ryu_apps.library.names import parser as ofproto_v1_4_parser
from ryu_apps.library.openflow import encode
from tests.bed.sites import behind_tunnels, full_nat_site, simple_site

MAC = "02:00:00:00:aa:02"
PORTS = Ports(Port(1, "02:00:00:00:aa:01"), Port(2, MAC), {"vxlan": Port(11, MAC), "gre": Port(12, MAC)})
SERVER, REMOTE = IPv4Address("10.9.0.11"), IPv4Address("198.18.2.11")
FILE = """\
load_balancers:
  - {name: lb-a, dpid: "00000000000000aa", external_port: ext, internal_port: int, vxlan_port: vx, gre_port: gr}
external_network: 198.51.100.0/24
internal_network: 10.0.0.0/24
external_ips:
  - address: 198.51.100.1
    load_balancer: lb-a
    gateway: 10.0.0.1
    services:
      - protocol: tcp
        port: 80
        servers:
          - {address: 10.9.0.11, port: 80, transport: vxlan, remote: 198.18.2.11, key: 7}
          - {address: 10.0.0.12, port: 80}
"""


class Datapath:
    ofproto, ofproto_parser = ofproto_v1_4, ofproto_v1_4_parser


# The site file.

def test_a_server_behind_a_tunnel_is_read() -> None:
    site = parse(FILE)
    (server, plain) = site.external_ips[0].services[0].servers
    assert server.hop == Hop(SERVER, Tunnel("vxlan", REMOTE, 7, 1450)) and plain.tunnel is None
    assert site.load_balancers[0].tunnel_ports == (("vxlan", "vx"), ("gre", "gr"))


@pytest.mark.parametrize(
    "site",
    [
        behind_tunnels(simple_site(external_ips=3), "vxlan", "geneve", "gre", key=9, internal_mtu=1400),
        behind_tunnels(full_nat_site(), "gre"),
        parse(FILE),
    ],
)
def test_what_is_written_is_read_again(site: Site) -> None:
    assert parse(site_text(site)) == site


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("transport: vxlan", "transport: vxlam", "13: unknown transport 'vxlam': did you mean 'vxlan'?"),
        ("transport: vxlan, remote: 198.18.2.11", "transport: vxlan", "13: server: the key 'remote' is missing"),
        ("transport: vxlan, ", "", "13: server: 'remote' is a tunnel's: add transport, vxlan or geneve or gre"),
        ("remote: 198.18.2.11", "remote: far", "13: remote must be an IP address such as 10.0.0.11; it is 'far'"),
        ("remote: 198.18.2.11", "remote: 224.0.0.9", "13: remote 224.0.0.9 is no address that a host can have"),
        ("remote: 198.18.2.11", "remote: 'fd00::1'", "13: remote fd00::1 is IPv6: a tunnel is carried by IPv4"),
        ("key: 7", "key: 16777216", "13: key must be a whole number from 0 to 16777215; it is 16777216"),
        (
            "transport: vxlan",
            "transport: geneve",
            "13: transport geneve needs a tunnel port at each load balancer, and lb-a has no geneve_port",
        ),
        (
            "key: 7",
            "key: 7, mtu: 1451",
            "13: mtu 1451 is more than the tunnel can carry: at most 1450, which is internal_mtu 1500 less the "
            "50 bytes that vxlan adds",
        ),
        ("key: 7", "key: 7, mtu: 575", "13: mtu 575 is too small: packets to 10.9.0.11 may have 576 bytes"),
        (
            "external_network:",
            "settings: {internal_mtu: 600}\nexternal_network:",
            "14: the tunnel's mtu 550 (internal_mtu 600 less the 50 "
            "bytes that vxlan adds) is too small: packets to 10.9.0.11 may have 576 bytes",
        ),
        (
            "gre_port: gr",
            "gre_port: vx",
            "2: gre_port is the same as vxlan_port, 'vx': a load balancer needs a port for each",
        ),
        (
            "{address: 10.0.0.12, port: 80}",
            "{address: 10.9.0.11, port: 81, transport: vxlan, remote: 198.18.2.12}",
            "14: server 10.9.0.11 is reached in another way than in line 13",
        ),
        (
            "{address: 10.0.0.12, port: 80}",
            "{address: 10.9.0.12, port: 80, transport: gre, remote: 198.18.2.12, next_hop: 10.9.0.11}",
            "14: 10.9.0.11 is reached by another tunnel than in line 13",
        ),
        (
            "address: 10.9.0.11",
            "address: 'fd00::11'",
            "13: server fd00::11 is IPv6, and the external IP 198.51.100.1 is IPv4",
        ),
    ],
)
def test_one_mistake_one_problem(old: str, new: str, problem: str) -> None:
    assert old in FILE
    with pytest.raises(ConfigError) as raised:
        parse(FILE.replace(old, new, 1), "site.yaml")
    lines = str(raised.value).splitlines()
    assert len(lines) == 1 and problem in lines[0], lines


def test_an_ipv6_server_needs_1280_bytes() -> None:
    site = behind_tunnels(simple_site(version=6), "vxlan", internal_mtu=1329)
    with pytest.raises(ConfigError, match="may have 1280 bytes"):
        parse(site_text(site))
    assert parse(site_text(behind_tunnels(simple_site(version=6), "vxlan", internal_mtu=1330)))


# The flows.

def by_table(flows, table: str):
    return [flow for flow in flows if flow.table == table]


def test_nothing_comes_in_but_from_the_far_end() -> None:
    """Each flow of the first table that takes from a tunnel port wants the right sender and key."""
    site = behind_tunnels(simple_site(external_ips=2), "vxlan", "gre")
    flows = all_flows(site.external_ips, {ip.address: SERVING for ip in site.external_ips}, {}, PORTS)
    from_tunnels = [
        dict(flow.match) for flow in by_table(flows, "classify") if dict(flow.match).get("in_port") in (11, 12)
    ]
    assert {(match["in_port"], match["tun_ipv4_src"]) for match in from_tunnels} == {
        (11, "198.18.2.11"), (11, "198.18.2.12"), (12, "198.18.2.21"), (12, "198.18.2.22")}
    assert {match["tunnel_id"] for match in from_tunnels} == {7}


def test_a_server_s_packets_are_its_tunnel_s() -> None:
    for site, sides in ((behind_tunnels(simple_site(), "vxlan"), {"ipv4_src"}),
                        (behind_tunnels(full_nat_site(), "vxlan"), {"ipv4_src", "ipv4_dst"})):
        modes = [
            dict(flow.match)
            for flow in by_table(external_ip_flows(site.external_ips[0], SERVING, PORTS), "transfer_mode")
        ]
        tunneled = [match for match in modes if match["in_port"] == 11]
        assert {
            match["ipv4_src"].rpartition(".")[2] == match["tun_ipv4_src"].rpartition(".")[2] for match in tunneled
        } == {True}
        assert all(sides <= match.keys() for match in tunneled)
        assert not [match for match in modes if match["in_port"] == 2 and match.get("ipv4_src", "").startswith("10.9.")]


def test_entries_and_other_lbs_know_nothing_of_a_missing_tunnel_port() -> None:
    """The flows of what can't be reached are left out, nothing else."""
    site = behind_tunnels(simple_site(external_ips=2), "vxlan", "gre")
    only_gre = replace(PORTS, tunnels={"gre": PORTS.tunnels["gre"]})
    flows = all_flows(site.external_ips, {ip.address: SERVING for ip in site.external_ips}, {SERVER: MAC}, only_gre)
    text = "\n".join(flow.text() for flow in flows)
    assert "198.18.2.21" in text and "198.18.2.11" not in text and "198.51.100.1" in text


def test_a_switch_without_its_tunnel_port_says_so() -> None:
    (lb, _) = behind_tunnels(simple_site(), "vxlan").load_balancers
    switch = Switch(lb)
    ports = [PortState("lba-ext", 1, "02:00:00:00:aa:01", True), PortState("lba-int", 2, MAC, True)]
    switch.set_ports(ports)
    assert switch.of_ports is not None and switch.of_ports.tunnels == {}
    assert switch.reason.startswith("the bridge has no port lba-vxlan: add it")
    switch.set_ports([*ports, PortState("lba-vxlan", 11, "06:00:00:00:00:01", True)])
    assert switch.reason is None and switch.of_ports.tunnels == {"vxlan": Port(11, MAC)}
    switch.set_ports(ports)
    assert switch.of_ports.tunnels == {"vxlan": Port(11, MAC)}, "one that went away is remembered"


# Their bytes.

@given(
    st.binary(max_size=60),
    st.ip_addresses(v=4),
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from([OUTPUT_TABLE, 11, "deliver_server"]),
)
def test_packet_out_through_a_tunnel(frame: bytes, remote: IPv4Address, key: int, output: int | str) -> None:
    message = packet_out(PacketOut(frame, 11, output, Tunnel("gre", remote, key)), 5)
    actions_length = struct.unpack_from("!H", message, 16)[0]
    theirs, at = [], 24
    while at < 24 + actions_length:
        theirs.append(ofproto_v1_4_parser.OFPAction.parser(message, at))
        at += theirs[-1].len
    assert (
        at == 24 + actions_length and message[at:] == frame and len(message) == struct.unpack_from("!H", message, 2)[0]
    )
    fields = {action.key: action.value for action in theirs[:3]}
    assert fields == {"tun_ipv4_src": str(remote), "tun_ipv4_dst": str(remote), "tunnel_id": key}


@given(
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
    st.binary(min_size=6, max_size=6),
    st.integers(0, 0xFFFFFFFF),
    st.integers(576, 9000),
)
def test_deliveries_through_a_tunnel_are_read_back(
    server: IPv4Address | IPv6Address, mac: bytes, key: int, mtu: int
) -> None:
    flows = tuple(
        delivery_flows({server: Hop(server, Tunnel("vxlan", REMOTE, key, mtu))}, {server: mac.hex(":")}, PORTS, {})
    )
    assert [flow.table for flow in flows] == ["deliver_server", "deliver_tunnel"]
    data = b""
    for flow in flows:
        made = encode(AddFlows((flow,)), EntryCodec(2))
        tail = made[48:]
        data += struct.pack("!HBx", 48 + len(tail), number(flow.table)) + bytes(44) + tail
        if flow.table == "deliver_server":
            assert struct.pack("!HHIHHHI6x", 0xFFFF, 24, 0x2320, 49, mtu + 14, 0, 0x00010404) in made
    assert decode_neighbours(data) == {server.packed: mac}
