"""How a connection opens: from a client's first packet, for which a server is chosen; or from an inside host's, which a NAT
gateway takes to the outside. Both end as an entry."""

from __future__ import annotations

from collections import Counter

from lbctl.entries.access_table import Entry
from lbctl.entries.translation import outbound_keys
from lbctl.frames.packets import Packet, parse_mac
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.servers.states import Place
from lbctl.site.model import Server, Service
from lbctl.switches.switch import Switch
from lbctl.values.addresses import Address
from lbctl.values.keys import pack_key, unpack_key

LOG_INTERVAL = 60.0
"""Seconds between two log lines about what keeps connections from opening."""
HINTS = {"full": "a larger max_connections or more servers (lbctl server add) take more",
         "down": "lbctl server list shows what the health checks say of each server",
         "drained": "lbctl drain-server --undo lets a server take connections again"}
"""What to do, by what keeps a service's servers from taking connections."""


class Refusal(Exception):
    """No entry. `wait` names what will be there soon (the sender asks again); None: the sender must be told."""

    def __init__(self, wait: str | None = None) -> None:
        super().__init__(wait)
        self.wait = wait


class Opening:
    """Makes the entries of new connections; the caller puts them into the access table."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._told: dict[tuple[Address, str], float] = {}
        """When which trouble of an external IP was logged last."""

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
        neighbours, takes, place = switch.neighbours, serving.servers.takes, (protocol, port)

        def allowed(server: Server) -> bool:
            return takes(place, server) and server.hop.address in neighbours and serving.can_translate(key, server, now)

        client = key[1:len(key) + 1 >> 1]
        server = serving.schedulers[place].choose(client, allowed)
        if server is None:
            taking = [server for server in service.servers if takes(place, server)]
            reached = [server for server in taking if server.hop.address in neighbours]
            if not taking:
                self._none_takes(switch, serving, place, service, now)
            elif serving.allocation and reached:
                self._exhausted(switch, serving, now)
            elif len(reached) < len(taking):
                raise Refusal("server_unresolved")
            raise Refusal()
        return Entry(key, serving.translate(key, server, now), packet.eth_src, now, packet.seq)

    def _to_outside(self, switch: Switch, serving: Serving, packet: Packet, reply: bytes, now: float) -> Entry:
        """Seed modifications 3 and 6: translation without load balancing."""
        router = switch.neighbours.get(serving.config.router)
        if router is None:
            raise Refusal("router_unresolved")
        place = serving.allocation.give((packet.protocol, packet.dst, packet.dst_port), now, self._ground.settings.time_wait)
        if place is None:
            self._exhausted(switch, serving, now)
            raise Refusal()
        key, reply = outbound_keys(reply, place)
        return Entry(key, reply, parse_mac(router), now, packet.seq, inner_hop=packet.eth_src)

    def _none_takes(self, switch: Switch, serving: Serving, place: Place, service: Service, now: float) -> None:
        """No server takes connections. Counted by what is nearest to an end of that: a full one has room when a connection ends, one that
        is down comes back, a drained one is up to the operator."""
        reason = serving.servers.obstacle(place)
        switch.counters[f"servers_{reason}"] += 1
        name = f"{service.protocol}/{service.port}"
        if self._to_be_told(serving, f"{name} {reason}", now):
            states = Counter(serving.servers.state(place, server).state for server in service.servers)
            self._ground.log("no server takes connections: clients are refused", level="warning", lb=switch.lb.name,
                      external_ip=str(serving.address), service=name, **states, hint=HINTS[reason])

    def _exhausted(self, switch: Switch, serving: Serving, now: float) -> None:
        """Every connection that finds no port is counted; the log tells it once a minute."""
        switch.counters["ports_exhausted"] += 1
        if self._to_be_told(serving, "ports", now):
            self._ground.log("no translated port left", level="warning", lb=switch.lb.name, external_ip=str(serving.address),
                      hint="a larger port_range, more internal_ips or more servers give more ports")

    def _to_be_told(self, serving: Serving, trouble: str, now: float) -> bool:
        """Has it not been logged for a while? The troubles of a site are few, so nothing is forgotten."""
        if now < self._told.get((serving.address, trouble), float("-inf")) + LOG_INTERVAL:
            return False
        self._told[serving.address, trouble] = now
        return True
