"""An LB's switch has connected: what it holds is read back, and it is sent what it misses, and nothing for what is
right."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Protocol

from lbctl.connections.recovery import Recovery
from lbctl.entries.access_table import Entry
from lbctl.failures.detection import Detection
from lbctl.ground.effects import Effect, Outbox, ToSwitch, to_switch
from lbctl.ground.ground import METERS, Ground
from lbctl.ground.in_use import keep_what_is_in_use
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import FlowsAnswer
from lbctl.moves.actions import HOLDING
from lbctl.openflow.cookies import MASK_ALL, owner_in
from lbctl.openflow.inbound import EntryStatsDecoder
from lbctl.openflow.messages import Configure, DeleteCookie, ReadFlows
from lbctl.switches.readback import Question, ReadBack
from lbctl.switches.switch import Switch
from lbctl.values.addresses import Address
from lbctl.values.owners import owner_of


class Mover(Protocol):
    """Who moves external IPs (lbctl/moves/)."""

    def give_back(self, serving: Serving, now: float) -> Outbox:
        """Its entries, to the LB that has it and holds its packets."""

    def ready(self, now: float) -> Outbox:
        """An LB has been read back: moves that wait for it go on."""


class Ender(Protocol):
    """Who ends entries (lbctl/connections/)."""

    def end_all(self, serving: Serving, entries: Iterable[Entry], now: float) -> Outbox:
        """Takes entries out of the table and out of every switch."""


class Neighbours(Protocol):
    """Who asks and tells the neighbours (lbctl/networks/)."""

    def announce_all(self, name: str, now: float) -> Outbox:
        """Tells that LB's neighbours of all that it answers for."""

    def probe(self, switch: Switch) -> Outbox:
        """Asks for the MACs of all next hops and routers."""


class KeptElsewhere(Protocol):
    """Who knows of copies (lbctl/copies/)."""

    def kept_elsewhere(self, serving: Serving) -> bool:
        """Are there copies of its entries besides the access table?"""


class Auditor(Protocol):
    """Who knows whether switches hold what they were ordered to."""

    def connected(self, switch: Switch) -> None:
        """How it looked before says nothing any more."""

    def made_whole(self, switch: Switch) -> Outbox:
        """It has been sent what it missed: does it confirm that?"""


READ_WITHIN = 30.0
"""Seconds in which an LB that is being read should have told more of what it holds."""
TRY_AGAIN = 1.0
"""Seconds until an LB is asked again that has refused to tell."""


@dataclass(slots=True)
class Reading:
    """What an LB holds is being asked. meters: what it is sent before it is ready. tokens: of the questions. heard_at:
    when it told more of it last. refused_at: when it refused to."""

    meters: Iterator[Outbox]
    heard_at: float
    tokens: list[int] = field(default_factory=list)
    refused_at: float = float("inf")
    recovery: Recovery | None = None
    """Once it has told all of it."""

    @property
    def until(self) -> float:
        """When to give up and ask anew."""
        return min(self.heard_at + READ_WITHIN, self.refused_at + TRY_AGAIN)


