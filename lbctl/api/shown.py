"""What the REST API shows of the control function: this is the one list of it.

`Shown` reads the control function's parts, and changes nothing. It is given the parts by name; each Protocol here says
what is read of one part. `of` puts it together, and views and metrics turn what it tells into answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lbctl.control import ControlFunction
from lbctl.copies.feeds import KeeperState
from lbctl.entries.access_table import Entry
from lbctl.entries.slice_entry import SliceEntry, slice_entry
from lbctl.ground.move_record import MoveRecord
from lbctl.ground.serving import Directory, Serving
from lbctl.load.balancing import Run
from lbctl.load.loads import Load
from lbctl.servers.shares import Share, shares, slice_weights
from lbctl.servers.slicing import Change, Slicing
from lbctl.servers.states import FormerServer, ServerState
from lbctl.site.model import ExternalIp, LoadBalancer, Server, Service, ServiceOrder, Site
from lbctl.switches.switch import Switch
from lbctl.values.addresses import Address, Endpoint, address_order
from lbctl.values.entry_states import SliceStateName
from lbctl.values.keys import server_key
from lbctl.values.slices import NOTHING_SENT
from lbctl.values.transfer import TransferMode


class GroundRead(Protocol):
    """site: in force, with what has been ordered for its services. switches: by the names of their LBs. counters: of
    what concerns no single LB. crashes: controllers in a row that had ended soon before this one."""

    @property
    def site(self) -> Site: ...
    @property
    def switches(self) -> Mapping[str, Switch]: ...
    @property
    def external_ips(self) -> Directory: ...
    @property
    def counters(self) -> Mapping[str, int]: ...
    @property
    def crashes(self) -> int: ...


class ServicesRead(Protocol):
    """What is ordered for services, and what their servers do."""

    def order(self, address: Address, service: Service) -> ServiceOrder: ...
    def server_state(self, address: Address, service: Service, server: Server) -> ServerState: ...
    def fails_open(self, address: Address, service: Service) -> str | None: ...
    def former_servers(self, address: Address) -> Sequence[FormerServer]: ...


class MovesRead(Protocol):
    """records: of the moves that are remembered, by their ids, the oldest first."""

    def records(self) -> Mapping[str, MoveRecord]: ...


class HealthRead(Protocol):
    """state: of an LB's data path, and why. cut_off_since: when the controller lost most LBs at once; None: it did not.
    """

    def state(self, name: str) -> tuple[str, str | None]: ...

    @property
    def cut_off_since(self) -> float | None: ...


class LoadsRead(Protocol):
    """totals: (LB, owner of the external IP, packets or bytes) -> counted since the start."""

    @property
    def totals(self) -> Mapping[tuple[str, int, str], int]: ...
    def of(self, serving: Serving, /) -> Load: ...


class ThrottleRead(Protocol):
    """limit: connection requests a second of an external IP that are passed on, while more come than can be served."""

    def limit(self, address: Address) -> float | None: ...


class BalancingRead(Protocol):
    """last: the rebalancing begun last. is_drained: does an operator want that LB empty?"""

    @property
    def last(self) -> Run | None: ...
    def is_drained(self, name: str) -> bool: ...


class KeepersRead(Protocol):
    """states: of the keepers that are told of entries."""

    def states(self, now: float) -> Sequence[KeeperState]: ...


class ChecksRead(Protocol):
    """counters: health checks since the start, by result; and those that were put off, not sent, or not counted."""

    @property
    def counters(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Of a control function."""

    ground: GroundRead
    services: ServicesRead
    moves: MovesRead
    health: HealthRead
    loads: LoadsRead
    throttle: ThrottleRead
    balancing: BalancingRead
    keepers: KeepersRead
    checks: ChecksRead


class Assigned(NamedTuple):
    """What an LB has: external IPs in ascending order, and what they carry together. connections: as of
    Shown.connection_count."""

    external_ips: list[Address]
    connections: int | None
    load: Load


Pause = Callable[[], None]


