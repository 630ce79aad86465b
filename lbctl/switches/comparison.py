"""Does a switch still hold what it was ordered to? One table at a time, compared by cookies, and by what flows of one
cookie looked like before.

A cookie has a digest of its flow (openflow/cookies.py), so a flow with a right cookie is right, unless somebody has
changed its actions in place: such a change leaves the cookie as it was, but not the bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lbctl.openflow.cookies import MASK_ALL, known_kind
from lbctl.openflow.flow import Flow, Identity
from lbctl.openflow.inbound import decode_rules
from lbctl.openflow.messages import AddFlows, DeleteCookie, Message
from lbctl.openflow.tables import number

ByCookie = Mapping[int, list[Flow]]


def by_cookie(flows: Iterable[Flow]) -> dict[str, dict[int, list[Flow]]]:
    """Table -> cookie -> the flows that are to stay there until they are deleted."""
    found: dict[str, dict[int, list[Flow]]] = defaultdict(dict)
    for flow in flows:
        if not flow.hard_timeout:
            found[flow.table].setdefault(flow.cookie, []).append(flow)
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


class Comparison:
    """Of one table of one switch."""

    def __init__(self, table: str, ordered: ByCookie, digests: dict[int, int]) -> None:
        """ordered: when the switch is asked; it answers after all of that. digests: cookie -> what its flows looked
        like at the last comparison; is kept up to date."""
        self.table = table
        self._ordered, self._digests = ordered, digests
        self._counts: Counter[int] = Counter()
        self._found: dict[int, int] = {}
        self._foreign = 0

    def answer(self, body: bytes) -> None:
        """A part of the answer."""
        for rule in decode_rules(body):
            if rule.table != number(self.table) or rule.for_a_time:
                continue
            if known_kind(rule.cookie) is None:
                self._foreign += 1
                continue
            self._counts[rule.cookie] += 1
            self._found[rule.cookie] = self._found.get(rule.cookie, 0) ^ rule.digest

    def differences(self, held: Mapping[Identity, Flow]) -> Differences:
        """Once all of it has come. held: what is ordered by now; what has changed since the question is not wrong."""
        missing, changed = self._missing_and_changed()
        needless = [cookie for cookie, count in self._counts.items() if count > len(self._ordered.get(cookie, ()))]
        if needless:
            by_now = by_cookie(held.values())[self.table]
            needless = [cookie for cookie in needless if self._counts[cookie] > len(by_now.get(cookie, ()))]
            missing += [flow for cookie in needless for flow in by_now.get(cookie, ())]
        for flow in changed:
            self._found.pop(flow.cookie, None)  # what it looks like is learnt when it has been made anew
        self._digests.clear()
        self._digests.update(self._found)
        missing, changed = ([flow for flow in flows if held.get(flow.identity) == flow] for flows in (missing, changed))
        return Differences(tuple(missing), tuple(changed), tuple(needless), self._foreign)

    def _missing_and_changed(self) -> tuple[list[Flow], list[Flow]]:
        """Of what was ordered when the switch was asked."""
        missing: list[Flow] = []
        changed: list[Flow] = []
        for cookie, flows in self._ordered.items():
            count, digest = self._counts[cookie], self._found.get(cookie)
            if count < len(flows):
                missing += flows
            elif count == len(flows) and self._digests.get(cookie, digest) != digest:
                changed += flows
        return missing, changed
