"""A site to test on: LBs, servers and clients in network namespaces, as in the seed's figure 3.

    clients  198.51.100.101 ...--+                                   +-- servers 10.0.0.11 ...
                                 |                                   |   (default route: the gateway
    remote --- router .254 ------+-- external --- LBs --- internal --+    of their external IP)
    203.0.113.1 ...                                |
                                               management 198.18.0.0/24 --- controller 198.18.0.1
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self, TypeVar

from lbctl.site.model import Keeper, LoadBalancer, Site, Tunnel
from lbctl.values.addresses import Address, Network, address_order
from tests.bed import tunnels
from tests.bed.balancer import BalancerNode
from tests.bed.controller import APPS, Controller, Reply
from tests.bed.diagnostics import diagnostics
from tests.bed.dns import DnsServer
from tests.bed.hosts import FORWARDING, ROUTER, Hosts
from tests.bed.keepers import KeeperNode
from tests.bed.namespaces import Namespace, Namespaces, wake
from tests.bed.ovs import PrivateOvs
from tests.bed.patience import limit
from tests.bed.sites import REMOTE_NETWORKS, gateways, host, server_ports, simple_site
from tests.bed.starter import Starter
from tests.bed.traffic import Load, Script

CONTROLLER_ADDRESS = "198.18.0.1"
SEGMENTS = ("external", "internal", "management")
T = TypeVar("T")


class NotInTime(AssertionError):
    """What was waited for did not come; the message says what, and holds the bed's diagnostics."""


