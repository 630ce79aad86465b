"""Brings what a switch holds up to date, a few flows at a time, while orders go on: of a large site, it has tens of
thousands, and packets wait for all that is done at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lbctl.openflow.cookies import MASK_ALL
from lbctl.openflow.flow import Flow, Identity, Place
from lbctl.openflow.messages import AddFlows, DeleteCookie, DeleteFlows, Message
from lbctl.openflow.tables import number
from lbctl.switches.held import Held
from lbctl.switches.switch import Switch
from lbctl.values.portions import portions

NOTHING = 5
"""As many flows an empty portion takes as long as."""
CHEAPER = 8
"""How many flows are looked up in the time that it takes to make one; and how many are made in the time that it takes
to send CHEAPER // 2."""
AT_ONCE = 400
"""Flows that are looked up in one go."""
Step = tuple[list[Message], int]
"""Messages, and as many flows as could have been made meanwhile."""


def resync(switch: Switch, wanted: Iterator[list[Flow]], there: Mapping[Place, int]) -> Iterator[Step]:
    """Until all is as it should be: adds first, so that nothing that stays is ever missing.

    wanted: see Switch.portions; they are computed when their turn comes. there: what was read back from the switch
    when it connected, and is not known yet to be what it should hold.
    """
    held = switch.held
    ordered = held.watch().identities
    left: dict[Identity, Flow] = {}
    for flows in portions(list(held.flows()), AT_ONCE):
        left.update((flow.identity, flow) for flow in flows)
        yield [], len(flows) // CHEAPER
    for portion in wanted:
        for flow in portion:
            left.pop(flow.identity, None)
        new = [flow for flow in portion if not held.has(flow)]
        held.complete(new)
        missing = tuple(flow for flow in new if flow.place not in there)
        yield [AddFlows(missing)] if missing else [], (len(portion) or NOTHING) + len(missing) // 2
    for flows in portions(left.values(), AT_ONCE):
        # What has been ordered meanwhile stays, whatever was looked at before it.
        gone = tuple(flow for flow in flows if flow.identity not in ordered and held.has(flow))
        held.change((), gone)
        yield [DeleteFlows(gone)] if gone else [], len(flows) // CHEAPER
    yield from _told_apart(held, there)


def _told_apart(held: Held, there: Mapping[Place, int]) -> Iterator[Step]:
    """Of what was there: flows that can't be told from others by their cookies are made anew, and what nobody wants
    goes, from the first table to the last one: what leads to a flow goes before it."""
    come = held.watch().places
    ordered: dict[Place, list[Flow]] = {}
    for flows in portions(list(held.flows()) if there else [], AT_ONCE):
        for flow in flows:
            if flow.place in there:
                ordered.setdefault(flow.place, []).append(flow)
        yield [], len(flows) // CHEAPER
    for several in portions(ordered.items(), AT_ONCE):
        unclear = [(place, flows) for place, flows in several if there[place] != len(flows) and place not in come]
        again = tuple(flow for _, flows in unclear for flow in flows)
        yield [*_delete(place for place, flows in unclear if there[place] > len(flows)),
               *([AddFlows(again)] if again else [])], len(several) // CHEAPER + len(again) // 2
    needless: list[Place] = []
    for places in portions(there, AT_ONCE):
        needless += [place for place in places if place not in ordered]
        yield [], len(places) // CHEAPER
    for places in portions(sorted(needless, key=lambda place: number(place[0])), AT_ONCE // CHEAPER):
        yield [*_delete(place for place in places if place not in come)], len(places)


def _delete(places: Iterator[Place]) -> Iterator[Message]:
    return (DeleteCookie(table, cookie, MASK_ALL) for table, cookie in places)
