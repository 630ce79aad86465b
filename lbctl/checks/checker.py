"""When which server is checked, by which LB; what its answers are, and what follows (docs/servers.md).

A check is sent by the LB that its external IP is assigned to, through table deliver_server: the way of clients' packets. Its source
is an address that servers answer to that LB (ExternalIp.check_source), from ports that no connection is translated to. The answers
meet no entry, and come to the controller. So a move changes nothing but the LB; what fails while one is on is not counted, and
neither is what fails because of the LB.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lbctl import icmp, packets
from lbctl.access_table import inverse_key, pack_key, server_key, unpack_key
from lbctl.checks.tcp import HttpQuestion, TcpCheck
from lbctl.checks.udp import UdpCheck
from lbctl.checks.verdict import Attempt, Judgement, Said, Segment, Verdict
from lbctl.icmp_translation import quoted
from lbctl.messages import AT_ONCE, Outbox, PacketOut
from lbctl.model import CHECK_PORTS, TCP, UDP, Address, Endpoint, HealthCheck, Server, Service, asked_by
from lbctl.openflow.inbound import PacketIn
from lbctl.packets import Malformed
from lbctl.server_states import Place
from lbctl.serving import Serving
from lbctl.switch import Switch

if TYPE_CHECKING:
    from lbctl.control import ControlFunction

MOST_CHECKS = 1000
"""In a second, of the whole site; what is due beyond that is put off."""
BURST = 0.1
"""Seconds: so much of a second's checks may begin at once."""
FOLLOW_INTERVAL = 1.0
"""Seconds after which a service that has changed is checked as it is now."""
LATE = 0.25
"""Seconds: a tick that comes so much later than the last one has kept answers waiting, too."""
RETRY = 0.25
"""Share of its timeout after which a check says again what was not answered; then twice as long."""
ISN_SECOND = 250_000
"""How much initial sequence numbers grow in a second (RFC 9293 3.4.1)."""
FLAT_MAC = bytes(6)
"""In frames to table deliver_server, which sets both MACs."""
WHOLE_DATAGRAM = 8

Key = tuple[Place, Endpoint]
"""Service of an external IP, and server."""


@dataclass(eq=False, slots=True)
class Target:
    """A server of a service that is checked."""

    address: Address
    place: Place
    service: Service
    server: Server
    check: HealthCheck
    judgement: Judgement
    source_port: int
    reason: str = ""
    """Why it is down."""
    since: float = 0.0
    due: float = 0.0
    gone: bool = False
    flight: Flight | None = None


@dataclass(eq=False, slots=True)
class Flight:
    """A check that is under way. key: of our packets; lb: who has sent the first one."""

    target: Target
    attempt: Attempt
    key: bytes
    lb: str
    deadline: float
    again_at: float
    pause: float

    @property
    def wakes(self) -> float:
        return min(self.deadline, self.again_at)


@dataclass(slots=True)
class _Agenda:
    """What is to be done when, the earliest first; what is due at the same time in the order in which it was put down."""

    items: list[tuple[float, int, Target | Flight]] = field(default_factory=list)
    number: int = 0

    def add(self, when: float, item: Target | Flight) -> None:
        self.number += 1
        heapq.heappush(self.items, (when, self.number, item))

    def due(self, now: float) -> bool:
        return bool(self.items) and self.items[0][0] <= now

    def take(self) -> Target | Flight:
        return heapq.heappop(self.items)[2]


