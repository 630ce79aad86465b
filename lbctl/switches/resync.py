"""Brings what a switch holds up to date, a few flows at a time, while orders go on: of a large site, it has tens of
thousands, and packets wait for all that is done at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from lbctl.openflow.flow import Flow, Identity
from lbctl.openflow.messages import AddFlows, DeleteFlows, Message
from lbctl.switches.switch import Switch

NOTHING = 5
"""As many flows an empty portion takes as long as."""
CHEAPER = 8
"""How many flows are looked up in the time that it takes to make one."""


class Resync:
    """Of one switch, from the beginning; what `portions` gives is computed when its turn comes."""

    def __init__(self, switch: Switch, portions: Iterator[list[Flow]]) -> None:
        """portions: see Switch.portions."""
        self._switch, self._portions = switch, portions
        self._seen: set[Identity] = set()
        self._come = switch.held.watch()
        self._needless: Iterator[Flow] | None = None
        """Once all portions have been looked at: flows that may be."""
        self.ended = False

    def step(self, most: int) -> tuple[list[Message], int]:
        """The messages that come next, and how many flows have been looked at: about `most`."""
        return self._add(most) if self._needless is None else self._delete(self._needless, most)

    def _add(self, most: int) -> tuple[list[Message], int]:
        changed: list[Flow] = []
        looked_at, held = 0, self._switch.held
        for portion in self._portions:
            looked_at += len(portion) or NOTHING
            self._seen.update(flow.identity for flow in portion)
            some = [flow for flow in portion if not held.has(flow)]
            held.change(some, ())
            changed += some
            if looked_at >= most:
                break
        else:
            self._needless = iter(list(held.flows()))
        return [AddFlows(tuple(changed))] if changed else [], looked_at

    def _delete(self, needless: Iterator[Flow], most: int) -> tuple[list[Message], int]:
        """What has been ordered meanwhile stays, whatever was looked at before it."""
        held, some = self._switch.held, list(itertools.islice(needless, CHEAPER * most))
        self.ended = len(some) < CHEAPER * most
        gone = tuple(flow for flow in some if flow.identity not in self._seen and flow.identity not in self._come
                     and held.has(flow))
        held.change((), gone)
        return [DeleteFlows(gone)] if gone else [], len(some) // CHEAPER