class Shown:
    """Reads a control function's parts. Addresses and names are those of the site in force."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def site(self) -> Site:
        """In force, with what has been ordered for its services."""
        return self._parts.ground.site

    def counters(self) -> Mapping[str, int]:
        """Of what concerns no single LB."""
        return self._parts.ground.counters

    # Load balancers.

    def switch(self, lb: LoadBalancer) -> Switch:
        return self._parts.ground.switches[lb.name]

    def health(self, lb: LoadBalancer) -> tuple[str, str | None]:
        """Of its data path, and why."""
        return self._parts.health.state(lb.name)

    @property
    def cut_off_since(self) -> float | None:
        """Since when the controller itself is cut off from most LBs. None: it is not."""
        return self._parts.health.cut_off_since

    @property
    def crashes(self) -> int:
        """How many controllers in a row had ended soon after their starts before this one."""
        return self._parts.ground.crashes

    def drained(self, lb: LoadBalancer) -> bool:
        """Does an operator want it empty?"""
        return self._parts.balancing.is_drained(lb.name)

    def transfer_modes(self, lb: LoadBalancer) -> Mapping[Address, TransferMode]:
        return {address: role.mode for address, role in self.switch(lb).roles.items() if role.mode}

    def assigned(self, lb: LoadBalancer, pause: Pause) -> Assigned:
        """What that LB has. pause: as of each_load_balancer."""
        addresses, connections, load = list[Address](), list[int | None](), Load()
        for serving in self._parts.ground.external_ips:
            if serving.assigned == lb.name:
                addresses.append(serving.address)
                connections.append(_connections(serving))
                load += self._parts.loads.of(serving)
                pause()
        known = [count for count in connections if count is not None]
        return Assigned(sorted(addresses, key=address_order), sum(known) if known == connections else None, load)

    def each_load_balancer(self, pause: Pause) -> Iterator[LoadBalancer]:
        """Those of the site that are still there when their turn comes. pause: is called in between, and may let others
        run, who may bring another site file."""
        for lb in self.site.load_balancers:
            if lb.name in self._parts.ground.switches:
                yield lb
                pause()

    # External IPs.

    def each_external_ip(self, pause: Pause) -> Iterator[ExternalIp]:
        """Those of the site, as they are when their turn comes. pause: as of each_load_balancer."""
        site, changed = self.site, dict[Address, ExternalIp]()
        for ip in self.site.external_ips:
            if self.site is not site:
                site, changed = self.site, {other.address: other for other in self.site.external_ips}
            now = changed.get(ip.address) if changed else ip
            if now and self._parts.ground.external_ips.get(ip.address):
                yield now
                pause()

    def assigned_to(self, address: Address) -> str:
        """The LB."""
        return self._serving(address).assigned

    def connection_count(self, address: Address) -> int | None:
        """None: nobody knows, since it has a sliced service whose servers' sockets nobody tells."""
        return _connections(self._serving(address))

    def entry_count(self, address: Address) -> int:
        """Of its access table: those by connection, and those of slices."""
        serving = self._serving(address)
        return len(serving.table) + sum(1 for _ in self.slices(address))

    def half_open_count(self, address: Address) -> int:
        return len(self._serving(address).table.half_open)

    def new_rate_limit(self, address: Address) -> float | None:
        """Connection requests a second that are passed on now, if that is less than the setting."""
        return self._parts.throttle.limit(address)

    def entries(self, address: Address) -> Sequence[Entry]:
        return self._serving(address).table.snapshot()

    def slices(self, address: Address) -> Iterable[SliceEntry]:
        """The entries of its sliced services."""
        for place, slicing in self._serving(address).slices.items():
            steps: dict[int, SliceStateName] = {
                number: change.step.value for change in slicing.changes for number in change.before}
            for number, owner in enumerate(slicing.owners):
                default = slicing.default(number)
                if server := owner or default:
                    state: SliceStateName = steps.get(number, "mixed" if number in slicing.mixed else "plain")
                    old = default if default != server else None
                    sent = slicing.sent.get(number, NOTHING_SENT)
                    yield slice_entry(address, place, slicing.by_client, number, server, state, old, sent)

    def mac_of(self, address: Address, hop: Address) -> str | None:
        """The MAC of a next hop or router, as the external IP's LB knows it; None: it does not, or does not hear it any
        more."""
        switch = self._parts.ground.switches[self.assigned_to(address)]
        return switch.neighbours[hop] if switch.hears(hop) else None

    def running_move(self, address: Address) -> MoveRecord | None:
        """The move that takes the external IP elsewhere now."""
        return self._serving(address).move

    # Services and servers.

    def order(self, ip: ExternalIp, service: Service) -> ServiceOrder:
        """What has been ordered for the service."""
        return self._parts.services.order(ip.address, service)

    def server_state(self, ip: ExternalIp, service: Service, server: Server) -> ServerState:
        return self._parts.services.server_state(ip.address, service, server)

    def shares(self, ip: ExternalIp, service: Service) -> Mapping[Endpoint, Share]:
        """Of a sliced service's servers; of another there are none."""
        slicing = self._slicing(ip, service)
        if slicing is None:
            return {}
        weights = slice_weights(service, lambda server: self.server_state(ip, service, server).takes,
                                lambda server: self.mac_of(ip.address, server.hop.address) is not None)
        return shares(service, slicing.owners, weights)

    def connections_of(self, ip: ExternalIp, service: Service, server: Server) -> int | None:
        """None: nobody knows, since some may have no entry."""
        slicing = self._slicing(ip, service)
        if slicing is None or server.endpoint not in slicing.servers():
            return self.server_state(ip, service, server).connections
        return slicing.counted(server.endpoint)

    def slice_changes(self, ip: ExternalIp, service: Service) -> Sequence[Change]:
        """The slices of a service that change hands, those together that do so together."""
        slicing = self._slicing(ip, service)
        return slicing.changes if slicing else ()

    def _slicing(self, ip: ExternalIp, service: Service) -> Slicing | None:
        """None: the service is not sliced."""
        return self._serving(ip.address).slices.get((service.protocol_number, service.port))

    def fails_open(self, ip: ExternalIp, service: Service) -> str | None:
        """Why the service takes new connections though its health checks say no. None: it doesn't."""
        return self._parts.services.fails_open(ip.address, service)

    def former_servers(self, ip: ExternalIp) -> Sequence[FormerServer]:
        return self._parts.services.former_servers(ip.address)

    def check_results(self) -> Mapping[str, int]:
        """Health checks since the start, by result; and those that were put off, not sent, or not counted."""
        return self._parts.checks.counters

    # Moves and rebalancing.

    def moves(self) -> list[MoveRecord]:
        """Those that are remembered, the oldest first."""
        return list(self._parts.moves.records().values())

    def move(self, id: str) -> MoveRecord | None:
        return self._parts.moves.records().get(id)

    def last_run(self) -> Run | None:
        """The last rebalancing."""
        return self._parts.balancing.last

    # Loads.

    def load(self, address: Address) -> Load:
        """What that external IP carries."""
        return self._parts.loads.of(self._serving(address))

    def carried(self) -> Mapping[tuple[str, int, str], int]:
        """(LB, owner of the external IP, packets or bytes) -> counted since the start."""
        return self._parts.loads.totals

    # Keepers.

    def keepers(self, now: float) -> Sequence[KeeperState]:
        """Those that are told of entries. now: seconds since the epoch."""
        return self._parts.keepers.states(now)

    def _serving(self, address: Address) -> Serving:
        serving = self._parts.ground.external_ips.get(address)
        if serving is None:
            raise KeyError(f"{address} is no external IP of this site")
        return serving


def _connections(serving: Serving) -> int | None:
    count = len(serving.table)
    for place, slicing in serving.slices.items():
        for server in slicing.servers():
            sockets = slicing.counted(server)
            if sockets is None:
                return None
            key = server_key(place[0], server.address.packed, server.port)
            count += max(0, sockets - serving.table.connections_to.get(key, 0))
    return count


def of(control: ControlFunction) -> Shown:
    """What is shown of a control function."""
    return Shown(Parts(
        ground=control.ground, services=control.services, moves=control.movement, health=control.detection,
        loads=control.loads, throttle=control.throttle, balancing=control.balancing, keepers=control.feeds,
        checks=control.checker))
