"""The control function (seed 52): events and `now` in, messages out. It never waits, and does no I/O.

`now` is seconds since the epoch on a clock that does not jump (the shell anchors the monotonic clock once). Each method
that is an event returns an Outbox: messages in order, each for one LB (or the store).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address

from lbctl.changes.services import Services
from lbctl.changes.site_change import keep_what_is_in_use
from lbctl.connections.dispatch import Connections
from lbctl.connections.recovery import recover
from lbctl.connections.sweep import Sweep
from lbctl.copies.feeds import Feeds, KeeperState
from lbctl.copies.fetching import Copies
from lbctl.entries.access_table import Entry
from lbctl.failures.detection import Detection
from lbctl.failures.relief import Relief
from lbctl.ground.effects import STORE, Outbox, Save, ToSwitch, to_switch
from lbctl.ground.serving import Directory, Serving
from lbctl.health_checks.checker import Checker
from lbctl.load.balancing import Balancing, Run
from lbctl.load.loads import Load, Loads
from lbctl.moves.move import HOLDING
from lbctl.moves.movement import Movement
from lbctl.networks.neighbourhood import Neighbourhood
from lbctl.openflow.cookies import MASK_ALL, Kind, owner_in
from lbctl.openflow.inbound import EntryStatsDecoder, decode_entry_removed, decode_flow_stats, decode_packet_in
from lbctl.openflow.messages import Configure, DeleteCookie, DeleteEntries
from lbctl.openflow.meters import meters
from lbctl.openflow.probe_rules import Watched
from lbctl.openflow.rules import SERVING
from lbctl.site.model import ExternalIp, Keeper, LoadBalancer, Site
from lbctl.store import State
from lbctl.switches.readback import ReadBack
from lbctl.switches.switch import PortState, Switch
from lbctl.values.addresses import Address
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy, TransferMode

__all__ = ["ControlFunction", "Refused"]

TIDY_INTERVAL = 60.0
Log = Callable[..., None]


class ControlFunction:
    """Serves a site. `log(event, level=..., **keys)` is told what a person might want to know."""

    def __init__(self, site: Site, state: State, now: float, log: Log = lambda *_, **__: None) -> None:
        self.log = log
        self.services = Services(self, site, state.orders)
        self.site = site = self.services.in_force.site
        """With what has been ordered for its services."""
        self.counters: Counter[str] = Counter()
        self.fence_code = state.fence_code
        self.seed = int(now)
        """Where translated ports start; another one in each run."""
        self.switches: dict[str, Switch] = {}
        self.directory = Directory()
        self._by_dpid: dict[int, Switch] = {}
        self._readbacks: dict[str, ReadBack] = {}
        self._waiting: dict[int, tuple[str, Callable[[float], Outbox]]] = {}
        self._token = 0
        self._tidy_at = 0.0
        self._saved = False
        self.neighbourhood = Neighbourhood(self)
        self._sweep = Sweep()
        self.loads = Loads(site.settings.load_period)
        self._stats = EntryStatsDecoder()
        self.detection = Detection(self.switches, site.settings, state.fence_code, log, set(state.watched), now)
        self.copies = Copies(self)
        self.relief = Relief(self)
        self.connections = Connections(self.switches, self.directory, log, self.on_link)
        self.checker = Checker(self)
        self.balancing = Balancing(self, state.drained & {lb.name for lb in site.load_balancers})
        self.movement = Movement(self)
        self._earlier = state.assigned.keys()
        for lb in site.load_balancers:
            self.switches[lb.name] = Switch(lb, self.watched_as(lb))
        self.index_switches()
        self.directory.replace([self._new_serving(ip, state) for ip in site.external_ips])
        self.movement.restore(state, now)
        self.feeds = Feeds(self)

    # What the API shows.

    @property
    def moves(self) -> dict:
        return self.movement.moves

    def serving(self, address: Address) -> Serving:
        """Raises KeyError for an address that is no external IP of this site."""
        return self.directory.by_address[address.packed]

    def assigned_to(self, address: Address) -> str:
        return self.serving(address).assigned

    def transfer_modes(self, name: str) -> dict[Address, TransferMode]:
        return {address: role.mode for address, role in self.switches[name].roles.items() if role.mode}

    def neighbour(self, lb_name: str, hop: Address) -> str | None:
        """The MAC of that next hop."""
        return self.switches[lb_name].neighbours.get(hop)

    def keeper_of(self, server: Address) -> Keeper | None:
        """Who keeps the copy of that server's entries."""
        return next((keeper for keeper in self.site.keepers.each if keeper.server == server), None)

    def on_link(self, address: bytes) -> bool:
        """Is that client (packed) on the external network itself?"""
        client = ip_address(address)
        return any(client in network for network in self.site.external_networks)

    def watched_as(self, lb: LoadBalancer) -> Watched | None:
        """How other LBs' probes mean that LB; None without a fence code."""
        return Watched((lb.dpid & 0xFFFFFFFFFFFF).to_bytes(6).hex(":"), self.fence_code) if self.fence_code else None

    def health(self, name: str) -> tuple[str, str | None]:
        """Of an LB's data path, and why: see Detection.state."""
        return self.detection.state(name)

    def load(self, address: Address) -> Load:
        """What an external IP carries."""
        return self.loads.of(self.serving(address))

    def carried(self) -> Mapping[tuple[str, int, str], int]:
        """(LB, owner of the external IP, packets or bytes) -> counted since the start."""
        return self.loads.totals

    def last_run(self) -> Run | None:
        """The last rebalancing."""
        return self.balancing.last

    def drained(self, name: str) -> bool:
        """Does an operator want that LB empty?"""
        return name in self.balancing.drained

    def keepers(self, now: float) -> list[KeeperState]:
        """Those that are told of entries."""
        return self.feeds.states(now)

    def check_results(self) -> Mapping[str, int]:
        """Health checks since the start, by result; and those that were put off, not sent, or not counted."""
        return self.checker.counters

    def connection_count(self, address: Address) -> int:
        return len(self.serving(address).table)

    def entries(self, address: Address) -> list[Entry]:
        return self.serving(address).table.snapshot()

    # Switches.

    def switch_connected(self, dpid: int, ports: Iterable[PortState], now: float) -> tuple[str, Outbox]:
        """A switch has shaken hands. Returns its LB's name. Raises Refused for a dpid that is unknown or in use."""
        switch = self._by_dpid.get(dpid)
        if switch is None:
            self.counters["switches_refused"] += 1
            raise Refused(404, "Unknown switch", f"no load balancer of the site file has the dpid {dpid:016x}; add it, "
                          f"or set the bridge's with: ovs-vsctl set bridge BRIDGE other-config:datapath-id=...")
        if switch.state != "disconnected":
            self.counters["switches_refused"] += 1
            raise Refused(409, "Two switches with one dpid", f"{switch.lb.name} (dpid {dpid:016x}) is connected "
                          "already: give one of the two bridges another other-config:datapath-id")
        switch.state, name = "reading", switch.lb.name
        switch.set_ports(ports)
        self.log("switch connected", lb=name, dpid=f"{dpid:016x}")
        self._readbacks[name] = readback = ReadBack(self._stats)
        requests = to_switch(name, readback.requests(self.new_token))
        return name, [ToSwitch(name, Configure()), *self.meters(name), *requests]

    def meters(self, name: str) -> Outbox:
        """The rates at which that LB's switch may send packets to the controller."""
        return to_switch(name, meters(self.site.settings, len(self.switches)))

    def switch_lost(self, name: str, reason: str, now: float) -> Outbox:
        self.log("switch lost", level="warning", lb=name, reason=reason)
        self.switches[name].disconnected(reason)
        self.switches[name].lost_at = now
        self._readbacks.pop(name, None)
        self._waiting = {token: wait for token, wait in self._waiting.items() if wait[0] != name}
        return self.movement.lost(name, now)

    def ports_changed(self, name: str, ports: Iterable[PortState], now: float) -> Outbox:
        """All ports of the switch, after one of them has come, gone, or changed."""
        switch = self.switches[name]
        was_up = switch.ports_up
        switch.set_ports(ports)
        if not switch.ready:
            return []
        self.log("ports changed", lb=name, reason=switch.reason)
        out: Outbox = to_switch(name, switch.sync(self.external_ips()))
        if not was_up and switch.ports_up:
            out += self.neighbourhood.announce_all(name, now) + self.neighbourhood.probe(switch)
        return out

    def flow_stats(self, name: str, token: int, body: bytes, more: bool, now: float) -> Outbox:
        """One part of the answer to a ReadFlows."""
        if self._sweep.asked(token):
            entries, _ = self._stats.decode(body)
            unknown = self._sweep.answer(token, entries, more, now)
            return [ToSwitch(name, DeleteEntries(unknown))] if unknown else []
        if self.loads.asked(token):
            self.loads.answer(token, decode_flow_stats(body), more, now)
            return []
        if self.movement.asked(token):
            return self.movement.last_words(token, self._stats.decode(body)[0], more, now)
        readback = self._readbacks.get(name)
        if readback is None:
            return []
        complete = readback.answer(token, body, more)
        out = self._silence(name, readback) if token == readback.arp_token and not more else []
        return out + self._take_over(name, self._readbacks.pop(name), now) if complete else out

    def _silence(self, name: str, readback: ReadBack) -> Outbox:
        """An LB that comes back may not answer for what is elsewhere now: at once, before all that it holds is known."""
        mine = {serving.owner for serving in self.directory if self.switches[name].role(serving.address).arp}
        stale = [cookie for cookie in readback.answered_for() if owner_in(cookie) not in mine]
        for cookie in stale:
            del readback.cookies["arp", cookie]
        return [ToSwitch(name, DeleteCookie("arp", cookie, MASK_ALL)) for cookie in stale]

    def _take_over(self, name: str, readback: ReadBack, now: float) -> Outbox:
        """All that the switch holds is known: sends what it misses, and nothing for what is right."""
        switch = self.switches[name]
        hollow = self._came_back_empty(switch, readback)
        outcome = recover(name, readback, self.directory, switch.lost_at, now)
        for serving in hollow:
            serving.unread.add(name)
            switch.roles[serving.address] = HOLDING
        out: Outbox = to_switch(name, outcome.messages)
        if outcome.taken_over:
            keep_what_is_in_use(self)
            for other in self.switches.values():
                if other.ready:
                    out += to_switch(other.lb.name, other.sync(self.external_ips()))
        hops = {server.packed: hop for external_ip in self.external_ips() for server, hop in external_ip.hops().items()}
        for server, mac in readback.neighbours.items():
            if server in hops:
                switch.neighbours.setdefault(hops[server].address, mac.hex(":"))
        out += to_switch(name, switch.reconcile(self.external_ips(), readback.cookies))
        switch.state = "ready"
        self.detection.read_back(name, now)
        for serving, entry in outcome.ended:
            out += self.connections.end(serving, entry)
        self.log("switch ready", lb=name, flows_sent=len(out), entries_taken_over=outcome.taken_over,
                 entries_put_back=outcome.put_back, entries_deleted=outcome.deleted, strange_entries=readback.strange, reason=switch.reason)
        out += self.neighbourhood.announce_all(name, now) + self.neighbourhood.probe(switch)
        for serving in hollow:
            out += self.movement.give_back(serving, now)[1]
        return out + self.movement.ready(name, now)

    def _came_back_empty(self, switch: Switch, readback: ReadBack) -> list[Serving]:
        """The external IPs whose entries were there for an earlier control function, and are no more (or not yet again: it was being
        given them when that control function ended), but that others have copies of."""
        name = switch.lb.name
        return [serving for serving in self.directory
                if serving.assigned == name and name in serving.unread and serving.address in self._earlier and not serving.move
                and self.copies.kept_elsewhere(serving)
                and (not readback.cookies or switch.has_role(serving.config, HOLDING, readback.cookies))]

    def ports_read(self, token: int, received: dict[int, int]) -> None:
        """The answer to a ReadPorts: frames received by each port (OpenFlow number)."""
        self.detection.ports_read(token, received)

    # What the switches send.

    def packet_in(self, name: str, message: bytes, now: float) -> Outbox:
        """The whole OpenFlow message."""
        switch = self.switches[name]
        packet_in = decode_packet_in(message)
        if packet_in is None or switch.of_ports is None:
            switch.counters["dropped_undecodable"] += 1
            return []
        kind = packet_in.kind
        if kind == Kind.SERVER_ARP:
            return self.neighbourhood.told(switch, packet_in)
        if kind == Kind.PROBED:
            to_save, out = self.detection.answered(packet_in.frame)
            return [*out, Save(self.state())] if to_save else out
        if kind == Kind.CHECKED:
            return self.checker.answered(switch, packet_in, now)
        if kind == Kind.TRANSLATE_ICMP and (found := self.checker.concerned(packet_in)):
            return self.checker.unreachable(found, now)
        return self.connections.packet_in(switch, packet_in, now)

    def flow_removed(self, name: str, message: bytes, now: float) -> Outbox:
        """The whole OpenFlow message."""
        removed = decode_entry_removed(message)
        switch = self.switches[name]
        return self.connections.entry_removed(switch, removed, now) if removed and switch.ready else []

    def confirmed(self, name: str, token: int, now: float) -> Outbox:
        """A barrier, a bundle, or the store has confirmed that token."""
        wait = self._waiting.pop(token, None)
        return wait[1](now) if wait else []

    def failed(self, name: str, token: int, reason: str, now: float) -> Outbox:
        """What that token stands for can't be done."""
        self.log("refused by the switch", level="error", lb=name, reason=reason)
        if name != STORE:
            self.switches[name].counters["errors_from_switch"] += 1
        self._waiting.pop(token, None)
        return self.movement.failed(token, reason, now)

    # Time.

    def tick(self, now: float) -> Outbox:
        """To be called some ten times a second."""
        out = self.detection.tick(self.new_token, self.relief.to_fence(), now)
        out += self.relief.tick(now) + self.connections.tick(now) + self.movement.tick(now) + self.feeds.tick(now)
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_INTERVAL
            for serving in self.directory:
                serving.tidy(now)
        if not self._saved:
            # Else an edited site file would assign an external IP elsewhere at the next start, away from its entries.
            self._saved = True
            out.append(Save(self.state()))
        requests, idle = self._sweep.tick(self.directory, self.switches, self.new_token, now)
        for serving, entries in idle:
            self.counters["entries_expired"] += len(entries)
            out += self.connections.end_all(serving, entries)
        out += requests
        out += self.checker.tick(now)
        out += self.balancing.tick(now)
        out += self.loads.tick(self.switches, self.directory, self.new_token, now)
        # What answers also tells which of two LBs is cut off.
        return out + self.neighbourhood.tick(now, eager=self.detection.doubtful)

    # Moves.

    def start_move(self, address: Address, to: str, strategy: Strategy, now: float, from_copies: bool = False):
        """Returns (Move, Outbox). Raises Refused."""
        return self.movement.start(address, to, strategy, now, from_copies)

    def fail_over(self, name: str, now: float):
        """Returns (moves, Outbox). Raises Refused."""
        return self.relief.order(name, now)

    def abort_move(self, move_id: str, now: float) -> Outbox:
        """Raises Refused."""
        return self.movement.abort(move_id, now)

    # The site.

    def apply_site(self, site: Site, now: float) -> Outbox:
        """Another site file: sends the difference; connections of external IPs that stay are not touched.

        Where an external IP that stays is assigned is not changed by the file. Raises Refused while an external IP
        moves that the file drops, or an LB would go that still has external IPs.
        """
        return self.services.use_file(site, now)

    def apply_settings(self) -> None:
        """After another site file."""
        self.detection.settings = self.site.settings
        self.feeds.configure()
        self.loads.period = self.site.settings.load_period

    def index_switches(self) -> None:
        self._by_dpid = {switch.lb.dpid: switch for switch in self.switches.values()}

    def _new_serving(self, external_ip: ExternalIp, state: State) -> Serving:
        assigned = state.assigned.get(external_ip.address)
        if assigned not in self.switches:
            assigned = external_ip.load_balancer
        self.switches[assigned].roles[external_ip.address] = SERVING
        return Serving(external_ip, assigned, self.site.settings, self.seed, self.services.in_force.drained(external_ip))

    def external_ips(self) -> list[ExternalIp]:
        return [serving.config for serving in self.directory]

    # Tokens: what waits for a switch's confirmation.

    def new_token(self) -> int:
        """24 bits, so that the shell can mark the OpenFlow xid as ours."""
        self._token = self._token % 0xFFFFFF + 1
        return self._token

    def when_confirmed(self, name: str, then: Callable[[float], Outbox]) -> int:
        """A token for a message to LB `name` (or the store); `then` is called when it is confirmed."""
        token = self.new_token()
        self._waiting[token] = (name, then)
        return token

    def state(self) -> State:
        """What must survive a restart."""
        return State({serving.address: self.movement.assigned_for_good(serving) for serving in self.directory},
                     self.movement.unfinished(), frozenset(self.detection.watched & self.switches.keys()), self.detection.fence_code,
                     self.services.in_force.orders,
                     frozenset(self.balancing.drained & self.switches.keys()))
