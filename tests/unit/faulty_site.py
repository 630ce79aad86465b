"""The site of fake_site.py with faults: LBs are killed, cut off, frozen, or lose their controller; keepers come and
go.

What a killed or cut-off LB would send or get is lost. A frozen one loses frames, and does what it was told when it
goes on.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

from lbctl.control import ControlFunction
from lbctl.entries.access_table import NO_HOP
from lbctl.ground.effects import CountSockets, FetchCopy, SendBatch
from lbctl.keeper.batches import Answer
from lbctl.keeper.process.copy import Copy
from lbctl.keeper.rows import Row, entries
from lbctl.openflow.probe_rules import LEARNED_COOKIE
from lbctl.site.model import Keeper, Keepers, Site
from lbctl.values.keys import reply_key
from lbctl.values.protocols import TCP
from tests.unit.fake_site import EXTERNAL, INTERNAL, Conversation, FakeSite, site
from tests.unit.fake_switch import Event, Sent

FENCE_CODE = "77.66.55.44"
PORTS = (EXTERNAL, INTERNAL)


def kept_site(copies: tuple[str, ...] = ("controller",), **options) -> Site:
    """A site whose external IPs have these copies, with a keeper for each server."""
    bare = site(**options)
    ips = tuple(replace(ip, copies=copies) for ip in bare.external_ips)
    servers = sorted({server for ip in ips for server in ip.server_addresses()})
    keepers = Keepers(
        tuple(Keeper(server, f"http://{server}:6654") for server in servers) if copies != ("controller",) else ()
    )
    return replace(bare, external_ips=ips, keepers=keepers)


class FaultySite(FakeSite):
    """Probes are sent in it. dead: LBs that were killed; frozen: LBs that do nothing for now; cut: (LB, port) that no
    frame passes."""

    def __init__(
        self, configuration: Site | None = None, control_class: type[ControlFunction] = ControlFunction
    ) -> None:
        self.dead: set[str] = set()
        self.frozen: set[str] = set()
        self.cut: set[tuple[str, int]] = set()
        self.excused: dict[str, str] = {}
        """LBs that may answer ARP beside another, and why: until they are fenced, or have been told."""
        self.resets: set[int] = set()
        """Numbers of the conversations that a RST has told that they have ended."""
        self.told: list[tuple[str, dict]] = []
        """The control function's log."""
        self.lost_keepers: set[bytes] = set()
        self.copies: dict[bytes, Copy] = {}
        super().__init__(configuration or kept_site(), control_class, FENCE_CODE)
        self.copies = {keeper.server.packed: Copy([keeper.server.packed]) for keeper in self.site.keepers.each}

    def _new_control(self) -> ControlFunction:
        return self.control_class(self.site, self.stored, self.now, self._log)

    def _log(self, event: str, level: str = "info", **keys) -> None:
        self.told.append((event, keys))
        if event == "entries lost":
            for conversation in self._of(ip_address(keys["external_ip"]), ip_address(keys["server"])):
                conversation.forfeited = True

    # Faults.

    def kill(self, name: str) -> None:
        """Its ovs-vswitchd is gone, with its tables; the connection's end is noticed at once."""
        self.dead.add(name)
        self.frozen.discard(name)
        self.disconnect(name, lose_tables=True)
        self.excused.pop(name, None)

    def revive(self, name: str) -> None:
        self.dead.discard(name)

    def freeze(self, name: str) -> None:
        """A connection that is just opening may be unknown to whoever takes over, and open all the same when it goes
        on."""
        for conversation in self.conversations:
            conversation.forfeited |= conversation.server is None
        self.frozen.add(name)
        self.unsettled.add(name)
        self.excused[name] = "it is not told anything while it is frozen"

    def thaw(self, name: str) -> None:
        self.frozen.discard(name)

    def cut_off(self, name: str, port: int, seen: bool) -> None:
        """No frame passes that port any more. seen: the LB notices."""
        self.cut.add((name, port))
        if seen:
            self._set_port(name, port, up=False)

    def mend(self, name: str, port: int) -> None:
        self.cut.discard((name, port))
        self._set_port(name, port, up=True)

    def _set_port(self, name: str, port: int, up: bool) -> None:
        ports = self.switches[name].ports
        if ports[port - 1].up != up:
            ports[port - 1] = replace(ports[port - 1], up=up)
            if name in self.connected:
                self.to_control[name].append(Event("ports_changed", (tuple(ports),)))

    def connect(self, name: str) -> None:
        if name in self.dead | self.frozen:
            return
        super().connect(name)

    def disconnect(self, name: str, lose_tables: bool = False) -> None:
        if not self._hears(name) and name not in self.dead:
            self.excused[name] = "nobody could fence it when its connection was lost"
        self._excuse_targets(name)
        super().disconnect(name, lose_tables)

    def _excuse_targets(self, name: str) -> None:
        """docs/move.md: a target that is lost when it has got the route may go on answering ARP beside the source."""
        if any(move.record.target == name for move in self.control.movement.running()):
            self.excused[name] = "it was lost while an external IP was on its way to it"

    def restart_control(self) -> None:
        self.calls.clear()
        for name in self.switches:
            if any(move.record.target == name for move in self.control.movement.running()):
                self.excused[name] = "the control function was lost while an external IP was on its way to it"
        super().restart_control()

    def _hears(self, name: str) -> bool:
        """Can a fence reach it?"""
        return name not in self.dead | self.frozen and not all((name, port) in self.cut for port in PORTS)

    def update_excuses(self) -> None:
        """Who has been fenced, or has done all that it was told, has no excuse any more."""
        for name in list(self.excused):
            fenced = any(item.flow.cookie == LEARNED_COOKIE for item in self.switches[name].flows())
            told = name in self.connected and self.control.ground.switches[name].ready and not self.to_switch[name]
            if name not in self.frozen and (fenced or told):
                del self.excused[name]

    # What passes, and what is lost.

    def deliver(self, name: str, count: int = 1 << 30) -> bool:
        return name not in self.frozen and super().deliver(name, count)

    def inject(self, name: str, frame: bytes, port: int) -> None:
        if name not in self.dead | self.frozen and (name, port) not in self.cut:
            super().inject(name, frame, port)

    def _out_of_switch(self, name: str, sent: list[Sent], events: list[Event]) -> None:
        super()._out_of_switch(name, [item for item in sent if (name, item.port) not in self.cut], events)

    def answers_arp(self, address: bytes, port: int) -> set[str]:
        found = super().answers_arp(address, port)
        return {name for name in found - self.dead - self.frozen if (name, port) not in self.cut}

    def _error(self, frame: bytes, at: str) -> None:
        """An LB that has come back says that an external IP is not here, to who has not heard yet where it is: TCP
        goes on."""

    def _reset(self, packet, at: str) -> None:
        super()._reset(packet, at)
        self.resets.add(packet.ack - 1 if packet.tcp_flags & 0x10 and not packet.seq else packet.seq)

    def neighbours_ask(self) -> None:
        """What routers and servers know of an address ends some time, and they ask anew."""
        for ip in self.site.external_ips:
            for address, port in [(ip.address, EXTERNAL), *((inner, INTERNAL) for inner in ip.internal_addresses())]:
                found = self.answers_arp(address.packed, port)
                if len(found) == 1:
                    self.routes[address.packed] = found.pop()

    # Keepers.

    def call(self, outcome: str = "answered") -> bool:
        """One call to a keeper. outcome: answered, unheard (the answer is lost), or unasked (nothing has come to it).
        """
        if not self.calls:
            return False
        message = self.calls.popleft()
        if message.keeper.server.packed in self.lost_keepers:
            outcome = "unasked"
        if isinstance(message, SendBatch):
            self._send_batch(message, outcome)
        elif isinstance(message, CountSockets):
            self.control.sockets_counted(message.token, None, self.now)
        else:
            self._fetch_copy(message, outcome)
        return True

    def _send_batch(self, message: SendBatch, outcome: str) -> None:
        server, reply = message.keeper.server.packed, None
        if outcome != "unasked":
            copy = self.copies[server]
            reply = copy.judge(message.batch) or copy.take(message.batch, self.now)
            assert reply.answer is not Answer.REFUSED, reply
        self.control.feeds.answered(server, reply if outcome == "answered" else None, outcome, self.now)

    def _fetch_copy(self, message: FetchCopy, outcome: str) -> None:
        rows = None
        if outcome == "answered":
            rows = self.socket_rows(message) if message.copy == "sockets" else self.kept_rows(message)
        self.post(self.control.copy_fetched(message.token, rows, self.now))
        if rows is not None:
            # What a copy tells is what there is: it comes before the rest by the site's own choice.
            self._lost(str(message.external_ip.address), str(message.server))

    def kept_rows(self, message: FetchCopy) -> list[Row] | None:
        current = self.copies[message.server.packed].servers[message.server.packed].current
        sections = current.streams if current else {}
        batch = current.batch(1, message.external_ip.address.packed) if sections else None
        return [row for section in batch.sections for row in entries(section)] if batch else [] if current else None

    def socket_rows(self, message: FetchCopy) -> list[Row]:
        return [Row(self.key(each), reply_key(self.key(each), each.server.address.packed, each.server.port), NO_HOP, 0)
                for each in self._of(message.external_ip.address, message.server)]

    def _of(self, external: IPv4Address, server: IPv4Address) -> list[Conversation]:
        return [each for each in self.conversations
                if each.live and each.external.address == external and each.server.address == server]

    def _lost(self, external: str, server: str) -> None:
        """The control function has replaced what it knows of that server by what it could get: what is not there is
        lost."""
        address = ip_address(external)
        table = self.serving(address).table
        for each in self._of(address, ip_address(server)):
            each.forfeited |= table.by_key(self.key(each)) is None

    def _forfeit(self) -> None:
        """Nothing is lost yet that is in a copy which can be asked for."""
        kept = {conversation for conversation in self.conversations
                if not conversation.server or conversation.live and self._kept(conversation)}
        before = {conversation for conversation in self.conversations if conversation.forfeited}
        super()._forfeit()
        for conversation in kept - before:
            conversation.forfeited = False

    def _kept(self, conversation: Conversation) -> bool:
        server, address = conversation.server.address, conversation.external.address
        copies = self.site.external_ip(address).copies
        if "sockets" in copies and self.key(conversation)[0] == TCP:
            return True
        copy = self.copies.get(server.packed)
        current = copy.servers[server.packed].current if copy else None
        rows = [row for section in current.batch(1).sections for row in entries(section)] if current else []
        return "keeper" in copies and any(row.key == self.key(conversation) for row in rows)

    # Time.

    def drain(self) -> None:
        more = True
        while more:
            super().drain()
            more = False
            while self.call():
                more = True

    def rest(self, limit: float = 150.0, step: float = 0.2, quiet: int = 12) -> None:
        """Everything that is well is connected and delivered, until nothing has happened for that many ticks. Raises
        AssertionError after `limit` seconds."""
        end, calm = self.now + limit, 0
        while calm < quiet:
            assert self.now < end, f"it does not come to rest: {self.unrest()}"
            for name in sorted(self.switches.keys() - self.connected):
                self.connect(name)
            self.tick(step)
            self.drain()
            calm = 0 if self.unrest() else calm + 1
        self.neighbours_ask()

    def tell_hops(self) -> None:
        """Clients whose next hop no copy has told send a packet."""
        for conversation in [each for each in self.conversations if each.live]:
            entry = self.serving(conversation.external.address).table.by_key(self.key(conversation))
            if entry and entry.next_hop == NO_HOP:
                self.from_client(conversation)
                self.drain()

    def unrest(self) -> list[str]:
        """What is not as it will stay."""
        control = self.control
        failed = control.detection.failed()
        waiting = sorted(self.connected - {name for name, switch in control.ground.switches.items() if switch.ready})
        return [
            *(f"move {move.record}" for move in control.movement.running()),
            *(
                f"{serving.address} is on failed {serving.assigned}"
                for serving in control.ground.external_ips
                if serving.assigned in failed
            ),
            *(
                f"{serving.address} is on {serving.assigned}, which is dead"
                for serving in control.ground.external_ips
                if serving.assigned in self.dead
            ),
            *(f"{name} is not ready" for name in waiting),
        ]

    def check_one_answers(self) -> None:
        """At most one LB answers ARP for an address, but for those that are excused."""
        self.update_excuses()
        for ip in self.site.external_ips:
            for address, port in [(ip.address, EXTERNAL), *((inner, INTERNAL) for inner in ip.internal_addresses())]:
                found = self.answers_arp(address.packed, port)
                assert len(found - self.excused.keys()) <= 1, (
                    f"{sorted(found)} answer for {address}; excused: {self.excused}"
                )