class Bed:
    """The network of `site` (or of simple_site(**plain)) and its controller. A context manager.

    `lbs`: name -> BalancerNode. `clients`, `servers`: namespaces in order of address, with the device eth0. `remote`:
    the client behind the router; `inside`: hosts of these addresses behind the site's NAT gateway; `inner_routers`: by
    address, those that servers with a next_hop are behind; `keepers`: by server; `switch`, `plugs`: see Hosts. The
    servers' processes and keepers run; the controller does not until start_controller(). `spaces`: all namespaces.
    `starter`: starts it quicker than it would start by itself. `prepare`: is called at the end of building, for what
    else there is to be.
    """

    def __init__(
        self,
        site: Site | None = None,
        *,
        clients: int = 2,
        inside: Sequence[str] = (),
        remote_addresses: int = 1,
        apps: Sequence[str] = APPS,
        starter: Starter | None = None,
        prepare: Callable[[Bed], None] | None = None,
        **plain: Any,
    ) -> None:
        if site is not None and plain:
            raise ValueError("give a site, or the arguments of simple_site, not both")
        self.site = site or simple_site(**plain)
        self._client_count = clients
        self._inside_addresses = tuple(inside)
        self._remote_addresses = remote_addresses
        self._apps = apps
        self._starter = starter
        self._prepare = prepare
        self._loads: list[Load] = []

    # Life

    def __enter__(self) -> Self:
        self.spaces = Namespaces()
        try:
            self._build()
        except BaseException:
            self.spaces.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end_loads()
        self.controller.kill()
        self.spaces.remove()

    def rebuild(self) -> None:
        """Away with everything, and anew: for a bed of which nobody knows what has been done to it."""
        self.__exit__()
        self.__enter__()

    def _end_loads(self) -> None:
        for load in self._loads:
            load.kill()
        self._loads.clear()

    def reset(self) -> None:
        """Back to the state after building: no load, no controller, all up and awake, no flow, no neighbour known."""
        self._end_loads()
        self.controller.kill()
        wake(self.spaces)
        self.switch.ip_batch(f"link set {plug.port} up master {plug.segment}" for plug in self.plugs.values())
        for node in self.lbs.values():
            node.reset()
        for space in (*self.clients, *self.servers, *self.inner_routers.values(), self.router, self.remote):
            space.ip("neigh", "flush", "all")
        for keeper in self.keepers.values():
            keeper.forget()
        self._forget_connections()
        self.start_servers()
        self.start_keepers()
        self.controller.configure(self.site)

    def start_keepers(self) -> None:
        """Start the keepers that don't run (any more); returns when they listen."""
        for keeper in self.keepers.values():
            if keeper.process is None:
                keeper.start()
        for keeper in self.keepers.values():
            self.wait_until(keeper.listens, 10.0, f"the keeper of {keeper.server} listening")

    def start_servers(self) -> None:
        """Start the servers' processes that don't run (any more)."""
        for name, script in self.server_scripts.items():
            if not script.running:
                self.server_scripts[name] = script.again()

    def _forget_connections(self) -> None:
        """A connection whose client is gone would be told by a later test's copy `sockets`, as if it were alive."""
        for space in self.servers:
            script = self.server_scripts[space.name]
            if script.running:
                script.process.send_signal(signal.SIGUSR1)

    def serve(self, space: Namespace, script: str, *arguments: object) -> None:
        """Start one more process that serves, beside the bed's own: start_servers() starts it again, too."""
        name = f"{script} on {space.name}"
        self.server_scripts[name] = Script(space, self._log(name.replace(" ", "-")), script, *arguments)

    # Controller

    def start_controller(self, *, wait: bool = True) -> None:
        """Start the controller and, if `wait`, wait until every LB is ready and every server's MAC is known.

        A switch learns of the controller here, when it first starts after building or reset(): one that had looked for
        it in vain would try again after up to 8 s, whatever its max_backoff (OVS heeds that once it was connected).
        """
        self.controller.start()
        new = [node for node in self.lbs.values() if not node.ovs.vsctl("get-controller", node.bridge).strip()]
        for node in new:
            node.ovs.set_controller(node.bridge, f"tcp:{CONTROLLER_ADDRESS}:6653")
        if wait:
            self.wait_ready()
            for node in new:
                node.ovs.purge()

    def restart_controller(self, *, kill: bool = True) -> None:
        """Kill (or stop) the controller and start it again, on the same files; returns when all is ready."""
        if kill:
            self.controller.kill()
        else:
            self.controller.stop()
        self.start_controller()

    def wait_ready(self, timeout: float = 15.0) -> None:
        """Wait until every LB whose switch runs is ready, and every server's MAC is known."""
        running = {name for name, node in self.lbs.items() if node.ovs.vswitchd_pid is not None}

        def ready() -> bool:
            balancers = self.rest("GET", "/v1/load-balancers").json["load_balancers"]
            if any(lb["state"] != "ready" for lb in balancers if lb["name"] in running):
                return False
            external_ips = self.rest("GET", "/v1/external-ips").json["external_ips"]
            services = (service for ip in external_ips for service in ip["services"])
            return all(server["mac"] for service in services for server in service["servers"])

        self.wait_until(ready, timeout, "every LB ready and every server's MAC known")

    def rest(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        """One REST request to the controller: see Controller.rest."""
        return self.controller.rest(method, path, body, **options)

    def move(self, address: object, to: str, strategy: str = "precopy", *, wait: bool = True) -> dict[str, Any]:
        """Order a move; its record (ended, if `wait`). Raises AssertionError when it is refused."""
        query = "?wait=true" if wait else ""
        reply = self.rest("POST", f"/v1/external-ips/{address}/move{query}", {"to": to, "strategy": strategy})
        assert reply.status in (200, 202), f"move of {address} to {to} refused: {reply.status} {reply.text}"
        record: dict[str, Any] = reply.json
        return record

    def entries(self, lb: str) -> list[dict[str, Any]]:
        """The access table of an LB, as the REST API gives it, all pages."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.rest("GET", f"/v1/load-balancers/{lb}/access-table?limit=1000{cursor}").json
            found += page["entries"]
            if not page["next"]:
                return found
            cursor = f"&after={page['next']}"

    # Traffic

    def load(self, space: Namespace, address: object, port: int = 80, **options: Any) -> Load:
        """Start a load (see traffic.Load); reset() kills it if nobody stopped it."""
        load = Load(space, self._log(f"load-{len(self._loads)}"), address, port, **options)
        self._loads.append(load)
        return load

    # Waiting and telling

    def wait_until(self, condition: Callable[[], T], timeout: float, what: str) -> T:
        """The first true result of `condition`, asked again and again (an OSError counts as "not yet").

        timeout: on an idle machine, see patience.limit. Raises NotInTime.
        """
        deadline = time.monotonic() + limit(timeout)
        failure: OSError | None = None
        while True:
            try:
                failure = None
                if result := condition():
                    return result
            except OSError as error:
                failure = error
            if time.monotonic() > deadline:
                because = f" ({failure})" if failure else ""
                raise NotInTime(f"not within {limit(timeout):g} s: {what}{because}\n{self.diagnostics()}")
            time.sleep(0.02)

    def diagnostics(self) -> str:
        """Everything one wants to see when a test fails."""
        return diagnostics(self.controller, self.lbs.values())

    # Building

    def _build(self) -> None:
        self.directory = self.spaces.directory
        tunneled = any(lb.tunnel_ports for lb in self.site.load_balancers)
        self.hosts = Hosts(self.spaces, (*SEGMENTS, *(tunnels.SEGMENTS if tunneled else ())))
        self.switch, self.plugs, self.inner_routers = self.hosts.switch, self.hosts.plugs, self.hosts.inner_routers
        if tunneled:
            tunnels.add_router(self.spaces.add("under-router"), self.hosts.plug)
        controller = self.hosts.add("controller", "management", [f"{CONTROLLER_ADDRESS}/24"])
        self.controller = Controller(
            controller, self.directory / "controller", CONTROLLER_ADDRESS, apps=self._apps, starter=self._starter
        )
        self.controller.configure(self.site)
        self.lbs = {lb.name: self._balancer(lb, number) for number, lb in enumerate(self.site.load_balancers)}
        with ThreadPoolExecutor(4) as pool:
            switches = [pool.submit(self._start_switch, node) for node in self.lbs.values()]
            self._build_hosts()
            for switch in switches:
                switch.result()
        self.start_keepers()
        if self._prepare:
            self._prepare(self)

    def _build_hosts(self) -> None:
        self._build_inside()
        self.keepers = {keeper.server: self._keeper(keeper) for keeper in self.site.keepers.each}
        scripts = {space.name: self._start_server(space) for space in self.servers}
        self.server_scripts: dict[str, Script | DnsServer] = {**scripts}
        self._build_outside()
        for script in scripts.values():
            script.wait_ready()

    def _build_inside(self) -> None:
        """Servers, and hosts behind a NAT gateway."""
        prefix_lengths = {network.version: network.prefixlen for network in self.site.internal_networks}
        self.servers = []
        hops = {address: hop for ip in self.site.external_ips for address, hop in ip.hops().items()}
        for address, gateway in sorted(gateways(self.site).items(), key=lambda item: address_order(item[0])):
            name, via, (hop, tunnel) = f"server-{address}", [gateway] if gateway else [], hops[address]
            if tunnel:
                self.servers.append(self._host_tunneled(name, address, tunnel, gateway))
            elif hop == address:
                own = f"{address}/{prefix_lengths[address.version]}"
                self.servers.append(self.hosts.add(name, "internal", [own], via))
            else:
                router = self.hosts.inner_router(hop, prefix_lengths[hop.version], via)
                self.servers.append(self.hosts.add_behind(router, name, address))
        nat_gateways = [ip.gateway for ip in self.site.external_ips if ip.kind == "nat-gateway" and ip.gateway]
        self.inside = []
        for address in map(ip_address, self._inside_addresses):
            via = [gateway for gateway in nat_gateways if gateway.version == address.version]
            own = f"{address}/{prefix_lengths[address.version]}"
            self.inside.append(self.hosts.add(f"inside-{address}", "internal", [own], via))

    def _build_outside(self) -> None:
        """Clients, the router, and the client behind it."""
        external = self.site.external_networks
        routers = [host(network, ROUTER) for network in external]
        self.clients = [self.hosts.add(f"client{n + 1}", "external", _addresses(external, 101 + n), routers)
                        for n in range(self._client_count)]
        self.router = self.hosts.add("router", "external", _addresses(external, ROUTER))
        self.remote = self.spaces.add("remote")
        if any(network.version == 6 for network in external):
            self.remote.enable_ipv6()
        self.spaces.veth(self.remote, "eth0", self.router, "eth1")
        for network in external:
            self._build_remote(REMOTE_NETWORKS[network.version])

    def _build_remote(self, network: Network) -> None:
        """Addresses of the client behind the router, and the way there."""
        gateway = host(network, ROUTER)
        self.router.sysctl(**FORWARDING[network.version])
        self.router.ip("addr", "add", f"{gateway}/{network.prefixlen}", "dev", "eth1")
        addresses = [f"addr add {host(network, n + 1)}/{network.prefixlen} dev eth0"
                     for n in range(self._remote_addresses)]
        self.remote.ip_batch([*addresses, f"route add default via {gateway}"])

    def _host_tunneled(self, name: str, address: Address, tunnel: Tunnel, gateway: Address | None) -> Namespace:
        """A host that has only a tunnel to the LBs."""
        space = self.spaces.add(name)
        self.hosts.plug(space, "eth0", "under-servers")
        tunnels.far_end(space, self.directory / f"ovs-{name}", tunnel, address, len(self.site.load_balancers))
        internal_ips = [internal for ip in self.site.external_ips if address in ip.hops()
                        for internal in ip.internal_ips]
        space.ip_batch(tunnels.routes(gateway, internal_ips))
        return space

    def _keeper(self, keeper: Keeper) -> KeeperNode:
        """On its server, which gets a leg in the management network for it."""
        space = self.spaces[f"server-{keeper.server}"]
        node = KeeperNode(space, keeper.server, keeper.url, self.directory / f"keeper-{keeper.server}")
        self.hosts.plug(space, "mgmt", "management")
        space.ip("addr", "add", f"{node.address}/24", "dev", "mgmt")
        return node

    def _balancer(self, lb: LoadBalancer, number: int) -> BalancerNode:
        space = self.hosts.add(lb.name, "management", [f"198.18.0.{11 + number}/24"])
        self.hosts.plug(space, lb.external_port, "external")
        self.hosts.plug(space, lb.internal_port, "internal")
        if lb.tunnel_ports:
            self.hosts.plug(space, tunnels.DEVICE, "under-lbs")
        rundir = self.directory / f"ovs-{lb.name}"
        return BalancerNode(lb, number, space, PrivateOvs(lb.name, rundir, namespace=space.full_name))

    def _start_switch(self, node: BalancerNode) -> None:
        node.ovs.start()
        ports = (node.lb.external_port, node.lb.internal_port)
        node.ovs.add_bridge(node.bridge, node.lb.dpid, None, ports)
        if node.lb.tunnel_ports:
            tunnels.attach(node.ovs, node.space, node.lb, node.number)

    def _start_server(self, space: Namespace) -> Script:
        """Begun; wait_ready() says when it serves."""
        name = space.name.removeprefix("server-")
        address = next(each for each in gateways(self.site) if str(each) == name)
        ports = server_ports(self.site, address)
        return Script(space, self._log(space.name), "echo_server.py", name, *ports, wait=False)

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


def _addresses(networks: Sequence[Network], number: int) -> list[str]:
    """The address of that number on each network, with its prefix length."""
    return [f"{host(network, number)}/{network.prefixlen}" for network in networks]


@contextmanager
def running_bed(site: Site | None = None, **options: Any) -> Iterator[Bed]:
    """A Bed whose controller runs and is ready."""
    with Bed(site, **options) as bed:
        bed.start_controller()
        yield bed
