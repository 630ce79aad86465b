"""How the slices of a service change hands while connections run (docs/slices.md).

Nobody knows the connections of a slice, so its new server gets the new ones and the old server keeps the others, in
these steps, each of which is in force before the next one begins:

    narrowed  every connection of the slice is looked at by itself, and SYNs come to the controller, which sends them to
              the old server and remembers them. The datapath's cached flows for the slice as a whole end meanwhile.
    switched  a SYN makes an entry to the new server; one that comes again makes one to the old server.
    flipped   once the old server's connections have entries, or are over: what has no entry goes to the new server.
    settling  SYNs come to the controller no more; then the entries to the new server are not needed any more.

Why so: a cached flow for all of a slice outlives the change of its flows for some ms, and would send the ACK of a
connection that has just been given to the new server to the old one.

Of datagrams nobody knows which one is a connection's first: for as long as a connection may be silent (`switched`) one
that has no entry makes one to the old server.

A service that is to have entries by connection (`leaving`) goes the same way: each slice's new owner is nobody, so what
has no entry gets one by the scheduler. A slice that is flipped is a slice no more.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lbctl.openflow.slice_rules import SliceState
from lbctl.servers.slices import NOBODYS, Owners, divided
from lbctl.values.addresses import Endpoint
from lbctl.values.slices import Count, Sent, slice_of

REMEMBERED = 20_000
"""SYNs of a change; one that is not remembered, and comes again, opens a connection to the new server."""


CACHED = 15.0
"""Seconds in which the datapath has forgotten connections that are over (other_config:max-idle, and some)."""


class Step(enum.Enum):
    NARROWED = "narrowed"
    SWITCHED = "switched"
    FLIPPED = "flipped"
    SETTLING = "settling"


class Why(enum.Enum):
    """What a change is for."""

    TAKES_NONE = "their server takes no connections"
    SILENT = "their server does not answer"
    SHARES = "other servers, or weights"
    LEAVING = "entries by connection, or other slices, are wanted"
    UNKNOWN = "it began before the controller started"


class Opened(NamedTuple):
    """What becomes of a connection: it goes through that table, by its slice; or (None) it has an entry to that server
    (None: there is none; where the service is leaving: to any)."""

    table: str | None
    server: Endpoint | None = None
    until: float = 0.0
    """Until then an earlier connection with the same port may have had no entry, nor have been over for long."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Change:
    """Slices that change hands together. before: of each, its old server. since: when its last step was in force; None:
    it is not yet. waiting: who has not confirmed that; None: nobody has been asked."""

    before: dict[int, Endpoint]
    step: Step = Step.NARROWED
    begun: float = 0.0
    why: Why = Why.UNKNOWN
    since: float | None = None
    waiting: set[str] | None = None
    syns: dict[bytes, int] = field(default_factory=dict)
    """Their sequence numbers, by the keys of the connections that they open at the old server."""

    def go_on(self, step: Step) -> None:
        """That step is ordered."""
        self.step, self.since, self.waiting = step, None, None