class Comebacks:
    """Of all LBs."""

    def __init__(self, ground: Ground, detection: Detection, mover: Mover, ender: Ender, neighbours: Neighbours,
                 copies: KeptElsewhere, auditor: Auditor, earlier: Collection[Address]) -> None:
        """earlier: the external IPs that an earlier control function had assigned."""
        self._ground, self._detection, self._mover = ground, detection, mover
        self._ender, self._neighbours, self._copies = ender, neighbours, copies
        self._auditor, self._earlier = auditor, earlier
        self._reading: dict[str, Reading] = {}
        self._decoder = EntryStatsDecoder()

    def connected(self, switch: Switch, now: float) -> Outbox:
        """Asks what it holds."""
        name = switch.lb.name
        switch.state = "reading"
        self._auditor.connected(switch)
        self._give_up(name, now)
        readback = ReadBack(self._decoder)
        reading = self._reading[name] = Reading(self._ground.meters(name), now)
        out: Outbox = [ToSwitch(name, Configure())]
        for question in readback.questions():
            token = self._ground.tokens.new(FlowsAnswer(
                name, partial(self._answered, switch, reading, readback, question), partial(self._refused, reading)))
            reading.tokens.append(token)
            out.append(ToSwitch(name, ReadFlows(question.table, question.cookie, question.mask, token)))
        return out

    @property
    def hurried(self) -> bool:
        """Is there more to learn from one that has told all of it?"""
        return any(reading.recovery for reading in self._reading.values())

    def tick(self, now: float) -> Outbox:
        """Learns what one of them has told, and asks those anew that have not told all in time."""
        out: Outbox = []
        for name, reading in list(self._reading.items()):
            switch = self._ground.switches.get(name)
            if switch is None or switch.state != "reading":
                self._give_up(name, now)
            elif reading.recovery:
                return out + self._learn(switch, reading, reading.recovery, now)
            elif now >= reading.until:
                self._ground.log("what a switch holds is asked again", level="error", lb=name,
                                 hint="it has not told all of it")
                for token in reading.tokens:
                    self._ground.tokens.cancel(token)
                out += self.connected(switch, now)
        return out

    @staticmethod
    def _refused(reading: Reading, _reason: str, now: float) -> Outbox:
        """It does not tell what it holds."""
        reading.refused_at = now
        return []

    def _answered(
        self, switch: Switch, reading: Reading, readback: ReadBack, question: Question, body: bytes, more: bool,
        now: float,
    ) -> Outbox:
        reading.heard_at = now
        readback.answer(question, body, more)
        out = self._silence(switch, readback) if question.table == "arp" and not more else []
        if readback.complete:
            reading.recovery = Recovery(switch, readback, self._ground.external_ips)
            out += self._learn(switch, reading, reading.recovery, now)
        return out

    def _learn(self, switch: Switch, reading: Reading, recovery: Recovery, now: float) -> Outbox:
        """Some of its entries; then, some of what its flows need; at last, all else."""
        if recovery.learn(now):
            return []
        meters = next(reading.meters, [])
        if len(meters) == METERS:
            return meters
        del self._reading[switch.lb.name]
        return meters + self._read_back(switch, recovery, now)

    def _give_up(self, name: str, now: float) -> None:
        """What was begun with that LB, if anything."""
        if (reading := self._reading.pop(name, None)) and reading.recovery:
            reading.recovery.give_up(now)

    def _silence(self, switch: Switch, readback: ReadBack) -> Outbox:
        """An LB that comes back may not answer for what is elsewhere now: at once, before all that it holds is known.
        """
        mine = {owner_of(address.packed) for address, role in switch.roles.items() if role.arp}
        stale = [cookie for cookie in readback.answered_for() if owner_in(cookie) not in mine]
        for cookie in stale:
            del readback.cookies["arp", cookie]
        return to_switch(switch.lb.name, [DeleteCookie("arp", cookie, MASK_ALL) for cookie in stale])

    def _read_back(self, switch: Switch, recovery: Recovery, now: float) -> Outbox:
        """All that the switch holds is known."""
        ground, name, readback = self._ground, switch.lb.name, recovery.readback
        hollow = self._came_back_empty(switch, readback)
        outcome = recovery.outcome(now)
        for serving in hollow:
            serving.unread.add(name)
            switch.expect(serving.address, HOLDING)
        out = [effect for side, mac in outcome.hops if mac for effect in ground.let_pass(side, mac)]
        out += to_switch(name, outcome.messages)
        if outcome.taken_over:
            keep_what_is_in_use(ground)
            out += ground.resyncs.begin(ground.ready(), now)
        self._learn_neighbours(switch, readback)
        out += self._learn_clients(readback)
        if name in self._detection.failed():
            out += ground.fence_used(switch)
        switch.state = "ready"
        out += ground.resyncs.connected(switch, readback.cookies, partial(self._made_whole, switch), now)
        for serving, entry in outcome.ended:
            out += self._ender.end_all(serving, [entry], now)
        ground.log("switch ready", lb=name, entries_taken_over=outcome.taken_over, entries_put_back=outcome.put_back,
                   entries_deleted=outcome.deleted, strange_entries=readback.strange, reason=switch.reason)
        out += self._neighbours.probe(switch)
        for serving in hollow:
            out += self._mover.give_back(serving, now)
        return out + self._mover.ready(now)

    def _made_whole(self, switch: Switch, now: float) -> Outbox:
        """It has been sent all flows that it missed."""
        switch.whole = True
        self._detection.read_back(switch.lb.name, now)
        return self._auditor.made_whole(switch) + self._neighbours.announce_all(switch.lb.name, now)

    def _learn_clients(self, readback: ReadBack) -> Outbox:
        """The MACs that clients of sliced services are answered to."""
        hops, out = self._ground.client_hops, list[Effect]()
        for packed, mac in readback.way_back.clients.items():
            client = ip_address(packed)
            if hops.of(client) is None:
                out += self._ground.change_alike(*hops.met(client, mac.hex(":")))
        return out

    def _learn_neighbours(self, switch: Switch, readback: ReadBack) -> None:
        """The MACs that the switch delivers to."""
        configs = self._ground.configs() if readback.neighbours or readback.way_back.external_ips else []
        hops = {server.packed: hop for config in configs for server, hop in config.hops().items()}
        for server, mac in readback.neighbours.items():
            if server in hops:
                switch.neighbours.setdefault(hops[server].address, mac.hex(":"))
        routers = {config.address.packed: config.router for config in configs if config.router}
        for external_ip, mac in readback.way_back.external_ips.items():
            if external_ip in routers:
                switch.neighbours.setdefault(routers[external_ip], mac.hex(":"))

    def _came_back_empty(self, switch: Switch, readback: ReadBack) -> list[Serving]:
        """The external IPs whose entries were there for an earlier control function, and are no more (or not yet
        again: it was being given them when that control function ended), but that others have copies of."""
        name = switch.lb.name
        return [
            serving
            for serving in self._ground.external_ips
            if serving.assigned == name
            and name in serving.unread
            and serving.address in self._earlier
            and not serving.move
            and self._copies.kept_elsewhere(serving)
            and (not readback.cookies or switch.has_role(serving.config, HOLDING, readback.cookies))
        ]