class Checker:
    """Of all servers of a control function. counters: checks by result; what was put off, not sent, or does not count."""

    def __init__(self, control: ControlFunction) -> None:
        self._control = control
        self.counters: Counter[str] = Counter()
        self._targets: dict[Address, dict[Key, Target]] = {}
        self._followed: dict[Address, tuple[Serving, object]] = {}
        """The services that the targets of an external IP were made of."""
        self._flights: dict[bytes, Flight] = {}
        self._starts, self._alarms = _Agenda(), _Agenda()
        self._follow_at = self._ticked = float("-inf")
        self._allowance = 0.0

    # Time.

    def tick(self, now: float) -> Outbox:
        """What is to be sent now."""
        self._forgive(now)
        if now >= self._follow_at:
            self._follow_at = now + FOLLOW_INTERVAL
            self._follow(now)
        out = self._wake(now)
        self._allowance = min(self._allowance + MOST_CHECKS * max(now - self._ticked, 0.0), MOST_CHECKS * BURST)
        self._ticked = now
        while self._starts.due(now) and self._allowance >= 1:
            target = self._starts.take()
            if not target.gone:
                self._allowance -= 1
                out += self._start(target, now)
        return out

    def _forgive(self, now: float) -> None:
        """Answers that came while the control function was busy are read after this tick."""
        late = now - self._ticked
        if LATE < late < float("inf"):
            for flight in self._flights.values():
                flight.deadline += late
                flight.again_at += late

    def _wake(self, now: float) -> Outbox:
        out: Outbox = []
        while self._alarms.due(now):
            flight = self._alarms.take()
            if flight.target.flight is not flight:
                continue
            if now >= flight.deadline:
                said, verdict = flight.attempt.expired()
                out += self._say(flight, said) + self._end(flight, verdict, now)
                continue
            if now >= flight.again_at:
                out += self._say(flight, flight.attempt.again())
                flight.pause *= 2
                flight.again_at = now + flight.pause
            self._alarms.add(flight.wakes, flight)
        return out

    # What is checked.

    def _follow(self, now: float) -> None:
        """The services as they are now."""
        known = {serving.address for serving in self._control.directory}
        for address in self._followed.keys() - known:
            self._drop(self._targets.pop(address, {}).values())
            del self._followed[address]
        for serving in self._control.directory:
            seen = self._followed.get(serving.address)
            if not seen or seen[0] is not serving or seen[1] is not serving.services:
                self._followed[serving.address] = serving, serving.services
                self._retarget(serving, now)

    def _retarget(self, serving: Serving, now: float) -> None:
        before = self._targets.get(serving.address, {})
        targets: dict[Key, Target] = {}
        for place, service in serving.services.items():
            for server in service.servers if service.health_check else ():
                key = place, server.endpoint
                targets[key] = self._target(before.pop(key, None), serving, place, service, server, now)
        for target in before.values():
            serving.servers.set_up(target.place, target.server.endpoint)
        self._drop(before.values())
        if targets:
            self._targets[serving.address] = targets
        else:
            self._targets.pop(serving.address, None)

    def _target(self, found: Target | None, serving: Serving, place: Place, service: Service, server: Server, now: float) -> Target:
        check = service.health_check
        if found and found.check.interval == check.interval:
            found.service, found.server, found.check = service, server, check
            found.judgement.rise, found.judgement.fall = check.rise, check.fall
        else:
            # Each server at a time of its own within the interval, and from a port of its own: Open vSwitch's cache knows its answers.
            spread = zlib.crc32(repr((str(serving.address), place, str(server.endpoint))).encode())
            port = CHECK_PORTS[0] + spread % (CHECK_PORTS[1] - CHECK_PORTS[0] + 1)
            judgement = Judgement(check.rise, check.fall, found.judgement.up if found else True)
            before, found = found, Target(serving.address, place, service, server, check, judgement, port)
            if before:
                self._drop([before])
                found.reason, found.since = before.reason, before.since
            found.due = now + check.interval * (spread / 2 ** 32)
            self._starts.add(found.due, found)
        if not found.judgement.up:
            serving.servers.set_down(place, server.endpoint, found.reason, found.since)
        return found

    def _drop(self, targets: Iterable[Target]) -> None:
        for target in targets:
            target.gone = True
            if target.flight:
                del self._flights[target.flight.key]
                target.flight = None

    # One check.

    def _start(self, target: Target, now: float) -> Outbox:
        check = target.check
        if now > target.due + LATE:
            self.counters["put_off"] += 1
        target.due = max(target.due + check.interval, now)
        self._starts.add(target.due, target)
        serving = self._control.directory.get(target.address)
        sender = self._sender(serving)
        if sender is None or target.flight:
            self.counters["not_sent"] += 1
            return []
        hop = target.server.hop.address
        if hop not in sender.neighbours:
            return self._judge(target, Verdict(False, "unresolved", f"no answer to {asked_by(hop)}"), now)
        key = self._key(serving, target)
        if key is None:
            self.counters["not_sent"] += 1
            return []
        pause = check.timeout * RETRY
        flight = Flight(target, self._attempt(target, now), key, sender.lb.name, now + check.timeout, now + pause, pause)
        self._flights[key] = target.flight = flight
        self._alarms.add(flight.wakes, flight)
        return self._say(flight, flight.attempt.begin())

    def _key(self, serving: Serving, target: Target) -> bytes | None:
        """Of the check's packets: from a port that no other check to that place has, and no entry. None: there is none."""
        source, server, check = serving.config.check_source().packed, target.server, target.check
        first, last = CHECK_PORTS
        for _ in range(last - first + 1):
            key = pack_key(check.protocol_number, source, target.source_port, server.address.packed, check.port or server.port)
            if key not in self._flights and serving.table.by_reply(inverse_key(key)) is None:
                return key
            target.source_port = first if target.source_port == last else target.source_port + 1
        return None

    def _attempt(self, target: Target, now: float) -> Attempt:
        check = target.check
        if check.type == "udp":
            return UdpCheck(check.request, check.answer, check.timeout)
        # RFC 6528: a number for these two ends, and a clock.
        isn = (zlib.crc32(f"{self._control.seed} {target.address} {target.place} {target.server.endpoint}".encode())
               + int(now * ISN_SECOND)) % (1 << 32)
        question = None
        if check.type == "http":
            address = str(target.address) if target.address.version == 4 else f"[{target.address}]"
            question = HttpQuestion(check.path, check.host or address, check.status)
        return TcpCheck(isn, check.timeout, question)

    def _sender(self, serving: Serving) -> Switch | None:
        """The LB that can check an external IP's servers now. None: there is none."""
        switch = self._control.switches[serving.assigned]
        ports = switch.of_ports
        if not switch.ready or ports is None or not switch.ports["internal"].up or not switch.role(serving.address).arp:
            return None
        return switch if self._control.health(serving.assigned)[0] in ("well", "unwatched") else None

    def _say(self, flight: Flight, said: Said) -> Outbox:
        """Through the LB that serves now."""
        serving = self._control.directory.get(flight.target.address)
        switch = self._control.switches[serving.assigned]
        if not switch.ready or switch.of_ports is None:
            return []
        return [self._through(switch, _frame(flight.key, what)) for what in said]

    @staticmethod
    def _through(switch: Switch, frame: bytes) -> tuple[str, PacketOut]:
        return switch.lb.name, PacketOut(frame, switch.of_ports.external.number, "deliver_server")

    # Answers.

    def answered(self, switch: Switch, packet_in: PacketIn, now: float) -> Outbox:
        """A packet to where checks come from."""
        try:
            packet = packets.decode(packet_in.frame)
        except Malformed:
            switch.counters["dropped_malformed"] += 1
            return []
        if packet.src_port is None:
            switch.counters["dropped_unknown_protocol"] += 1
            return []
        flight = self._flights.get(pack_key(packet.protocol, packet.dst, packet.dst_port, packet.src, packet.src_port))
        if flight is None:
            # What a server still says after its verdict ends at once, and leaves nothing behind there.
            reset = packets.tcp_reset(packet, FLAT_MAC) if switch.ready else None
            return [self._through(switch, reset)] if reset else []
        start = packet.payload_offset + (WHOLE_DATAGRAM if packet.protocol == UDP else 0)
        payload = packet_in.frame[start:packet.payload_offset + packet.payload_length]
        said, verdict = flight.attempt.received(packet, payload)
        out = self._say(flight, said)
        if verdict:
            return out + self._end(flight, verdict, now)
        if said:
            flight.again_at = max(flight.again_at, now + flight.pause)
        return out

    def concerned(self, packet_in: PacketIn) -> Flight | None:
        """The check whose packet an ICMP error quotes."""
        if not self._flights:
            return None
        try:
            packet = packets.decode(packet_in.frame)
        except Malformed:
            return None
        found = quoted(packet_in.frame, packet) if icmp.is_error(packet_in.frame, packet) else None
        return self._flights.get(found.key) if found else None

    def unreachable(self, flight: Flight, now: float) -> Outbox:
        """An ICMP error has answered it."""
        return self._end(flight, Verdict(False, "unreachable", "an ICMP error: unreachable"), now)

    def _end(self, flight: Flight, verdict: Verdict, now: float) -> Outbox:
        target = flight.target
        del self._flights[flight.key]
        target.flight = None
        serving = self._control.directory.get(target.address)
        if not verdict.passed and (serving.assigned != flight.lb or self._sender(serving) is None):
            self.counters["not_counted"] += 1
            return []
        return self._judge(target, verdict, now)

    def _judge(self, target: Target, verdict: Verdict, now: float) -> Outbox:
        self.counters["passed" if verdict.passed else verdict.result] += 1
        serving, endpoint = self._control.directory.get(target.address), target.server.endpoint
        changed = target.judgement.note(verdict.passed)
        if not changed:
            if not target.judgement.up and not verdict.passed and verdict.reason != target.reason:
                target.reason = verdict.reason
                serving.servers.set_down(target.place, endpoint, target.reason, target.since)
            return []
        told = {"external_ip": str(target.address), "service": f"{target.service.protocol}/{target.service.port}",
                "server": str(endpoint)}
        if target.judgement.up:
            serving.servers.set_up(target.place, endpoint)
            self._control.log("server up", **told, reason=verdict.reason, down_for=round(now - target.since, 1))
            return []
        target.reason, target.since = verdict.reason, now
        serving.servers.set_down(target.place, endpoint, target.reason, now)
        out = self._reset(serving, target) if target.check.when_down == "reset" else []
        self._control.log("server down", level="warning", **told, reason=verdict.reason)
        return out

    def _reset(self, serving: Serving, target: Target) -> Outbox:
        """Without its entry the next packet of either side is answered with a RST (ICMP, if it is a datagram)."""
        protocol, port = target.place
        to_server = server_key(protocol, target.server.address.packed, target.server.port)
        if to_server not in serving.table.connections_to:
            return []
        service = port.to_bytes(2)
        doomed = [entry for entry in serving.table.snapshot() if entry.reply.startswith(to_server) and entry.key.endswith(service)]
        out: Outbox = []
        for start in range(0, len(doomed), AT_ONCE):
            out += self._control.connections.end_all(serving, doomed[start:start + AT_ONCE])
        return out


def _frame(key: bytes, what: Segment | bytes) -> bytes:
    """For table deliver_server."""
    protocol, source, source_port, destination, port = unpack_key(key)
    if protocol == TCP:
        return packets.tcp_segment(FLAT_MAC, FLAT_MAC, source, source_port, destination, port, flags=what.flags, seq=what.seq,
                                   ack=what.ack, payload=what.payload)
    return packets.udp_datagram(FLAT_MAC, FLAT_MAC, source, source_port, destination, port, what)
