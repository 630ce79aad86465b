"""What a connection request leads to: an entry at every LB that holds this external IP's, by which it then goes on.

A client's first packet opens a connection to a server that is chosen for it; an inside host's one that a NAT gateway
takes to the outside.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

from lbctl.connections import pressure
from lbctl.connections.answers import drop, go_on, go_through, refuse, send_icmp_error
from lbctl.connections.arrival import Arrival
from lbctl.connections.endings import Endings
from lbctl.connections.held_back import HeldBack
from lbctl.connections.hops import learn_hops
from lbctl.connections.last_hops import LastHops
from lbctl.connections.reused import Reused, is_closed
from lbctl.connections.transition import Transition
from lbctl.connections.unanswered import Unanswered
from lbctl.entries.access_table import ANSWERED, ENDING, GONE, REFUSED, REINSTALLED, RESET, REUSED, Entry
from lbctl.entries.translation import outbound_keys
from lbctl.frames import icmp
from lbctl.frames.packets import Packet, parse_mac
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.messages import AddEntries
from lbctl.servers.slicing import Opened, Slicing
from lbctl.site.model import Server, Service
from lbctl.switches.switch import Switch
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.keys import Place, reply_key, sender_half, service_of, unpack_key
from lbctl.values.protocols import TCP, UDP
from lbctl.values.side import EXTERNAL, INTERNAL
from lbctl.values.transfer import TransferMode

EARLY_SECONDS = 1.0
"""A datagram may come here for so long after its entry was made, since the datapath does not know the flows yet. They
are not sent again with each one: the datapath would be checked anew each time, and a burst last longer."""


MOST_OF_A_MAPPING = 1000
"""Entries of one inside host's port, above which no outside host adds one: each costs its sender one datagram."""
LOG_INTERVAL = 60.0
"""Seconds between two log lines about what keeps connections from opening."""
HINTS = {"full": "a larger max_connections or more servers (lbctl server add) take more",
         "down": "lbctl server list shows what the health checks say of each server",
         "drained": "lbctl drain-server --undo lets a server take connections again"}
"""What to do, by what keeps a service's servers from taking connections."""


