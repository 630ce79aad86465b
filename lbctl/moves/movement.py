"""Moves under way and their records: turns a move's actions into messages, and the switches' answers into its events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbctl.entries.access_table import ENDING, REINSTALLED
from lbctl.entries.held import HeldPackets
from lbctl.frames.discovery import asked_by
from lbctl.ground.effects import STORE, Outbox, Save, ToSwitch, to_switch
from lbctl.ground.move_record import MoveRecord
from lbctl.ground.serving import Serving
from lbctl.moves.move import (
    HOLDING,
    SERVING_UNANNOUNCED,
    Action,
    Announce,
    Assign,
    Confirm,
    Copy,
    Fence,
    Fetch,
    Forget,
    Known,
    Move,
    NotAbortable,
    Release,
    SetHolder,
    SetRole,
)
from lbctl.moves.takeover import Failure, Restoration, Takeover
from lbctl.openflow.cookies import MASK_ALL, Kind
from lbctl.openflow.inbound import EntryStats
from lbctl.openflow.messages import AddEntries, Barrier, DeleteCookie, ReadFlows
from lbctl.store import State, UnfinishedMove
from lbctl.switches.readback import bucket_cookies
from lbctl.values.addresses import Address
from lbctl.values.keys import BUCKETS
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy

if TYPE_CHECKING:
    from lbctl.control import ControlFunction

KEPT_RECORDS = 200
RECOVERY_SECONDS = 10.0
"""A new controller waits this long for both LBs of an unfinished move."""
FORGET_AT_ONCE = 16
"""Buckets of entries that are deleted before the switch must confirm, at most."""
FORGET_FLOWS = 200
"""Flows that are in them, about: a switch is busy with reading, deleting and freeing them for some milliseconds."""


class Movement:
    """All moves of a control function."""

    def __init__(self, control: ControlFunction) -> None:
        self._control = control
        self.moves: dict[str, Move] = {}
        self._by_token: dict[int, tuple[Move, str]] = {}
        self._recovering: dict[str, float] = {}
        self._last_words: dict[int, tuple[str, Serving]] = {}
        self._forgetting: dict[tuple[str, Address], list[int]] = {}
        """Cookies of the entries that an LB is still to forget, bucket by bucket."""
        self._assigned: set[str] = set()
        self._last_id = 0
        self._fencing: dict[int, str] = {}
        """Token -> LB that is to be fenced."""

    # Orders.

    def start(self, address: Address, to: str, strategy: Strategy, now: float,
              from_copies: bool = False) -> tuple[Move, Outbox]:
        """Raises Refused: unknown IP or LB, same LB, LB not connected or failed, move running, server not reached from there, no
        copies."""
        serving = self._control.directory.get(address)
        if serving is None:
            raise Refused(404, "Unknown external IP", f"{address} is no external IP of this site")
        if to not in self._control.switches:
            raise Refused(404, "Unknown load balancer", f"this site has no load balancer {to}")
        if serving.move:
            raise Refused(409, "Move already running", f"{address} is being moved to {serving.move.record.target} "
                          f"(move {serving.move.record.id})")
        if serving.assigned == to:
            raise Refused(409, "Same load balancer", f"{address} is assigned to {to} already")
        for name in (serving.assigned, to):
            switch = self._control.switches[name]
            if not switch.ready or switch.of_ports is None:
                raise Refused(409, "Load balancer not connected", f"{name} is {switch.state}: {switch.reason}")
        source, target = self._control.switches[serving.assigned], self._control.switches[to]
        for port in target.ports.values():
            if not port.up:
                raise Refused(409, "Load balancer not connected", f"{to}: {target.reason}")
        if failure := self._control.detection.failed().get(to):
            raise Refused(409, "Load balancer has failed", f"{to}: {failure.cause}")
        unreached = sorted(str(hop) for hop in serving.next_hops() if hop in source.neighbours and hop not in target.neighbours)
        if unreached:
            raise Refused(409, "Server not reached", f"{to} has no {asked_by(address)} answer from {', '.join(unreached)} yet, "
                          f"though {serving.assigned} has")
        if from_copies and not self._control.copies.kept_elsewhere(serving):
            raise Refused(409, "No copies", f"the entries of {address} are kept nowhere but in the controller: give it copies")
        record = self._record(serving, serving.assigned, to, strategy, now)
        return self.begin(serving, Move(record, serving.table, self._control.site.settings, from_copies=from_copies), now)

    def abort(self, move_id: str, now: float) -> Outbox:
        """Raises Refused: unknown move, ended, or past its route step."""
        move = self.moves.get(move_id)
        if move is None:
            raise Refused(404, "Unknown move", f"there is no record of a move {move_id}")
        try:
            return self._do(move, move.abort(now), now)
        except NotAbortable as error:
            raise Refused(409, "Too late", str(error)) from error

    def take_over(self, serving: Serving, to: str, failure: Failure, fetched: bool, now: float) -> tuple[Move, Outbox]:
        """From its failed LB. fetched: its entries are not all at hand."""
        settings = self._control.site.settings
        transition = settings.failover == "transition" or settings.failover == "when-remote" and fetched
        record = self._record(serving, serving.assigned, to, Strategy.BUFFERED if transition else Strategy.PRECOPY, now, "failover")
        record.cause = failure.cause
        return self.begin(serving, Takeover(record, serving.table, settings, failure.obeys, failure.fence, transition), now)

    def free(self, serving: Serving, to: str, now: float) -> tuple[Move, Outbox]:
        """From an LB that is well, but shall be taken for failed."""
        record = self._record(serving, serving.assigned, to, Strategy.PRECOPY, now, "failover")
        return self.begin(serving, Move(record, serving.table, self._control.site.settings), now)

    def give_back(self, serving: Serving, now: float) -> tuple[Move, Outbox]:
        """To the LB that has it, which holds packets since it has come back without entries."""
        record = self._record(serving, serving.assigned, serving.assigned, Strategy.BUFFERED, now, "restoration")
        record.cause = "restarted together with the controller"
        return self.begin(serving, Restoration(record, serving.table, self._control.site.settings), now)

    def begin(self, serving: Serving, move: Move, now: float) -> tuple[Move, Outbox]:
        """Nothing else moves the external IP now. What its new LB still has of it from an earlier time is deleted first."""
        self._add(serving, move)
        to = move.record.target
        leftovers = self._delete_entries(to, serving, self._forgetting.pop((to, serving.address), []))
        return move, leftovers + self._do(move, move.start(now), now)

    def _record(self, serving: Serving, source: str, to: str, strategy: Strategy, now: float, kind: str = "move") -> MoveRecord:
        self._last_id += 1
        return MoveRecord(str(self._last_id), serving.address, source, to, strategy, now, kind)

    def _add(self, serving: Serving, move: Move) -> None:
        record = move.record
        self.moves[record.id] = serving.move = move
        serving.held = HeldPackets(self._control.site.settings)
        for old in [key for key, kept in self.moves.items() if kept.ended][:max(0, len(self.moves) - KEPT_RECORDS)]:
            del self.moves[old]
        self._control.log(f"{record.kind} started", move=record.id, external_ip=str(serving.address), source=record.source,
                          target=record.target, strategy=record.strategy.value, cause=record.cause)

    # Events.

    def lost(self, name: str, now: float) -> Outbox:
        self._last_words = {token: asked for token, asked in self._last_words.items() if asked[0] != name}
        self._forgetting = {place: cookies for place, cookies in self._forgetting.items() if place[0] != name}
        out: Outbox = []
        for move in self._running():
            if move.record.id in self._recovering:
                continue
            out += self._do(move, move.lost(name, now), now)
        return out

    def failed(self, token: int, reason: str, now: float) -> Outbox:
        move, label = self._by_token.pop(token, (None, ""))
        return self._do(move, move.failed(label, reason, now), now) if move else []

    def tick(self, now: float) -> Outbox:
        out: Outbox = []
        for token, name in list(self._fencing.items()):
            if self._control.switches[name].ready:
                out.append(ToSwitch(name, Barrier(token)))  # it has been told to answer no more, which this confirms
            elif self._control.detection.fenced(name):
                out += self._control.confirmed(name, token, now)
            else:
                continue
            self._fencing.pop(token, None)
        for move in self._running():
            if move.record.id not in self._recovering:
                out += self._do(move, move.tick(now), now)
            elif now >= self._recovering[move.record.id]:
                out += self._resume(move, now)
        return out

    def _running(self) -> list[Move]:
        return [move for move in self.moves.values() if not move.ended]

    # After a restart.

    def unfinished(self) -> dict[Address, UnfinishedMove]:
        """The moves that a new controller would have to finish."""
        return {move.record.external_ip: UnfinishedMove(move.record.source, move.record.target, move.record.strategy)
                for move in self._running() if move.record.id in self._assigned and not isinstance(move, Takeover)}

    def assigned_for_good(self, serving: Serving) -> str:
        """Where a new controller shall take it to be: a failover is not finished but begun anew."""
        move = serving.move
        return move.record.source if isinstance(move, Takeover) and move.record.id in self._assigned else serving.assigned

    def restore(self, state: State, now: float) -> None:
        """Takes up the moves that an earlier controller had not finished, once both LBs have been read back."""
        for address, unfinished in state.unfinished.items():
            serving = self._control.directory.get(address)
            switches = self._control.switches
            if serving is None or unfinished.source not in switches or unfinished.target not in switches:
                continue
            record = self._record(serving, unfinished.source, unfinished.target, unfinished.strategy, now)
            move = Move(record, serving.table, self._control.site.settings, resumed=True)
            self._add(serving, move)
            self._assigned.add(move.record.id)
            self._recovering[move.record.id] = now + RECOVERY_SECONDS
            serving.assigned = unfinished.target
            serving.holders = {unfinished.source, unfinished.target}
            serving.unread = set(serving.holders)
            switches[unfinished.source].roles[address] = SERVING_UNANNOUNCED
            switches[unfinished.target].roles[address] = HOLDING

    def ready(self, name: str, now: float) -> Outbox:
        """An LB has been read back."""
        out: Outbox = []
        for move in self._running():
            pair = (move.record.source, move.record.target)
            if move.record.id in self._recovering and all(self._control.switches[lb].ready for lb in pair):
                out += self._resume(move, now)
        return out

    def _resume(self, move: Move, now: float) -> Outbox:
        del self._recovering[move.record.id]
        out = self._do(move, move.start(now), now)
        for name in (move.record.source, move.record.target):
            if not self._control.switches[name].ready:
                out += self._do(move, move.lost(name, now), now)
        return out

    # Actions.

    def _do(self, move: Move, actions: list[Action], now: float) -> Outbox:
        control = self._control
        serving = control.directory.get(move.record.external_ip)
        out: Outbox = []
        for action in actions:
            out += self._carry_out(move, serving, action, now)
        record, held = move.record, serving.held
        record.packets_held, record.packets_released, record.packets_lost = held.held, held.released, held.lost
        if move.ended and serving.move is move:
            serving.move = None
            self._by_token = {token: wait for token, wait in self._by_token.items() if wait[0] is not move}
            self._fencing = {token: name for token, name in self._fencing.items() if token in self._by_token}
            self._assigned.discard(record.id)
            control.log("move ended", move=record.id, external_ip=str(record.external_ip), state=record.state,
                        reason=record.reason, entries=record.entries_copied, held=record.packets_held,
                        lost=record.packets_lost, seconds=round(now - record.started, 3))
        return out

    def _carry_out(self, move: Move, serving: Serving, action: Action, now: float) -> Outbox:
        control = self._control
        match action:
            case SetRole(lb, role):
                return to_switch(lb, control.switches[lb].set_role(serving.config, role))
            case SetHolder(lb, holds):
                (serving.holders.add if holds else serving.holders.discard)(lb)
                return []
            case Confirm(lb, label):
                return [ToSwitch(lb, Barrier(self._token(move, lb, label)))]
            case Copy(lb, entries, label):
                for entry in entries:
                    if entry.flags & ENDING:
                        entry.flags |= REINSTALLED
                return [ToSwitch(lb, AddEntries(entries, self._token(move, lb, label)))]
            case Announce(lb):
                return control.neighbourhood.announce(serving, lb, now)
            case Known(lb):
                serving.unread.discard(lb)
                return []
            case Release(lb):
                return control.connections.release(serving, lb)
            case Forget(lb):
                return self._start_forgetting(lb, serving)
        return self._carry_out_elsewhere(move, serving, action, now)

    def _carry_out_elsewhere(self, move: Move, serving: Serving, action: Action, now: float) -> Outbox:
        """What is not done by one switch alone."""
        match action:
            case Assign(lb, unfinished, label):
                serving.assigned = lb
                (self._assigned.add if unfinished else self._assigned.discard)(move.record.id)
                return [Save(self._control.state(), self._token(move, STORE, label) if label else None)]
            case Fence(lb, label):
                self._fencing[self._token(move, "fence", label)] = lb
                return []
            case Fetch(lb, label):
                planned = not isinstance(move, Takeover | Restoration)
                return self._control.copies.fetch(serving, lb, move.record, planned, self._token(move, "copies", label), now)
        raise AssertionError(action)

    def _start_forgetting(self, lb: str, serving: Serving) -> Outbox:
        if not self._control.switches[lb].ready:
            return []  # it is read back when it returns
        self._forgetting[lb, serving.address] = [cookie for kind in (Kind.ENTRY_IN, Kind.ENTRY_OUT)
                                                 for cookie in bucket_cookies(kind, serving.owner)]
        return self._forget(lb, serving)

    def _token(self, move: Move, lb: str, label: str) -> int:
        def then(now: float) -> Outbox:
            self._by_token.pop(token, None)
            return self._do(move, move.confirmed(label, now), now)

        token = self._control.when_confirmed(lb, then)
        self._by_token[token] = (move, label)
        return token

    def _forget(self, lb: str, serving: Serving) -> Outbox:
        """A few buckets at a time, so that the switch is never busy for long. If the external IP comes back meanwhile,
        `start` has had the rest deleted before anything else: what it gets then must stay."""
        cookies = self._forgetting.pop((lb, serving.address), [])
        if not cookies:
            return []
        at_once = min(FORGET_AT_ONCE, FORGET_FLOWS * BUCKETS // (len(serving.table) or 1) or 1)
        if rest := cookies[at_once:]:
            self._forgetting[lb, serving.address] = rest
        token = self._control.when_confirmed(lb, lambda now: self._forget(lb, serving))
        return [*self._delete_entries(lb, serving, cookies[:at_once]), ToSwitch(lb, Barrier(token))]

    def _delete_entries(self, lb: str, serving: Serving, cookies: list[int]) -> Outbox:
        """Deletes them, but asks what they were before."""
        out: Outbox = []
        for cookie in cookies:
            table = "access_in" if cookie >> 48 & 0xFF == Kind.ENTRY_IN else "access_out"
            token = self._control.new_token()
            self._last_words[token] = lb, serving
            out += [ToSwitch(lb, ReadFlows(table, cookie, MASK_ALL, token)), ToSwitch(lb, DeleteCookie(table, cookie, MASK_ALL))]
        return out

    def asked(self, token: int) -> bool:
        """Is it of a ReadFlows of entries that an LB is to forget?"""
        return token in self._last_words

    def last_words(self, token: int, found: list[EntryStats], more: bool, now: float) -> Outbox:
        """One part of the answer to it."""
        _, serving = self._last_words[token] if more else self._last_words.pop(token)
        return self._control.connections.finished(serving, found, now)
