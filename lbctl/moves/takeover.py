"""Failover (seed: third embodiment): the external IPs of a failed LB go to others. An LB that is well is freed by
ordinary moves.

Both ways of the seed: entries first, then the route (modification 2); or the route first, in transition mode, while
the entries are fetched. Where entries come from is for copies.py to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lbctl.entries.access_table import AccessTable
from lbctl.ground.move_record import MoveRecord
from lbctl.moves.actions import (
    HOLD_ALL,
    HOLD_UNKNOWN,
    HOLDING,
    Action,
    Announce,
    Assign,
    Confirm,
    Fence,
    Fetch,
    Forget,
    Known,
    Release,
    SetHolder,
    SetRole,
)
from lbctl.moves.move import Move, NotAbortable
from lbctl.openflow.rules import ABSENT, SERVING
from lbctl.site.model import Settings


@dataclass(frozen=True, slots=True)
class LbFailure:
    """Why an LB is to lose its external IPs. obeys: its switch does what it is told. fence: it must be fenced first,
    by frames."""

    cause: str
    obeys: bool = False
    fence: bool = False


class Takeover(Move):
    """One external IP is taken over from a failed LB.

    An LB whose switch obeys is told to answer no more; one that forwards, but can't be told, is fenced first.
    transition: the route changes before the entries are there.
    """

    chunk = 2000
    """Clients wait for these entries, so the work is not given out by turns (see CHUNK in move.py): 20 000 are there
    in half the time."""

    def __init__(self, record: MoveRecord, table: AccessTable, settings: Settings, failure: LbFailure,
                 transition: bool) -> None:
        super().__init__(record, table, settings)
        self._obeys, self._fence, self._transition = failure.obeys, failure.fence, transition
        if not failure.obeys and not failure.fence:
            self._lost.add(record.source)

    def lost(self, lb: str, now: float) -> list[Action]:
        """The source may go altogether."""
        if lb != self.record.source or self.ended:
            return super().lost(lb, now)
        self._lost.add(lb)
        return self._skip(lb, now)

    def abort(self, now: float) -> list[Action]:
        """Raises NotAbortable: nobody would serve."""
        raise NotAbortable(f"move {self.record.id} takes {self.record.external_ip} away from a failed load balancer")

    def _steps(self) -> Iterator[list[Action]]:
        source, target = self.record.source, self.record.target
        self._begin("withdraw")
        if self._obeys:
            # What still comes there is held, and goes on through the target.
            yield [SetRole(source, HOLD_ALL), Confirm(source, "withdrawn")]
        else:
            # It is told when it comes back, before it may answer anything.
            yield [SetRole(source, ABSENT), SetHolder(source, False)]
        if self._fence or self._obeys and source in self._lost:
            yield [Fence(source, "fenced")]
        yield [SetHolder(target, True)]
        if self._transition:
            self._begin("transition")
            yield [SetRole(target, HOLD_UNKNOWN), Confirm(target, "transition")]
            self._begin("route")
            self._routed = True
            yield [Assign(target, True), SetRole(target, HOLDING), Announce(target),
                   Confirm(target, "route-target")]
        self._begin("fetch")
        yield [Fetch(source, "fetched")]
        yield [Known(source)]
        yield from self._copy()
        self._begin("normal" if self._transition else "route")
        self._routed = True
        yield [Assign(target, False, "saved")]
        yield [
            SetRole(target, SERVING),
            *([] if self._transition else [Announce(target)]),
            Release(target),
            Confirm(target, "serving"),
        ]
        if self._obeys:
            self._begin("grace")
            yield from self._pause(self._now + self._settings.grace)
        yield [SetRole(source, ABSENT), SetHolder(source, False), Forget(source)]


class Restoration(Move):
    """One external IP gets its entries back, at the same LB: it was restarted together with the controller, so only
    copies have them. What comes meanwhile is held."""

    chunk = Takeover.chunk

    def abort(self, now: float) -> list[Action]:
        """Raises NotAbortable: nobody would serve."""
        raise NotAbortable(f"move {self.record.id} fetches what {self.record.target} has lost")

    def _steps(self) -> Iterator[list[Action]]:
        lb = self.record.target
        self._begin("fetch")
        yield [Fetch(lb, "fetched")]
        yield from self._copy()
        self._begin("normal")
        yield [*self._serve(), Confirm(lb, "serving")]

    def _serve(self) -> list[Action]:
        lb = self.record.target
        return [Known(lb), SetRole(lb, SERVING), Release(lb)]

    def _roll_back(self, state: str, reason: str, now: float) -> list[Action]:
        """An LB that is lost again stays in transition mode: when it is back, another restoration begins. Else it
        serves with what there is."""
        self._now = now
        self._end(state, reason)
        lb = self.record.target
        return [Release(lb)] if lb in self._lost else self._serve()
