"""The tunnel ports of a load balancer's bridge (docs/tunnels.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lbctl.cli.doctor.finding import Finding, fail, ok
from lbctl.cli.ovs import Ovs
from lbctl.site.model import LoadBalancer

OPTIONS = {"remote_ip": "flow", "key": "flow"}
"""What the flows decide: where to, and with which key."""

Row = dict[str, Any]


def check_tunnels(
    ovs: Ovs, lb: LoadBalancer, bridge: Row, interfaces: Mapping[str, Row], bridges: Sequence[Row]
) -> Iterator[Finding]:
    """interfaces: of the bridge, by name; bridges: all of this Open vSwitch."""
    for transport, name in lb.tunnel_ports:
        yield check_tunnel_port(lb, bridge, transport, name, interfaces.get(name))
    if lb.tunnel_ports and bridge["datapath_type"] == "netdev":
        yield check_below(lb, ovs.appctl("ovs/route/show"), bridges)


def check_tunnel_port(lb: LoadBalancer, bridge: Row, transport: str, name: str, interface: Row | None) -> Finding:
    wanted = f"type={transport} options:remote_ip=flow options:key=flow"
    if interface is None:
        return fail(f"{lb.name}: bridge {bridge['name']} has no tunnel port {name}.",
                    f"ovs-vsctl add-port {bridge['name']} {name} -- set interface {name} {wanted}")
    if interface["error"]:
        return fail(f"{lb.name}: tunnel port {name}: {interface['error']}.", f"ovs-vsctl list interface {name}")
    if interface["type"] != transport or any(interface["options"].get(key) != value for key, value in OPTIONS.items()):
        return fail(f"{lb.name}: tunnel port {name} is no {transport} port that leaves remote_ip and key to the flows.",
                    f"ovs-vsctl set interface {name} {wanted}")
    if interface["admin_state"] != "up" or interface["link_state"] != "up":
        return fail(f"{lb.name}: tunnel port {name} is down.", f"ip link set {name} up")
    return ok(f"{lb.name}: tunnel port {name} is a {transport} port.")


def check_below(lb: LoadBalancer, routes: str, bridges: Sequence[Row]) -> Finding:
    """The userspace datapath sends tunnels by a bridge's own device, whose address and routes it takes from the kernel.
    `routes`: what ovs/route/show says."""
    for line in routes.splitlines():
        words = line.split()
        device = words[words.index("dev") + 1] if "dev" in words[:-1] else None
        if "local" not in words and any(row["name"] == device and row["datapath_type"] == "netdev" for row in bridges):
            return ok(f"{lb.name}: tunnels can leave by bridge {device}.")
    return fail(
        f"{lb.name}: no bridge of the userspace datapath has an address and a route, so tunnels cannot be sent.",
        "docs/tunnels.md, At an LB: a bridge with the underlay's port, its address on the bridge's own device",
    )
