"""What a connection request leads to: an entry at every LB that holds this external IP's, by which it then goes on.

A client's first packet opens a connection to a server that is chosen for it; an inside host's one that a NAT gateway
takes to the outside.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

from lbctl.connections.answers import drop, go_on, refuse, send_icmp_error
from lbctl.connections.arrival import Arrival
from lbctl.connections.endings import Endings
from lbctl.connections.transition import Transition
from lbctl.connections.unanswered import Unanswered
from lbctl.entries.access_table import ENDING, GONE, HALF_OPEN, REINSTALLED, RESET, REUSED, Entry
from lbctl.entries.translation import outbound_keys
from lbctl.frames import icmp
from lbctl.frames.packets import Packet, parse_mac
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.messages import AddEntries
from lbctl.servers.states import Place
from lbctl.site.model import Server, Service
from lbctl.switches.switch import Switch
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.keys import sender_half, service_of, unpack_key
from lbctl.values.protocols import TCP
from lbctl.values.side import EXTERNAL, INTERNAL
from lbctl.values.transfer import TransferMode

EARLY_SECONDS = 1.0
"""A datagram may come here for so long after its entry was made, since the datapath does not know the flows yet. They
are not sent again with each one: the datapath would be checked anew each time, and a burst last longer."""


LOG_INTERVAL = 60.0
"""Seconds between two log lines about what keeps connections from opening."""
HINTS = {"full": "a larger max_connections or more servers (lbctl server add) take more",
         "down": "lbctl server list shows what the health checks say of each server",
         "drained": "lbctl drain-server --undo lets a server take connections again"}
"""What to do, by what keeps a service's servers from taking connections."""


class NewConnections:
    """What makes their entries known."""

    def __init__(self, ground: Ground, transition: Transition, endings: Endings) -> None:
        self._switches = ground.switches
        self._transition = transition
        self._endings = endings
        self._opening = Opening(ground)
        self._unanswered = Unanswered(ground, self._looked_at)

    def arrived(self, arrival: Arrival, serving: Serving) -> Outbox:
        """A SYN, or the first datagram; or one that comes again before the switch knows the entry."""
        switch, packet = arrival.switch, arrival.packet
        if switch.role(serving.address).mode is not TransferMode.NORMAL:
            return self._transition.hold(arrival, serving)
        key = arrival.key
        if key is None:
            return drop(switch, "unknown_protocol")
        if packet.ttl <= 1:
            return send_icmp_error(arrival, serving, icmp.TTL_EXPIRED)
        entry = serving.table.find(arrival.way, key)
        if entry and (asked := self._unanswered.ask(arrival, serving, entry)):
            return asked
        return self._open(arrival, serving, key, entry)

    def _looked_at(self, arrival: Arrival, serving: Serving, entry: Entry, answered: bool) -> Outbox:
        """A SYN that came again: its server has, or has not, said anything."""
        if arrival.switch.role(serving.address).mode is not TransferMode.NORMAL:
            return self._transition.hold(arrival, serving)
        if answered or entry.flags & GONE:
            return self._open(arrival, serving, entry.key, serving.table.find(arrival.way, entry.key))
        arrival.switch.counters["unanswered_syns"] += 1
        address, port = entry.server
        ended = self._endings.end_all(serving, [entry], arrival.now)
        return ended + self._open(arrival, serving, entry.key, None, Endpoint(ip_address(address), port))

    def _open(
        self, arrival: Arrival, serving: Serving, key: bytes, entry: Entry | None, avoided: Endpoint | None = None
    ) -> Outbox:
        """entry: what there is with that key. avoided: a server that is chosen only if there is no other."""
        switch, packet = arrival.switch, arrival.packet
        out: Outbox = []
        reused = packet.protocol == TCP and (entry is not None or self._endings.has_just_ended(key))
        if entry and (entry.flags & ENDING and entry.isn != packet.seq or _waits_in_vain(serving, entry, packet)):
            out = self._endings.end_all(serving, [entry], arrival.now)
            entry = None
        if entry is None:
            try:
                entry = self._opening.entry(arrival, serving, key, avoided)
            except Refusal as refusal:
                if refusal.wait:
                    return [*out, *drop(switch, refusal.wait)]
                switch.counters["connections_refused"] += 1
                return [*out, *refuse(arrival, serving)]
            entry.flags = (REUSED if reused else 0) | (HALF_OPEN if packet.protocol == TCP else 0)
            serving.table.add(entry)
            switch.counters["connections_opened"] += 1
            serving.opened += 1
        elif not self._comes_again(arrival, entry):
            return [go_on(arrival)]
        # An LB that is being read back would get the entry too late to be read, and too early to be put back.
        out += [ToSwitch(name, AddEntries((entry,))) for name in serving.holders if self._switches[name].ready]
        out.append(go_on(arrival))
        return out

    @staticmethod
    def _comes_again(arrival: Arrival, entry: Entry) -> bool:
        """A packet that opened, or would open, that entry. Shall the switches be given the entry again?"""
        packet, counters = arrival.packet, arrival.switch.counters
        if packet.protocol != TCP:
            counters["early_datagrams"] += 1
            return arrival.now >= entry.created + EARLY_SECONDS
        if entry.isn == packet.seq:
            counters["syn_retransmissions"] += 1
            # A RST that came meanwhile was for what the server still had of an earlier connection with these ports.
            entry.flags = entry.flags & ~RESET | REINSTALLED
        else:
            # The port is used again: by a connection that ended unseen (its flows may be running out), or by a forged
            # SYN. The same server can tell, and the flows are put back as new.
            entry.isn, entry.created, entry.last_seen = packet.seq, arrival.now, arrival.now
            entry.flags |= REUSED
        return True


