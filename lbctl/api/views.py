"""From what is shown of the control function to the response types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, inet_ntop
from typing import cast

from lbctl.api import service_types as s
from lbctl.api import types as t
from lbctl.api.shown import Pause, Shown
from lbctl.assignment import Plan, PlannedMove
from lbctl.copies.feeds import KeeperState
from lbctl.entries.access_table import Entry
from lbctl.entries.slice_entry import SliceEntry
from lbctl.ground.move_record import MoveRecord
from lbctl.load.balancing import Run
from lbctl.load.loads import Load
from lbctl.servers.shares import Share
from lbctl.servers.slicing import Change
from lbctl.servers.states import FormerServer
from lbctl.site.model import ExternalIp, LoadBalancer, Protocol, Server, Service, Settings
from lbctl.switches.switch import PortState
from lbctl.values.addresses import Address
from lbctl.values.entry_states import EntryState
from lbctl.values.keys import unpack_key
from lbctl.values.protocols import PROTOCOL_NAMES
from lbctl.values.slices import PORT_MASK, clients_of

ANYBODY = "any"
"""The client of a slice's entry."""
DROPPED = "dropped_"
"""What a counter's name begins with when it counts dropped packets; the reason follows."""


def iso(time: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_if_known(time: float | None) -> str | None:
    return None if time is None else iso(time)


def load_balancer(shown: Shown, lb: LoadBalancer, pause: Pause) -> t.LoadBalancerView:
    """pause: see Shown.each_load_balancer."""
    switch, (health, why), drained = shown.switch(lb), shown.health(lb), shown.drained(lb)
    assigned = shown.assigned(lb, pause)
    return t.LoadBalancerView(
        name=lb.name, dpid=f"{lb.dpid:016x}", state=switch.condition, reason=switch.trouble,
        health=health, health_reason=why, standby=lb.standby, ports=_ports(switch.ports, shown.site.settings),
        internal_networks=list(map(str, shown.site.internal_networks)),
        external_ips=_texts(assigned.external_ips, pause), connections=assigned.connections, drained=drained,
        capacity=lb.capacity, load=_load(assigned.load), foreign_flows=switch.foreign,
        counters=counters(switch.counters))


def _texts(addresses: Iterable[Address], pause: Pause) -> list[str]:
    texts = []
    for address in addresses:
        texts.append(str(address))
        pause()
    return texts


def external_ip(shown: Shown, ip: ExternalIp) -> t.ExternalIpView:
    move = shown.running_move(ip.address)
    return t.ExternalIpView(
        address=str(ip.address), load_balancer=shown.assigned_to(ip.address), kind=ip.kind, nat=ip.nat,
        gateway=_optional(ip.gateway), internal_ips=list(map(str, ip.internal_ips)), inside=list(map(str, ip.inside)),
        port_range=list(ip.port_range) if ip.internal_ips or ip.inside else [],
        router=t.RouterView(address=str(ip.router), mac=shown.mac_of(ip.address, ip.router)) if ip.router else None,
        mapping=ip.mapping if ip.inside else None, filtering=ip.filtering if ip.inside else None,
        services=[service_of(shown, ip, service) for service in ip.services],
        former_servers=[_former_server(shown, ip, former) for former in shown.former_servers(ip)],
        connections=shown.connection_count(ip.address), half_open=shown.half_open_count(ip.address),
        new_rate_limit=shown.new_rate_limit(ip.address), load=_load(shown.load(ip.address)),
        move=move.id if move else None)


def _former_server(shown: Shown, ip: ExternalIp, former: FormerServer) -> s.FormerServerView:
    hop = former.hop
    return s.FormerServerView(
        address=str(former.address), connections=former.connections, mac=shown.mac_of(ip.address, hop.address),
        next_hop=str(hop.address) if hop.address != former.address else None,
        tunnel=s.TunnelView.of(hop.tunnel) if hop.tunnel else None)


def _load(load: Load) -> t.LoadView:
    return t.LoadView(packets_per_second=round(load.packets, 1), bytes_per_second=round(load.bytes),
                      new_connections_per_second=round(load.opened, 2))


def entry(item: Entry | SliceEntry) -> t.EntryView:
    """From the packed keys, without checks: a page has up to a thousand of these, and packets wait meanwhile."""
    if isinstance(item, SliceEntry):
        return _slice(item)
    protocol, client, client_port, external, external_port = unpack_key(item.key)
    _, server, server_port, internal, internal_port = unpack_key(item.reply)
    full = item.full
    return t.EntryView.model_construct(
        protocol=cast(Protocol, PROTOCOL_NAMES.get(protocol, str(protocol))), state=cast(EntryState, item.state),
        client=_text(client), client_port=client_port, client_ports=None, slice=None, old_server=None,
        external_ip=_text(external), external_port=external_port,
        server=_text(server), server_port=server_port, next_hop=item.next_hop.hex(":"),
        inner_hop=item.inner_hop.hex(":") or None, internal_ip=_text(internal) if full else None,
        internal_port=internal_port if full else None, packets=item.packets, bytes=item.bytes, delta=0,
        created=iso(item.created), last_seen=iso(item.last_seen))


def _slice(item: SliceEntry) -> t.EntryView:
    protocol, _, _, external, external_port = unpack_key(item.key)
    _, server, server_port, _, _ = unpack_key(item.reply)
    return t.EntryView.model_construct(
        protocol=cast(Protocol, PROTOCOL_NAMES[protocol]), client_port=None,
        client=clients_of(ip_address(external), item.number) if item.by_client else ANYBODY,
        client_ports=ANYBODY if item.by_client else f"{item.bits:#06x}/{PORT_MASK:#06x}",
        slice=item.number, external_ip=_text(external), external_port=external_port,
        server=_text(server), server_port=server_port, next_hop=None, inner_hop=None,
        state=item.state, old_server=None if item.old is None else str(item.old), internal_ip=None,
        internal_port=None, packets=item.sent.packets, bytes=item.sent.bytes, delta=0, created=None,
        last_seen=iso_if_known(item.sent.last))


def _text(address: bytes) -> str:
    return inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)


