"""The control function (seed 52): builds its parts, and hands out events to them. It never waits, and does no I/O.

`now` is seconds since the epoch on a clock that does not jump (the shell anchors the monotonic clock once). Each
method that is an event returns an Outbox: what the core asks of the world, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lbctl.changes.needs import Needs
from lbctl.changes.services import Services
from lbctl.connections.dispatch import Connections
from lbctl.connections.recorder import Recorder
from lbctl.connections.sweep import Sweep
from lbctl.copies.feeds import Feeds
from lbctl.copies.fetching import Copies
from lbctl.failures.audits import Audits
from lbctl.failures.comeback import Comebacks
from lbctl.failures.detection import Detection
from lbctl.failures.relief import Relief
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.health_checks.checker import Checker
from lbctl.keeper.rows import Row
from lbctl.load.balancing import Balancing
from lbctl.load.dropped import Dropped
from lbctl.load.loads import Loads
from lbctl.load.throttle import Throttle
from lbctl.moves.carrying_out import CarryingOut
from lbctl.moves.movement import Movement
from lbctl.networks.neighbourhood import Neighbourhood
from lbctl.openflow.cookies import Kind
from lbctl.openflow.errors import Refusal
from lbctl.openflow.inbound import decode_entry_removed, decode_packet_in
from lbctl.site.model import Site
from lbctl.site.orders import in_force
from lbctl.store import State
from lbctl.switches.switch import PortState
from lbctl.values.addresses import Address
from lbctl.values.log import Log, no_log
from lbctl.values.refused import Refused

TIDY_INTERVAL = 60.0


class ControlFunction:
    """Serves a site. `log(event, level=..., **keys)` is told what a person might want to know."""

    def __init__(self, site: Site, state: State, now: float, log: Log = no_log) -> None:
        """state: what an earlier control function has left."""
        self.ground = ground = Ground(in_force(site, state.orders), state.fence_code, state.fences, now, log)
        self.detection = Detection(ground, state.watched, now)
        self.neighbourhood = Neighbourhood(ground)
        self.connections = Connections(ground, state.slices)
        self.sweep = Sweep(ground, self.connections.end_all, self.connections.expire)
        self.copies = Copies(ground)
        self.carrying_out = CarryingOut(ground, self.copies, self.neighbourhood, self.connections, self.detection)
        self.movement = Movement(ground, self.copies, self.detection, self.carrying_out)
        self.loads = Loads(ground)
        self.throttle = Throttle(ground, self.connections.take_asked)
        self.dropped = Dropped(ground)
        self.balancing = Balancing(ground, self.loads, self.movement, self.detection, state.drained)
        self.relief = Relief(ground, self.detection, self.movement, self.loads, self.balancing)
        self.audits = Audits(ground)
        self.comebacks = Comebacks(
            ground,
            self.detection,
            self.movement,
            self.connections,
            self.neighbourhood,
            self.copies,
            self.audits,
            state.assigned.keys(),
        )
        self.checker = Checker(ground, self.detection, self.connections, state.checked)
        self._populate(state, now)
        self.checker.follow(now)
        self.feeds = Feeds(ground)
        self.recorder = Recorder(ground)
        self.services = Services(ground, Needs(self.connections, self.neighbourhood, (self.feeds, self.recorder)))
        self._tidy_at = 0.0
        self._saved = False
        self.timers: tuple[Callable[[float], Outbox], ...] = (
            self.detection.tick, self.comebacks.tick, self.audits.tick, self.relief.tick, self.connections.tick,
            self.movement.tick, self.feeds.tick, self._tidy, self.throttle.tick, self.sweep.tick, self.checker.tick,
            self.balancing.tick, self.loads.tick, self._ask_neighbours, self.dropped.tick, self.recorder.tick,
            self.ground.resyncs.step)
        """What is to be told the time some ten times a second, in this order."""
        self.hurrying: tuple[Callable[[float], Outbox], ...] = (
            self.comebacks.tick, self.relief.tick, self.movement.tick, self.ground.resyncs.step)
        """What is to be told the time again soon while `hurried`: it has more to do than may be done at once."""

    def _populate(self, state: State, now: float) -> None:
        """The site's LBs, and its external IPs where they were last."""
        ground = self.ground
        for lb in ground.site.load_balancers:
            ground.switches[lb.name] = ground.new_switch(lb)
        last = {address: name for address, name in state.assigned.items() if name in ground.switches}
        ground.external_ips.replace([ground.new_serving(ip, last.get(ip.address, ip.load_balancer))
                                     for ip in ground.site.external_ips])
        self.connections.restore()
        self.movement.restore(state, now)

    # Switches.

    def switch_connected(
        self, dpid: int, ports: Iterable[PortState], now: float, address: Address | None = None
    ) -> tuple[str, Outbox]:
        """A switch has shaken hands; address: where it connects from, if that is known. Returns its LB's name. Raises
        Refused for a dpid that is unknown, in use, or of an LB that connects from elsewhere."""
        switch = next((switch for switch in self.ground.switches.values() if switch.lb.dpid == dpid), None)
        if switch is None:
            self.ground.counters["switches_refused"] += 1
            raise Refused(404, "Unknown switch", f"no load balancer of the site file has the dpid {dpid:016x}; add it, "
                          f"or set the bridge's with: ovs-vsctl set bridge BRIDGE other-config:datapath-id=...")
        if switch.lb.management_address not in (None, address):
            self.ground.counters["switches_refused"] += 1
            raise Refused(403, "Not that load balancer", f"{switch.lb.name} (dpid {dpid:016x}) connects from "
                          f"{switch.lb.management_address}, by its management_address in the site file, not from "
                          f"{address}")
        if switch.state != "disconnected":
            self.ground.counters["switches_refused"] += 1
            raise Refused(409, "Two switches with one dpid", f"{switch.lb.name} (dpid {dpid:016x}) is connected "
                          "already: give one of the two bridges another other-config:datapath-id")
        switch.set_ports(ports)
        self.ground.log("switch connected", lb=switch.lb.name, dpid=f"{dpid:016x}")
        return switch.lb.name, self.comebacks.connected(switch, now)

    def switch_lost(self, name: str, reason: str, now: float) -> Outbox:
        self.ground.log("switch lost", level="warning", lb=name, reason=reason)
        self.ground.switches[name].disconnected(reason, now)
        self.ground.tokens.lost(name)
        return self.movement.lost(name, now)

    def ports_changed(self, name: str, ports: Iterable[PortState], now: float) -> Outbox:
        """All ports of the switch, after one of them has come, gone, or changed."""
        switch = self.ground.switches[name]
        was_up = switch.ports_up
        switch.set_ports(ports)
        if not switch.ready:
            return []
        self.ground.log("ports changed", lb=name, reason=switch.reason)
        out = self.ground.resyncs.begin([switch], now)
        if not was_up and switch.ports_up:
            out += self.neighbourhood.announce_all(name, now) + self.neighbourhood.probe(switch)
        return out

    # What the switches send.

    def packet_in(self, name: str, message: bytes, now: float) -> Outbox:
        """The whole OpenFlow message."""
        switch = self.ground.switches[name]
        packet_in = decode_packet_in(message)
        if packet_in is None or switch.of_ports is None:
            switch.counters["dropped_undecodable"] += 1
            return []
        kind = packet_in.kind
        if kind == Kind.SERVER_ARP:
            return self.neighbourhood.told(switch, packet_in)
        if kind == Kind.QUERY:
            self.neighbourhood.queries.asked(switch, packet_in, now)
            return []
        if kind == Kind.PROBED:
            return self.detection.answered(name, packet_in.frame)
        if kind == Kind.CHECKED:
            return self.checker.answered(switch, packet_in, now)
        if kind == Kind.TRANSLATE_ICMP and (found := self.checker.concerned(switch, packet_in)):
            return self.checker.unreachable(found, now)
        return self.connections.packet_in(switch, packet_in, now)

    def flow_removed(self, name: str, message: bytes, now: float) -> Outbox:
        """The whole OpenFlow message."""
        removed = decode_entry_removed(message)
        switch = self.ground.switches[name]
        return self.connections.entry_removed(switch, removed, now) if removed and switch.ready else []

    # Answers, each with the token of what it answers.

    def flow_stats(self, token: int, body: bytes, more: bool, now: float) -> Outbox:
        """One part of the answer to a ReadFlows. more: others follow."""
        return self.ground.tokens.flows_read(token, body, more, now)

    def ports_read(self, token: int, received: Mapping[int, int]) -> None:
        """The answer to a ReadPorts: frames received by each port (OpenFlow number)."""
        self.ground.tokens.ports_read(token, received)

    def confirmed(self, token: int, now: float) -> Outbox:
        """A barrier or a bundle has been confirmed, or a state saved."""
        return self.ground.tokens.confirmed(token, now)

    def failed(self, name: str, token: int, refusal: Refusal, now: float) -> Outbox:
        """The switch of that LB refuses what the token stands for; 0: something without a token."""
        switch = self.ground.switches[name]
        switch.counters["errors_from_switch"] += 1
        out = self.ground.tokens.failed(token, f"{name}: {refusal}", now)
        return out + (self.audits.refused(switch, refusal, now) if refusal.order else [])

    def not_saved(self, token: int, reason: str, now: float) -> Outbox:
        """A state that was to be saved could not be."""
        return self.ground.tokens.failed(token, reason, now)

    def copy_fetched(self, token: int, rows: list[Row] | None, now: float) -> Outbox:
        """The answer to a FetchCopy; None: it can't be had there."""
        return self.ground.tokens.rows_fetched(token, rows, now)

    def sockets_counted(self, token: int, counts: Mapping[int, int] | None, now: float) -> None:
        """The answer to a CountSockets: connections by the server's ports; None: they can't be had there."""
        self.ground.tokens.sockets_counted(token, counts, now)

    # Time.

    def tick(self, now: float) -> Outbox:
        """All timers."""
        return [effect for timer in self.timers for effect in timer(now)]

    @property
    def hurried(self) -> bool:
        """See `hurrying`."""
        return any(part.hurried for part in (self.comebacks, self.relief, self.movement, self.ground.resyncs))

    def _tidy(self, now: float) -> Outbox:
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_INTERVAL
            for serving in self.ground.external_ips:
                serving.tidy(now)
        if self._saved:
            return []
        # Else an edited site file would assign an external IP elsewhere at the next start, away from its entries.
        self._saved = True
        return [self.ground.save()]

    def _ask_neighbours(self, now: float) -> Outbox:
        """What answers also tells which of two LBs is cut off."""
        return self.neighbourhood.tick(now, eager=self.detection.doubtful)
