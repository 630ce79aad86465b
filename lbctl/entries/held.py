"""Packets held for an external IP while no LB can translate them (the seed's memory of the transition mode)."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from lbctl.site.model import Settings, Tunnel
from lbctl.values.side import Side


class HeldPacket(NamedTuple):
    """A whole frame, and where it came from. tunnel: of the internal side; None: from the internal network itself."""

    frame: bytes
    side: Side
    tunnel: Tunnel | None = None


class HeldPackets:
    """A bounded queue, in order of arrival. An overflow is counted in `lost`, never silent."""

    def __init__(self, settings: Settings) -> None:
        self._limit_packets = settings.held_packets
        self._limit_size = settings.held_bytes
        self._queue: deque[HeldPacket] = deque()
        self._size = 0
        self.held = 0
        self.released = 0
        self.lost = 0

    def hold(self, packet: HeldPacket) -> bool:
        """False: there is no room, it is lost."""
        if len(self._queue) >= self._limit_packets or self._size + len(packet.frame) > self._limit_size:
            self.lost += 1
            return False
        self._queue.append(packet)
        self._size += len(packet.frame)
        self.held += 1
        return True

    def release(self) -> list[HeldPacket]:
        """All held packets, oldest first; none is held afterwards."""
        packets = self._empty()
        self.released += len(packets)
        return packets

    def discard(self) -> int:
        """Nobody can take them: they are lost. Returns how many."""
        lost = len(self._empty())
        self.lost += lost
        return lost

    def _empty(self) -> list[HeldPacket]:
        packets = list(self._queue)
        self._queue.clear()
        self._size = 0
        return packets
