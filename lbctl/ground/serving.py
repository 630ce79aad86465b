"""What the control function keeps for each external IP, and finds it by: an address in a packet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from functools import cached_property

from lbctl.entries.access_table import ENDING, GONE, AccessTable, Entry
from lbctl.entries.echo import Echoes
from lbctl.entries.held import HeldPackets
from lbctl.entries.mappings import Mappings
from lbctl.entries.nat_records import RecordedEvent
from lbctl.entries.translation import Allocation, Slot, full_reply
from lbctl.ground.move_record import MoveRecord
from lbctl.openflow.slice_rules import Sliced
from lbctl.servers.schedulers import Scheduler, scheduler_for
from lbctl.servers.slicing import Slicing
from lbctl.servers.states import ServerStates
from lbctl.site.model import PORTS, ExternalIp, Hop, NatBehaviour, Server, Service, Settings, Tunnel
from lbctl.values.addresses import Address, Endpoint, Network
from lbctl.values.keys import Place, reply_key, server_key, server_key_of, service_of, unpack_key
from lbctl.values.owners import owner_of
from lbctl.values.side import EXTERNAL, INTERNAL, Side


class Serving:
    """One external IP at work. seed: where its translated ports start, see Allocation. drained: see
    ServerStates.configure."""

    def __init__(self, config: ExternalIp, assigned: str, settings: Settings, seed: int = 0,
                 drained: Iterable[tuple[Place, Endpoint]] = ()) -> None:
        self.config = config
        self.owner = owner_of(config.address.packed)
        """What it is in cookies."""
        self.settings = settings
        self.assigned = assigned
        self.since = float("-inf")
        """When it was assigned to that LB, as far as is known: its counters there are not older."""
        self.table = AccessTable()
        self.holders: set[str] = {assigned}
        """The LBs that are given its entries: one, or two while it moves."""
        self.unread: set[str] = {assigned}
        """The LBs whose entries are still to be taken over from an earlier controller."""
        self.move: MoveRecord | None = None
        """Of the move that is running."""
        self.held = HeldPackets(settings)
        self.services: dict[Place, Service] = {}
        """By protocol number and port."""
        self.schedulers: dict[Place, Scheduler] = {}
        self.slices: dict[Place, Slicing] = {}
        """Of the sliced services."""
        self.servers = ServerStates(self.table)
        self.allocation: Allocation | None = None
        """None: destination NAT, where ports stay as they are; or there are mappings."""
        self.mappings: Mappings | None = None
        """Of a NAT gateway with endpoint-independent mapping."""
        self.ports: Allocation | Mappings | None = None
        """Whichever there is."""
        self.recorder: Callable[[RecordedEvent, Entry, float], None] | None = None
        """Is told, with the time, of each entry that is opened, found, or ends; None: nobody wants to know."""
        self.inner: Allocation | None = None
        """Destination NAT: of clients inside, who share the servers' network, and whose answers would miss the LB."""
        self.hopless: list[Entry] = []
        """Entries whose next hop no copy has told."""
        self.echoes = Echoes()
        self.opened = 0
        """Connections, since the control function started."""
        self._seed = seed
        self._set_services(config, drained)
        self._set_allocation()

    @property
    def address(self) -> Address:
        return self.config.address

    @property
    def outbound(self) -> bool:
        """A NAT gateway: connections are opened from inside."""
        return self.config.kind == "nat-gateway"

    def assign(self, lb: str, now: float) -> None:
        self.assigned, self.since = lb, now

    def reconfigure(
        self, config: ExternalIp, settings: Settings, drained: Iterable[tuple[Place, Endpoint]] = ()
    ) -> None:
        """Another site file or order: connections stay, new ones follow the new services."""
        before, self.config, self.settings = self.config, config, settings
        self._set_services(config, drained)
        if (_translated_to(before), before.gateway) != (_translated_to(config), config.gateway):
            self._set_allocation()

    def tunnel_to(self, server: bytes) -> Tunnel | None:
        """The tunnel that the server (packed) is behind; None: no server, or on the internal network."""
        return self._tunnels.get(server)

    def limit(self, side: Side, destination: bytes) -> int | None:
        """Bytes that an IP packet may have that goes to that side, to `destination` (packed); None: all that come."""
        tunnel = self.tunnel_to(destination) if side is INTERNAL else None
        return tunnel.mtu if tunnel else self.settings.limit(side)

    def _set_services(self, config: ExternalIp, drained: Iterable[tuple[Place, Endpoint]]) -> None:
        """A scheduler goes on where it was if its service has not changed."""
        self._tunnels = {server.packed: hop.tunnel for server, hop in config.hops().items() if hop.tunnel}
        before = self.services
        self.services = {(service.protocol_number, service.port): service for service in config.services}
        self.schedulers = {
            place: self.schedulers[place]
            if before.get(place) == service
            else scheduler_for(service, self.table.connections_to)
            for place, service in self.services.items()
        }
        self.slices = {place: self._slicing(place, service) for place, service in self.services.items()
                       if service.sliced}
        gone = [(place, server.endpoint) for place, service in self.services.items() if service.gone
                for server in service.servers]
        self.servers.configure(self.services, [*drained, *gone])

    def _slicing(self, place: Place, service: Service) -> Slicing:
        found = self.slices.get(place)
        if found is None or found.by_client != service.by_client:
            found = Slicing(by_client=service.by_client, datagrams=service.protocol == "udp")
        found.leaving = service.leaving
        return found

    def _set_allocation(self) -> None:
        addresses, ports, outbound, mapping = _translated_to(self.config)
        kind = Mappings if mapping == "endpoint-independent" else Allocation
        gateway = self.config.gateway
        if not addresses and gateway and not self.config.direct:
            if self.inner:
                self.inner.change((gateway.packed,), PORTS)
            else:
                self.inner = Allocation(self.table, (gateway.packed,), PORTS, False, self._seed)
        if not addresses:
            self.ports = None
        elif isinstance(self.ports, kind):
            self.ports.change(addresses, ports)
        elif kind is Mappings:
            self.ports = Mappings(self.table, addresses[0], ports, self._seed)
        else:
            self.ports = Allocation(self.table, addresses, ports, outbound, self._seed)
        self.allocation = self.ports if isinstance(self.ports, Allocation) else None
        self.mappings = self.ports if isinstance(self.ports, Mappings) else None

    def allocation_for(self, side: Side) -> Allocation | None:
        """Of a client on that side; None: its address and port stay as they are."""
        return self.allocation or (self.inner if side is INTERNAL else None)

    def can_translate(self, key: bytes, server: Server, now: float, side: Side = EXTERNAL) -> bool:
        """Can a connection of that key go to that server? side: where its client is."""
        allocation = self.allocation_for(side)
        if allocation is None:
            return self.table.by_reply(reply_key(key, server.address.packed, server.port)) is None
        return allocation.available((key[0], server.address.packed, server.port), now, self.settings.time_wait)

    def translate(self, key: bytes, server: Server, now: float, side: Side = EXTERNAL) -> bytes | None:
        """The reply key of a connection of that key to that server; takes a port where one is needed. None: there is
        none."""
        allocation = self.allocation_for(side)
        if allocation is None:
            return reply_key(key, server.address.packed, server.port)
        place = allocation.give((key[0], server.address.packed, server.port), now, self.settings.time_wait)
        return full_reply(key, server.address.packed, server.port, place) if place else None

    def outward(self, key: bytes, inner_hop: bytes, now: float) -> Slot | None:
        """NAT gateway: what an inside host's packet of that key is translated to, taken for one entry more. None: there
        is no port. inner_hop: the MAC that it came from."""
        if self.mappings:
            return self.mappings.outward(key, inner_hop, now, self.settings.time_wait)
        return self.allocation.outward(key, now, self.settings.time_wait) if self.allocation else None

    def sliced(self, place: Place) -> Sliced:
        """A sliced service, as its flows are made of it."""
        direct = self.config.direct
        answering = frozenset[Endpoint]() if direct else self.answering(place)
        return Sliced(self.address, self.services[place], self.slices[place].states(), answering, direct)

    def answering(self, place: Place) -> frozenset[Endpoint]:
        """The servers of a sliced service that may answer connections without an entry."""
        return frozenset(server.endpoint for server in self.services[place].servers) | self.slices[place].servers()

    def remove(self, entry: Entry, now: float) -> None:
        """Takes an entry out of the table, and frees its port."""
        if ports := self._ports_of(entry):
            ports.freed(entry, now)
        self.table.remove(entry)
        if self.recorder:
            self.recorder("ended", entry, now)

    def _ports_of(self, entry: Entry) -> Allocation | Mappings | None:
        return self.ports or (self.inner if self.inner and entry.full else None)

    def forget_ports(self) -> None:
        """The access table has been filled from outside: which ports are taken is found anew."""
        for ports in (self.ports, self.inner):
            if ports:
                ports.forget()

    def restore(self, entry: Entry, now: float) -> bool:
        """Puts an entry that was removed back into the table, with its port. False if its keys or its port are
        another's by now."""
        table = self.table
        if table.by_key(entry.key) or table.by_reply(entry.reply):
            return False
        ports = self._ports_of(entry)
        if ports and not ports.take_back(entry):
            return False
        entry.flags &= ~GONE
        table.add(entry)
        if self.recorder:
            self.recorder("opened", entry, now)
        return True

    def next_hops(self) -> set[Address]:
        """The next hops and routers that an LB must reach to serve it."""
        return {hop.address for hop in self.config.hops().values()} | (
            {self.config.router} if self.config.router else set()
        )

    def tidy(self, now: float) -> None:
        """Forgets what nobody needs any more. To be called now and then."""
        for ports in (self.ports, self.inner):
            if ports:
                ports.tidy(now, self.settings.time_wait)

    def error_source(self, destination: bytes, way: Side) -> bytes:
        """Whom an error comes from that answers a packet to `destination` (packed), a client's (EXTERNAL) or one from a
        server or inside host: the address that was asked, if it is one of this external IP's; else the gateway."""
        if way is EXTERNAL or any(destination == address.packed for address in self.config.internal_addresses()):
            return destination
        return self.config.internal_addresses()[0].packed

    def idle_since(self, entries: Collection[Entry], now: float, read_since: float) -> list[Entry]:
        """Those of its entries that have been idle for too long. read_since: when the reading began in which each
        entry's packets have been counted last; what has had some is not idle, however long the reading takes."""
        closing = now - self.settings.half_closed_timeout
        if any(service.idle_timeout is not None for service in self.services.values()):
            places = {place: now - self.idle_timeout_of(place) for place in {service_of(e.key) for e in entries}}
            idle = [entry for entry in entries if entry.last_seen <= places[service_of(entry.key)]
                    or entry.last_seen <= closing and entry.flags & ENDING]
        else:
            limits = {number: now - self.settings.idle_timeout_of(number) for number in {e.key[0] for e in entries}}
            idle = [entry for entry in entries if entry.last_seen <= limits[entry.key[0]]
                    or entry.last_seen <= closing and entry.flags & ENDING]
        return [entry for entry in idle if entry.last_seen < read_since]

    def idle_timeout_of(self, place: Place) -> float:
        """Seconds that an entry of that service may be idle."""
        service = self.services.get(place)
        own = service.idle_timeout if service else None
        return self.settings.idle_timeout_of(place[0]) if own is None else own


