"""When which server is checked, by which LB; what its answers are, and what follows (docs/health-checks.md).

A check is sent by the LB that its external IP is assigned to, through table deliver_server: the way of clients'
packets. Its source is an address that servers answer to that LB (ExternalIp.check_source), from ports that no
connection is translated to. The answers meet no entry, and come to the controller. So a move changes nothing but the
LB; what fails while one is on is not counted, and neither is what fails because of the LB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from lbctl.frames import icmp, packets
from lbctl.frames.discovery import asked_by
from lbctl.frames.icmp_translation import quoted
from lbctl.frames.packets import Malformed, Packet
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import Confirmation
from lbctl.health_checks.agenda import Agenda
from lbctl.health_checks.judge import Ender, Judge
from lbctl.health_checks.targets import Target, Targets
from lbctl.health_checks.verdict import Attempt, Said, Segment, Verdict
from lbctl.openflow.inbound import PacketIn
from lbctl.openflow.messages import Barrier, PacketOut
from lbctl.openflow.meters import MOST_CHECKS
from lbctl.openflow.ports import Ports
from lbctl.site.model import CHECK_PORTS, ServiceName
from lbctl.store.checked import Checked
from lbctl.switches.switch import Switch
from lbctl.values.keys import inverse_key, pack_key, unpack_key
from lbctl.values.protocols import UDP

BURST = 0.1
"""Seconds: so much of a second's checks may begin at once."""
FOLLOW_INTERVAL = 1.0
"""Seconds after which a new server is known here at the latest."""
LATE = 0.25
"""Seconds: a check that begins so late was put off."""
RETRY = 0.25
"""Share of its timeout after which a check says again what was not answered; then after twice as long."""
PATIENCE = 2.0
"""Seconds in which an LB that has just connected, or come to serve, finds out the servers' MACs."""
SOON = 0.02
"""Seconds after which a check is tried again that could not begin."""
NO_MAC = bytes(6)
"""In frames to table deliver_server, which sets both MACs."""
UDP_HEADER = 8
UNREACHABLE = Verdict(False, "unreachable", "unreachable (ICMP)")


@dataclass(eq=False, slots=True)
class Flight:
    """A check that is under way. key: of our packets; lb: who sent the first one."""

    target: Target
    attempt: Attempt
    key: bytes
    lb: str
    began: float
    deadline: float
    again_at: float
    pause: float
    verdict: Verdict | None = None
    """Its time is over, and that is to be its verdict."""
    unreachable: bool = False
    """An ICMP error has answered it, and it has been asked once more."""
    over: bool = False

    @property
    def wakes(self) -> float:
        return min(self.deadline, self.again_at)


class Fitness(Protocol):
    """Who knows how the LBs' data paths are (lbctl/failures/)."""

    def trusted(self, name: str) -> bool:
        """Is that LB's data path well, as far as is known?"""


