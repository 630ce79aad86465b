"""Frames: decoders against any bytes, builders against Ryu's packet library."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lbctl import packets
from lbctl.packets import ACK, FIN, PSH, RST, SYN, Malformed

CLIENT_MAC, LB_MAC = bytes.fromhex("02000000c001"), bytes.fromhex("020000000001")
CLIENT, EXTERNAL = bytes([203, 0, 113, 7]), bytes([198, 51, 100, 1])

macs = st.binary(min_size=6, max_size=6)
host_macs = macs.filter(lambda mac: not mac[0] & 1)
hosts = st.builds(
    lambda first, rest: bytes([first]) + rest,
    st.sampled_from([1, 10, 126, 128, 223]),
    st.binary(min_size=3, max_size=3),
)
ports = st.integers(0, 0xFFFF)
numbers = st.integers(0, 0xFFFFFFFF)


@st.composite
def segments(draw):
    return packets.tcp_segment(
        LB_MAC,
        draw(host_macs),
        draw(hosts),
        draw(ports),
        draw(hosts),
        draw(ports),
        flags=draw(st.integers(0, 0xFF)),
        seq=draw(numbers),
        ack=draw(numbers),
        payload=draw(st.binary(max_size=60)),
        ttl=draw(st.integers(0, 255)),
    )


@st.composite
def mutated_segments(draw):
    """Frames near the right ones: some bytes changed, then cut."""
    frame = bytearray(draw(segments()))
    for _ in range(draw(st.integers(0, 4))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.integers(0, len(frame)))] if draw(st.booleans()) else frame)


any_frames = st.one_of(st.binary(max_size=120), mutated_segments())
any_arp = st.binary(max_size=60).map(lambda end: packets.arp_probe(LB_MAC, EXTERNAL)[:22] + end)
any_words = st.one_of(
    st.binary(max_size=80), st.integers(0, 9).map(lambda count: b"\xff" * count), st.integers(0, 9).map(bytes)
)


def segment(**fields):
    fields = {"flags": SYN, "seq": 100} | fields
    return packets.tcp_segment(LB_MAC, CLIENT_MAC, CLIENT, 40000, EXTERNAL, 80, **fields)


def patched(frame: bytes, changes: dict[int, int]) -> bytes:
    frame = bytearray(frame)
    for position, value in changes.items():
        frame[position] = value
    return bytes(frame)


def icmp_from_client(kind: int) -> bytes:
    return patched(segment(), {23: packets.PROTOCOL_ICMP, 34: kind})


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
        packet = packets.decode(patched(segment(), {23: 17}))
        assert (packet.protocol, packet.src_port, packet.dst_port, packet.payload_length) == (17, None, None, 20)

    @pytest.mark.parametrize(
        ("frame", "reason"),
        [
            (b"", "truncated"),
            (segment()[:33], "truncated"),
            (segment()[:53], "truncated"),
            (patched(segment(), {12: 0x81, 13: 0}), "not IPv4"),
            (patched(segment(), {12: 0x86, 13: 0xDD}), "not IPv4"),
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
        if packet.protocol != packets.PROTOCOL_TCP:
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
        assert packets.decode(again) == packet._replace(payload_offset=54)

    @given(segments())
    def test_built_segments_are_accepted(self, frame):
        packet = packets.decode(frame)
        assert packet.payload_offset + packet.payload_length == len(frame)


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


class TestIcmpUnreachable:
    def answer(self, frame: bytes) -> bytes | None:
        return packets.icmp_unreachable(frame, packets.HOST_UNREACHABLE, LB_MAC, EXTERNAL)

    def test_quotes_the_packet_without_padding(self):
        frame = segment(payload=b"abc")
        packet = packets.decode(self.answer(frame + bytes(3)))
        answer = self.answer(frame + bytes(3))
        assert (packet.eth_dst, packet.eth_src, packet.src, packet.dst) == (CLIENT_MAC, LB_MAC, EXTERNAL, CLIENT)
        assert packet.protocol == packets.PROTOCOL_ICMP
        assert answer[34:36] == bytes([3, packets.HOST_UNREACHABLE])
        assert answer[42:] == frame[14:]

    def test_a_long_packet_is_cut(self):
        frame = segment(payload=bytes(range(256)) * 5)
        answer = self.answer(frame)
        assert len(answer) == 14 + 576
        assert frame[14:].startswith(answer[42:])

    @pytest.mark.parametrize("kind", [0, 8, 13])
    def test_icmp_queries_are_answered(self, kind):
        assert self.answer(icmp_from_client(kind)) is not None

    @pytest.mark.parametrize(
        ("name", "frame"),
        [
            ("ICMP errors", icmp_from_client(3)),
            ("ICMP time exceeded", icmp_from_client(11)),
            ("unknown ICMP types, which may be errors", icmp_from_client(200)),
            ("ICMP without a type", patched(icmp_from_client(8), {17: 20})),
            ("link-layer broadcast", patched(segment(), dict.fromkeys(range(6), 255))),
            ("multicast destination", patched(segment(), {30: 224})),
            ("broadcast destination", patched(segment(), {30: 255})),
            ("multicast source MAC", patched(segment(), {6: 1})),
            ("source 0.0.0.0", patched(segment(), {26: 0, 27: 0, 28: 0, 29: 0})),
            ("multicast source", patched(segment(), {26: 224})),
            ("a fragment other than the first", patched(segment(), {21: 1})),
            ("malformed", segment()[:40]),
            ("not IPv4", packets.arp_probe(LB_MAC, EXTERNAL)),
        ],
    )
    def test_no_answer(self, name, frame):
        assert self.answer(frame) is None, name

    def test_the_first_fragment_is_answered(self):
        assert self.answer(patched(segment(), {20: 0x20})) is not None

    @given(any_frames)
    def test_any_bytes(self, frame):
        answer = self.answer(frame)
        if answer is not None:
            assert len(answer) <= 14 + 576
            assert packets.decode(answer).dst == frame[26:30]
            assert self.answer(answer) is None, "no error in answer to an error"


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071 as it is written, for comparison."""
    total = 0
    for i in range(0, len(data), 2):
        total += (data[i] << 8) + (data[i + 1] if i + 1 < len(data) else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class TestChecksums:
    @given(any_words)
    def test_as_rfc_1071(self, data):
        assert packets.checksum(data) == ~ones_complement_sum(data) & 0xFFFF

    @given(segments())
    def test_segments(self, frame):
        packet = packets.decode(frame)
        assert ones_complement_sum(frame[14:34]) == 0xFFFF
        pseudo_header = packet.src + packet.dst + bytes([0, 6]) + (len(frame) - 34).to_bytes(2)
        assert ones_complement_sum(pseudo_header + frame[34:]) == 0xFFFF

    @given(segments(), st.integers(0, 15))
    def test_icmp(self, frame, code):
        answer = packets.icmp_unreachable(frame, code, LB_MAC, EXTERNAL)
        assert ones_complement_sum(answer[14:34]) == 0xFFFF
        assert ones_complement_sum(answer[34:]) == 0xFFFF

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