def _translated_to(config: ExternalIp) -> tuple[tuple[bytes, ...], tuple[int, int], bool, NatBehaviour]:
    """Addresses and ports that connections are translated to, whether they are opened from inside, and the mapping."""
    outbound = config.kind == "nat-gateway"
    addresses = (config.address,) if outbound else config.internal_ips
    return tuple(address.packed for address in addresses), config.port_range, outbound, config.mapping


class _Index:
    """Of some external IPs: each part is made when it is needed first, since a large site's take long."""

    def __init__(self, servings: list[Serving]) -> None:
        self._servings = servings

    @cached_property
    def by_internal(self) -> dict[bytes, Serving]:
        return {address.packed: serving for serving in self._servings for address in serving.config.every_internal_ip()}

    @cached_property
    def by_server(self) -> dict[bytes, Serving]:
        return {server.packed: serving for serving in self._servings if serving.config.has_own_servers
                for server in serving.config.server_addresses()}

    @cached_property
    def servers(self) -> set[bytes]:
        return {server.packed for serving in self._servings for server in serving.config.hops()}

    @cached_property
    def served(self) -> set[bytes]:
        return {
            server_key(protocol, server.address.packed, server.port)
            for serving in self._servings if serving.config.nat == "destination"
            for (protocol, _), service in serving.services.items() for server in service.servers
        }

    @cached_property
    def inside(self) -> list[tuple[int, int, int, Serving]]:
        """(bytes of an address, network, mask, serving)"""
        return [(*_mask(prefix), serving) for serving in self._servings for prefix in serving.config.inside]

    @cached_property
    def hops(self) -> dict[Address, Hop]:
        return {hop.address: hop for serving in self._servings for hop in serving.config.hops().values()}

    @cached_property
    def routers(self) -> set[Address]:
        return {serving.config.router for serving in self._servings if serving.config.router}

    @cached_property
    def behind(self) -> dict[Address, list[ExternalIp]]:
        found: dict[Address, list[ExternalIp]] = {}
        for serving in self._servings:
            config = serving.config
            routers = [config.router] if config.router else []
            for address in [*(hop.address for hop in config.hops().values()), *routers]:
                configs = found.setdefault(address, [])
                if not configs or configs[-1] is not config:
                    configs.append(config)
        return found


