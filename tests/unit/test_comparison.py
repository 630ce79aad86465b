"""What a switch answers, compared with what was ordered."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace

import pytest

from lbctl.openflow.cookies import MARK, MASK_ALL, Kind
from lbctl.openflow.flow import Flow
from lbctl.openflow.messages import AddFlows, DeleteCookie
from lbctl.openflow.tables import number
from lbctl.switches.comparison import AT_ONCE, Comparison, Differences, Look
from lbctl.switches.held import Held

TABLE = "arp"
COOKIE = MARK << 56 | Kind.SERVER_ARP << 48


def made(arp_op: int, cookie: int = COOKIE) -> Flow:
    return Flow(TABLE, 100, (("arp_op", arp_op),), cookie=cookie)


def record(flow: Flow, tail: bytes = b"") -> bytes:
    """Of a flow-statistics reply; tail: what it does."""
    body = repr(flow.match).encode() + tail
    return struct.pack("!HBx8xH10xQ16x", 48 + len(body), number(TABLE), flow.priority, flow.cookie) + body


def compared(held: Held, before: Look | None, there: Iterable[bytes], meanwhile: Iterable[Flow] = ()) -> Comparison:
    comparison = Comparison(TABLE, held, before)
    for each in there:
        comparison.answer(each)
    held.change(meanwhile, ())
    for _ in comparison.steps():
        pass
    return comparison


def compare(held: Held, before: Look | None, there: Iterable[bytes],
            meanwhile: Iterable[Flow] = ()) -> tuple[Differences, Look | None]:
    return compared(held, before, there, meanwhile).result()


def test_two_flows_with_one_cookie_come_one_after_the_other() -> None:
    """Cookies have 16 bits of a flow's digest: of 10 000 flows, some 750 share one."""
    held, one, two = Held(), made(1), made(2)
    held.change([one], ())
    found, look = compare(held, None, [record(one)])
    held.change([two], ())
    found, look = compare(held, look, [record(one), record(two)])
    assert not found
    found, _ = compare(held, look, [record(one), record(two, b"other")])
    assert found.changed == (one, two)


@pytest.mark.parametrize("order", ["nothing", "another flow", "the flow anew"])
def test_what_was_changed_in_place_is_found_whatever_was_ordered_beside_it(order: str) -> None:
    held, one, other = Held(), made(1), made(2, COOKIE + 1)
    held.change([one], ())
    _, look = compare(held, None, [record(one)])
    ordered = {"nothing": [], "another flow": [other], "the flow anew": [replace(one, meter=1)]}[order]
    held.change(ordered, ())
    found, look = compare(held, look, [record(one, b"other"), *(record(flow) for flow in ordered if flow is other)])
    assert found.changed == (() if order == "the flow anew" else (one,))
    assert look and look.right == (order == "the flow anew")


@pytest.mark.parametrize("before", [False, True])
def test_what_is_ordered_after_the_question_is_not_wrong(before: bool) -> None:
    held, one, two = Held(), made(1), made(2, COOKIE + 1)
    held.change([one], ())
    look = compare(held, None, [record(one)])[1] if before else None
    found, look = compare(held, look, [record(one)], meanwhile=[two])
    assert not found
    found, _ = compare(held, look, [record(one)])
    assert found.missing == (two,)


def test_what_nobody_has_ordered_goes_with_its_cookie() -> None:
    held, one, other = Held(), made(1), made(2)
    held.change([one], ())
    stray = made(3, COOKIE + 1)
    found, _ = compare(held, None, [record(one), record(other), record(stray)])
    assert found.needless == (COOKIE, COOKIE + 1) and found.missing == (one,)


def test_what_is_ordered_while_it_is_put_right_counts() -> None:
    """An external IP that has moved away meanwhile must not be served here again."""
    held = Held()
    flows = [made(number, COOKIE + number) for number in range(AT_ONCE + 1)]
    held.change(flows, ())
    repair = compared(held, None, [record(made(9, COOKIE + 5000)), record(made(9, COOKIE + 6000))]).repair()
    last, other = flows[-1], made(7, COOKIE + 5000)
    held.change([other], [last])
    assert next(repair) == [DeleteCookie(TABLE, COOKIE + 6000, MASK_ALL)]
    assert next(repair) == [AddFlows(tuple(flow for flow in flows[:AT_ONCE] if flow.identity != other.identity))]
    assert list(repair) == []
