"""Multicast listener reports, byte by byte (RFC 3810 5.2, RFC 2711)."""

from __future__ import annotations

from ipaddress import IPv6Address

from lbctl.frames import mld
from lbctl.frames.discovery import link_local
from lbctl.frames.packets import transport_checksum

MAC, ADDRESS = bytes.fromhex("0200000000a1"), IPv6Address("2001:db8::1:2345").packed


def test_a_report_names_the_group_of_each_address() -> None:
    frame = mld.report(MAC, [ADDRESS, link_local(MAC)])
    assert frame[:14].hex() == "333300000016" + MAC.hex() + "86dd"
    assert (frame[20], frame[21]) == (0, 1), "a hop-by-hop header comes next; hop limit 1"
    assert int.from_bytes(frame[18:20]) == len(frame) - 54
    assert frame[54:62].hex() == "3a00050200000100", "router alert for MLD"
    body = frame[62:]
    assert body[:2].hex() == "8f00" and body[4:8].hex() == "00000002"
    assert body[8:28].hex() == "04000000" + "ff0200000000000000000001ff012345"
    assert body[28:].hex() == "04000000" + "ff0200000000000000000001ff0000a1"
    assert transport_checksum(58, frame[22:38], frame[38:54], body) == 0
