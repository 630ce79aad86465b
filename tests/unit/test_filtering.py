"""Who may send to a NAT gateway's mapped port: frames in at a switch, frames out (RFC 4787 REQ-8)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbctl.connections import new_connections
from lbctl.frames import packets
from lbctl.frames.packets import RST
from lbctl.values.keys import pack_key, unpack_key
from lbctl.values.protocols import TCP, UDP
from tests.unit.fake_site import EXTERNAL, INTERNAL, site
from tests.unit.test_opening import (
    GATEWAY_IP,
    HOST,
    HOST_MAC,
    NAT_GATEWAY,
    OUTSIDE,
    REST,
    World,
    from_host,
    key_of,
    kind_of,
)

STRANGER = IPv4Address("192.0.2.99").packed
STRANGERS_MAC = bytes.fromhex("02000000c0ff")
DEPENDENT, ADDRESS, INDEPENDENT = "address-and-port-dependent", "address-dependent", "endpoint-independent"


def world(filtering: str, **changes: object) -> World:
    plain = site(ips=1, time_wait=REST, **changes)
    gateway = replace(NAT_GATEWAY, port_range=(5000, 5003), mapping=INDEPENDENT, filtering=filtering)
    return World(replace(plain, external_ips=(*plain.external_ips, gateway)))


def mapped(gateway: World, protocol: int = UDP) -> int:
    """The port that an inside host's port 5000 has got."""
    (sent,) = gateway.send(from_host(protocol), INTERNAL)
    return unpack_key(key_of(sent))[2]


def come_in(gateway: World, address: bytes, port: int, to: int, protocol: int = UDP) -> str:
    """What becomes of an outside host's packet: let in, or the answer."""
    (sent,) = gateway.send(pack_key(protocol, address, port, GATEWAY_IP, to), EXTERNAL, mac=STRANGERS_MAC)
    if sent.port != INTERNAL:
        return kind_of(sent)
    assert sent.frame[:6] == HOST_MAC and key_of(sent) == pack_key(protocol, address, port, HOST, 5000)
    return "let in"


@pytest.mark.parametrize("filtering, same_address, stranger", [
    (DEPENDENT, "icmp3.3", "icmp3.3"), (ADDRESS, "let in", "icmp3.3"), (INDEPENDENT, "let in", "let in")])
def test_who_is_let_in(filtering, same_address, stranger) -> None:
    gateway = world(filtering)
    place = mapped(gateway)
    assert place == 5000
    assert come_in(gateway, OUTSIDE, 444, place) == same_address
    assert come_in(gateway, STRANGER, 443, place) == stranger
    assert gateway.counter("connections_let_in") == [same_address, stranger].count("let in")
    assert come_in(gateway, OUTSIDE, 443, place) == "let in", "the answer"


def test_the_answer_goes_where_the_stranger_came_from() -> None:
    gateway = world(INDEPENDENT)
    assert come_in(gateway, STRANGER, 9, mapped(gateway)) == "let in"
    (sent,) = gateway.send(pack_key(UDP, HOST, 5000, STRANGER, 9), INTERNAL)
    assert key_of(sent) == pack_key(UDP, GATEWAY_IP, 5000, STRANGER, 9)
    assert packets.decode(sent.frame).eth_dst == STRANGERS_MAC


def test_nobody_is_let_in_to_a_port_that_nobody_has() -> None:
    gateway = world(INDEPENDENT)
    assert come_in(gateway, STRANGER, 9, 5000) == "icmp3.3" and not len(gateway.table(GATEWAY_IP))


def test_tcp_is_opened_from_inside_only() -> None:
    gateway = world(INDEPENDENT)
    assert come_in(gateway, STRANGER, 9, mapped(gateway, TCP), TCP) == "rst"


def test_a_mapping_takes_so_many_and_no_more(monkeypatch) -> None:
    monkeypatch.setattr(new_connections, "MOST_OF_A_MAPPING", 3)
    gateway = world(INDEPENDENT)
    place = mapped(gateway)
    assert [come_in(gateway, STRANGER, port, place) for port in (1, 2)] == ["let in"] * 2
    assert gateway.send(pack_key(UDP, STRANGER, 3, GATEWAY_IP, place), EXTERNAL) == []
    assert gateway.counter("dropped_mapping_full") == 1
    (out,) = gateway.send(from_host(UDP, outside_port=444), INTERNAL)
    assert kind_of(out) == "packet", "the inside host itself may"


def test_a_mapping_ends_with_its_last_entry_and_comes_back_while_its_port_rests() -> None:
    gateway = world(INDEPENDENT, udp_idle_timeout=3.0)
    place = mapped(gateway)
    gateway.settle(20.0)
    assert not len(gateway.table(GATEWAY_IP)) and come_in(gateway, STRANGER, 9, place) == "icmp3.3"
    assert mapped(gateway) == place


def test_a_reset_entry_that_goes_on_keeps_its_mapping() -> None:
    gateway = world(INDEPENDENT)
    place = mapped(gateway, TCP)
    gateway.send(from_host(TCP), INTERNAL, RST)
    gateway.settle(gateway.site.settings.linger + 1.0)
    assert not len(gateway.table(GATEWAY_IP))
    (sent,) = gateway.send(from_host(TCP), INTERNAL, packets.ACK)
    assert key_of(sent) == pack_key(TCP, GATEWAY_IP, place, OUTSIDE, 443)


def test_all_is_as_before_after_a_restart_of_the_controller() -> None:
    gateway = world(ADDRESS)
    place = mapped(gateway)
    gateway.restart_control()
    for name in gateway.switches:
        gateway.connect(name)
    gateway.settle(2.0)
    assert come_in(gateway, STRANGER, 9, place) == "icmp3.3"
    assert come_in(gateway, OUTSIDE, 9, place) == "let in"
    (sent,) = gateway.send(from_host(UDP, outside_port=444), INTERNAL)
    assert unpack_key(key_of(sent))[2] == place
