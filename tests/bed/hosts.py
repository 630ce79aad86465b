"""Hosts of a bed: namespaces that are plugged into its segments, some of them behind a router."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import NamedTuple

from lbctl.values.addresses import Address
from tests.bed.namespaces import Namespace, Namespaces
from tests.bed.sites import host

ROUTER = 254
"""Its number on each network."""
FORWARDING = {4: {"ipv4__ip_forward": 1}, 6: {"ipv6__conf__all__forwarding": 1}}
FAR_PREFIX = {4: 24, 6: 64}


class Plug(NamedTuple):
    """The far end of a namespace's device: a port of the namespace "segments", and the bridge that it belongs to."""

    port: str
    segment: str


class Hosts:
    """`switch`: the namespace that holds the segments, each a bridge. `plugs`: by namespace and device, where it is
    plugged in. `inner_routers`: by address, those of the internal network that hosts are behind."""

    def __init__(self, spaces: Namespaces, segments: Iterable[str]) -> None:
        self.switch = spaces.add("segments")
        self.plugs: dict[tuple[str, str], Plug] = {}
        self.inner_routers: dict[Address, Namespace] = {}
        self._spaces = spaces
        self._ports = 0
        for segment in segments:
            _add_bridge(self.switch, segment)

    def add(self, name: str, segment: str, addresses: Sequence[str], gateways: Sequence[object] = ()) -> Namespace:
        """A host on that segment.

        addresses: with their prefix lengths; gateways: at most one of each IP version.
        """
        space = self._spaces.add(name)
        if any(":" in address for address in addresses):
            space.enable_ipv6()
        self.plug(space, "eth0", segment)
        space.ip_batch([*(f"addr add {address} dev eth0" for address in addresses),
                        *(f"route add default via {gateway}" for gateway in gateways)])
        return space

    def add_behind(self, router: Namespace, name: str, address: Address) -> Namespace:
        """A host behind an inner router, whose device `far` has .254 (::254) of the host's /24 (/64)."""
        network = ip_network(f"{address}/{FAR_PREFIX[address.version]}", strict=False)
        far = f"{host(network, ROUTER)}/{network.prefixlen}"
        if far not in router.ip("-o", "addr", "show", "far"):
            router.ip("addr", "add", far, "dev", "far")
        space, port = self._spaces.add(name), self._next_port()
        if address.version == 6:
            space.enable_ipv6()
        self._spaces.veth(space, "eth0", router, port)
        router.ip("link", "set", port, "master", "far")
        space.ip_batch([f"addr add {address}/{network.prefixlen} dev eth0",
                        f"route add default via {host(network, ROUTER)}"])
        return space

    def inner_router(self, hop: Address, prefix_length: int, gateways: Sequence[object]) -> Namespace:
        """The router of the internal network with that address, which is added if there is none."""
        router = self.inner_routers.get(hop)
        if router is None:
            router = self.add(f"inner-{hop}", "internal", [f"{hop}/{prefix_length}"], gateways)
            router.sysctl(**FORWARDING[hop.version])
            _add_bridge(router, "far")
            self.inner_routers[hop] = router
        return router

    def plug(self, space: Namespace, device: str, segment: str) -> None:
        """Give a namespace a device on that segment."""
        port = self._next_port()
        self._spaces.veth(space, device, self.switch, port)
        self.switch.ip("link", "set", port, "master", segment)
        self.plugs[space.name, device] = Plug(port, segment)

    def _next_port(self) -> str:
        self._ports += 1
        return f"p{self._ports - 1}"


def _add_bridge(space: Namespace, name: str) -> None:
    space.ip("link", "add", name, "type", "bridge", "mcast_snooping", "0")
    space.set_link(name, True)