class Checker:
    """Of all servers of a control function. counters: checks by result; what was put off, not sent, or not counted."""

    def __init__(
        self, ground: Ground, fitness: Fitness, ender: Ender, known: Mapping[ServiceName, Checked]
    ) -> None:
        """known: what an earlier control function has found."""
        self._ground, self._fitness = ground, fitness
        self.counters: Counter[str] = Counter()
        self._targets = Targets(known)
        self._judge = Judge(ground, self._targets, ender, self.counters)
        self._flights: dict[bytes, Flight] = {}
        self._starts: Agenda[Target] = Agenda()
        self._alarms: Agenda[Flight] = Agenda()
        self._follow_at = self._ticked = float("-inf")
        self._allowance = 0.0

    @property
    def under_way(self) -> tuple[Flight, ...]:
        """The checks that have been sent and have no result yet."""
        return tuple(self._flights.values())

    @property
    def planned(self) -> int:
        """How many checks have a time at which they are to be sent."""
        return len(self._starts)

    # Time.

    def tick(self, now: float) -> Outbox:
        """What is to be sent now."""
        if now >= self._follow_at:
            self.follow(now)
        out = self._wake(now)
        self._allowance = min(self._allowance + MOST_CHECKS * (now - self._ticked), MOST_CHECKS * BURST)
        self._ticked = now
        while self._starts.due(now) and self._allowance >= 1:
            target = self._starts.take()
            if not self._exists(target, now):
                continue
            if target.checked:  # its last check waits for the LB's confirmation
                self._starts.add(now + SOON, target)
                continue
            self._allowance -= 1
            out += self._begin(target, now)
        return out + self._judge.tick(now)

    def follow(self, now: float) -> None:
        """Checks the servers of the services as they are now."""
        self._follow_at = now + FOLLOW_INTERVAL
        new = self._targets.follow(self._ground.external_ips, now)
        if new:
            # However often services change, and however long their intervals are.
            self._starts.keep(lambda target: not target.gone)
        for target in new:
            self._starts.add(target.due, target)

    def _exists(self, target: Target, now: float) -> bool:
        """Is it still to be checked, by the services as they are at this moment?"""
        serving = target.serving
        if serving.services is not target.services or self._ground.external_ips.get(serving.address) is not serving:
            self.follow(now)
        return not target.gone

    def _wake(self, now: float) -> Outbox:
        """What has not been answered is said again, until its time is over."""
        out: Outbox = []
        expired: dict[str, list[Flight]] = {}
        while self._alarms.due(now):
            flight = self._alarms.take()
            if flight.over:
                continue
            if now >= flight.deadline:
                if flight.verdict is None and self._sender(flight.target.serving) is not None:
                    expired.setdefault(flight.target.serving.assigned, []).append(flight)
                else:
                    self._not_counted(flight)
                continue
            if now >= flight.again_at:
                out += self._say(flight, flight.attempt.again())
                flight.pause *= 2
                flight.again_at = now + flight.pause
            self._alarms.add(flight.wakes, flight)
        for lb, flights in expired.items():
            out += self._expire(lb, flights, now)
        return out

    def _expire(self, lb: str, flights: list[Flight], now: float) -> Outbox:
        """Their time is over. That is their verdict if the LB can still be heard: what it had to tell comes before
        the barrier's reply."""
        out: Outbox = []
        for flight in flights:
            said, flight.verdict = flight.attempt.expired()
            if flight.unreachable:
                flight.verdict = UNREACHABLE
            out += self._say(flight, said)
            flight.deadline = now + self._ground.settings.barrier_timeout
            flight.again_at = float("inf")
            self._alarms.add(flight.deadline, flight)

        def confirmed(then: float) -> Outbox:
            return [effect for flight in flights if not flight.over and flight.verdict
                    for effect in self._end(flight, flight.verdict, then)]

        return [*out, ToSwitch(lb, Barrier(self._ground.tokens.new(Confirmation(lb, confirmed))))]

    # One check.

    def _begin(self, target: Target, now: float) -> Outbox:
        check = target.check
        if now > target.due + LATE:
            self.counters["put_off"] += 1
        target.due = max(target.due + check.interval, now)
        self._starts.add(target.due, target)
        sender = self._sender(target.serving)
        if sender and target.server.hop.address not in sender.neighbours:
            return self._unresolved(target, sender.lb.name, now)
        target.unresolved = None
        key = self._key(target) if sender else None
        if sender is None or key is None:
            self.counters["not_sent"] += 1
            return []
        pause = check.timeout * RETRY
        flight = Flight(
            target, target.attempt(self._ground.seed, now), key, sender.lb.name, now,
            deadline=now + check.timeout, again_at=now + pause, pause=pause,
        )
        self._flights[key], target.checked = flight, True
        self._alarms.add(flight.wakes, flight)
        return self._say(flight, flight.attempt.begin())

    def _unresolved(self, target: Target, lb: str, now: float) -> Outbox:
        """A check that can't be sent, since nobody has told the MAC that it would go to."""
        if target.unresolved is None or target.unresolved[0] != lb:
            target.unresolved = lb, now
        if now < target.unresolved[1] + PATIENCE:
            self.counters["not_sent"] += 1
            return []
        return self._judge.judged(
            target, Verdict(False, "unresolved", f"no answer to {asked_by(target.server.hop.address)}"), now, now
        )

    def _key(self, target: Target) -> bytes | None:
        """Of the check's packets: from a port that no other check to that place has, and no entry. None: there is
        none."""
        source, serving, (first, last) = target.serving.config.check_source().packed, target.serving, CHECK_PORTS
        for _ in range(last - first + 1):
            key = pack_key(target.check.protocol_number, source, target.source_port, *target.asked)
            if key not in self._flights and serving.table.by_reply(inverse_key(key)) is None:
                return key
            target.source_port = first if target.source_port == last else target.source_port + 1
        return None

    def _sender(self, serving: Serving) -> Switch | None:
        """The LB that can check an external IP's servers now. None: there is none."""
        switch = self._ground.switches.get(serving.assigned)
        if switch is None or not switch.ready or switch.of_ports is None:
            return None
        usable = switch.ports["internal"].up and switch.role(serving.address).arp
        return switch if usable and self._fitness.trusted(serving.assigned) else None

    def _say(self, flight: Flight, said: Said) -> Outbox:
        """Through the LB that serves now."""
        switch = self._ground.switches.get(flight.target.serving.assigned)
        if switch is None or not switch.ready or switch.of_ports is None:
            return []
        return [_through(switch, switch.of_ports, _frame(flight, what)) for what in said]

    # Answers.

    def answered(self, switch: Switch, packet_in: PacketIn, now: float) -> Outbox:
        """A packet to where checks come from."""
        try:
            packet = packets.decode(packet_in.frame)
        except Malformed:
            switch.counters["dropped_malformed"] += 1
            return []
        if packet.src_port is None or packet.dst_port is None:
            switch.counters["dropped_unknown_protocol"] += 1
            return []
        flight = self._flights.get(pack_key(packet.protocol, packet.dst, packet.dst_port, packet.src, packet.src_port))
        if flight is None:
            # What a server still says after the verdict is answered so that nothing of the check stays there; unless it
            # says it as its external IP, and so may be any.
            known = packet.src not in self._ground.external_ips.by_address
            reset = packets.tcp_reset(packet, NO_MAC) if switch.ready and known else None
            return [_through(switch, switch.of_ports, reset)] if reset and switch.of_ports else []
        said, verdict = flight.attempt.received(packet, _payload(packet, packet_in.frame))
        if said:
            flight.again_at = max(flight.again_at, now + flight.pause)
        return self._say(flight, said) + (self._end(flight, verdict, now) if verdict else [])

    def concerned(self, switch: Switch, packet_in: PacketIn) -> Flight | None:
        """The check whose packet an ICMP error quotes. Checks go inside, so nobody outside has met one."""
        if not self._flights or switch.of_ports is None or packet_in.in_port == switch.of_ports.external.number:
            return None
        try:
            packet = packets.decode(packet_in.frame)
        except Malformed:
            return None
        found = quoted(packet_in.frame, packet) if icmp.is_error(packet_in.frame, packet) else None
        return self._flights.get(found.key) if found else None

    def unreachable(self, flight: Flight, now: float) -> Outbox:
        """An ICMP error has answered it. It is asked once more, since errors are easily forged, and some pass by
        (RFC 5927): what answers then is there; a second error, or none, is the verdict."""
        if not flight.unreachable:
            flight.unreachable = True
            flight.again_at = max(flight.again_at, now + flight.pause)
            return self._say(flight, flight.attempt.again() or flight.attempt.begin())
        return self._end(flight, UNREACHABLE, now)

    # What follows.

    def _end(self, flight: Flight, verdict: Verdict, now: float) -> Outbox:
        target = flight.target
        if not verdict.passed and (target.serving.assigned != flight.lb or self._sender(target.serving) is None):
            self._not_counted(flight)
            return []
        self._forget(flight)
        return self._judge.judged(target, verdict, flight.began, now) if self._exists(target, now) else []

    def _not_counted(self, flight: Flight) -> None:
        """It says nothing about the server."""
        self.counters["not_counted"] += 1
        self._forget(flight)

    def _forget(self, flight: Flight) -> None:
        del self._flights[flight.key]
        flight.over, flight.target.checked = True, False


def _payload(packet: Packet, frame: bytes) -> bytes:
    start = packet.payload_offset + (UDP_HEADER if packet.protocol == UDP else 0)
    return frame[start:packet.payload_offset + packet.payload_length]


def _frame(flight: Flight, what: Segment | bytes) -> bytes:
    """For table deliver_server."""
    _, source, source_port, _, port = unpack_key(flight.key)
    destination = flight.target.server.address.packed
    if isinstance(what, Segment):
        return packets.tcp_segment(
            NO_MAC,
            NO_MAC,
            source,
            source_port,
            destination,
            port,
            flags=what.flags,
            seq=what.seq,
            ack=what.ack,
            payload=what.payload,
        )
    return packets.udp_datagram(NO_MAC, NO_MAC, source, source_port, destination, port, what)


def _through(switch: Switch, ports: Ports, frame: bytes) -> ToSwitch:
    """As a client's packet that has been translated."""
    return ToSwitch(switch.lb.name, PacketOut(frame, ports.external.number, "deliver_server"))
