"""Who is where on the networks around the LBs: asks for the MACs of servers and routers, and tells who has an
external IP."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from ipaddress import ip_address
from typing import NamedTuple

from lbctl.frames import discovery
from lbctl.frames.packets import Malformed, parse_mac, with_eth_dst
from lbctl.ground.effects import Outbox, ToSwitch, to_switch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.networks.announcements import Announcements
from lbctl.networks.memberships import INTERVAL, all_reports, reports
from lbctl.networks.queries import Queries
from lbctl.networks.router_claims import RouterClaims
from lbctl.openflow.inbound import PacketIn
from lbctl.openflow.messages import FROM_CONTROLLER, ModifyEntries, PacketOut, entry_messages
from lbctl.openflow.ports import Ports
from lbctl.site.model import Hop
from lbctl.switches.switch import Switch
from lbctl.values.addresses import Address
from lbctl.values.portions import each_once

SEARCH_INTERVAL = 0.5
"""Seconds between probes for a server whose MAC is not known. A switch may swallow the first answers: what its datapath
had cached while its tables were empty stays in force for a moment."""
ASKED_AT_ONCE, LOOKED_AT_ONCE = 50, 1000
"""At a tick, of all LBs together: so many hosts are asked at most, and so many looked at whether they are to be
asked. In a large site it takes several ticks to get round, else the controller would do nothing but ask."""
FAR_AT_ONCE = 10
"""Of hosts that their LB does not need now, so many: each of a large site's LBs knows all hosts of the site."""


class Walk:
    """Goes round all who may be to be asked, a few at each tick; begins anew some time after it has begun last."""

    def __init__(self, everyone: Callable[[], Iterator[ToSwitch | None]], at_once: int = ASKED_AT_ONCE) -> None:
        """everyone: a round; None for who is not to be asked. at_once: questions at a tick."""
        self._everyone, self._at_once = everyone, at_once
        self._rest: Iterator[ToSwitch | None] | None = None
        self._next = 0.0

    def step(self, now: float, interval: float) -> Outbox:
        """The questions of this tick. interval: seconds from the start of a round to the next one."""
        if self._rest is None:
            if now < self._next:
                return []
            self._rest, self._next = self._everyone(), now + interval
        out: Outbox = []
        for _ in range(LOOKED_AT_ONCE):
            try:
                question = next(self._rest)
            except StopIteration:
                self._rest = None
                break
            if question:
                out.append(question)
                if len(out) == self._at_once:
                    break
        return out


class Known(NamedTuple):
    """What an LB knows of whom: collections that are replaced, or grow, when that changes."""

    hops: Mapping[Address, Hop]
    routers: Set[Address]
    neighbours: Mapping[Address, str]
    known: int

    def is_same(self, other: Known) -> bool:
        return self.known == other.known and all(one is two for one, two in zip(self[:-1], other[:-1], strict=True))


