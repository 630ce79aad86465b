"""The move of an external IP from one LB to another: the seed's four steps as a state machine.

Events come in (start, confirmed, failed, lost, tick, abort) with `now`; actions come out. Each `yield` below hands out
actions, and goes on when all that they ask to be confirmed is confirmed. Whatever goes wrong before the grace step is
over ends in `_roll_back`: the source serves on. docs/move.md tells the same, step by step.
"""

from __future__ import annotations

from collections.abc import Iterator

from lbctl.entries.access_table import GONE, NO_HOP, AccessTable
from lbctl.ground.move_record import MoveRecord, StepRecord
from lbctl.moves.actions import (
    HOLD_ALL,
    HOLD_UNKNOWN,
    SERVING_UNANNOUNCED,
    Action,
    Announce,
    Assign,
    Confirm,
    Confirmed,
    Confirmer,
    CopyEntries,
    Fetch,
    Forget,
    Release,
    SetHolder,
    SetRole,
)
from lbctl.openflow.rules import ABSENT, SERVING, Role
from lbctl.site.model import Settings
from lbctl.values.transfer import Strategy, TransferMode

CHUNK = 100
"""Entries in one atomic bundle. One is under way at a time (for some 1.5 ms), so that controller and target work by
turns: where both work at once on two cores, every other process waits for its slice of the scheduler. See
docs/performance.md."""


class NotAbortable(Exception):
    """Past the route step, or ended; the message says which."""


