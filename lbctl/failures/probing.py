"""Probes: frames that LBs send each other over both networks, and that the receiver's switch answers by itself.

The frames are those of openflow/probe_rules.py. The control function lets two LBs ask each other one, on each
network, and counts how many probes in a row were not answered. Rounds are counted, not seconds: a control function
that was busy itself takes nobody for dead. And an answer that is missing counts once the LB that asked has been heard
since: a control function that is cut off from that one, or was stopped, learns nothing about the other.
"""

from __future__ import annotations

import itertools
import secrets
from bisect import bisect_right
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from lbctl.frames import packets
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.openflow.messages import FROM_CONTROLLER, PacketOut
from lbctl.openflow.probe_rules import ASKED, FENCED
from lbctl.switches.switch import Switch

NETWORKS = ("external", "internal")
PROBERS = 2
"""LBs that ask one that has missed a probe: so that the failure of one of them is not taken for its own."""
MOST_PROBES = 2000
"""In a second, of all LBs: with more than 50 LBs rounds are rarer."""
NUMBER_BYTES = 3
"""Of the numbers of probes: 0.0.0.1 to 0.255.255.255, which are nobody's addresses (RFC 1122 3.2.1.3)."""
FORGOTTEN = 4
"""Rounds after which an answer is too late."""


ASKED_BY, FENCED_BY = (IPv4Address(address).packed for address in (ASKED, FENCED))


@dataclass(slots=True)
class Path:
    """The data path to an LB over one network."""

    missed: int = 0
    """Rounds in a row without an answer, as far as those who asked have been heard since."""
    unproved: int = 0
    """The rounds after these, of which nobody who asked has been heard."""
    probers: tuple[str, ...] = ()
    """Who asked in the last round."""
    heard: bool = False
    """Has it ever answered?"""
    fenced: bool = False
    """Has the last fence been answered?"""
    answered: bool = True
    """The last round's probe."""


class Probing:
    """What is known of all LBs' data paths. `switches` belongs to the control function."""

    def __init__(self, switches: Mapping[str, Switch]) -> None:
        self._switches = switches
        self._paths: dict[tuple[str, str], Path] = {}
        self._rounds: list[dict[int, tuple[str, str, bool]]] = []
        """Of the last rounds, the newest first: number of each probe -> LB asked, network, was it a fence?"""
        self.heard: set[str] = set()
        """LBs that have said something since the last round began."""

    def path(self, name: str, network: str) -> Path:
        if (path := self._paths.get((name, network))) is None:
            path = self._paths[name, network] = Path()
        return path

    def round(self, to_fence: set[str]) -> Outbox:
        """One probe on each way (a fence to those of to_fence). Counts what the last round has missed."""
        for path in self._paths.values():
            self._count(path)
        self.heard.clear()
        asked: dict[int, tuple[str, str, bool]] = {}
        self._rounds = [asked, *self._rounds[:FORGOTTEN - 1]]
        out: Outbox = []
        able = {network: sorted(name for name, switch in self._switches.items()
                                if switch.whole and switch.of_ports and switch.ports[network].up)
                for network in NETWORKS}
        for name, switch in self._switches.items():
            if switch.watched is None:
                continue
            for network in NETWORKS:
                path = self.path(name, network)
                fence = name in to_fence
                probers = list(self._probers(name, able[network], PROBERS if path.missed or path.unproved else 1))
                path.probers = tuple(prober.lb.name for prober in probers)
                for prober in probers:
                    number = self._new_number(asked)
                    asked[int.from_bytes(number)] = name, network, fence
                    ends = (number, _packed(switch.watched.fence_code)) if fence else (ASKED_BY, number)
                    out.append(_probe(prober, network, Probe(_mac(switch, network), switch.watched.identity, *ends)))
        return out

    @staticmethod
    def _new_number(asked: Container[int]) -> bytes:
        """One that nobody can guess: who could would keep a dead LB alive."""
        while (number := int.from_bytes(secrets.token_bytes(NUMBER_BYTES))) in asked or not number:
            pass
        return number.to_bytes(4)

    def _count(self, path: Path) -> None:
        """Of the round that ends."""
        if path.probers and not path.answered:
            path.unproved += 1
            if self.heard.intersection(path.probers):
                # Answers to older probes would be taken for too late.
                path.missed += path.unproved if path.unproved <= FORGOTTEN else 0
                path.unproved = 0
        path.probers, path.answered = (), False

    def _probers(self, name: str, able: list[str], count: int) -> Iterator[Switch]:
        """The next ones in the order of names. able: those that could, in that order."""
        start = bisect_right(able, name)
        others = (able[(start + place) % len(able)] for place in range(min(count + 1, len(able))))
        return (
            self._switches[other] for other in itertools.islice((other for other in others if other != name), count)
        )

    def answer(self, prober: str, arp: packets.Arp) -> str | None:
        """Notes an answer, which that LB has shown. Returns the LB that answers, or None if no probe of the last rounds
        was asked so."""
        self.heard.add(prober)
        number = int.from_bytes(arp.tpa)
        name, network, fence = next((asked[number] for asked in self._rounds if number in asked), ("", "", False))
        if not name:
            return None
        path = self.path(name, network)
        path.missed, path.unproved, path.answered, path.heard = 0, 0, True, True
        path.fenced = fence and arp.spa == FENCED_BY
        return name

    def silent(self, name: str, network: str, misses: int) -> bool:
        """Has it answered before, and does not now? False also if nobody can ask."""
        path = self.path(name, network)
        return path.heard and bool(path.probers) and path.missed >= misses

    def lively(self, name: str, network: str, misses: int) -> bool:
        """Has it answered one of the last probes?"""
        path = self.path(name, network)
        return path.heard and path.missed < misses

    def forget(self, names: set[str]) -> None:
        """These LBs are gone."""
        self._paths = {place: path for place, path in self._paths.items() if place[0] not in names}


class Probe(NamedTuple):
    """mac: who is to get it. identity: whom it means. sender, target: its addresses (packed)."""

    mac: str
    identity: str
    sender: bytes
    target: bytes


def _packed(address: str) -> bytes:
    return IPv4Address(address).packed


def _mac(asked: Switch, network: str) -> str:
    """A new control function has not seen the ports of an LB that is not connected: all get what it is asked."""
    return getattr(asked.of_ports, network).mac if asked.of_ports else "ff:ff:ff:ff:ff:ff"


def _probe(prober: Switch, network: str, probe: Probe) -> ToSwitch:
    port = getattr(prober.of_ports, network)
    source, destination, identity = (packets.parse_mac(text) for text in (port.mac, probe.mac, probe.identity))
    frame = packets.arp_question(source, destination, probe.sender, identity, probe.target)
    return ToSwitch(prober.lb.name, PacketOut(frame, FROM_CONTROLLER, port.number))