def _waits_in_vain(serving: Serving, entry: Entry, packet: Packet) -> bool:
    """A SYN that has not been answered, to a server that has gone down meanwhile?"""
    if not serving.servers.down or packet.protocol != TCP or entry.isn != packet.seq:
        return False
    address, port = entry.server
    return (service_of(entry.key), Endpoint(ip_address(address), port)) in serving.servers.down


class Refusal(Exception):
    """No entry. `wait` names what will be there soon (the sender asks again); None: the sender must be told."""

    def __init__(self, wait: str | None = None) -> None:
        super().__init__(wait)
        self.wait = wait


class Opening:
    """Makes the entries of new connections; the caller puts them into the access table."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._told: dict[tuple[Address, str], float] = {}
        """When which trouble of an external IP was logged last."""

    def entry(self, arrival: Arrival, serving: Serving, key: bytes, avoided: Endpoint | None = None) -> Entry:
        """The entry of a connection that this packet, of that key, opens. Raises Refusal."""
        if arrival.way is EXTERNAL:
            return self._to_server(arrival, serving, key, avoided)
        if not serving.outbound:
            raise Refusal()  # a server's, which has no NAT gateway
        return self._to_outside(arrival, serving, key)

    def _to_server(self, arrival: Arrival, serving: Serving, key: bytes, avoided: Endpoint | None) -> Entry:
        packet, now, place = arrival.packet, arrival.now, service_of(key)
        service = serving.services.get(place)
        if service is None:
            raise Refusal()
        switch, takes, side = arrival.switch, serving.servers.takes, arrival.side
        if side is INTERNAL and not self._ground.is_inside(packet.src):
            raise Refusal("source_not_inside")  # what it is answered would go to the external network
        neighbours, silent = switch.neighbours, switch.hearing.silent

        def allowed(server: Server) -> bool:
            reached = takes(place, server) and server.hop.address in neighbours
            return reached and serving.can_translate(key, server, now, side)

        client, scheduler, server = sender_half(key), serving.schedulers[place], None
        if silent or avoided:
            server = scheduler.choose(client, lambda each: (
                each.hop.address not in silent and each.endpoint != avoided and allowed(each)))
        # Where none answers, it may be this LB that does not hear them: better one of them than none.
        server = server or scheduler.choose(client, allowed)
        reply = serving.translate(key, server, now, side) if server else None
        if reply is None:
            raise self._refusal(arrival, serving, place, service)
        return Entry(key, reply, packet.eth_src, now, packet.seq)

    def _refusal(self, arrival: Arrival, serving: Serving, place: Place, service: Service) -> Refusal:
        """Why no server of that service gets the connection."""
        switch, now = arrival.switch, arrival.now
        taking = [server for server in service.servers if serving.servers.takes(place, server)]
        reached = [server for server in taking if server.hop.address in switch.neighbours]
        if not taking:
            self._none_takes(switch, serving, place, service, now)
        elif serving.allocation_for(arrival.side) and reached:
            self._exhausted(switch, serving, now)
        elif len(reached) < len(taking):
            return Refusal("server_unresolved")
        return Refusal()

    def _to_outside(self, arrival: Arrival, serving: Serving, reply: bytes) -> Entry:
        """Seed modifications 3 and 6: translation without load balancing."""
        switch, packet, now = arrival.switch, arrival.packet, arrival.now
        router = serving.config.router
        mac = switch.neighbours.get(router) if router else None
        if mac is None or serving.allocation is None:
            raise Refusal("router_unresolved")
        protocol, _, _, outside, port = unpack_key(reply)
        slot = serving.allocation.give((protocol, outside, port), now, self._ground.settings.time_wait)
        if slot is None:
            self._exhausted(switch, serving, now)
            raise Refusal()
        return Entry(*outbound_keys(reply, slot), parse_mac(mac), now, packet.seq, inner_hop=packet.eth_src)

    def _none_takes(self, switch: Switch, serving: Serving, place: Place, service: Service, now: float) -> None:
        """No server takes connections. Counted by what is nearest to an end of that: a full one has room when a
        connection ends, one that is down comes back, a drained one is up to the operator."""
        reason = serving.servers.obstacle(place)
        switch.counters[f"servers_{reason}"] += 1
        name = f"{service.protocol}/{service.port}"
        if self._to_be_told(serving, f"{name} {reason}", now):
            states = Counter(serving.servers.state(place, server).state for server in service.servers)
            self._ground.log("no server takes connections: clients are refused", level="warning", lb=switch.lb.name,
                             external_ip=str(serving.address), service=name, **states, hint=HINTS[reason])

    def _exhausted(self, switch: Switch, serving: Serving, now: float) -> None:
        """Every connection that finds no port is counted; the log tells it once a minute."""
        switch.counters["ports_exhausted"] += 1
        if self._to_be_told(serving, "ports", now):
            self._ground.log("no translated port left", level="warning", lb=switch.lb.name,
                             external_ip=str(serving.address),
                             hint="a larger port_range, more internal_ips or more servers give more ports")

    def _to_be_told(self, serving: Serving, trouble: str, now: float) -> bool:
        """Has it not been logged for a while? The troubles of a site are few, so nothing is forgotten."""
        if now < self._told.get((serving.address, trouble), float("-inf")) + LOG_INTERVAL:
            return False
        self._told[serving.address, trouble] = now
        return True