class Neighbourhood:
    """Of all LBs of a control function."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._announcements = Announcements(lambda: ground.settings.announce_rate, self._busy)
        self._claims = RouterClaims()
        self.queries = Queries(ground)
        self._eager = False
        self._now = 0.0
        self._near, self._far = Walk(self._of_serving), Walk(self._of_others, FAR_AT_ONCE)
        self._search = Walk(self._unknown)
        self._missing: dict[str, tuple[Known, list[Address]]] = {}
        """LB -> whose MACs it does not know, and what that was found from: a site has many LBs times many hosts, and
        almost all are known."""
        self._listening = Walk(self._reports)
        self._to_announce: dict[str, Iterator[Serving | None]] = {}
        """LB -> external IPs that are still to be announced, if it has them."""

    def tick(self, now: float, eager: bool) -> Outbox:
        """What is to be announced again, and asked for. eager: those too whose MACs are known, at every search."""
        out: Outbox = []
        if astray := self._ground.astray:
            known = [serving for address in astray if (serving := self._ground.external_ips.get(address))]
            self._announcements.again([(serving.address, serving.assigned) for serving in known], now)
            astray.clear()
        for address, lb in self._announcements.due(now):
            serving = self._ground.external_ips.get(address)
            if serving and serving.assigned == lb:
                out += self._announcement(serving, lb)
            else:
                self._announcements.forget(address)
        for (name, router), mac in self._claims.confirmed(now):
            if switch := self._ground.switches.get(name):
                out += self._believe(switch, router, mac)
        self._eager, self._now, interval = eager, now, self._ground.settings.arp_interval
        return (
            out
            + self._near.step(now, interval)
            + self._far.step(now, interval)
            + self._search.step(now, SEARCH_INTERVAL)
            + self._listening.step(now, INTERVAL)
            + self._announce_some(now)
            + self.queries.tick(now)
        )

    def told(self, switch: Switch, packet_in: PacketIn) -> Outbox:
        """Somebody has told its MAC."""
        try:
            address, mac = discovery.decode(packet_in.frame)
        except Malformed:
            switch.counters["dropped_malformed"] += 1
            return []
        return self._found(switch, ip_address(address), mac.hex(":"), packet_in)

    def _found(self, switch: Switch, address: Address, mac: str, packet_in: PacketIn) -> Outbox:
        """Each network and tunnel is believed about the routers and next hops there, and about nothing else."""
        ports, hop, in_port = switch.of_ports, self._ground.external_ips.hops().get(address), packet_in.in_port
        if ports is None:
            return []
        if in_port == ports.external.number:
            if address not in self._ground.external_ips.routers():
                return []
            if known := switch.neighbours.get(address):
                answer = packet_in.frame[:6] == parse_mac(ports.external.mac)
                if self._claims.heard((switch.lb.name, address), known, mac, answer, self._now):
                    return self._ask_who_it_is(switch, ports, address, known)
                if mac != known:
                    return []
        elif hop is None or in_port != ports.to(hop.tunnel).number:
            return []
        return self._believe(switch, address, mac)

    def _ask_who_it_is(self, switch: Switch, ports: Ports, router: Address, known: str) -> Outbox:
        """The router as it was known, alone; and all."""
        mine = parse_mac(ports.external.mac)
        frame = discovery.probe(mine, router.packed)
        return to_switch(switch.lb.name, [PacketOut(question, FROM_CONTROLLER, ports.external.number)
                                          for question in (with_eth_dst(frame, parse_mac(known)), frame)])

    def _believe(self, switch: Switch, address: Address, mac: str) -> Outbox:
        """That neighbour is there."""
        before = switch.neighbours.get(address)
        if before != mac:
            self._ground.log("neighbour found", lb=switch.lb.name, address=str(address), mac=mac)
        if switch.hearing.heard(address):
            self._ground.log("neighbour answers again", lb=switch.lb.name, address=str(address))
        out = to_switch(switch.lb.name, switch.set_neighbour(address, mac, self._ground.external_ips.behind(address)))
        if before not in (None, mac) and address in self._ground.external_ips.routers():
            out += self._follow_router(switch, address, parse_mac(mac))
        return out

    def _follow_router(self, switch: Switch, router: Address, mac: bytes) -> Outbox:
        """What NAT gateways have sent to a router goes to where that is now."""
        out: Outbox = []
        for serving in self._ground.external_ips:
            if serving.config.router != router or serving.assigned != switch.lb.name:
                continue
            entries = [entry for entry in serving.table.entries() if entry.inner_hop and entry.next_hop != mac]
            for entry in entries:
                entry.next_hop = mac
                serving.table.changed(entry)
            out += [ToSwitch(name, message) for name in serving.holders if self._ground.switches[name].ready
                    for message in entry_messages(ModifyEntries, entries)]
        return out

    def probe(self, switch: Switch) -> Outbox:
        """Asks for the MACs of all next hops and routers; of a large site, of those that this LB needs now, and the
        others are searched for."""
        everywhere = self._everywhere()
        needed = (hop for serving in self._needed_by(switch.lb.name) if serving for hop in serving.next_hops())
        few = len(everywhere) <= ASKED_AT_ONCE
        hosts = everywhere if few else each_once(itertools.chain(self._ground.external_ips.routers(), needed))
        return self.ask(switch, itertools.islice(hosts, ASKED_AT_ONCE))

    def ask(self, switch: Switch, addresses: Iterable[Address]) -> Outbox:
        """Asks for the MACs of these next hops and routers."""
        return [question for address in addresses if (question := self._question(switch, address))]

    def _needed_by(self, name: str) -> Iterator[Serving | None]:
        """Every external IP, but None for those that the LB does not have."""
        for serving in list(self._ground.external_ips):
            yield serving if serving.assigned == name else None

    def _of_serving(self) -> Iterator[ToSwitch | None]:
        """By each LB for what its external IPs need."""
        for serving in list(self._ground.external_ips):
            if switch := self._ground.switches.get(serving.assigned):
                for address in serving.next_hops():
                    yield self._question(switch, address)

    def _of_others(self) -> Iterator[ToSwitch | None]:
        """By each LB for what it will need when other external IPs come to it."""
        for switch in list(self._ground.switches.values()):
            needed: set[Address] = set()
            for serving in self._needed_by(switch.lb.name):
                needed |= serving.next_hops() if serving else set()
                yield None
            for address in self._everywhere():
                yield None if address in needed else self._question(switch, address)

    def _unknown(self) -> Iterator[ToSwitch | None]:
        """Those whose MACs are not known there, or that have not answered lately."""
        for switch in list(self._ground.switches.values()):
            yield None
            if self._eager:
                for address in self._everywhere():
                    yield self._question(switch, address)
            else:
                yield from self._missing_at(switch)
                yield from self._doubtful_at(switch)

    def _missing_at(self, switch: Switch) -> Iterator[ToSwitch | None]:
        hosts = self._ground.external_ips
        known = Known(hosts.hops(), hosts.routers(), switch.neighbours, len(switch.neighbours))
        before = self._missing.get(switch.lb.name)
        missing = []
        for address in before[1] if before and before[0].is_same(known) else self._everywhere():
            wanted = address not in switch.neighbours
            if wanted:
                missing.append(address)
            yield self._question(switch, address) if wanted else None
        self._missing[switch.lb.name] = known, missing

    def _doubtful_at(self, switch: Switch) -> Iterator[ToSwitch | None]:
        hops, routers = self._ground.external_ips.hops(), self._ground.external_ips.routers()
        for address in switch.hearing.doubtful(self._now):
            if address in switch.neighbours and (address in hops or address in routers):
                yield self._question(switch, address)

    def _everywhere(self) -> Collection[Address]:
        return [*self._ground.external_ips.hops(), *self._ground.external_ips.routers()]

    def _question(self, switch: Switch, address: Address) -> ToSwitch | None:
        """Who has that address? None if it can't be asked there."""
        ports, hop = switch.of_ports, self._ground.external_ips.hops().get(address)
        if not switch.ready or ports is None:
            return None
        if address in switch.neighbours and switch.hearing.asked(address, self._now):
            self._ground.log("neighbour does not answer any more", level="warning", lb=switch.lb.name,
                             address=str(address), hint=f"no new connections go there while others answer; "
                             f"is it up, and does it answer {discovery.asked_by(address)}?")
        port, tunnel = (ports.to(hop.tunnel), hop.tunnel) if hop else (ports.external, None)
        frame = discovery.probe(parse_mac(port.mac), address.packed)
        return ToSwitch(switch.lb.name, PacketOut(frame, FROM_CONTROLLER, port.number, tunnel))

    def announce_all(self, name: str, now: float) -> Outbox:
        """What that LB answers for; of a large site, some at each tick."""
        self._to_announce[name] = self._needed_by(name)
        return self._announce_some(now)

    def _announce_some(self, now: float) -> Outbox:
        out: Outbox = []
        for name, rest in list(self._to_announce.items()):
            some = list(itertools.islice(rest, LOOKED_AT_ONCE))
            if len(some) < LOOKED_AT_ONCE:
                del self._to_announce[name]
            for serving in some:
                if serving and (switch := self._ground.switches.get(name)) and switch.role(serving.address).arp:
                    out += self.announce(serving, name, now)
        return out

    def announce(self, serving: Serving, name: str, now: float) -> Outbox:
        """Tells the neighbours of the external IP and of its internal addresses: now, unless there is too much to tell
        at once, and a few times more."""
        return self._announcement(serving, name) if self._announcements.start(serving.address, name, now) else []

    def _reports(self) -> Iterator[ToSwitch | None]:
        for some in all_reports(self._ground):
            yield None
            yield from some

    def _busy(self, address: Address) -> float:
        serving = self._ground.external_ips.get(address)
        return len(serving.table) if serving else 0

    def _announcement(self, serving: Serving, name: str) -> Outbox:
        switch = self._ground.switches[name]
        out: Outbox = [*reports(switch, serving)]
        ports = switch.of_ports
        if switch.ready and ports:
            internal = [(*way, address) for way in ports.ways(serving.config.hops().values())
                        for address in serving.config.internal_addresses()]
            for port, tunnel, address in [(ports.external, None, serving.address), *internal]:
                is_router = address == serving.config.gateway
                out += [ToSwitch(name, PacketOut(frame, FROM_CONTROLLER, port.number, tunnel))
                        for frame in discovery.announcements(parse_mac(port.mac), address.packed, is_router)]
        return out
