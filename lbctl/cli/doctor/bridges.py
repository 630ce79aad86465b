"""Bridges that are load balancers of the site: are they set up as docs/ say, connected, and are their ports there?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lbctl.cli.doctor.finding import Finding, fail, ok, warn
from lbctl.cli.doctor.frame_sizes import check_merging, check_mtu
from lbctl.cli.doctor.offloads import check_offload
from lbctl.cli.doctor.prefixes import check_prefixes
from lbctl.cli.doctor.receive_queues import check_receive_queues
from lbctl.cli.doctor.segments import check_segments
from lbctl.cli.doctor.tunnels import check_tunnels
from lbctl.cli.ovs import Ovs, as_list
from lbctl.site.model import LoadBalancer

QUEUE = 512
"""The most packet-ins that Open vSwitch can queue; 100 by default."""
PROTOCOL = "OpenFlow14"
USERSPACE = "netdev"
"""The type of a datapath in user space."""
TABLES = ("Bridge", "Controller", "Port", "Interface", "Flow_Table")

Row = dict[str, Any]


class Networks(NamedTuple):
    """What the site file says of them. mtus: by side, external and internal; ipv6: is there any?"""

    mtus: Mapping[str, int]
    ipv6: bool


def check_bridges(ovs: Ovs, load_balancers: Sequence[LoadBalancer], networks: Networks) -> Iterator[Finding]:
    """load_balancers: those whose bridges are in this Open vSwitch. Raises Failure."""
    tables = {name: {row["_uuid"]: row for row in ovs.rows(name)} for name in TABLES}
    by_dpid = {bridge["datapath_id"]: bridge for bridge in tables["Bridge"].values()}
    for lb in load_balancers:
        yield from check_bridge(ovs, lb, by_dpid[f"{lb.dpid:016x}"], tables, networks)


def check_bridge(
    ovs: Ovs, lb: LoadBalancer, bridge: Row, tables: dict[str, dict[str, Row]], networks: Networks
) -> Iterator[Finding]:
    """tables: rows of TABLES by UUID."""
    controllers = [tables["Controller"][uuid] for uuid in as_list(bridge["controller"])]
    yield check_fail_mode(lb, bridge)
    yield check_protocols(lb, bridge)
    yield check_in_band(lb, bridge, controllers)
    yield check_queue_size(lb, bridge, controllers)
    yield from check_connection(lb, bridge, controllers)
    if networks.ipv6 and (version := ovs.version):
        yield check_prefixes(lb.name, bridge, tables["Flow_Table"], version)
    interfaces = _interfaces(bridge, tables)
    ports = (lb.external_port, lb.internal_port)
    for name in ports:
        yield check_port(lb, bridge, name, interfaces.get(name))
    for side, name in (("external", lb.external_port), ("internal", lb.internal_port)):
        if name in interfaces:
            yield from check_mtu(lb.name, side, interfaces[name], networks.mtus[side])
    if bridge["datapath_type"] == USERSPACE:
        for name in ports:
            if name in interfaces:
                yield from check_offload(lb.name, interfaces[name], ovs.namespace)
                yield from check_merging(lb.name, interfaces[name], ovs.namespace)
        yield from check_receive_queues(lb.name, ports, ovs.namespace)
    yield from check_segments(lb.name, ports, ovs.namespace)
    yield from check_tunnels(ovs, lb, bridge, interfaces, list(tables["Bridge"].values()))


def _interfaces(bridge: Row, tables: dict[str, dict[str, Row]]) -> dict[str, Row]:
    """The bridge's interfaces by name."""
    ports = [tables["Port"][uuid] for uuid in as_list(bridge["ports"])]
    return {
        row["name"]: row
        for port in ports
        for row in (tables["Interface"][uuid] for uuid in as_list(port["interfaces"]))
    }


def check_fail_mode(lb: LoadBalancer, bridge: Row) -> Finding:
    if bridge["fail_mode"] != "secure":
        return fail(
            f"{lb.name}: bridge {bridge['name']} does not have fail_mode secure: without a controller it "
            "becomes a plain switch, and connections break.",
            f"ovs-vsctl set-fail-mode {bridge['name']} secure",
        )
    return ok(f"{lb.name}: fail_mode is secure.")


def check_protocols(lb: LoadBalancer, bridge: Row) -> Finding:
    protocols = as_list(bridge["protocols"])
    if protocols and PROTOCOL not in protocols:
        return fail(f"{lb.name}: bridge {bridge['name']} does not speak {PROTOCOL}.",
                    f"ovs-vsctl add bridge {bridge['name']} protocols {PROTOCOL}")
    return ok(f"{lb.name}: {PROTOCOL} is spoken.")


def check_in_band(lb: LoadBalancer, bridge: Row, controllers: Sequence[Row]) -> Finding:
    out_of_band = controllers and all(row["connection_mode"] == "out-of-band" for row in controllers)
    if bridge["other_config"].get("disable-in-band") != "true" and not out_of_band:
        return warn(f"{lb.name}: bridge {bridge['name']} has hidden rules for in-band control, which come before ours.",
                    f"ovs-vsctl set bridge {bridge['name']} other-config:disable-in-band=true")
    return ok(f"{lb.name}: no in-band control.")


def check_queue_size(lb: LoadBalancer, bridge: Row, controllers: Sequence[Row]) -> Finding:
    of_bridge = int(bridge["other_config"].get("controller-queue-size", 100))
    own = [row["controller_queue_size"] for row in controllers if row.get("controller_queue_size", []) != []]
    size = min([*own, of_bridge] if len(own) < len(controllers) or not own else own)
    if size >= QUEUE:
        return ok(f"{lb.name}: {size} packets can be queued for the controller.")
    mend = f"ovs-vsctl set bridge {bridge['name']} other-config:controller-queue-size={QUEUE}"
    if own:
        mend += f" -- set controller {bridge['name']} controller_queue_size={QUEUE}"
    return warn(
        f"{lb.name}: bridge {bridge['name']} queues {size} packets for the controller, and drops more without a word; "
        f"{QUEUE} are recommended, the most that it can, because a controller may be busy for a moment.",
        mend,
    )


def check_connection(lb: LoadBalancer, bridge: Row, controllers: Sequence[Row]) -> Iterator[Finding]:
    if not controllers:
        yield fail(f"{lb.name}: bridge {bridge['name']} has no controller.",
                   f"ovs-vsctl set-controller {bridge['name']} tcp:CONTROLLER:6653")
    for row in controllers:
        if row["is_connected"]:
            yield ok(f"{lb.name}: connected to {row['target']}.")
        else:
            error = row["status"].get("last_error")
            yield fail(f"{lb.name}: not connected to {row['target']}" + (f" ({error})." if error else "."),
                       f"start the controller there, or: ovs-vsctl set-controller {bridge['name']} tcp:CONTROLLER:6653"
                       " (if it has just connected, ask again in 5 s: Open vSwitch tells with that delay)")


def check_port(lb: LoadBalancer, bridge: Row, name: str, interface: Row | None) -> Finding:
    if interface is None:
        return fail(
            f"{lb.name}: bridge {bridge['name']} has no port {name}.", f"ovs-vsctl add-port {bridge['name']} {name}"
        )
    if interface["error"]:
        return fail(f"{lb.name}: port {name}: {interface['error']}.", f"ip link show {name}")
    if interface["admin_state"] != "up" or interface["link_state"] != "up":
        return fail(f"{lb.name}: port {name} is down.", f"ip link set {name} up (and so its other end)")
    return ok(f"{lb.name}: port {name} is up.")
