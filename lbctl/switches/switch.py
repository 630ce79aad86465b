"""One LB's switch as the controller sees it: its connection, its ports, what it should hold and what it does hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from lbctl.openflow.delivery_rules import delivery_flows, direct_servers
from lbctl.openflow.errors import Refusal
from lbctl.openflow.flow import Flow, Identity, Place
from lbctl.openflow.messages import AddFlows, DeleteFlows, Message
from lbctl.openflow.ports import Port, Ports
from lbctl.openflow.probe_rules import Watched
from lbctl.openflow.rules import ABSENT, Role, all_flows, external_ip_flows, flow_portions, role_flows
from lbctl.openflow.slice_rules import way_back_flows
from lbctl.openflow.source_rules import Internal
from lbctl.site.model import ExternalIp, LoadBalancer
from lbctl.switches.hearing import Hearing
from lbctl.switches.held import Held
from lbctl.values.addresses import Address

Condition = Literal["disconnected", "reading", "unfit", "ready"]
Limits = tuple[int | None, int | None]
"""Of the external and the internal network."""


@dataclass(frozen=True, slots=True)
class PortState:
    """A port of the site file as the switch reports it; number and mac are None if the switch has no such port."""

    name: str
    number: int | None = None
    mac: str | None = None
    up: bool = False

    @property
    def of_port(self) -> Port | None:
        """As flows name it; None if the switch has no such port."""
        return None if self.number is None or self.mac is None else Port(self.number, self.mac)


class Switch:
    """States: disconnected; reading (what it holds is being read back); ready. Of a large site, it is ready, and takes
    orders, some time before it is `whole`.

    `reason` says why it is not connected, or what is wrong with its ports.
    """

    def __init__(
        self,
        lb: LoadBalancer,
        watched: Watched | None = None,
        limits: Limits = (None, None),
        alike: Callable[[], Iterable[list[Flow]]] = tuple,
        internal: Callable[[], Internal] = Internal,
    ) -> None:
        """watched: how other LBs' probes mean it; None: they don't. limits: see Port.limit, of both networks. alike:
        the flows that all LBs hold, besides those that follow from the site."""
        self.lb = lb
        self.limits = limits
        self.watched = watched
        self._alike = alike
        self._internal = internal
        self.state = "disconnected"
        self.whole = False
        """Has it been sent all that it missed when it came?"""
        self.confirmed = False
        """Has it said that it holds what was ordered when it came?"""
        self.refusal: Refusal | None = None
        """What it has refused and has not taken since."""
        self.foreign = 0
        """Flows in its tables that are none of ours."""
        self.reason: str | None = "has not connected yet"
        self.ports = {role: PortState(name) for role, name in lb.ports().items()}
        """By what they are for: external, internal, or a transport."""
        self.roles: dict[Address, Role] = {}
        """Read only: see expect."""
        self.served_version = 0
        """Another one once other external IPs have a transfer mode here."""
        self.neighbours: dict[Address, str] = {}
        """The MACs of next hops and routers that are known here."""
        self.hearing = Hearing()
        """Which of them still answer."""
        self.counters: Counter[str] = Counter()
        self.lost_at = 0.0
        """When its last connection ended."""
        self.ports_reported: tuple[PortState, ...] = ()
        self._known_ports: Ports | None = None
        self.held = Held()
        """The flows besides entries that it should hold by now."""

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @property
    def fit(self) -> bool:
        """Is it known to hold what it was ordered to? Only such an LB gets external IPs."""
        return self.ready and self.confirmed and self.refusal is None

    @property
    def condition(self) -> Condition:
        """For people: its state, but ready is only who is fit."""
        if self.state == "disconnected":
            return "disconnected"
        if self.refusal:
            return "unfit"
        return "ready" if self.fit else "reading"

    @property
    def trouble(self) -> str | None:
        """Why it is not ready, or what is wrong with it."""
        return f"{self.refusal}; {self.refusal.mend}" if self.refusal else self.reason

    @property
    def of_ports(self) -> Ports | None:
        """None until the switch has shown both networks' ports. A port that went away is remembered."""
        return self._known_ports

    @property
    def ports_up(self) -> bool:
        """Are all of its ports there, and up?"""
        return all(port.up for port in self.ports.values())

    def hears(self, hop: Address) -> bool:
        """Is the MAC of that next hop or router known here, and does it answer?"""
        return hop in self.neighbours and hop not in self.hearing.silent

    def set_ports(self, reported: Iterable[PortState]) -> None:
        """All ports that the switch has now."""
        self.ports_reported = tuple(reported)
        by_name = {port.name: port for port in self.ports_reported}
        self.ports = {role: by_name.get(name, PortState(name)) for role, name in self.lb.ports().items()}
        missing = [port.name for port in self.ports.values() if port.number is None]
        down = [port.name for port in self.ports.values() if not port.up]
        if missing:
            self.reason = (f"the bridge has no port {' and no port '.join(missing)}: add it with "
                           f"ovs-vsctl add-port, or correct the site file")
        else:
            self.reason = f"port {' and port '.join(down)} is down" if down else None
        external, internal = self.ports["external"].of_port, self.ports["internal"].of_port
        if external and internal:
            external, internal = (replace(port, limit=limit)
                                  for port, limit in zip((external, internal), self.limits, strict=True))
            self._known_ports = Ports(external, internal, self._tunnel_ports(internal.mac))

    def _tunnel_ports(self, mac: str) -> dict[str, Port]:
        """By transport: those that there are, and those that went away."""
        before = self._known_ports.tunnels if self._known_ports else {}
        found = {}
        for transport, _ in self.lb.tunnel_ports:
            number = self.ports[transport].number
            port = before.get(transport) if number is None else Port(number, mac)
            if port:
                found[transport] = port
        return found

    def change_ports(self, lb: LoadBalancer, limits: Limits) -> None:
        """Another site file names other ports, found among those that the switch has reported; or other limits."""
        self.lb, self.limits = lb, limits
        self.set_ports(self.ports_reported)

    def expect(self, address: Address, role: Role) -> None:
        """What it is to do for an external IP from when it has been read back on."""
        if bool(role.mode) != bool(self.role(address).mode):
            self.served_version += 1
        self.roles[address] = role

    def forget(self, address: Address) -> None:
        """It is no external IP any more."""
        self.expect(address, ABSENT)
        del self.roles[address]

    def role(self, address: Address) -> Role:
        return self.roles.get(address, ABSENT)

    def disconnected(self, reason: str, now: float) -> None:
        self.state, self.reason, self.lost_at = "disconnected", reason, now
        self.whole = self.confirmed = False
        self.refusal, self.foreign = None, 0
        self.held.clear()
        self.hearing.forget()

    def set_role(self, external_ip: ExternalIp, role: Role) -> list[Message]:
        """Changes what the LB does for one external IP; at once if it is ready, else when it has been read back."""
        before = self.role(external_ip.address)
        self.expect(external_ip.address, role)
        ports = self.of_ports
        if not self.ready or ports is None:
            return []
        old = {flow.identity: flow for flow in role_flows(external_ip, before, ports)}
        new = {flow.identity: flow for flow in role_flows(external_ip, role, ports)}
        return self._apply(new, old)

    def has_role(self, external_ip: ExternalIp, role: Role, held: Collection[Place]) -> bool:
        """Does a switch that holds these do that for the external IP?"""
        return self.of_ports is not None and all(
            flow.place in held for flow in external_ip_flows(external_ip, role, self.of_ports))

    def change(self, before: ExternalIp, after: ExternalIp, others: Iterable[ExternalIp]) -> list[Message]:
        """An external IP has become another. others: those that use what it has given up as well."""
        ports = self.of_ports
        if not self.ready or ports is None:
            return []
        old, new, kept = ({flow.identity: flow for flow in all_flows(external_ips, self.roles, self.neighbours, ports)}
                          for external_ips in ([before], [after], others))
        return self._apply(new, {identity: flow for identity, flow in old.items() if identity not in kept})

    def set_neighbour(self, hop: Address, mac: str, external_ips: Iterable[ExternalIp]) -> list[Message]:
        """The MAC of that next hop (or router) is this now. external_ips: those with servers behind it, or whose router
        it is."""
        if self.neighbours.get(hop) == mac:
            return []
        external_ips = list(external_ips)
        self.neighbours[hop] = mac
        if not self.ready or self.of_ports is None:
            return []
        hops = {server: way for external_ip in external_ips for server, way in self.of_ports.hops(external_ip).items()
                if way.address == hop}
        flows = [*delivery_flows(hops, {hop: mac}, self.of_ports, direct_servers(external_ips)),
                 *way_back_flows(external_ips, {hop: mac})]
        return self._apply({flow.identity: flow for flow in flows}, {})

    def portions(self, external_ips: Iterable[ExternalIp]) -> Iterator[list[Flow]]:
        """All that it should hold besides entries, a few flows at a time: see openflow/rules.py."""
        if self.of_ports is not None:
            yield from flow_portions(external_ips, self.roles, self.neighbours, self.of_ports, self.watched,
                                     self._internal())
            yield from self._alike()

    def alike_changed(self, come: Iterable[Flow], gone: Iterable[Flow]) -> list[Message]:
        """What all LBs hold is another."""
        if not self.ready or self.of_ports is None:
            return []
        return self._apply({flow.identity: flow for flow in come}, {flow.identity: flow for flow in gone})

    def renew(self, flows: Iterable[Flow]) -> list[Message]:
        """Flows that it holds for some time only, once more."""
        return [AddFlows(tuple(flows))] if self.ready else []

    def _apply(self, wanted: dict[Identity, Flow], old: dict[Identity, Flow]) -> list[Message]:
        """Makes `old` into `wanted`: adds (or replaces) first, so that nothing that stays is ever missing."""
        changed = tuple(flow for flow in wanted.values() if not self.held.has(flow))
        gone = tuple(flow for identity, flow in old.items() if identity not in wanted)
        self.held.change(changed, gone)
        messages: list[Message] = []
        if changed:
            messages.append(AddFlows(changed))
        if gone:
            messages.append(DeleteFlows(gone))
        return messages