class NewConnections:
    """What makes their entries known."""

    def __init__(self, ground: Ground, transition: Transition, endings: Endings, last_hops: LastHops) -> None:
        self._switches, self._hops = ground.switches, ground.hops
        self._last_hops = last_hops
        self._transition = transition
        self._endings = endings
        self._opening = Opening(ground)
        self._unanswered = Unanswered(ground, self._looked_at)
        self._reused = Reused(ground, self._closed_or_not)
        self._asked: dict[Serving, int] = {}
        self._held_back = HeldBack(ground.tokens)

    def tick(self, now: float) -> Outbox:
        """What waits for an answer of its switch, and for its datapath's cache."""
        return self._reused.tick(now) + self._held_back.tick(now)

    def take_asked(self) -> dict[Serving, int]:
        """How many packets for each external IP would have opened a connection, since this was last called."""
        asked, self._asked = self._asked, {}
        return asked

    def arrived(self, arrival: Arrival, serving: Serving) -> Outbox:
        """A SYN, or the first datagram; or one that comes again before the switch knows the entry."""
        switch, packet = arrival.switch, arrival.packet
        self._asked[serving] = self._asked.get(serving, 0) + 1
        if switch.role(serving.address).mode is not TransferMode.NORMAL:
            return self._transition.hold(arrival, serving)
        key = arrival.key
        if key is None:
            return drop(switch, "unknown_protocol")
        if packet.ttl <= 1:
            return send_icmp_error(arrival, serving, icmp.TTL_EXPIRED)
        slicing = serving.slices.get(service_of(key)) if arrival.side is EXTERNAL else None
        if slicing and slicing.begun:
            return self._in_slice(arrival, serving, key, slicing)
        entry = serving.table.find(arrival.way, key) or self._revived(arrival, serving, key)
        if entry and (asked := self._reused.ask(arrival, serving, entry)) is not None:
            return asked
        if entry and (asked := self._unanswered.ask(arrival, serving, entry)):
            return asked
        return self._open(arrival, serving, key, entry)

    def _in_slice(self, arrival: Arrival, serving: Serving, key: bytes, slicing: Slicing) -> Outbox:
        """A connection of a sliced service, whose slice changes hands; or has no server."""
        opened = slicing.opened(key, arrival.packet.seq)
        if opened.table:
            return [go_through(arrival, opened.table)]
        return self._open(arrival, serving, key, serving.table.find(arrival.way, key), opened=opened)

    def _revived(self, arrival: Arrival, serving: Serving, key: bytes) -> Entry | None:
        """The entry that a RST has ended, if what the two forged may be: its server can tell. Else the SYN would take
        its place, at another server."""
        entry = self._endings.remembered(arrival, serving, key)
        if entry is None or _is_over(serving, entry):
            return None
        return self._endings.revived(arrival, serving, key)

    def _looked_at(self, arrival: Arrival, serving: Serving, entry: Entry, answered: bool) -> Outbox:
        """A SYN that came again: its server has, or has not, said anything."""
        if arrival.switch.role(serving.address).mode is not TransferMode.NORMAL:
            return self._transition.hold(arrival, serving)
        if answered or entry.flags & GONE:
            entry.flags |= ANSWERED
            return self._open(arrival, serving, entry.key, serving.table.find(arrival.way, entry.key))
        arrival.switch.counters["unanswered_syns"] += 1
        address, port = entry.server
        ended = self._endings.end_all(serving, [entry], arrival.now)
        return ended + self._open(arrival, serving, entry.key, None, Endpoint(ip_address(address), port))

    def _closed_or_not(self, arrival: Arrival, serving: Serving, entry: Entry, over: bool) -> Outbox:
        """A SYN for a port whose last connection is, or is not, over; its server takes no connections any more."""
        if arrival.switch.role(serving.address).mode is not TransferMode.NORMAL:
            return self._transition.hold(arrival, serving)
        ended = self._endings.end_all(serving, [entry], arrival.now) if over else []
        return ended + self._open(arrival, serving, entry.key, serving.table.find(arrival.way, entry.key))

    def _open(
        self, arrival: Arrival, serving: Serving, key: bytes, entry: Entry | None, avoided: Endpoint | None = None,
        opened: Opened | None = None,
    ) -> Outbox:
        """entry: what there is with that key. avoided: a server that is chosen only if there is no other. opened: what
        its slice has to say."""
        switch, packet, holders = arrival.switch, arrival.packet, serving.holders
        out: Outbox = []
        reused = packet.protocol == TCP and (entry is not None or self._endings.has_just_ended(key))
        if entry and (entry.isn != packet.seq and _is_over(serving, entry) or _waits_in_vain(serving, entry, packet)):
            out = self._endings.end_all(serving, [entry], arrival.now)
            entry = None
        if entry is None:
            try:
                wanted = opened.server if opened else None
                entry = self._opening.entry(arrival, serving, key, avoided, wanted)
            except Refusal as refusal:
                if refusal.wait:
                    return [*out, *drop(switch, refusal.wait)]
                switch.counters["connections_refused"] += 1
                return [*out, *refuse(arrival, serving)]
            entry.flags = REUSED if reused else 0
            serving.table.add(entry)
            if packet.protocol == TCP:
                serving.table.half_open[entry] = 1
            if serving.recorder:
                serving.recorder("opened", entry, arrival.now)
            switch.counters["connections_opened"] += 1
            serving.opened += 1
            if not self._hops.knows(arrival.way, packet.eth_src):
                out += self._last_hops.met(arrival.way, packet.eth_src, arrival.now)
        elif not learn_hops(arrival, serving, entry):
            return drop(switch, "next_hop_unknown")
        elif not self._comes_again(arrival, serving, entry):
            holders = set()
        # An LB that is being read back would get the entry too late to be read, and too early to be put back.
        out += [ToSwitch(name, AddEntries((entry,))) for name in holders if self._switches[name].ready]
        sent = go_on(arrival, serving)
        if opened and (self._endings.has_just_ended(key) or arrival.now < opened.until):
            return out + self._held_back.hold(sent, arrival.now)
        return [*out, sent]

    @staticmethod
    def _comes_again(arrival: Arrival, serving: Serving, entry: Entry) -> bool:
        """A packet that opened, or would open, that entry. Shall the switches be given the entry again?"""
        packet, counters = arrival.packet, arrival.switch.counters
        if packet.protocol != TCP:
            counters["early_datagrams"] += 1
            return arrival.now >= entry.created + EARLY_SECONDS
        if entry in serving.table.half_open:
            serving.table.half_open[entry] += 1
        if entry.isn == packet.seq:
            counters["syn_retransmissions"] += 1
            # A RST that came meanwhile was for what the server still had of an earlier connection with these ports.
            entry.flags = entry.flags & ~(RESET | REFUSED) | REINSTALLED
        else:
            # The port is used again: by a connection that ended unseen (its flows may be running out), or by a forged
            # SYN, after a forged FIN or RST even. The same server can tell, and the flows are put back as new: they no
            # longer tell whether it has answered.
            entry.isn, entry.created, entry.last_seen = packet.seq, arrival.now, arrival.now
            if entry.flags & ENDING:
                entry.flags &= ~(ENDING | REFUSED)
                serving.table.changed(entry)
            entry.flags |= REUSED | ANSWERED
        return True