def move(record: MoveRecord) -> t.MoveView:
    return t.MoveView(
        id=record.id, external_ip=str(record.external_ip), source=record.source, target=record.target,
        kind=record.kind, strategy=record.strategy.value, state=record.state, step=record.step, reason=record.reason,
        cause=record.cause, entries_from=dict(record.entries_from), started=iso(record.started),
        ended=iso_if_known(record.ended),
        steps=[t.StepView(name=step.name, started=iso(step.started), seconds=step.seconds) for step in record.steps],
        entries_copied=record.entries_copied, entries_total=record.entries_total, packets_held=record.packets_held,
        packets_released=record.packets_released, packets_lost=record.packets_lost)


def plan(plan: Plan, moves: Iterable[PlannedMove], run: Run | None) -> t.PlanView:
    """moves: the plan's, whatever else is done in between. run: what carries it out; None: nothing does."""
    return t.PlanView(
        id=run and run.id, state=run.state if run else "dry-run", reason=run and run.reason, algorithm=plan.algorithm,
        optimal=plan.optimal, before=_rounded(plan.before), after=_rounded(plan.after),
        started_moves=list(run.moves) if run else [],
        moves=[t.PlannedMoveView(external_ip=str(move.address), source=move.source, target=move.target,
                                 entries=move.entries) for move in moves])


def _rounded(loads: Mapping[str, float]) -> dict[str, float]:
    return {name: round(load, 3) for name, load in loads.items()}


def keeper(state: KeeperState) -> t.KeeperView:
    return t.KeeperView(
        server=str(state.keeper.server), url=state.keeper.url, synced=state.synced, lag=state.lag, behind=state.behind,
        last_failure=state.last_failure, counters=dict(state.counters))


def dropped(counted: Mapping[str, int]) -> dict[str, int]:
    """By reason."""
    return {name.removeprefix(DROPPED): count for name, count in counted.items() if name.startswith(DROPPED)}


def counters(counted: Counter[str]) -> t.Counters:
    """Sorts a switch's counters into what the API shows."""
    other = {name: count for name, count in counted.items()
             if name != "packet_ins" and not name.startswith(DROPPED)}
    return t.Counters(packet_ins=counted["packet_ins"], dropped=dropped(counted), other=other)


def service_of(shown: Shown, ip: ExternalIp, service: Service) -> s.ServiceView:
    """service: of the site in force."""
    order = shown.order(ip, service)
    return s.ServiceView(
        protocol=service.protocol, port=service.port, scheduler=service.scheduler,
        site_file_scheduler=order.scheduler.instead_of if order.scheduler else service.scheduler,
        entries=service.entries,
        site_file_entries=order.entries.instead_of if order.entries else service.entries,
        affinity=service.affinity, servers_ordered=order.servers is not None,
        fails_open=shown.fails_open(ip, service),
        slice_changes=[_slice_change(change) for change in shown.slice_changes(ip, service)],
        servers=servers_of(shown, ip, service, service.servers))


def _slice_change(change: Change) -> s.SliceChangeView:
    return s.SliceChangeView(
        slices=len(change.before), step=change.step.value, since=iso(change.begun) if change.begun else None,
        why=change.why.value, old_servers=sorted({str(server) for server in change.before.values()}))


def servers_of(shown: Shown, ip: ExternalIp, service: Service, servers: Iterable[Server]) -> list[s.ServerView]:
    """servers: of that service, those that are to be shown."""
    shares = shown.shares(ip, service)
    return [_server_of(shown, ip, service, server, shares.get(server.endpoint)) for server in servers]


def server_of(shown: Shown, ip: ExternalIp, service: Service, server: Server) -> s.ServerView:
    return servers_of(shown, ip, service, [server])[0]


def _server_of(shown: Shown, ip: ExternalIp, service: Service, server: Server, share: Share | None) -> s.ServerView:
    state = shown.server_state(ip, service, server)
    return s.ServerView(
        **s.declared_of(server), state=state.state, drained=state.state == "drained", reason=state.reason,
        since=iso_if_known(state.since), connections=shown.connections_of(ip, service, server),
        slices=share and share.slices, share=share and round(share.share, 4),
        ideal_share=share and round(share.ideal, 4), mac=shown.mac_of(ip.address, server.hop.address))


def _optional(address: Address | None) -> str | None:
    return str(address) if address else None


def _ports(ports: Mapping[str, PortState], settings: Settings) -> t.PortsView:
    tunnels = {role: _port(port) for role, port in ports.items() if role not in ("external", "internal")}
    return t.PortsView(external=_port(ports["external"], settings.external_mtu),
                       internal=_port(ports["internal"], settings.internal_mtu), tunnels=tunnels)


def _port(port: PortState, mtu: int | None = None) -> t.PortView:
    return t.PortView(name=port.name, number=port.number, mac=port.mac, up=port.up, mtu=mtu)
