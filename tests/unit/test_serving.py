"""One external IP at work: which packets are its own, what connections are translated to, and which are idle."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.connections.arrival import way_of
from lbctl.ground.serving import Directory, Serving
from lbctl.openflow.cookies import Kind, kind_of
from lbctl.openflow.flow import Flow
from lbctl.openflow.rules import SERVING, all_flows
from lbctl.site.model import Settings
from lbctl.values.keys import pack_key, unpack_key
from lbctl.values.protocols import TCP, UDP
from lbctl.values.side import EXTERNAL, INTERNAL
from tests.unit import kinds
from tests.unit.kinds import ADDRESSES, EXTERNAL_IPS, NEIGHBOURS, PORTS


def serving(kind: str, version: int = 4, **settings) -> Serving:
    return Serving(EXTERNAL_IPS[kind, version], "lb-a", Settings(**settings))


def directory() -> Directory:
    found = Directory()
    found.replace([Serving(config, "lb-a", Settings()) for config in EXTERNAL_IPS.values()])
    return found


KNOWN = directory()
SOME = st.sampled_from(
    [
        *(config.address for config in EXTERNAL_IPS.values()),
        *ADDRESSES[4],
        *ADDRESSES[6],
        ip_address("172.30.0.9"),
        *(address for config in EXTERNAL_IPS.values() for address in config.internal_addresses()),
        *map(
            ip_address,
            (
                "10.0.0.191",
                "10.0.0.192",
                "10.0.0.255",
                "10.0.1.0",
                "fd00:4:ffff::1",
                "fd00:5::",
                "fd00:5:0:1::",
                "8.8.8.8",
            ),
        ),
    ]
)


@given(SOME, SOME, st.sampled_from((1, 2, 3)))
def test_packets_belong_to_whom_the_switch_takes_them_for(src, dst, in_port) -> None:
    """Directory.of_packet and table transfer_mode, for any addresses. (By a tunnel comes what its server sends.)"""
    if src.version != dst.version or in_port == 3 and src != ip_address("172.30.0.9"):
        return
    flows = all_flows(
        EXTERNAL_IPS.values(), {config.address: SERVING for config in EXTERNAL_IPS.values()}, NEIGHBOURS, PORTS
    )
    matching = [flow for flow in flows if flow.table == "transfer_mode" and _matches(flow, src, dst, in_port)]
    best = max(matching, key=lambda flow: flow.priority, default=None)
    way = way_of(PORTS, in_port, dst.packed, KNOWN)
    found = KNOWN.of_packet(src.packed, dst.packed, way)
    assert best is not None, "there is one for all others"
    if in_port != 1 and found is None:
        assert kind_of(best.cookie) in (Kind.NO_WAY, Kind.NO_EXTERNAL_IP)
    elif in_port != 2 or src != ip_address("172.30.0.9"):  # which the switch takes for nobody's, from there
        assert (found.owner if found else 0) == best.cookie & 0xFFFFFFFF


def _matches(flow: Flow, src, dst, in_port: int) -> bool:
    match, eth_type = dict(flow.match), {4: 0x0800, 6: 0x86DD}[src.version]
    packet = {f"ipv{src.version}_src": src, f"ipv{src.version}_dst": dst}
    return not match or match["in_port"] == in_port and match["eth_type"] == eth_type and all(
        field in packet and packet[field] in ip_network(value)
        for field, value in match.items()
        if field.startswith("ipv")
    )


@pytest.mark.parametrize("kind, version", list(EXTERNAL_IPS))
def test_an_external_ip_is_found_by_its_connections_packets(kind, version) -> None:
    entry = kinds.entry(kind, version)
    config = EXTERNAL_IPS[kind, version]
    _, src, _, dst, _ = unpack_key(entry.key)
    assert KNOWN.of_packet(src, dst, EXTERNAL).config == config
    _, src, _, dst, _ = unpack_key(entry.reply)
    # Two external IPs share the server of destination NAT in this list; with full NAT they are told apart.
    assert KNOWN.of_packet(src, dst, INTERNAL).config == config
    assert KNOWN.get(config.address).config == config
    assert KNOWN.by_owner[KNOWN.get(config.address).owner].config == config


def test_next_hops_and_routers() -> None:
    assert KNOWN.hops().keys() == {
        *(ADDRESSES[version][place] for version in (4, 6) for place in (1, 2)),
        ip_address("172.30.0.9"),
    }
    assert KNOWN.routers() == {ADDRESSES[4][5], ADDRESSES[6][5]}
    assert serving("nat-gateway").next_hops() == {ADDRESSES[4][5]}
    assert serving("full").next_hops() == {ADDRESSES[4][1], ADDRESSES[4][2]}


def test_idle_entries_by_protocol() -> None:
    """The timeout of each protocol counts for its entries."""
    found = serving("destination", idle_timeout=100.0, udp_idle_timeout=10.0)
    tcp, udp = kinds.entry("destination", 4), kinds.entry("destination", 4, UDP)
    for item in (tcp, udp):
        found.table.add(item)
        item.last_seen = 50.0
    assert found.idle_since(found.table.entries(), 59.9, 1e9) == []
    assert found.idle_since(found.table.entries(), 60.0, 1e9) == [udp]
    assert found.idle_since(found.table.entries(), 150.0, 1e9) == [tcp, udp]


@pytest.mark.parametrize("version", [4, 6])
def test_destination_nat_needs_a_free_reply_key(version) -> None:
    """Two external ports and one server port: the server would take both connections for one."""
    found, entry = serving("destination", version), kinds.entry("destination", version)
    server = found.config.services[0].servers[0]
    assert found.can_translate(entry.key, server, 0.0) and found.translate(entry.key, server, 0.0) == entry.reply
    found.table.add(entry)
    protocol, client, port, external, _ = unpack_key(entry.key)
    assert not found.can_translate(pack_key(protocol, client, port, external, 443), server, 0.0)
    assert found.can_translate(pack_key(protocol, client, port + 1, external, 443), server, 0.0)


@pytest.mark.parametrize("version", [4, 6])
def test_full_nat_gives_each_connection_a_place(version) -> None:
    found = serving(kind="full", version=version)
    server, entry = found.config.services[0].servers[0], kinds.entry("full", version)
    first, second = (found.translate(entry.key, server, 0.0) for _ in range(2))
    assert first != second
    for reply in (first, second):
        protocol, address, port, internal, internal_port = unpack_key(reply)
        assert (protocol, address, port) == (TCP, server.address.packed, server.port)
        assert ip_address(internal) in found.config.internal_ips and 1024 <= internal_port <= 65535


@pytest.mark.parametrize("kind, destination, side, expected", [
    ("destination", "198.51.100.1", EXTERNAL, "198.51.100.1"), ("destination", "203.0.113.9", INTERNAL, "10.0.0.1"),
    ("destination", "10.0.0.1", INTERNAL, "10.0.0.1"), ("full", "10.0.0.103", INTERNAL, "10.0.0.103"),
    ("full", "203.0.113.9", INTERNAL, "10.0.0.102"), ("nat-gateway", "203.0.113.9", INTERNAL, "10.0.0.3"),
    ("nat-gateway", "198.51.100.3", EXTERNAL, "198.51.100.3")])
def test_whom_an_error_comes_from(kind, destination, side, expected) -> None:
    """Never the address of a host that is not the LB's."""
    assert serving(kind).error_source(ip_address(destination).packed, side) == ip_address(expected).packed
