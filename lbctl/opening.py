"""How a connection opens: from a client's first packet, for which a server is chosen; or from an inside host's, which a NAT
gateway takes to the outside. Both end as an entry."""

from __future__ import annotations

from collections.abc import Callable

from lbctl.access_table import Entry, pack_key, unpack_key
from lbctl.model import Address, Server, Settings
from lbctl.packets import Packet, parse_mac
from lbctl.serving import Serving
from lbctl.switch import Switch
from lbctl.translation import outbound_keys

Log = Callable[..., None]
EXHAUSTED_LOG_INTERVAL = 60.0


class Refusal(Exception):
    """No entry. `wait` names what will be there soon (the sender asks again); None: the sender must be told."""

    def __init__(self, wait: str | None = None) -> None:
        super().__init__(wait)
        self.wait = wait


class Opening:
    """Makes the entries of new connections; the caller puts them into the access table."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.settings = settings
        self._log = log
        self._told_exhausted: dict[Address, float] = {}

    def entry(self, switch: Switch, serving: Serving, packet: Packet, inward: bool, now: float) -> Entry:
        """The entry of a connection that this packet opens. Raises Refusal."""
        key = pack_key(packet.protocol, packet.src, packet.src_port, packet.dst, packet.dst_port)
        make = self._to_server if inward else self._to_outside
        return make(switch, serving, packet, key, now)

    def _to_server(self, switch: Switch, serving: Serving, packet: Packet, key: bytes, now: float) -> Entry:
        protocol, _, _, _, port = unpack_key(key)
        service = serving.services.get((protocol, port))
        if service is None:
            raise Refusal()
        neighbours = switch.neighbours

        def allowed(server: Server) -> bool:
            return server.hop.address in neighbours and serving.can_translate(key, server, now)

        client = key[1:len(key) + 1 >> 1]
        server = serving.schedulers[protocol, port].choose(client, allowed)
        if server is None:
            reached = [server for server in service.servers if server.hop.address in neighbours]
            if serving.allocation and reached:
                self._exhausted(switch, serving, now)
            elif len(reached) < len(service.servers):
                raise Refusal("server_unresolved")
            raise Refusal()
        return Entry(key, serving.translate(key, server, now), packet.eth_src, now, packet.seq)

    def _to_outside(self, switch: Switch, serving: Serving, packet: Packet, reply: bytes, now: float) -> Entry:
        """Seed modifications 3 and 6: translation without load balancing."""
        router = switch.neighbours.get(serving.config.router)
        if router is None:
            raise Refusal("router_unresolved")
        place = serving.allocation.give((packet.protocol, packet.dst, packet.dst_port), now, self.settings.time_wait)
        if place is None:
            self._exhausted(switch, serving, now)
            raise Refusal()
        key, reply = outbound_keys(reply, place)
        return Entry(key, reply, parse_mac(router), now, packet.seq, inner_hop=packet.eth_src)

    def _exhausted(self, switch: Switch, serving: Serving, now: float) -> None:
        """Every connection that finds no port is counted; the log tells it once a minute."""
        switch.counters["ports_exhausted"] += 1
        if now >= self._told_exhausted.get(serving.address, float("-inf")) + EXHAUSTED_LOG_INTERVAL:
            self._told_exhausted[serving.address] = now
            self._log("no translated port left", level="warning", lb=switch.lb.name, external_ip=str(serving.address),
                      hint="a larger port_range, more internal_ips or more servers give more ports")
