"""The switch's own trace of a packet, with lbctl's names beside the numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lbctl.cli.failure import Failure
from lbctl.cli.ovs import Ovs
from lbctl.cli.where.situation import FLAGS, Situation
from lbctl.frames import packets
from lbctl.openflow.cookies import Kind, kind_of, owner_in
from lbctl.openflow.tables import name_of

_RULE = re.compile(r"^\s*(\d+)\. .*", re.MULTILINE)
_COOKIE = re.compile(r"cookie (0x[0-9a-f]+)")


def trace(installations: Iterable[Ovs], situation: Situation, packet: str) -> str:
    """The annotated output of `ovs-appctl ofproto/trace`.

    Raises Failure if the LB's bridge is in none of these Open vSwitches.
    """
    lb = situation.load_balancer
    found = next(((ovs, bridge) for ovs in installations if (bridge := ovs.bridge_of(lb["dpid"]))), None)
    if found is None:
        raise Failure(
            f"No bridge here has the dpid {lb['dpid']} of {lb['name']}: run this on its host, with --ovs-rundir "
            "or OVS_RUNDIR if Open vSwitch's sockets are not in their usual place."
        )
    ovs, bridge = found
    return annotate(ovs.appctl("ofproto/trace", bridge, _flow(situation, packet)))


def annotate(output: str) -> str:
    """Adds to each line that names a rule our table's name, and the kind and external IP that its cookie tells."""
    return _RULE.sub(lambda match: f"{match.group()}    <- {_names(match)}", output)


def _names(match: re.Match[str]) -> str:
    table = f"table {name_of(int(match.group(1)))}"
    cookie = _COOKIE.search(match.group())
    if cookie is None:
        return table + ("" if "No match" in match.group() else ", not a rule of lbctl")
    kind, owner = kind_of(int(cookie.group(1), 16)), owner_in(int(cookie.group(1), 16))
    if kind is None:
        return f"{table}, not a rule of lbctl"
    name = Kind(kind).name.lower() if kind in set(Kind) else f"kind {kind}"
    return f"{table}, {name}" + (f" of {_address(owner)}" if owner else "")


def _address(owner: int) -> str:
    """An owner of 28 bits is a digest: openflow/cookies.py."""
    return "an IPv6 external IP" if owner >> 28 == 0xF else ".".join(map(str, owner.to_bytes(4)))


def _flow(situation: Situation, packet: str) -> str:
    port, protocol = situation.port, situation.protocol
    six = situation.source.address.version == 6
    source, destination = ("ipv6_src", "ipv6_dst") if six else ("nw_src", "nw_dst")
    flags = "" if packet not in FLAGS else ",tcp_flags=syn" if FLAGS[packet] == packets.SYN else ",tcp_flags=ack"
    return (
        f"in_port={port.number},{protocol}{'6' if six else ''},"
        f"dl_src={situation.sender},dl_dst={port.mac},"
        f"{source}={situation.source.address},{destination}={situation.destination.address},nw_ttl=64,"
        f"{protocol}_src={situation.source.port},{protocol}_dst={situation.destination.port}{flags}"
    )
