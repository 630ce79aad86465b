"""Does a switch still hold what it was ordered to? One table at a time, compared by cookies, and by what flows of one
cookie looked like before.

A cookie has a digest of its flow (openflow/cookies.py), so a flow with a right cookie is right, unless somebody has
changed its actions in place: such a change leaves the cookie as it was, but not the bytes.

All tables of all LBs are compared again and again, and almost always nothing has changed since: neither what was
ordered, nor the sums of what is there. That is all that is looked at then.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lbctl.openflow.cookies import MASK_ALL
from lbctl.openflow.flow import Flow, Identity
from lbctl.openflow.inbound import RuleStats, decode_rules
from lbctl.openflow.messages import AddFlows, DeleteCookie, Message
from lbctl.openflow.tables import number
from lbctl.switches.held import Held

ByCookie = Mapping[int, list[Flow]]
Sums = tuple[int, int, int]
"""Of rules: how many, their cookies, their digests."""


def _by_cookie(flows: Iterable[Flow]) -> ByCookie:
    """Those that are to stay until they are deleted."""
    found: dict[int, list[Flow]] = {}
    for flow in flows:
        if not flow.hard_timeout:
            found.setdefault(flow.cookie, []).append(flow)
    return found


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

    def repair(self, table: str) -> list[Message]:
        """What puts it right."""
        flows = self.missing + self.changed
        deleted = [DeleteCookie(table, cookie, MASK_ALL) for cookie in self.needless]
        return [*deleted, *([AddFlows(flows)] if flows else [])]


class Look:
    """How a table looked. orders: Held.orders, if it was as ordered then; None: it was not, or nobody knows."""

    def __init__(self, orders: int | None, sums: Sums, rules: Iterable[RuleStats]) -> None:
        self.orders, self.sums = orders, sums
        rules = list(rules)
        self._cookies = array("Q", [cookie for cookie, _ in rules])
        self._digests = array("I", [digest for _, digest in rules])

    def digests(self) -> dict[int, int]:
        """Cookie -> what its flows looked like."""
        return _digests(zip(self._cookies, self._digests, strict=True))


class Comparison:
    """Of one table of one switch."""

    def __init__(self, table: str, held: Held, before: Look | None) -> None:
        """Made when the switch is asked: it answers after all that is ordered by then. held: goes on changing. before:
        the last look, if there was one since it connected."""
        self.table = table
        self._held, self._before = held, before
        self._orders = held.orders[table]
        as_before = before is not None and before.orders == self._orders
        self._ordered = None if as_before else _by_cookie(held.table(table).values())
        """None: the same as at the last look."""
        self._rules: list[RuleStats] = []
        self._foreign = 0

    def answer(self, body: bytes) -> None:
        """A part of the answer."""
        rules, foreign = decode_rules(body, number(self.table))
        self._rules += rules
        self._foreign += foreign

    def result(self) -> tuple[Differences, Look | None]:
        """Once all of it has come: what is wrong, and this look. What has been ordered since the question is not
        wrong."""
        rules, before = self._rules, self._before
        sums = len(rules), sum([cookie for cookie, _ in rules]), sum([digest for _, digest in rules])
        if self._ordered is None:
            if before and before.sums == sums:
                return Differences(foreign=self._foreign), before
            if self._held.orders[self.table] != self._orders:  # what it was then, nobody knows: the next look tells
                return Differences(foreign=self._foreign), None
        held = self._held.table(self.table)
        ordered = _by_cookie(held.values()) if self._ordered is None else self._ordered
        found = self._differences(ordered, held, Counter([cookie for cookie, _ in rules]))
        again = {flow.cookie for flow in found.changed}  # what they look like is learnt when they have been made anew
        look = Look(None if found else self._orders, sums, [rule for rule in rules if rule[0] not in again])
        return found, look

    def _differences(self, ordered: ByCookie, held: Mapping[Identity, Flow], counts: Counter[int]) -> Differences:
        """counts: by cookie, how many flows there are."""
        missing, changed = self._missing_and_changed(ordered, counts)
        needless = [cookie for cookie, count in counts.items() if count > len(ordered.get(cookie, ()))]
        if needless:
            by_now = _by_cookie(held.values())
            needless = [cookie for cookie in needless if counts[cookie] > len(by_now.get(cookie, ()))]
            missing += [flow for cookie in needless for flow in by_now.get(cookie, ())]
        missing, changed = ([flow for flow in flows if held.get(flow.identity) == flow] for flows in (missing, changed))
        return Differences(tuple(missing), tuple(changed), tuple(needless), self._foreign)

    def _missing_and_changed(self, ordered: ByCookie, counts: Counter[int]) -> tuple[list[Flow], list[Flow]]:
        before = self._before.digests() if self._before else {}
        now = _digests(self._rules)
        missing: list[Flow] = []
        changed: list[Flow] = []
        for cookie, flows in ordered.items():
            if counts[cookie] < len(flows):
                missing += flows
            elif counts[cookie] == len(flows) and before.get(cookie, now[cookie]) != now[cookie]:
                changed += flows
        return missing, changed


def _digests(rules: Iterable[RuleStats]) -> dict[int, int]:
    """Cookie -> the digests of its flows, in any order."""
    found: dict[int, int] = {}
    for cookie, digest in rules:
        found[cookie] = found.get(cookie, 0) ^ digest
    return found
