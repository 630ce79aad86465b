"""Who has an address: probes, announcements and what is learnt of answers, for both IP versions."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.frames import discovery, icmp, packets
from lbctl.frames.packets import Malformed

LB_MAC, SERVER_MAC = bytes.fromhex("020000000aa1"), bytes.fromhex("020000000b11")
LINK_LOCAL = "fe80::ff:fe00:aa1"
SERVER, SERVER_6 = ip_address("10.0.0.11").packed, ip_address("2001:db8:2::11").packed


def advertisement(*options: bytes, kind: int = discovery.ADVERTISEMENT, code: int = 0, ttl: int = 255) -> bytes:
    return icmp.message(LB_MAC, SERVER_MAC, SERVER_6, ip_address(LINK_LOCAL).packed, kind, code, 0x60000000,
                        SERVER_6 + b"".join(options), ttl=ttl)


TARGET_MAC = b"\2\1" + SERVER_MAC
NONCE = b"\x0e\1" + bytes(6)


def test_ipv4_is_arp() -> None:
    assert discovery.probe(LB_MAC, SERVER) == packets.arp_probe(LB_MAC, SERVER)
    assert discovery.announcements(LB_MAC, SERVER, router=True) == [
        packets.arp_announcement(LB_MAC, SERVER), packets.arp_reply(LB_MAC, packets.BROADCAST_MAC, SERVER)]
    assert discovery.decode(packets.arp_announcement(SERVER_MAC, SERVER)) == (SERVER, SERVER_MAC)


def test_a_probe_names_only_the_port_that_asks() -> None:
    """From its link-local address (RFC 4291 appendix A) to the solicited-node address of the target (2.7.1)."""
    frame = discovery.probe(LB_MAC, SERVER_6)
    assert frame[:6] == bytes.fromhex("3333ff000011")
    packet = packets.decode(frame)
    assert (str(IPv6Address(packet.src)), str(IPv6Address(packet.dst)), packet.ttl) == (
        LINK_LOCAL,
        "ff02::1:ff00:11",
        255,
    )
    assert frame[packet.payload_offset:][:1] == b"\x87"
    assert frame[packet.payload_offset + 8:] == SERVER_6 + b"\1\1" + LB_MAC


@pytest.mark.parametrize(("router", "flags"), [(True, 0xA0000000), (False, 0x20000000)])
def test_an_announcement_overrides(router: bool, flags: int) -> None:
    [frame] = discovery.announcements(LB_MAC, SERVER_6, router)
    assert frame[:6] == bytes.fromhex("333300000001")
    packet = packets.decode(frame)
    assert (packet.src, str(IPv6Address(packet.dst)), packet.ttl) == (SERVER_6, "ff02::1", 255)
    assert struct.unpack_from("!I", frame, packet.payload_offset + 4) == (flags,)
    assert discovery.decode(frame) == (SERVER_6, LB_MAC)


def test_ryu_reads_the_same() -> None:
    ryu_packet = pytest.importorskip("ryu.lib.packet.packet")
    from ryu.lib.packet import icmpv6

    for frame, kind in (
        (discovery.probe(LB_MAC, SERVER_6), "solicit"),
        (discovery.announcements(LB_MAC, SERVER_6, True)[0], "advert"),
    ):
        message = ryu_packet.Packet(frame).get_protocol(icmpv6.icmpv6)
        assert message.type_ == {"solicit": 135, "advert": 136}[kind]
        assert (message.data.dst, message.data.option.hw_src) == ("2001:db8:2::11", LB_MAC.hex(":"))


def test_checksums_are_right() -> None:
    for frame in (discovery.probe(LB_MAC, SERVER_6), discovery.announcements(LB_MAC, SERVER_6, False)[0]):
        assert packets.transport_checksum(58, frame[22:38], frame[38:54], frame[54:]) == 0


def test_the_mac_is_found_behind_other_options() -> None:
    assert discovery.decode(advertisement(TARGET_MAC)) == (SERVER_6, SERVER_MAC)
    assert discovery.decode(advertisement(NONCE, TARGET_MAC)) == (SERVER_6, SERVER_MAC)


@pytest.mark.parametrize(("frame", "reason"), [
    (advertisement(), "neighbour advertisement without a MAC"),
    (advertisement(NONCE, TARGET_MAC[:7]), "neighbour advertisement without a MAC"),
    (advertisement(b"\2\0" + SERVER_MAC), "neighbour advertisement without a MAC"),
    (advertisement(b"\2\1" + b"\xff" * 6), "neighbour advertisement without a MAC"),
    (advertisement(TARGET_MAC, ttl=254), "not a neighbour advertisement"),
    (advertisement(TARGET_MAC, code=1), "not a neighbour advertisement"),
    (advertisement(TARGET_MAC, kind=discovery.SOLICITATION), "not a neighbour advertisement"),
    (discovery.probe(LB_MAC, SERVER_6), "not a neighbour advertisement"),
    (b"", "truncated"),
])
def test_what_is_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(Malformed) as error:
        discovery.decode(frame)
    assert error.value.reason == reason


def with_byte(place: int, value: int) -> bytes:
    """A right advertisement, but for one byte."""
    frame = advertisement(TARGET_MAC)
    return frame[:place] + bytes([value]) + frame[place + 1:]


@given(st.one_of(st.binary(max_size=120), st.binary(max_size=60).map(lambda end: advertisement()[:78] + end),
                 st.builds(with_byte, st.integers(0, 85), st.integers(0, 255))))
def test_any_bytes_are_refused_or_tell_a_host(frame: bytes) -> None:
    try:
        address, mac = discovery.decode(frame)
    except Malformed:
        return
    assert len(address) in (4, 16) and len(mac) == 6 and not mac[0] & 1
