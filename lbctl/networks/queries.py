"""Answers to multicast listener queries (lbctl/frames/mld.py): a switch that snoops asks again and again who listens,
and forgets whom it does not hear; one that has just started, or a second querier, asks at once."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from ipaddress import IPv6Address

from lbctl.frames import mld
from lbctl.frames.discovery import link_local, solicited_node
from lbctl.frames.packets import Malformed, parse_mac
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.openflow.inbound import PacketIn
from lbctl.openflow.messages import FROM_CONTROLLER, PacketOut
from lbctl.switches.switch import Switch

SPACING = 1.0
"""Seconds between two answers of an LB on a network at least: what many queries cost."""
IN_TIME = 0.5
"""An answer goes out within this share of the time that the query allows; where in it, the port's MAC decides: not all
LBs answer at once."""
MANY_GROUPS = 50
"""Whoever asks for more at the same time is told of all."""


@dataclass(slots=True)
class Due:
    """at: when to answer; groups: which were asked for, None: all; old: by version 1."""

    at: float
    groups: set[bytes] | None
    old: bool


class Queries:
    """Of all LBs of a control function, on the networks outside and inside."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._due: dict[tuple[str, int], Due] = {}
        """By LB and port: an answer for each at most."""
        self._answered: dict[tuple[str, int], float] = {}
        """When each answered last."""

    def asked(self, switch: Switch, packet_in: PacketIn, now: float) -> None:
        """Someone asks that LB who listens."""
        try:
            query = mld.decode_query(packet_in.frame)
        except Malformed:
            switch.counters["dropped_malformed"] += 1
            return
        ports = switch.of_ports
        if ports is None or packet_in.in_port not in (ports.external.number, ports.internal.number):
            return
        key = switch.lb.name, packet_in.in_port
        port = ports.external if packet_in.in_port == ports.external.number else ports.internal
        place = zlib.crc32(parse_mac(port.mac)) / (1 << 32)
        at = max(now + query.delay * IN_TIME * place, self._answered.get(key, float("-inf")) + SPACING)
        due = self._due.setdefault(key, Due(at, set(), query.old))
        due.at, due.old = min(due.at, at), due.old or query.old
        if query.group is None or due.groups is None or len(due.groups) >= MANY_GROUPS:
            due.groups = None
        else:
            due.groups.add(query.group)

    def tick(self, now: float) -> Outbox:
        """The answers that are due."""
        out: Outbox = []
        for key, due in [each for each in self._due.items() if each[1].at <= now]:
            del self._due[key]
            if switch := self._ground.switches.get(key[0]):
                self._answered[key] = now
                out += self._answer(switch, key[1], due)
        return out

    def _answer(self, switch: Switch, number: int, due: Due) -> Outbox:
        ports = switch.of_ports
        if not switch.ready or ports is None:
            return []
        outside = number == ports.external.number
        mac = parse_mac(ports.external.mac if outside else ports.internal.mac)
        groups = dict.fromkeys(map(solicited_node, [link_local(mac), *self._addresses(switch, outside)]))
        wanted = [group for group in groups if due.groups is None or group in due.groups]
        return [ToSwitch(switch.lb.name, PacketOut(frame, FROM_CONTROLLER, number))
                for frame in mld.answers(mac, wanted, due.old)]

    def _addresses(self, switch: Switch, outside: bool) -> list[bytes]:
        """What that LB answers for on that side."""
        served = [serving for serving in self._ground.external_ips if isinstance(serving.address, IPv6Address)
                  and serving.assigned == switch.lb.name and switch.role(serving.address).arp]
        return [address.packed for serving in served
                for address in ([serving.address] if outside else serving.config.internal_addresses())]
