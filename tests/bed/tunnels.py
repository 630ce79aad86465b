"""Servers behind tunnels: LBs and servers on two networks with a router between, that carry the tunnels.

    LB, br-under 198.18.1.11 ... -- router .254 -- 198.18.2.x (a tunnel's remote address) server

A server has no way to its LBs but this one, and its own address is on its tunnel device alone. The far end of a vxlan
tunnel is Linux's; that of geneve and gre another Open vSwitch, since kernels of test machines may have neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from lbctl.site.model import LoadBalancer, Tunnel
from lbctl.values.addresses import Address
from tests.bed.namespaces import Namespace
from tests.bed.ovs import PrivateOvs

LB_SIDE, SERVER_SIDE = IPv4Network("198.18.1.0/24"), IPv4Network("198.18.2.0/24")
ROUTER = 254
SEGMENTS = {"under-lbs": LB_SIDE, "under-servers": SERVER_SIDE}
DEVICE = "under"
BRIDGE = "br-under"
"""Open vSwitch sends tunnels of its userspace datapath by the bridge that has the address."""
FAR_DEVICE = "tun0"
"""A server's end of its tunnel, whatever makes it."""
VXLAN_PORT = 4789


def lb_address(number: int) -> Address:
    """Where the LB of that number sends its tunnels from."""
    return LB_SIDE[11 + number]


def add_router(router: Namespace, plug: Callable[[Namespace, str, str], None]) -> None:
    """Between LBs and servers. plug: puts a device of a namespace on a segment."""
    router.sysctl(ipv4__ip_forward=1)
    for number, (segment, network) in enumerate(SEGMENTS.items()):
        plug(router, f"eth{number}", segment)
        router.ip("addr", "add", f"{network[ROUTER]}/{network.prefixlen}", "dev", f"eth{number}")


def attach(ovs: PrivateOvs, space: Namespace, lb: LoadBalancer, number: int) -> None:
    """Give an LB's Open vSwitch its address below, and its tunnel ports."""
    _bridge_below(ovs, 0xB0000000 | number, DEVICE)
    address_bridge(space, number)
    for of_port, (transport, name) in enumerate(lb.tunnel_ports, start=11):
        ovs.vsctl(
            "add-port",
            lb.name,
            name,
            "--",
            "set",
            "interface",
            name,
            f"type={transport}",
            "options:remote_ip=flow",
            "options:key=flow",
            f"ofport_request={of_port}",
        )


def address_bridge(space: Namespace, number: int) -> None:
    """The bridge's device, which is new after an orderly end of ovs-vswitchd."""
    _address(space, BRIDGE, f"{lb_address(number)}/{LB_SIDE.prefixlen}", f"{SERVER_SIDE} via {LB_SIDE[ROUTER]}")


def far_end(space: Namespace, rundir: Path, tunnel: Tunnel, address: Address, lbs: int) -> PrivateOvs | None:
    """The server's end of its tunnel to all LBs, on its device eth0; its Open vSwitch, if it has one."""
    if address.version == 6:
        space.enable_ipv6()
    below = f"{tunnel.remote}/{SERVER_SIDE.prefixlen}", f"{LB_SIDE} via {SERVER_SIDE[ROUTER]}"
    ovs = None
    if tunnel.transport == "vxlan":
        _address(space, "eth0", *below)
        space.ip(
            "link",
            "add",
            FAR_DEVICE,
            "type",
            "vxlan",
            "id",
            tunnel.key,
            "dstport",
            VXLAN_PORT,
            "local",
            tunnel.remote,
            "dev",
            "eth0",
        )
        for number in range(lbs):  # broadcasts go to all of them
            space.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", FAR_DEVICE, "dst", lb_address(number))
    else:
        ovs = PrivateOvs(space.name, rundir, namespace=space.full_name).start()
        _bridge_below(ovs, 0xF0000000, "eth0")
        _address(space, BRIDGE, *below)
        ovs.add_bridge(FAR_DEVICE, 0xF0000001)
        ovs.vsctl("set", "bridge", FAR_DEVICE, "fail_mode=standalone")
        for number in range(lbs):
            ovs.vsctl(
                "add-port",
                FAR_DEVICE,
                f"t{number}",
                "--",
                "set",
                "interface",
                f"t{number}",
                f"type={tunnel.transport}",
                f"options:remote_ip={lb_address(number)}",
                f"options:key={tunnel.key}",
            )
        space.offloads_off(FAR_DEVICE)
    space.ip("link", "set", FAR_DEVICE, "mtu", tunnel.mtu, "up")
    space.ip("addr", "add", f"{address}/{address.max_prefixlen}", "dev", FAR_DEVICE)
    return ovs


def routes(gateway: Address | None, internal_ips: Sequence[Address]) -> list[str]:
    """`ip` commands for a server's way to its external IP's LB: all by the gateway, or internal IPs alone (full NAT).
    """
    if gateway is not None:
        return [f"route add default via {gateway} dev {FAR_DEVICE} onlink"]
    return [f"route add {address} dev {FAR_DEVICE}" for address in internal_ips]


def _bridge_below(ovs: PrivateOvs, dpid: int, device: str) -> None:
    ovs.add_bridge(BRIDGE, dpid, None, (device,))
    ovs.vsctl("set", "bridge", BRIDGE, "fail_mode=standalone")


def _address(space: Namespace, device: str, address: str, route: str) -> None:
    space.set_link(device, True)
    space.ip("addr", "replace", address, "dev", device)
    space.ip("route", "replace", *route.split())
