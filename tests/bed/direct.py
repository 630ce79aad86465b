"""Servers that answer clients themselves (direct server return): they have their external IP on their loopback device,
where nobody asks for it, and a device on the external network."""

from __future__ import annotations

from lbctl.values.addresses import Address
from tests.bed.bed import Bed
from tests.bed.hosts import ROUTER
from tests.bed.namespaces import Namespace
from tests.bed.sites import EXTERNAL_NETWORKS, host

DEVICE = "eth1"


def let_answer(bed: Bed) -> None:
    """All servers of external IPs with `nat: none`."""
    spaces = {space.name: space for space in bed.servers}
    for external_ip in bed.site.external_ips:
        for server in external_ip.server_addresses() if external_ip.direct else ():
            _give(bed, spaces[f"server-{server}"], server, external_ip.address)


def _give(bed: Bed, space: Namespace, server: Address, external_ip: Address) -> None:
    network = EXTERNAL_NETWORKS[server.version]
    bed.hosts.plug(space, DEVICE, "external")
    if server.version == 4:
        space.sysctl(ipv4__conf__all__arp_ignore=1, ipv4__conf__all__arp_announce=2, ipv4__conf__all__rp_filter=0,
                     ipv4__conf__eth0__rp_filter=0)
    number = 200 + int(str(server)[-2:])  # 11 to 39, see simple_site
    space.ip_batch([f"addr add {host(network, number)}/{network.prefixlen} dev {DEVICE}",
                    f"addr add {external_ip}/{network.max_prefixlen} dev lo",
                    f"route replace default via {host(network, ROUTER)} dev {DEVICE}"])
