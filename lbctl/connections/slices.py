"""Gives the slices of each sliced service to servers that take connections, and lets them change hands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import cast

from lbctl.connections.endings import Endings
from lbctl.connections.old_connections import OldConnections
from lbctl.connections.sliced import slice_of_entry
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.in_use import keep_what_is_in_use
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import Confirmation
from lbctl.openflow.flow import Flow, Identity
from lbctl.openflow.messages import Barrier
from lbctl.openflow.slice_rules import asking_flows, slice_flows
from lbctl.servers.shares import slice_weights
from lbctl.servers.slicing import Change, Slicing, Step
from lbctl.site.model import Hop, Protocol, Server, Service, ServiceName
from lbctl.store import SavedSlices, State
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.keys import Place
from lbctl.values.protocols import PROTOCOL_NAMES, PROTOCOL_NUMBERS, UDP
from lbctl.values.slices import SLICES

NARROWED, SWITCHED, FLIPPED, SETTLED = 1.2, 0.5, 0.5, 0.3
"""Seconds from when a step is in force to the next one. The first: a SYN that is sent again after its first second has
been seen by then (RFC 6298); the others: the datapath's cache has followed (ms on an idle machine)."""
SAVED = ""
"""Among the names of LBs: the store."""
LOOK_INTERVAL, RENEW_INTERVAL = 1.0, 3.0
"""Seconds from one look for connections with entries to the next; and from one time that switches are told to show SYNs
to the next."""