def _is_over(serving: Serving, entry: Entry) -> bool:
    """Has a connection that has seen a FIN or RST so surely ended that a SYN may open another at another server? A
    packet from outside alone is no proof; but its server's RST is, and where the server takes none, the SYN cannot go
    there. (A NAT gateway's entries have none that does: their SYNs come from inside, where nobody forges.)"""
    return bool(entry.flags & ENDING and (entry.flags & REFUSED or is_closed(serving, entry)))


def _waits_in_vain(serving: Serving, entry: Entry, packet: Packet) -> bool:
    """A SYN that has not been answered, to a server that has gone down meanwhile while others take connections?"""
    if not serving.servers.down or packet.protocol != TCP or entry.isn != packet.seq:
        return False
    address, port = entry.server
    place, endpoint = service_of(entry.key), Endpoint(ip_address(address), port)
    return (place, endpoint) in serving.servers.down and serving.servers.closed(place, endpoint)


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

    def entry(self, arrival: Arrival, serving: Serving, key: bytes, avoided: Endpoint | None = None,
              wanted: Endpoint | None = None) -> Entry:
        """The entry of a connection that this packet, of that key, opens. Raises Refusal."""
        if full := pressure.full(serving, arrival.packet.protocol):
            raise Refusal(full)
        if arrival.way is EXTERNAL:
            return self._to_server(arrival, serving, key, avoided, wanted)
        if not serving.outbound:
            raise Refusal()  # a server's, which has no NAT gateway
        return self._to_outside(arrival, serving, key)

    def _to_server(self, arrival: Arrival, serving: Serving, key: bytes, avoided: Endpoint | None,
                   wanted: Endpoint | None) -> Entry:
        packet, now, place = arrival.packet, arrival.now, service_of(key)
        service = serving.services.get(place)
        if service is None:
            return self._to_inside(arrival, serving, key)
        switch, takes, side = arrival.switch, serving.servers.takes, arrival.side
        slicing = serving.slices.get(place) if side is EXTERNAL else None
        if slicing and slicing.begun and (wanted or not slicing.leaving):
            in_slice = reply_key(key, wanted.address.packed, wanted.port) if wanted else None
            if in_slice is None or serving.table.by_reply(in_slice):
                raise self._refusal(arrival, serving, place, service)
            return Entry(key, in_slice, packet.eth_src, now, packet.seq)
        if side is INTERNAL and not self._ground.is_inside(packet.src):
            raise Refusal("source_not_inside")  # what it is answered would go to the external network
        neighbours, silent = switch.neighbours, switch.hearing.silent

        def allowed(server: Server) -> bool:
            reached = takes(place, server) and server.hop.address in neighbours
            return reached and serving.can_translate(key, server, now, side)

        client, scheduler, server = sender_half(key), serving.schedulers[place], None
        slow_start = serving.servers.slow_start
        if silent or avoided or slow_start.warming:
            def well(each: Server) -> bool:
                return each.hop.address not in silent and each.endpoint != avoided and allowed(each)

            server = scheduler.choose(client, lambda each: (
                well(each) and not slow_start.passes_over(place, service, each, client, now)))
            server = server or scheduler.choose(client, well)
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
        if mac is None:
            raise Refusal("router_unresolved")
        slot = serving.outward(reply, packet.eth_src, now)
        if slot is None:
            self._exhausted(switch, serving, now)
            raise Refusal()
        return Entry(*outbound_keys(reply, slot), parse_mac(mac), now, packet.seq, inner_hop=packet.eth_src)

    def _to_inside(self, arrival: Arrival, serving: Serving, key: bytes) -> Entry:
        """The first datagram of an outside host to a port that an inside host has been mapped to: whether it may come
        in is the NAT gateway's `filtering` (RFC 4787 REQ-8). TCP may not, nor what asks for a service that there is
        not."""
        filtering, outside = serving.config.filtering, unpack_key(key)[1]
        if filtering == "address-and-port-dependent" or serving.mappings is None or key[0] != UDP:
            raise Refusal()
        mapping = serving.mappings.inward(key)
        if mapping is None or filtering == "address-dependent" and outside not in mapping.outside:
            raise Refusal()
        reply = mapping.reply_to(key)
        if serving.table.by_reply(reply):
            raise Refusal()  # the inside host speaks with it from another port of ours, which it had before
        if not mapping.inner_hop:
            raise Refusal("next_hop_unknown")
        if mapping.entries >= MOST_OF_A_MAPPING:
            raise Refusal("mapping_full")
        mapping.joined(outside)
        arrival.switch.counters["connections_let_in"] += 1
        return Entry(key, reply, arrival.packet.eth_src, arrival.now, inner_hop=mapping.inner_hop)

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
