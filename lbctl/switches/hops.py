"""The MACs that the LBs let pass without a look: from there come the packets of entries that answer there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from lbctl.openflow.flow import Flow
from lbctl.openflow.hop_rules import hop_flow
from lbctl.values.side import Side

MOST = 4096
"""Of each side. The one that has been known longest makes room. If it is still in use, its next packet makes it
known again."""


class Hops:
    """The same for all LBs, so that an entry can go to any of them. MACs are packed."""

    def __init__(self) -> None:
        self._known: tuple[dict[bytes, Flow], ...] = tuple({} for _ in Side)
        """By side; the oldest first."""

    def knows(self, side: Side, mac: bytes) -> bool:
        """Is that MAC one of those there?"""
        return mac in self._known[side.number]

    def flows(self) -> Iterator[Flow]:
        """All that every LB should hold."""
        return itertools.chain.from_iterable(known.values() for known in self._known)

    def add(self, side: Side, mac: bytes) -> tuple[list[Flow], list[Flow]]:
        """The flows that come and that go by this."""
        known = self._known[side.number]
        if mac in known:
            return [], []
        gone = [known.pop(next(iter(known)))] if len(known) >= MOST else []
        known[mac] = hop_flow(side, mac)
        return [known[mac]], gone