class Slices:
    """Of all sliced services."""

    def __init__(self, ground: Ground, endings: Endings, saved: Mapping[ServiceName, SavedSlices]) -> None:
        self._ground, self._endings = ground, endings
        self._old = OldConnections(ground)
        self._saved = dict(saved)
        self._sent: dict[tuple[Address, Place], dict[Identity, Flow]] = {}
        """What the switches have been given, by external IP and service."""
        self._look_at = self._renew_at = 0.0
        ground.survives(self._survives)

    def restore(self) -> None:
        """What an earlier controller has left: before the first switch comes."""
        self._restore_leaving()
        for serving in self._ground.external_ips:
            for place, slicing in serving.slices.items():
                if saved := self._saved.get(_name(serving, place)):
                    _take_over(serving, place, saved)
                else:
                    slicing.divide(self._weights(serving, place), lambda _: True, lambda _: False, 0.0)
                # Which connections have entries, the switches will tell.
                serving.slices[place].mixed = set(range(SLICES))
                self._sent[serving.address, place] = _flows(serving, place)
        self._saved.clear()

    def _restore_leaving(self) -> None:
        """Services that have slices, and are to have none by the site file, or others, or are not in it any more."""
        found = False
        for name, saved in self._saved.items():
            serving, protocol = self._ground.external_ips.get(name.external_ip), PROTOCOL_NUMBERS.get(name.protocol)
            if serving is None or protocol is None or serving.config.kind != "service":
                continue
            place = protocol, name.port
            if place not in serving.services and not (any(saved.owners) or saved.before):
                continue
            service = serving.services.setdefault(place, _former(serving, name, saved))
            if not (service.sliced and service.by_client == saved.by_client):
                _take_over(serving, place, saved)
                serving.config = replace(serving.config, router=serving.config.router or saved.router)
                found = True
        if found:
            keep_what_is_in_use(self._ground)

    def tick(self, now: float) -> Outbox:
        """What other servers, weights and states of servers change, and what is due; as soon as the switches know of
        the services and servers that there are."""
        out: Outbox = []
        if not self._ground.settled:
            return out
        look, renew = now >= self._look_at, now >= self._renew_at
        if look:
            self._look_at = now + LOOK_INTERVAL
            there = {(serving.address, place) for serving in self._ground.external_ips for place in serving.slices}
            self._sent = {where: flows for where, flows in self._sent.items() if where in there}
        if renew:
            self._renew_at = now + RENEW_INTERVAL
        for serving in self._ground.external_ips:
            for place, slicing in list(serving.slices.items()) if serving.slices else ():
                out += self._divide(serving, place, slicing, now)
                for change in list(slicing.changes):
                    out += self._advance(serving, place, slicing, change, now)
                if look:
                    out += self._settle(serving, place, slicing)
                if renew and slicing.changes:
                    out += self._ground.renew(asking_flows(serving.sliced(place)))
                if slicing.left:
                    out += self._left(serving, place, now)
        return out

    # Who gets which.

    def _divide(self, serving: Serving, place: Place, slicing: Slicing, now: float) -> Outbox:
        weights = self._weights(serving, place)
        if weights == slicing.weights and not slicing.changes and not slicing.leaving:
            return []
        hops, down, switch = serving.config.hops(), serving.servers.down, self._ground.switches[serving.assigned]

        def gone(server: Endpoint) -> bool:
            reset = (place, server) in down and serving.servers.resets(place)
            return reset or server.address not in hops or slicing.datagrams and silent(server)

        def silent(server: Endpoint) -> bool:
            return (place, server) in down or hops[server.address].address in switch.hearing.silent

        before = slicing.states()
        if slicing.leaving:
            slicing.leave(gone, now)
        else:
            slicing.divide(weights, gone, silent, now)
        changed = sum(old.owner != new for old, new in zip(before, slicing.owners, strict=True))
        if before == slicing.states():
            return []
        if changed:
            self._ground.log(
                "slices change hands", external_ip=str(serving.address), service=_text(place), slices=changed
            )
        slicing.mixed |= set(range(SLICES)) if serving.unread else self._mixed(serving, place, slicing)
        return [*self._update(serving, place), self._ground.save()]

    def _weights(self, serving: Serving, place: Place) -> dict[Endpoint, int]:
        switch = self._ground.switches[serving.assigned]
        return slice_weights(serving.services[place], lambda server: serving.servers.takes(place, server),
                             lambda server: switch.hears(server.hop.address))

    # How.

    def _advance(self, serving: Serving, place: Place, slicing: Slicing, change: Change, now: float) -> Outbox:
        if change.since is None:
            return self._confirm(serving, change, now)
        waited = now - change.since
        if change.step is Step.NARROWED and waited >= NARROWED:
            change.step, change.since = Step.SWITCHED, now
        elif slicing.datagrams and change.step is Step.SWITCHED:
            if waited >= serving.idle_timeout_of(place):
                return self._flip(serving, place, slicing, change, set(change.before), [], now)
        elif change.step is Step.SWITCHED and waited >= SWITCHED:
            return self._old.look(serving, place, change, now, partial(self._flip, serving, place, slicing, change))
        elif change.step is Step.FLIPPED and waited >= FLIPPED and slicing.leaving:
            slicing.depart(change)
            return [*self._update(serving, place), self._ground.save()]
        elif change.step is Step.FLIPPED and waited >= FLIPPED:
            change.go_on(Step.SETTLING)
            return self._update(serving, place)
        elif change.step is Step.SETTLING and waited >= SETTLED:
            return self._end(serving, place, slicing, change, now)
        return []

    def _flip(
        self, serving: Serving, place: Place, slicing: Slicing, change: Change, numbers: set[int], before: Outbox,
        now: float,
    ) -> Outbox:
        """The old connections of these slices have entries, which `before` adds, or are over."""
        numbers &= change.before.keys()
        if change not in slicing.changes or not numbers:
            return []
        slicing.flip(change, numbers)
        return [*before, *self._update(serving, place)]

    def _end(self, serving: Serving, place: Place, slicing: Slicing, change: Change, now: float) -> Outbox:
        """Entries to the slices' owners are not needed: their packets go there anyway."""
        needless = [entry for entry in serving.table.snapshot()
                    if (number := slice_of_entry(serving, place, entry)) is not None and number in change.before
                    and slicing.owners[number] == Endpoint(ip_address(entry.server[0]), entry.server[1])]
        slicing.end(change)
        self._ground.log("slices have changed hands", external_ip=str(serving.address), service=_text(place),
                         slices=len(change.before), seconds=round(now - change.begun, 1))
        out = self._endings.end_all(serving, needless, now) + self._settle(serving, place, slicing)
        return [*out, self._ground.save()]

    def _left(self, serving: Serving, place: Place, now: float) -> Outbox:
        """The service has entries by connection now, or other slices."""
        ground = self._ground
        self._sent.pop((serving.address, place), None)
        keep_what_is_in_use(ground)
        ground.log("slices are gone", external_ip=str(serving.address), service=_text(place))
        return [*ground.resyncs.begin(ground.ready(), now), ground.save()]

    def _settle(self, serving: Serving, place: Place, slicing: Slicing) -> Outbox:
        """Slices without connections that have entries need not look for any."""
        if serving.unread:
            return []  # they are still to be read
        mixed = self._mixed(serving, place, slicing)
        if mixed == slicing.mixed:
            return []
        slicing.mixed = mixed
        return self._update(serving, place)

    @staticmethod
    def _mixed(serving: Serving, place: Place, slicing: Slicing) -> set[int]:
        """The slices of whose connections some have entries, though they do not change hands."""
        return slicing.mixed_of({number for entry in serving.table.entries()
                                 if (number := slice_of_entry(serving, place, entry)) is not None})

    # To the switches.

    def _update(self, serving: Serving, place: Place) -> Outbox:
        """What has changed. What goes, goes in the inverse order of that in which it came."""
        new = _flows(serving, place)
        old = self._sent.get((serving.address, place), {})
        self._sent[serving.address, place] = new
        gone = [flow for identity, flow in old.items() if identity not in new]
        return self._ground.change_alike([*new.values()], gone[::-1])

    def _confirm(self, serving: Serving, change: Change, now: float) -> Outbox:
        """The change's step is in force when all LBs have confirmed it, and it is saved. An LB that is lost meanwhile
        will be given all of it when it comes back."""
        if change.waiting is None:
            if not self._ground.switches[serving.assigned].ready:
                return []
            change.waiting = waiting = {SAVED, *(switch.lb.name for switch in self._ground.ready())}
            barriers = [ToSwitch(name, Barrier(self._token(waiting, name, name))) for name in waiting - {SAVED}]
            return [*barriers, self._ground.save(self._token(waiting, SAVED, None))]
        change.waiting -= {name for name in change.waiting - {SAVED} if not self._ground.switches[name].ready}
        if not change.waiting:
            change.since = now
        return []

    def _token(self, waiting: set[str], who: str, lb: str | None) -> int:
        def confirmed(now: float) -> Outbox:
            waiting.discard(who)
            return []

        return self._ground.tokens.new(Confirmation(lb, confirmed, lambda _, now: confirmed(now)))

    def _survives(self, state: State) -> State:
        return replace(state, slices={
            _name(serving, place): SavedSlices(tuple(slicing.owners), {
                number: server for change in slicing.changes for number, server in change.before.items()
                if change.step in (Step.NARROWED, Step.SWITCHED)}, slicing.by_client, serving.config.router)
            for serving in self._ground.external_ips if serving.slices for place, slicing in serving.slices.items()})


