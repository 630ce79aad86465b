"""The flows that answer other LBs' probes in the switch, and those that fence it: docs/failover.md, "What notices a
failure".

A probe is an ARP request that no host takes for its own: its target address is a number, and its target MAC names the
LB that is meant. The answer carries the number back. No answer comes from the datapath's cache alone, but each one from
a living ovs-vswitchd: no datapath rewrites ARP (ofproto/trace shows slow_path(action)). No flow on the way looks at the
number, so that all probes of a path share one cached flow: with one for each, 800 were looked at anew with each change
of the flow tables.

A fence is a probe whose target address is the LB's fence code; its number is the sender address. It makes the switch
ignore all other ARP requests and neighbour solicitations for a while (action learn, ovs-actions(7)), also without a
controller: what is connected through the LB goes on, but nobody is told any more that an external IP is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from lbctl.frames.discovery import SOLICITATION
from lbctl.openflow import flow as f
from lbctl.openflow.cookies import MARK, Kind
from lbctl.openflow.flow import CONTROLLER, IN_PORT, Flow, Learn, Match, MoveField, SetField, flow
from lbctl.openflow.meters import METER_PROBE
from lbctl.values.protocols import ARP_REPLY, ARP_REQUEST, ETH_TYPE_ARP, ETH_TYPE_IPV6, ICMPV6

ASKED, FENCED = "0.0.0.0", "0.0.0.1"
"""Sender address of a probe and its answer, and of the answer to a fence."""
FENCE_SECONDS = 30
"""A fence ends so long after the last one that came."""
LEARNED_COOKIE = MARK << 56 | Kind.FENCED << 48


def fence_code(secret: str, identity: str, used: int) -> str:
    """The code by which that LB is fenced next, an IPv4 address. A fence can be seen on the network, so its code is the
    LB's own, and another one once it has been used. secret: of the site. used: how many have been."""
    digest = hashlib.sha256(f"{secret} {identity} {used}".encode()).digest()
    codes = (digest[place:place + 4] for place in range(0, len(digest), 4))
    return str(next(code for code in map(IPv4Address, codes) if str(code) not in (ASKED, FENCED)))


@dataclass(frozen=True, slots=True)
class Watched:
    """How an LB is meant by a probe: identity, a MAC that is in no frame's header; and by a fence: its code, an IPv4
    address."""

    identity: str
    fence_code: str


def probe_flows(watched: Watched, ports: tuple[tuple[int, str], ...]) -> Iterator[Flow]:
    """ports: number and MAC of those where probes may come in."""
    for number, mac in ports:
        arp: Match = {"in_port": number, "eth_type": ETH_TYPE_ARP}
        request = {**arp, "arp_op": ARP_REQUEST, "arp_tha": watched.identity}
        answer = {**arp, "arp_op": ARP_REPLY, "eth_dst": mac, "arp_spa": f"{ASKED}/31"}
        fence = {**request, "arp_tpa": watched.fence_code}
        yield flow(Kind.FENCE, 0, "classify", 150, {**request, "arp_spa": ASKED}, *_answer(mac))
        yield flow(Kind.FENCE, 0, "classify", 140, request, goto="arp")
        yield flow(Kind.FENCE, 0, "arp", 120, fence, *_FENCE, MoveField("arp_spa", "arp_tpa", 32),
                   SetField("arp_spa", FENCED), *_answer(mac))
        yield flow(Kind.PROBED, 0, "classify", 140, answer, CONTROLLER, meter=METER_PROBE)


_FENCE = tuple(Learn("classify", 130, FENCE_SECONDS, LEARNED_COOKIE, match) for match in (
    (("eth_type", ETH_TYPE_ARP), ("arp_op", ARP_REQUEST)),
    (("eth_type", ETH_TYPE_IPV6), ("ip_proto", ICMPV6), ("icmpv6_type", SOLICITATION)),
))


def _answer(mac: str) -> tuple[f.FlowAction, ...]:
    return (MoveField("eth_src", "eth_dst", 48), SetField("eth_src", mac), SetField("arp_op", ARP_REPLY),
            MoveField("arp_sha", "arp_tha", 48), SetField("arp_sha", mac), IN_PORT)
