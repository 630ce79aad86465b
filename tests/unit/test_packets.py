"""Frames: decoders against any bytes, builders against Ryu's packet library."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lbctl.frames import packets
from lbctl.frames.packets import ACK, FIN, PSH, RST, SYN, Malformed
from lbctl.values.protocols import TCP, UDP
from tests.unit.frames import (
    CLIENT,
    CLIENT_MAC,
    CLIENT_V6,
    EXTERNAL,
    EXTERNAL_V6,
    LB_MAC,
    any_frames,
    checksums_are_right,
    datagram,
    datagrams,
    extended,
    ones_complement_sum,
    patched,
    segment,
    segment_v6,
    segments,
    with_extension,
)

any_arp = st.binary(max_size=60).map(lambda end: packets.arp_probe(LB_MAC, EXTERNAL)[:22] + end)
any_words = st.one_of(
    st.binary(max_size=80), st.integers(0, 9).map(lambda count: b"\xff" * count), st.integers(0, 9).map(bytes)
)


class TestDecode:
    def test_fields(self):
        packet = packets.decode(segment(flags=ACK | PSH, seq=1, ack=2, payload=b"abc", ttl=9) + bytes(3))
        assert packet == packets.Packet(
            LB_MAC, CLIENT_MAC, 6, CLIENT, EXTERNAL, 40000, 80, ACK | PSH, 1, 2, 54, 3, 9
        )

    def test_ipv4_and_tcp_options_are_skipped(self):
        frame = segment(payload=b"\1" * 8 + b"xyz")
        with_ip_options = frame[:14] + b"\x46" + frame[15:34] + b"\1" * 4 + frame[34:]
        frame = patched(with_ip_options, {17: len(with_ip_options) - 14, 34 + 4 + 12: 7 << 4})
        packet = packets.decode(frame)
        assert frame[packet.payload_offset :] == b"xyz"
        assert packet.payload_length == 3
        assert (packet.src_port, packet.dst_port) == (40000, 80)

    def test_other_protocols_have_no_ports(self):
        for protocol in (1, 47, 132):
            packet = packets.decode(patched(segment(), {23: protocol}))
            assert (packet.protocol, packet.src_port, packet.dst_port, packet.payload_length) == (
                protocol,
                None,
                None,
                20,
            )
            packet = packets.decode(patched(segment_v6(), {20: protocol}))
            assert (packet.protocol, packet.src_port, packet.dst_port, packet.payload_length) == (
                protocol,
                None,
                None,
                20,
            )

    def test_udp(self):
        for frame, src, dst, start in ((datagram(payload=b"abc"), CLIENT, EXTERNAL, 34),
                                       (datagram(CLIENT_V6, EXTERNAL_V6, payload=b"abc"), CLIENT_V6, EXTERNAL_V6, 54)):
            assert packets.decode(frame + bytes(5)) == packets.Packet(
                LB_MAC, CLIENT_MAC, UDP, src, dst, 40000, 53, 0, 0, 0, start, 11, 64)

    def test_ipv6(self):
        packet = packets.decode(segment_v6(flags=ACK | PSH, seq=1, ack=2, payload=b"abc", ttl=9) + bytes(3))
        assert packet == packets.Packet(
            LB_MAC, CLIENT_MAC, TCP, CLIENT_V6, EXTERNAL_V6, 40000, 80, ACK | PSH, 1, 2, 74, 3, 9
        )

    @pytest.mark.parametrize("headers", [(0,), (43,), (60,), (0, 43, 60), (60, 60)])
    def test_ipv6_extension_headers_are_skipped(self, headers):
        """RFC 8200 section 4."""
        frame, plain = segment_v6(payload=b"xyz"), packets.decode(segment_v6(payload=b"xyz"))
        for place, kind in enumerate(headers):
            frame = with_extension(frame, kind, 8 * (place + 1))
        added = sum(8 * (place + 1) for place in range(len(headers)))
        packet = packets.decode(frame)
        assert packet == plain._replace(payload_offset=plain.payload_offset + added)
        assert frame[packet.payload_offset:] == b"xyz"

    @pytest.mark.parametrize(
        ("frame", "reason"),
        [
            (b"", "truncated"),
            (segment()[:33], "truncated"),
            (segment()[:53], "truncated"),
            (patched(segment(), {12: 0x81, 13: 0}), "not IP"),
            (packets.arp_probe(LB_MAC, EXTERNAL), "not IP"),
            (patched(segment(), {14: 0x65}), "bad IP version"),
            (patched(segment(), {14: 0x44}), "bad IPv4 header length"),
            (patched(segment(), {17: 19}), "bad IPv4 header length"),
            (patched(segment(), {16: 0xFF}), "truncated"),
            (patched(segment(), {17: 39}), "truncated TCP header"),
            (patched(segment(), {14: 0x4A}), "truncated TCP header"),
            (patched(segment(), {46: 0x40}), "bad TCP header length"),
            (patched(segment(), {46: 0x60}), "bad TCP header length"),
            (patched(segment(), {20: 0x20}), "fragment"),
            (patched(segment(), {21: 1}), "fragment"),
            (patched(segment(), {6: 1}), "source is not a host"),
            (patched(segment(), {26: 224}), "source is not a host"),
            (patched(segment(), {26: 127}), "source is not a host"),
            (patched(segment(), {26: 0}), "source is not a host"),
            (datagram()[:41], "truncated"),
            (patched(datagram(), {17: 27}), "truncated UDP header"),
            (segment_v6()[:53], "truncated"),
            (segment_v6()[:73], "truncated"),
            (patched(segment(), {12: 0x86, 13: 0xDD}) + bytes(9), "bad IP version"),
            (patched(segment_v6(), {14: 0x45}), "bad IP version"),
            (patched(segment_v6(), {18: 1}), "truncated"),
            (patched(segment_v6(), {19: 19}), "truncated TCP header"),
            (patched(segment_v6(), {66: 0x40}), "bad TCP header length"),
            (patched(segment_v6(), {66: 0x60}), "bad TCP header length"),
            (patched(datagram(CLIENT_V6, EXTERNAL_V6), {19: 7}), "truncated UDP header"),
            (with_extension(segment_v6(), 44), "fragment"),
            (with_extension(with_extension(segment_v6(), 44), 0), "fragment"),
            (patched(with_extension(segment_v6(), 0), {55: 4}), "truncated"),
            (patched(segment_v6(), {20: 0, 19: 4}), "truncated"),
            (patched(segment_v6(), {6: 1}), "source is not a host"),
            (patched(segment_v6(), {22: 255}), "source is not a host"),
            (patched(segment_v6(), dict.fromkeys(range(22, 37), 0)), "source is not a host"),
        ],
    )
    def test_malformed(self, frame, reason):
        with pytest.raises(Malformed) as error:
            packets.decode(frame)
        assert error.value.reason == reason

    @given(any_frames)
    @example(segment())
    def test_any_bytes_are_refused_or_can_be_encoded_again(self, frame):
        try:
            packet = packets.decode(frame)
        except Malformed:
            return
        payload = frame[packet.payload_offset : packet.payload_offset + packet.payload_length]
        assert len(payload) == packet.payload_length
        assert packets.is_host(packet.src) and len(packet.src) == len(packet.dst) == (16 if frame[12] == 0x86 else 4)
        if packet.protocol == UDP:
            assert (packet.src_port, packet.dst_port) == (int.from_bytes(payload[:2]), int.from_bytes(payload[2:4]))
        if packet.protocol != TCP:
            return
        again = packets.tcp_segment(
            packet.eth_dst,
            packet.eth_src,
            packet.src,
            packet.src_port,
            packet.dst,
            packet.dst_port,
            flags=packet.tcp_flags,
            seq=packet.seq,
            ack=packet.ack,
            payload=payload,
            ttl=packet.ttl,
        )
        assert packets.decode(again) == packet._replace(payload_offset=54 if len(packet.src) == 4 else 74)

    @given(st.one_of(segments(), datagrams()))
    def test_built_frames_are_accepted(self, frame):
        packet = packets.decode(frame)
        assert packet.payload_offset + packet.payload_length == len(frame)

    @given(extended())
    def test_extension_headers_change_nothing_but_where_the_payload_is(self, frame):
        """They are skipped; a fragment header among them refuses the packet."""
        kinds, start = [], 54
        kind = frame[20]
        while kind != TCP:
            kinds.append(kind)
            kind, start = frame[start], start + 8 + 8 * frame[start + 1]
        if 44 in kinds:
            with pytest.raises(Malformed, match="fragment"):
                packets.decode(frame)
            return
        bare = frame[:18] + (len(frame) - start).to_bytes(2) + bytes([TCP]) + frame[21:54] + frame[start:]
        assert packets.decode(frame) == packets.decode(bare)._replace(payload_offset=start + 20)


class TestArp:
    def test_probe_and_announcement(self):
        probe = packets.arp_probe(LB_MAC, EXTERNAL)
        assert probe[:6] == packets.BROADCAST_MAC
        assert packets.decode_arp(probe) == packets.Arp(1, LB_MAC, bytes(4), bytes(6), EXTERNAL)
        announcement = packets.arp_announcement(LB_MAC, EXTERNAL)
        assert packets.decode_arp(announcement) == packets.Arp(1, LB_MAC, EXTERNAL, bytes(6), EXTERNAL)

    def test_ryu_reads_the_same(self):
        ryu_packet = pytest.importorskip("ryu.lib.packet.packet")
        from ryu.lib.packet import arp, ethernet

        for frame in (packets.arp_probe(LB_MAC, EXTERNAL), packets.arp_announcement(LB_MAC, EXTERNAL)):
            parsed = ryu_packet.Packet(frame)
            eth, body = parsed.get_protocol(ethernet.ethernet), parsed.get_protocol(arp.arp)
            assert (eth.dst, eth.src) == ("ff:ff:ff:ff:ff:ff", LB_MAC.hex(":"))
            assert (body.opcode, body.src_mac, body.dst_ip) == (1, LB_MAC.hex(":"), "198.51.100.1")

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({12: 0x08, 13: 0x00}, "not ARP"),
            ({15: 6}, "ARP not for IPv4 over Ethernet"),
            ({18: 8}, "ARP not for IPv4 over Ethernet"),
            ({21: 3}, "unknown ARP operation"),
            ({22: 1}, "source is not a host"),
        ],
    )
    def test_malformed(self, changes, reason):
        with pytest.raises(Malformed) as error:
            packets.decode_arp(patched(packets.arp_probe(LB_MAC, EXTERNAL), changes))
        assert error.value.reason == reason

    @given(st.one_of(any_frames, any_arp))
    def test_any_bytes_are_refused_or_complete(self, frame):
        try:
            arp = packets.decode_arp(frame)
        except Malformed:
            return
        assert arp.sha + arp.spa + arp.tha + arp.tpa == frame[22:42]


class TestTcpReset:
    @pytest.mark.parametrize(
        ("name", "fields", "flags", "seq", "ack"),
        [
            ("a segment with ACK: its ack is the sequence number", {"flags": ACK, "ack": 77}, RST, 77, 0),
            ("SYN counts as one", {"flags": SYN}, RST | ACK, 0, 101),
            ("SYN with data", {"flags": SYN, "payload": b"abc"}, RST | ACK, 0, 104),
            ("FIN without ACK counts as one", {"flags": FIN}, RST | ACK, 0, 101),
            ("no flag at all", {"flags": 0, "payload": b"ab"}, RST | ACK, 0, 102),
            ("the sum wraps", {"flags": SYN, "seq": 0xFFFFFFFF}, RST | ACK, 0, 0),
        ],
    )
    def test_numbers(self, name, fields, flags, seq, ack):
        reset = packets.decode(packets.tcp_reset(packets.decode(segment(**fields)), LB_MAC))
        assert (reset.tcp_flags, reset.seq, reset.ack, reset.payload_length) == (flags, seq, ack, 0), name
        assert (reset.eth_dst, reset.eth_src) == (CLIENT_MAC, LB_MAC)
        assert (reset.src, reset.src_port, reset.dst, reset.dst_port) == (EXTERNAL, 80, CLIENT, 40000)

    @pytest.mark.parametrize(
        "frame",
        [
            segment(flags=RST),
            segment(flags=RST | ACK),
            patched(segment(), {23: 17}),
            patched(segment(), {0: 1}),
            patched(segment(), {30: 255, 31: 255, 32: 255, 33: 255}),
            patched(segment(), {30: 224}),
        ],
    )
    def test_no_answer(self, frame):
        assert packets.tcp_reset(packets.decode(frame), LB_MAC) is None

    @given(any_frames)
    def test_never_answers_its_own_answer(self, frame):
        try:
            reset = packets.tcp_reset(packets.decode(frame), LB_MAC)
        except Malformed:
            return
        if reset is not None:
            assert packets.tcp_reset(packets.decode(reset), CLIENT_MAC) is None


class TestChecksums:
    @given(any_words)
    def test_as_rfc_1071(self, data):
        assert packets.checksum(data) == ~ones_complement_sum(data) & 0xFFFF

    @given(st.one_of(segments(), datagrams()))
    def test_built_frames(self, frame):
        assert checksums_are_right(frame)

    @pytest.mark.parametrize("payload", [b"", b"a", b"ab", b"\xff" * 31])
    def test_ryu_computes_the_same(self, payload):
        ryu_packet = pytest.importorskip("ryu.lib.packet.packet")
        from ryu.lib.packet import ipv4, tcp

        frame = segment(flags=ACK, seq=5, ack=9, payload=payload)
        parsed = ryu_packet.Packet(frame)
        ip, segment_header = parsed.get_protocol(ipv4.ipv4), parsed.get_protocol(tcp.tcp)
        checksums = ip.csum, segment_header.csum
        ip.csum = segment_header.csum = 0
        assert segment_header.serialize(payload, ip)[16:18] == checksums[1].to_bytes(2)
        assert ip.serialize(frame[34:], None)[10:12] == checksums[0].to_bytes(2)


def test_with_eth_dst_changes_nothing_else():
    frame = segment(payload=b"abc")
    assert packets.with_eth_dst(frame, CLIENT_MAC) == CLIENT_MAC + frame[6:]
