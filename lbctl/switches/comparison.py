"""Does a switch still hold what it was ordered to? One table at a time, compared by cookies, and by what flows of one
cookie looked like before.

A cookie has a digest of its flow (openflow/cookies.py), so a flow with a right cookie is right, unless somebody has
changed its actions in place: such a change leaves the cookie as it was, but not the bytes.

All tables of all LBs are compared again and again, and almost always nothing has changed since: neither what was
ordered, nor the sums of what is there. That is all that is looked at then. Else flow after flow, some at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace

from lbctl.openflow.cookies import MASK_ALL
from lbctl.openflow.flow import Flow
from lbctl.openflow.inbound import RuleStats, decode_rules
from lbctl.openflow.messages import AddFlows, DeleteCookie, Message
from lbctl.openflow.tables import number
from lbctl.switches.held import Held
from lbctl.values.portions import portions

AT_ONCE = 500
"""Flows: some 2 ms."""
ONE = 1 << 48
"""One flow, in a sum of digests, which have 32 bits: above those of 65 536 with the same cookie."""
Sums = tuple[int, int]
"""Of rules: their cookies, their digests."""


@dataclass(frozen=True, slots=True)
class Differences:
    """missing: flows that are not there. changed: not as they were made. needless: cookies of flows that nobody
    ordered. foreign: how many flows of others there are."""

    missing: tuple[Flow, ...] = ()
    changed: tuple[Flow, ...] = ()
    needless: tuple[int, ...] = ()
    foreign: int = 0

    def __len__(self) -> int:
        """How many flows or cookies are wrong."""
        return len(self.missing) + len(self.changed) + len(self.needless)


@dataclass(frozen=True, slots=True)
class Look:
    """How a table looked. since: the cookies of what has been ordered since; it grows. right: it was as ordered.
    cookies, digests: of each flow."""

    since: Set[int]
    right: bool
    sums: Sums
    cookies: array[int]
    digests: array[int]


class Comparison:
    """Of one table of one switch."""

    def __init__(self, table: str, held: Held, before: Look | None) -> None:
        """Made when the switch is asked: it answers after all that is ordered by then. held: goes on changing. before:
        the last look, if there was one since it connected; its `since` ends here."""
        self.table = table
        self._held, self._before = held, before
        self._as_before = before is not None and before.right and not before.since
        self._since = held.journal(table)
        """What is ordered from now on may be there or not: nobody can say that it is wrong."""
        self._cookies, self._digests = array("Q"), array("I")
        """Of each flow that is there."""
        self._there, self._was = dict[int, int](), dict[int, int]()
        """Cookie -> the sum of its flows' digests, each with ONE: now, and at the last look."""
        self._ordered: dict[int, list[Flow]] = {}
        """By cookie."""
        self._sums = 0, 0
        self._found = Differences()
        self._look: Look | None = None

    def answer(self, body: bytes) -> None:
        """A part of the answer."""
        rules, foreign = decode_rules(body, number(self.table))
        cookies, digests = [cookie for cookie, _ in rules], [digest for _, digest in rules]
        self._cookies.extend(cookies)
        self._digests.extend(digests)
        self._sums = self._sums[0] + sum(cookies), self._sums[1] + sum(digests) + ONE * len(rules)
        self._found = replace(self._found, foreign=self._found.foreign + foreign)

    def result(self) -> tuple[Differences, Look | None]:
        """Once all steps have been made: what is wrong, and this look."""
        return self._found, self._look

    def repair(self) -> Iterator[list[Message]]:
        """What puts it right, some flows at a time. Orders may come in between, and count."""
        needless = [cookie for cookie in self._found.needless if cookie not in self._since]
        yield [DeleteCookie(self.table, cookie, MASK_ALL) for cookie in needless]
        for flows in portions(self._found.missing + self._found.changed, AT_ONCE):
            if there := tuple(flow for flow in flows if self._held.has(flow)):
                yield [AddFlows(there)]

    def steps(self) -> Iterator[None]:
        """To be made once the whole answer has come; other things may happen in between."""
        before = self._before
        if before and self._as_before and before.sums == self._sums:
            self._look = replace(before, since=self._since)
            return
        yield from self._sum(self._there, zip(self._cookies, self._digests, strict=True))
        if before:
            yield from self._sum(self._was, zip(before.cookies, before.digests, strict=True))
        for flows in portions(list(self._held.table(self.table).values()), AT_ONCE):
            for flow in flows:
                if not flow.hard_timeout:  # the others go by themselves
                    self._ordered.setdefault(flow.cookie, []).append(flow)
            yield
        yield from self._differences()
        # What those look like that are made anew is learnt from the next look.
        if again := {flow.cookie for flow in self._found.changed}:
            rules = zip(self._cookies, self._digests, strict=True)
            kept = [(cookie, digest) for cookie, digest in rules if cookie not in again]
            self._cookies = array("Q", [cookie for cookie, _ in kept])
            self._digests = array("I", [digest for _, digest in kept])
        self._look = Look(self._since, not self._found, self._sums, self._cookies, self._digests)

    @staticmethod
    def _sum(sums: dict[int, int], rules: Iterable[RuleStats]) -> Iterator[None]:
        for some in portions(rules, AT_ONCE):
            for cookie, digest in some:
                sums[cookie] = sums.get(cookie, 0) + ONE + digest
            yield

    def _differences(self) -> Iterator[None]:
        missing, changed, needless = list[Flow](), list[Flow](), list[int]()
        for some in portions(self._ordered.items(), AT_ONCE):
            for cookie, flows in some:
                there = self._there.get(cookie, 0)
                if there // ONE < len(flows):
                    missing += flows
                elif there // ONE > len(flows):
                    needless.append(cookie)
                    missing += flows  # they go with the others
                elif there != self._expected(cookie, there):
                    changed += flows
            yield
        for cookies in portions(self._there, AT_ONCE):
            needless += [cookie for cookie in cookies if cookie not in self._ordered]
            yield
        self._found = replace(
            self._found, missing=self._undoubted(missing), changed=self._undoubted(changed),
            needless=tuple(cookie for cookie in needless if cookie not in self._since))

    def _expected(self, cookie: int, there: int) -> int:
        """What the flows of a cookie should look like, together; anything, if they have become others since the last
        look: two flows can have the same cookie."""
        return self._was.get(cookie, there) if self._before and cookie not in self._before.since else there

    def _undoubted(self, flows: list[Flow]) -> tuple[Flow, ...]:
        return tuple(flow for flow in flows if flow.cookie not in self._since)