class Move:
    """One move. Its table holds the external IP's entries and is the authority on them."""

    chunk = CHUNK
    """Entries in a bundle."""

    def __init__(self, record: MoveRecord, table: AccessTable, settings: Settings, from_copies: bool = False) -> None:
        """from_copies: ask for the copies of the entries (seed modification 11)."""
        self.record = record
        self._table = table
        self._settings = settings
        self._from_copies = from_copies
        self._routed = False
        self._waiting: dict[str, Confirmer] = {}
        self._lost: set[Confirmer] = set()
        self.deadline = 0.0
        self._now = record.started
        self._script = self._steps()

    @property
    def ended(self) -> bool:
        return self.record.ended is not None

    @property
    def unheard(self) -> frozenset[Confirmer]:
        """The LBs whose confirmations it does not wait for: they are lost, or did not answer in time."""
        return frozenset(self._lost)

    # Events: each returns the actions that it calls for.

    def start(self, now: float) -> list[Action]:
        return self._advance(now)

    def confirmed(self, label: str, now: float) -> list[Action]:
        """Labels that nobody waits for any more are ignored."""
        if self.ended or self._waiting.pop(label, None) is None:
            return []
        self.deadline = now + self._settings.barrier_timeout
        return self._advance(now) if not self._waiting else []

    def failed(self, label: str, reason: str, now: float) -> list[Action]:
        """What the label waits for can't be done."""
        return self._roll_back("rolled-back", reason, now) if label in self._waiting and not self.ended else []

    def lost(self, lb: str, now: float) -> list[Action]:
        """The LB's connection is lost."""
        if self.ended or lb not in (self.record.source, self.record.target):
            return []
        self._lost.add(lb)
        if lb == self.record.target:
            return self._roll_back("rolled-back", f"{lb} was lost", now)
        if not self._routed:
            return self._roll_back("rolled-back", f"{lb} was lost before the route had changed", now)
        return self._skip(lb, now)

    def tick(self, now: float) -> list[Action]:
        if self.ended or now < self.deadline:
            return []
        if not self._waiting:
            return self._advance(now)
        late = ", ".join(sorted(map(str, set(self._waiting.values()))))
        if self._routed and set(self._waiting.values()) == {self.record.source}:
            self._lost.add(self.record.source)
            return self._skip(self.record.source, now)
        return self._roll_back("rolled-back", f"{late} did not confirm the {self.record.step} step within "
                               f"{self._settings.barrier_timeout:g} s", now)

    def abort(self, now: float) -> list[Action]:
        """Raises NotAbortable once the route has changed."""
        if self.ended:
            raise NotAbortable(f"move {self.record.id} has ended ({self.record.state})")
        if self._routed:
            raise NotAbortable(f"move {self.record.id} is past its route step: it can only be moved back")
        return self._roll_back("aborted", "on request", now)

    # The steps.

    def _steps(self) -> Iterator[list[Action]]:
        source, target = self.record.source, self.record.target
        precopy = self.record.strategy is Strategy.PRECOPY
        holding = HOLD_UNKNOWN if precopy else HOLD_ALL
        self._begin("transition")
        yield [SetRole(target, holding), SetHolder(target, True), Confirm(target, "transition")]
        settled_at = self._now + self._settings.settle
        if precopy:
            yield from self._copy()
        if self._now < settled_at:
            yield from self._pause(settled_at)
        self._begin("route")
        yield [SetRole(source, SERVING_UNANNOUNCED), Confirm(source, "route-source")]
        self._routed = True
        yield [Assign(target, True, "saved")]
        yield [SetRole(target, Role(TransferMode.TRANSITION, holding.hold_all, arp=True)), Announce(target),
               Confirm(target, "route-target")]
        if not precopy:
            yield from self._copy()
        yield from self._finish()

    def _copy(self) -> Iterator[list[Action]]:
        """New entries go to both LBs by now, so a snapshot taken here misses none."""
        if self._from_copies:
            self._begin("fetch")
            yield [Fetch(self.record.source, "fetched", planned=True)]
        self._begin("copy")
        entries = self._table.snapshot()
        self.record.entries_total = len(entries)
        for start in range(0, len(entries), self.chunk):
            live = tuple(
                entry
                for entry in entries[start : start + self.chunk]
                if not entry.flags & GONE and entry.next_hop != NO_HOP
            )
            if live:
                yield [CopyEntries(self.record.target, live, f"copy-{start}")]
                self.record.entries_copied += len(live)

    def _finish(self) -> Iterator[list[Action]]:
        source, target = self.record.source, self.record.target
        self._begin("normal")
        # The source first: never two LBs in normal mode. What it does not know any more is held, too.
        yield [SetRole(source, HOLD_UNKNOWN), Confirm(source, "normal-source")]
        yield [SetRole(target, SERVING), Release(target), Confirm(target, "normal-target")]
        self._begin("grace")
        yield from self._pause(self._now + self._settings.grace)
        yield [SetRole(source, ABSENT), SetHolder(source, False), Forget(source), Assign(target, False)]

    def _pause(self, until: float) -> Iterator[list[Action]]:
        """Nothing to confirm: the next tick after that time goes on."""
        self.deadline = until
        yield []

    # How they are driven.

    def _advance(self, now: float) -> list[Action]:
        self._now = now
        actions: list[Action] = []
        while not self._waiting:
            step = next(self._script, None)
            if step is None:
                self._end("done", None)
                break
            actions += step
            self._wait_for(step)
            if not step:
                break
        return actions

    def _wait_for(self, step: list[Action]) -> None:
        for action in step:
            if isinstance(action, Confirmed) and action.label and action.confirmer not in self._lost:
                self._waiting[action.label] = action.confirmer
        if step:
            self.deadline = self._now + self._settings.barrier_timeout

    def _skip(self, lb: Confirmer, now: float) -> list[Action]:
        """Goes on without that LB's confirmations. In the grace step, there is nothing left to wait for."""
        waited = bool(self._waiting)
        self._waiting = {label: name for label, name in self._waiting.items() if name != lb}
        return self._advance(now) if waited and not self._waiting else []

    def _begin(self, name: str) -> None:
        self._end_step()
        self.record.steps.append(StepRecord(name, self._now))

    def _end_step(self) -> None:
        if self.record.steps and self.record.steps[-1].seconds is None:
            self.record.steps[-1].seconds = self._now - self.record.steps[-1].started

    def _end(self, state: str, reason: str | None) -> None:
        self._end_step()
        self.record.state, self.record.reason, self.record.ended = state, reason, self._now
        self._waiting = {}

    def _roll_back(self, state: str, reason: str, now: float) -> list[Action]:
        self._now = now
        source, target = self.record.source, self.record.target
        actions: list[Action] = [SetRole(target, ABSENT), SetRole(source, SERVING)]
        if self._routed:
            actions += [Assign(source, False), Announce(source)]
        actions += [SetHolder(source, True), SetHolder(target, False), Forget(target), Release(source)]
        self._end(state, reason)
        return actions


class ResumedMove(Move):
    """A move whose route step an earlier controller had begun; the caller has read both LBs back."""

    def __init__(self, record: MoveRecord, table: AccessTable, settings: Settings) -> None:
        super().__init__(record, table, settings)
        self._routed = True

    def _steps(self) -> Iterator[list[Action]]:
        yield from self._copy()
        yield from self._finish()
