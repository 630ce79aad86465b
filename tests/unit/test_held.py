"""Held packets: bounded, in order, and every one accounted for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbctl.entries.held import HeldPacket, HeldPackets
from lbctl.site.model import Settings
from lbctl.values.side import EXTERNAL, INTERNAL, Side


def queue(packets: int = 3, size: int = 100) -> HeldPackets:
    return HeldPackets(Settings(held_packets=packets, held_bytes=size))


def packet(size: int, side: Side = EXTERNAL) -> HeldPacket:
    return HeldPacket(bytes(size), side)


def test_they_come_out_in_order() -> None:
    held, some = queue(), [packet(1), packet(2, INTERNAL), packet(3)]
    for item in some:
        held.hold(item)
    assert held.release() == some and held.release() == []
    assert (held.held, held.released, held.lost) == (3, 3, 0)


def test_at_most_so_many() -> None:
    held = queue()
    for _ in range(5):
        held.hold(packet(1))
    assert (held.held, held.lost, len(held.release())) == (3, 2, 3)


def test_at_most_so_many_bytes() -> None:
    held = queue()
    for size in (60, 40, 1):
        held.hold(packet(size))
    assert (held.held, held.lost) == (2, 1)
    held.release()
    held.hold(packet(100))
    assert (held.held, held.lost) == (3, 1)


@given(st.lists(st.one_of(st.none(), st.integers(0, 120)), max_size=40))
def test_every_packet_is_held_or_lost(events) -> None:
    """None: release."""
    held, offered, out = queue(), 0, 0
    for event in events:
        if event is None:
            out += len(held.release())
        else:
            offered += 1
            held.hold(packet(event))
        assert held.held + held.lost == offered and held.released == out <= held.held
