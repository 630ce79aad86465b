"""A move's actions as effects: what each asks of switches, store, keepers and neighbours."""

from __future__ import annotations

from collections.abc import Callable

from lbctl.entries.access_table import ENDING, REINSTALLED
from lbctl.ground.effects import Outbox, ToSwitch, to_switch
from lbctl.ground.ground import Ground
from lbctl.ground.move_record import MoveRecord
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import Confirmation
from lbctl.moves.actions import (
    Action,
    Announce,
    Assign,
    Confirm,
    Confirmed,
    CopyEntries,
    Fence,
    Fetch,
    Forget,
    Known,
    Release,
    SetHolder,
    SetRole,
)
from lbctl.moves.forgetting import Forgetting
from lbctl.moves.needs import Announcer, EntrySource, Fitness, Packets
from lbctl.openflow.messages import AddEntries, Barrier

NewConfirmation = Callable[[Confirmed], Confirmation]
"""Whom to tell when an action is confirmed."""


class CarryingOut:
    """unfinished: ids of the moves past their route step, which a new controller would have to finish."""

    def __init__(
        self, ground: Ground, entries: EntrySource, announcer: Announcer, packets: Packets, fitness: Fitness
    ) -> None:
        self._ground, self._entries, self._announcer, self._packets, self._fitness = (
            ground,
            entries,
            announcer,
            packets,
            fitness,
        )
        self.forgetting = Forgetting(ground, packets)
        self.unfinished: set[str] = set()
        self._fences: dict[int, str] = {}
        """Token -> LB that is to be fenced."""
        self._out: dict[str, set[int]] = {}
        """Id of a move -> its tokens that are out."""

    def carry_out(
        self, record: MoveRecord, serving: Serving, action: Action, confirmation: NewConfirmation, now: float
    ) -> Outbox:
        """confirmation: who is told when the action, which is labelled, is confirmed."""
        match action:
            case SetRole(lb, role):
                return to_switch(lb, self._ground.switches[lb].set_role(serving.config, role))
            case SetHolder(lb, holds):
                (serving.holders.add if holds else serving.holders.discard)(lb)
                return []
            case Known(lb):
                serving.unread.discard(lb)
                return []
            case Announce(lb):
                return self._announcer.announce(serving, lb, now)
            case Release(lb):
                return self._packets.release(serving, lb)
            case Forget(lb):
                return self.forgetting.start(lb, serving)
        return self._to_be_confirmed(record, serving, action, confirmation(action), now)

    def _to_be_confirmed(self, record: MoveRecord, serving: Serving, action: Confirmed, confirmation: Confirmation,
                         now: float) -> Outbox:
        match action:
            case Confirm(lb):
                return [ToSwitch(lb, Barrier(self._token(record, confirmation)))]
            case CopyEntries(lb, entries):
                for entry in entries:
                    if entry.flags & ENDING:
                        entry.flags |= REINSTALLED
                return [ToSwitch(lb, AddEntries(entries, self._token(record, confirmation)))]
            case Assign(lb, unfinished, label):
                serving.assign(lb, now)
                (self.unfinished.add if unfinished else self.unfinished.discard)(record.id)
                return [self._ground.save(self._token(record, confirmation) if label else None)]
            case Fence(lb):
                self._fences[self._token(record, confirmation)] = lb
                return []
            case Fetch(lb, _, planned):
                fetch = self._entries.compare if planned else self._entries.fetch
                return fetch(serving, lb, record, confirmation.then, now)

    def _token(self, record: MoveRecord, confirmation: Confirmation) -> int:
        token = self._ground.tokens.new(confirmation)
        self._out.setdefault(record.id, set()).add(token)
        return token

    def ended(self, record: MoveRecord) -> None:
        """Nobody waits for what that move asked."""
        for token in self._out.pop(record.id, ()):
            self._ground.tokens.cancel(token)
            self._fences.pop(token, None)
        self.unfinished.discard(record.id)

    def tick(self, now: float) -> Outbox:
        """Confirms the fences that are in force."""
        out: Outbox = []
        for token, lb in list(self._fences.items()):
            if self._ground.switches[lb].ready:
                out.append(ToSwitch(lb, Barrier(token)))  # it has been told to answer no more, which this confirms
            elif self._fitness.fenced(lb):
                out += self._ground.tokens.confirmed(token, now)
            else:
                continue
            self._fences.pop(token, None)
        return out