class Directory:
    """Every external IP, found by an address in a packet (packed)."""

    def __init__(self) -> None:
        self.by_address: dict[bytes, Serving] = {}
        self.by_owner: dict[int, Serving] = {}
        self._index = _Index([])

    def __iter__(self) -> Iterator[Serving]:
        return iter(self.by_address.values())

    def get(self, address: Address) -> Serving | None:
        return self.by_address.get(address.packed)

    def replace(self, servings: list[Serving]) -> None:
        """These, and their configurations as they are now."""
        self.by_address = {serving.address.packed: serving for serving in servings}
        self.by_owner = {serving.owner: serving for serving in servings}
        self._index = _Index(servings)

    def of_packet(self, src: bytes, dst: bytes, way: Side) -> Serving | None:
        """Whose packet it is: EXTERNAL, a client's to an external IP; INTERNAL, a server's or an inside host's. The
        order is that of the priorities in table transfer_mode."""
        if way is EXTERNAL:
            return self.by_address.get(dst)
        return self._index.by_internal.get(dst) or self._index.by_server.get(src) or self.gateway_of(src)

    def answers(self, key: bytes) -> bool:
        """Does a packet of that key come from where a server, by destination NAT, serves?"""
        return server_key_of(key) in self._index.served

    def of_reply(self, key: bytes) -> tuple[Serving, Entry] | None:
        """The entry whose packets from inside carry that key, and its external IP: a server's packets may be its NAT
        gateway's, too."""
        _, src, _, dst, _ = unpack_key(key)
        for serving in (self.of_packet(src, dst, INTERNAL), self.gateway_of(src)):
            if serving and (entry := serving.table.by_reply(key)):
                return serving, entry
        return None

    def is_inside(self, host: bytes) -> bool:
        """Is it (packed) a server, or an inside host of a NAT gateway?"""
        return host in self._index.servers or self.gateway_of(host) is not None

    def gateway_of(self, src: bytes) -> Serving | None:
        """The NAT gateway of that inside host (packed)."""
        number, size = int.from_bytes(src), len(src)
        return next((serving for length, network, mask, serving in self._index.inside
                     if length == size and number & mask == network), None)

    def hops(self) -> Mapping[Address, Hop]:
        """The next hops to all servers, whose MACs the LBs must know, by their addresses."""
        return self._index.hops

    def routers(self) -> Set[Address]:
        """The routers on the external network, whose MACs the LBs must know."""
        return self._index.routers

    def behind(self, hop: Address) -> list[ExternalIp]:
        """The external IPs with servers whose next hop that is, or whose router."""
        return self._index.behind.get(hop, [])


def _mask(prefix: Network) -> tuple[int, int, int]:
    return prefix.max_prefixlen // 8, int(prefix.network_address), int(prefix.netmask)