def _take_over(serving: Serving, place: Place, saved: SavedSlices) -> None:
    """The slices that an earlier controller has left."""
    serving.slices[place] = slicing = Slicing(saved.owners, saved.before, saved.by_client, place[0] == UDP)
    slicing.leaving = serving.services[place].leaving


def _former(serving: Serving, name: ServiceName, saved: SavedSlices) -> Service:
    """A service that is not in the site file any more, with the servers that have its slices. How they are reached
    another service may know."""
    hops, servers = serving.config.hops(), {*filter(None, saved.owners), *saved.before.values()}
    return Service(cast(Protocol, name.protocol), name.port, servers=tuple(
        Server(address, port, next_hop=None if (hop := hops.get(address, Hop(address))).address == address
               else hop.address, tunnel=hop.tunnel)
        for address, port in sorted(servers, key=str)
    ))


def _flows(serving: Serving, place: Place) -> dict[Identity, Flow]:
    """By their identities, in the order in which they are to come."""
    return {flow.identity: flow for flow in slice_flows(serving.sliced(place))}


def _name(serving: Serving, place: Place) -> ServiceName:
    return ServiceName(serving.address, serving.services[place].protocol, place[1])


def _text(place: Place) -> str:
    return f"{PROTOCOL_NAMES[place[0]]}/{place[1]}"