class Slicing:
    """The slices of one service."""

    def __init__(self, owners: Owners = NOBODYS, before: Mapping[int, Endpoint] | None = None,
                 by_client: bool = False, datagrams: bool = False) -> None:
        """before: of the slices that were changing hands when the controller ended. by_client: see slice_of.
        datagrams: the service's protocol is UDP."""
        self.by_client, self.datagrams = by_client, datagrams
        self.leaving = False
        """Is the service to have entries by connection?"""
        self.owners = list(owners)
        """Who gets a slice's new connections, at the latest when its change is over."""
        self.changes: list[Change] = [Change(dict(before), self._first_step)] if before else []
        self.weights: dict[Endpoint, int] | None = None
        """Those that it was divided by last; None: it has not been, or is to be again."""
        self.mixed: set[int] = set()
        """Slices of whose connections some have entries, though they do not change hands."""
        self.sent: dict[int, Sent] = {}
        """By slice, as of the last reading."""
        self.connections: dict[Endpoint, Count] = {}
        """As their sockets told last; nothing of servers whose sockets nobody tells."""

    @property
    def begun(self) -> bool:
        """Has it been divided yet? Until then connections have entries."""
        return self.weights is not None or any(self.owners) or bool(self.changes)

    @property
    def left(self) -> bool:
        """Do all of its connections have entries?"""
        return self.leaving and not self.changes and not any(self.owners)

    @property
    def _first_step(self) -> Step:
        return Step.SWITCHED if self.datagrams else Step.NARROWED

    def servers(self) -> set[Endpoint]:
        """Those that connections may go to that have no entry."""
        return {owner for owner in self.owners if owner} | {
            server for change in self.changes for server in change.before.values()
        }

    def counted(self, server: Endpoint) -> int | None:
        """Its connections, as its sockets told last. None: nobody tells them, or it is losing slices, so that some may
        have come since."""
        count = self.connections.get(server)
        losing = any(server in change.before.values() for change in self.changes)
        return None if count is None or losing else count.connections

    def default(self, number: int) -> Endpoint | None:
        """Where packets of that slice go that have no entry."""
        change = self.change_of(number)
        if change and change.step in (Step.NARROWED, Step.SWITCHED):
            return change.before[number]
        return self.owners[number]

    def states(self) -> tuple[SliceState, ...]:
        """Of all slices, as their flows are made of it."""
        return tuple(map(self.state, range(len(self.owners))))

    def state(self, number: int) -> SliceState:
        change = self.change_of(number)
        asking = change is not None and change.step is not Step.SETTLING
        return SliceState(self.owners[number], self.default(number), change is not None or number in self.mixed, asking)

    def change_of(self, number: int) -> Change | None:
        return next((change for change in self.changes if number in change.before), None)

    def opened(self, key: bytes, sequence: int) -> Opened:
        """By a SYN with that sequence number. key: its connection's."""
        number = slice_of(key, self.by_client)
        change = self.change_of(number)
        if change is None:
            return Opened("slices_in" if self.owners[number] else None)
        if change.step is Step.NARROWED:
            if len(change.syns) < REMEMBERED:
                change.syns[key] = sequence
            return Opened("access_in")
        old = self.datagrams and change.step is Step.SWITCHED or change.syns.get(key) == sequence
        server = change.before[number] if old else self.owners[number]
        return Opened(None, server, change.begun + CACHED)

    def divide(self, weights: Mapping[Endpoint, int], gone: Callable[[Endpoint], bool],
               silent: Callable[[Endpoint], bool], now: float) -> None:
        """Gives each of these servers its share of the slices. gone: has that server lost its connections, so that its
        slices can go to others at once? silent: does it not answer, so that new connections can't wait there?"""
        self.weights = dict(weights)
        self._forget(gone)
        wanted = divided(tuple(self.owners), weights)
        begun = {Why.SILENT: Change({}, Step.SWITCHED, now, Why.SILENT)}
        begun |= {why: Change({}, self._first_step, now, why) for why in (Why.TAKES_NONE, Why.SHARES)}
        for number, (owner, new) in enumerate(zip(self.owners, wanted, strict=True)):
            if owner == new:
                continue
            changing = self.change_of(number)
            if changing and not self._may_redirect(changing, owner, weights, gone):
                continue  # one after the other
            self.owners[number] = new
            if changing is None and owner is not None and not gone(owner):
                why = Why.SILENT if silent(owner) else Why.SHARES if owner in weights else Why.TAKES_NONE
                begun[why].before[number] = owner
                self.mixed.discard(number)
        self.changes += [change for change in begun.values() if change.before]

    def leave(self, gone: Callable[[Endpoint], bool], now: float) -> None:
        """Its slices are to be nobody's. gone: as for `divide`. To be called until it has left: a slice that changes
        hands does that first."""
        self.weights = None
        self._forget(gone)
        before = {number: owner for number, owner in enumerate(self.owners)
                  if owner is not None and self.change_of(number) is None}
        for number in before:
            self.owners[number] = None
        self.mixed -= before.keys()
        if staying := {number: owner for number, owner in before.items() if not gone(owner)}:
            self.changes.append(Change(staying, self._first_step, now, Why.LEAVING))

    def depart(self, change: Change) -> None:
        """All connections of its slices have entries, and nobody owns these."""
        self.changes.remove(change)

    @staticmethod
    def _may_redirect(
        change: Change, owner: Endpoint | None, weights: Mapping[Endpoint, int], gone: Callable[[Endpoint], bool]
    ) -> bool:
        """May a slice of that change, whose new owner takes no connections any more, get another one at once? Not when
        it has connections there that have no entry."""
        if owner is not None and gone(owner):
            return True
        return change.step is not Step.SETTLING and (owner is None or owner not in weights)

    def _forget(self, gone: Callable[[Endpoint], bool]) -> None:
        """Slices whose old server has lost its connections have changed hands."""
        for change in self.changes:
            for number in [number for number, server in change.before.items() if gone(server)]:
                del change.before[number]
                self.mixed.add(number)
        self.changes = [change for change in self.changes if change.before]

    def flip(self, change: Change, numbers: Collection[int]) -> Change:
        """These slices of the change go on to the next step, as a change of their own if there are others."""
        if len(numbers) < len(change.before):
            rest = {number: server for number, server in change.before.items() if number not in numbers}
            self.changes.append(replace(change, before=rest))
            change.before = {number: change.before[number] for number in numbers}
        change.go_on(Step.FLIPPED)
        return change

    def end(self, change: Change) -> None:
        """Its slices have changed hands. Some of their connections may have entries still."""
        self.changes.remove(change)
        self.mixed |= change.before.keys()
        self.weights = None  # what has waited for this is looked at again

    def mixed_of(self, with_entries: Iterable[int]) -> set[int]:
        """What `mixed` should be, if those slices have connections with entries."""
        return {number for number in with_entries
                if self.change_of(number) is None and not (self.leaving and self.owners[number] is None)}
