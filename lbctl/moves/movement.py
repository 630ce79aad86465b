"""Moves of every kind, under way and recorded: orders and answers in, what the moves ask for out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from lbctl.entries.held import HeldPackets
from lbctl.frames.discovery import asked_by
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.move_record import MoveRecord
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import Confirmation
from lbctl.moves.actions import HOLDING, SERVING_UNANNOUNCED, Action, Confirmed
from lbctl.moves.assigned import Assigned
from lbctl.moves.carrying_out import CarryingOut
from lbctl.moves.move import Move, NotAbortable, ResumedMove
from lbctl.moves.needs import EntrySource, Fitness
from lbctl.moves.takeover import LbFailure, Restoration, Takeover
from lbctl.store import State, UnfinishedMove
from lbctl.values.addresses import Address
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy

KEPT_RECORDS = 200
DONE_AT_ONCE = 10
"""Moves that go on at a tick: packets wait for all that is done at once."""
RECOVERY_SECONDS = 10.0
"""A new controller waits this long for both LBs of an unfinished move."""


class Movement:
    """All moves of a control function."""

    def __init__(self, ground: Ground, entries: EntrySource, fitness: Fitness, carrying_out: CarryingOut) -> None:
        self._ground, self._entries, self._fitness, self._carrying_out = ground, entries, fitness, carrying_out
        self._running: dict[str, Move] = {}
        self._ended: dict[str, Move] = {}
        """The last ones, in the order of their ends."""
        self._recovering: dict[str, float] = {}
        """Id of an unfinished move of an earlier controller -> until when both LBs are waited for."""
        self._assigned = Assigned(ground.external_ips)
        self._last_id = 0
        self.hurried = False
        """Would it do more, if it were told the time again?"""
        ground.survives(self._survives)

    def records(self) -> Mapping[str, MoveRecord]:
        """Of the moves that run and of the last ones that have ended, by their ids; the newest last."""
        moves = self._running | self._ended
        return {id: moves[id].record for id in sorted(moves, key=int)}

    def running(self) -> list[Move]:
        return list(self._running.values())

    # Orders.

    def start(self, address: Address, to: str, strategy: Strategy, now: float,
              from_copies: bool = False) -> tuple[MoveRecord, Outbox]:
        """Raises Refused: unknown IP or LB, same LB, LB not connected or failed, move running, server not reached
        from there, no copies."""
        serving = self._ground.external_ips.get(address)
        if serving is None:
            raise Refused(404, "Unknown external IP", f"{address} is no external IP of this site")
        self._check(serving, to)
        if from_copies and not self._entries.kept_elsewhere(serving):
            raise Refused(
                409, "No copies", f"the entries of {address} are kept nowhere but in the controller: give it copies"
            )
        record = self._record(serving, serving.assigned, to, strategy, now)
        return record, self._begin(serving, Move(record, serving.table, self._ground.settings, from_copies), now)

    def _check(self, serving: Serving, to: str) -> None:
        """Raises Refused if it can't be moved there."""
        address, switches = serving.address, self._ground.switches
        if to not in switches:
            raise Refused(404, "Unknown load balancer", f"this site has no load balancer {to}")
        if serving.move:
            raise Refused(409, "Move already running", f"{address} is being moved to {serving.move.target} "
                          f"(move {serving.move.id})")
        if serving.assigned == to:
            raise Refused(409, "Same load balancer", f"{address} is assigned to {to} already")
        for name in (serving.assigned, to):
            switch = switches[name]
            if not switch.ready or switch.of_ports is None:
                raise Refused(409, "Load balancer not connected", f"{name} is {switch.condition}: {switch.trouble}")
        source, target = switches[serving.assigned], switches[to]
        if not target.fit:
            raise Refused(409, "Load balancer is unfit", f"{to} is {target.condition}: {target.trouble}")
        if not target.ports_up:
            raise Refused(409, "Load balancer not connected", f"{to}: {target.reason}")
        if failure := self._fitness.failed().get(to):
            raise Refused(409, "Load balancer has failed", f"{to}: {failure.cause}")
        unreached = sorted(
            str(hop) for hop in serving.next_hops() if source.hears(hop) and not target.hears(hop)
        )
        if unreached:
            raise Refused(
                409,
                "Server not reached",
                f"{to} has no {asked_by(address)} answer from {', '.join(unreached)} yet, "
                f"though {serving.assigned} has",
            )

    def abort(self, move_id: str, now: float) -> Outbox:
        """Raises Refused: unknown move, ended, or past its route step."""
        move = self._running.get(move_id) or self._ended.get(move_id)
        if move is None:
            raise Refused(404, "Unknown move", f"there is no record of a move {move_id}")
        try:
            return self._do(move, move.abort(now), now)
        except NotAbortable as error:
            raise Refused(409, "Too late", str(error)) from error

    def take_over(self, serving: Serving, to: str, failure: LbFailure, now: float) -> tuple[MoveRecord, Outbox]:
        """From its failed LB."""
        settings = self._ground.settings
        fetched = self._entries.remote(serving)
        transition = settings.failover == "transition" or settings.failover == "when-remote" and fetched
        record = self._record(
            serving, serving.assigned, to, Strategy.BUFFERED if transition else Strategy.PRECOPY, now, "failover"
        )
        record.cause = failure.cause
        return record, self._begin(serving, Takeover(record, serving.table, settings, failure, transition), now)

    def free(self, serving: Serving, to: str, now: float) -> tuple[MoveRecord, Outbox]:
        """From an LB that is well, but shall be taken for failed."""
        record = self._record(serving, serving.assigned, to, Strategy.PRECOPY, now, "failover")
        return record, self._begin(serving, Move(record, serving.table, self._ground.settings), now)

    def give_back(self, serving: Serving, now: float) -> Outbox:
        """To the LB that has it, which holds packets since it has come back without entries."""
        record = self._record(serving, serving.assigned, serving.assigned, Strategy.BUFFERED, now, "restoration")
        record.cause = "restarted together with the controller"
        return self._begin(serving, Restoration(record, serving.table, self._ground.settings), now)

    def _begin(self, serving: Serving, move: Move, now: float) -> Outbox:
        """Nothing else moves the external IP now. What its new LB still has of it from an earlier time is deleted
        first."""
        self._add(serving, move)
        leftovers = self._carrying_out.forgetting.at_once(move.record.target, serving)
        return leftovers + self._do(move, move.start(now), now)

    def _record(
        self, serving: Serving, source: str, to: str, strategy: Strategy, now: float, kind: str = "move"
    ) -> MoveRecord:
        self._last_id += 1
        return MoveRecord(str(self._last_id), serving.address, source, to, strategy, now, kind)

    def _add(self, serving: Serving, move: Move) -> None:
        record = move.record
        self._running[record.id] = move
        serving.move, serving.held = record, HeldPackets(self._ground.settings)
        self._ground.log(
            f"{record.kind} started",
            move=record.id,
            external_ip=str(serving.address),
            source=record.source,
            target=record.target,
            strategy=record.strategy.value,
            cause=record.cause,
        )

    # Events.

    def lost(self, name: str, now: float) -> Outbox:
        """That LB's connection has ended."""
        self._carrying_out.forgetting.lost(name)
        out: Outbox = []
        for move in self.running():
            if move.record.id not in self._recovering:
                out += self._do(move, move.lost(name, now), now)
        return out

    def tick(self, now: float) -> Outbox:
        out = self._carrying_out.tick(now)
        due = (move for move in self.running() if now >= self._recovering.get(move.record.id, move.deadline))
        some = list(itertools.islice(due, DONE_AT_ONCE))
        for move in some:
            recovering = move.record.id in self._recovering
            out += self._resume(move, now) if recovering else self._do(move, move.tick(now), now)
        self.hurried = len(some) == DONE_AT_ONCE
        return out

    def _confirmation(self, move: Move, action: Confirmed) -> Confirmation:
        lb = action.confirmer if isinstance(action.confirmer, str) else None
        label = action.label or ""
        return Confirmation(lb, partial(self._confirmed, move, label), partial(self._failed, move, label))

    def _confirmed(self, move: Move, label: str, now: float) -> Outbox:
        return self._do(move, move.confirmed(label, now), now)

    def _failed(self, move: Move, label: str, reason: str, now: float) -> Outbox:
        return self._do(move, move.failed(label, reason, now), now)

    # After a restart.

    def _survives(self, state: State) -> State:
        """Where each external IP is assigned, and the moves that a new controller would have to finish."""
        unfinished = {
            move.record.external_ip: UnfinishedMove(move.record.source, move.record.target, move.record.strategy)
            for move in self.running()
            if self._is_unfinished(move) and not isinstance(move, Takeover)
        }
        # Where a new controller shall take it to be: a failover is not finished but begun anew.
        begun_anew = {move.record.external_ip: move.record.source for move in self.running()
                      if isinstance(move, Takeover) and self._is_unfinished(move)}
        return replace(state, assigned=self._assigned.now() | begun_anew, unfinished=unfinished)

    def _is_unfinished(self, move: Move) -> bool:
        return move.record.id in self._carrying_out.unfinished

    def restore(self, state: State, now: float) -> None:
        """Takes up the moves that an earlier controller had not finished, once both LBs have been read back."""
        switches = self._ground.switches
        for address, unfinished in state.unfinished.items():
            serving = self._ground.external_ips.get(address)
            if serving is None or unfinished.source not in switches or unfinished.target not in switches:
                continue
            record = self._record(serving, unfinished.source, unfinished.target, unfinished.strategy, now)
            move = ResumedMove(record, serving.table, self._ground.settings)
            self._add(serving, move)
            self._carrying_out.unfinished.add(record.id)
            self._recovering[record.id] = now + RECOVERY_SECONDS
            serving.assign(unfinished.target, now)
            serving.holders = {unfinished.source, unfinished.target}
            serving.unread = set(serving.holders)
            switches[unfinished.source].expect(address, SERVING_UNANNOUNCED)
            switches[unfinished.target].expect(address, HOLDING)

    def ready(self, now: float) -> Outbox:
        """An LB has been read back."""
        out: Outbox = []
        for move in self.running():
            pair = (move.record.source, move.record.target)
            if move.record.id in self._recovering and all(self._ground.switches[lb].ready for lb in pair):
                out += self._resume(move, now)
        return out

    def _resume(self, move: Move, now: float) -> Outbox:
        del self._recovering[move.record.id]
        out = self._do(move, move.start(now), now)
        for name in (move.record.source, move.record.target):
            if not self._ground.switches[name].ready:
                out += self._do(move, move.lost(name, now), now)
        return out

    # What moves ask for.

    def _do(self, move: Move, actions: list[Action], now: float) -> Outbox:
        record = move.record
        serving = self._ground.external_ips.get(record.external_ip)
        assert serving is not None, "an external IP that moves can't be taken out of the site"
        out: Outbox = []
        for action in actions:
            out += self._carrying_out.carry_out(record, serving, action, partial(self._confirmation, move), now)
        held = serving.held
        record.packets_held, record.packets_released, record.packets_lost = held.held, held.released, held.lost
        if move.ended and record.id in self._running:
            del self._running[record.id]
            serving.move = None
            self._ended[record.id] = move
            if len(self._ended) > KEPT_RECORDS:
                del self._ended[next(iter(self._ended))]
            self._carrying_out.ended(record)
            self._ground.log("move ended", move=record.id, external_ip=str(record.external_ip), state=record.state,
                             reason=record.reason, entries=record.entries_copied, held=record.packets_held,
                             lost=record.packets_lost, seconds=round(now - record.started, 3))
        return out
