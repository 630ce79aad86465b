"""The Mininet nodes of a lab: load balancers, segments, hosts, servers, the router and the name server.

A load balancer is a node of its own network namespace with an Open vSwitch of its own, so that it can be killed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

from lbctl.site.model import Keeper
from lbctl.values.addresses import Address
from tests.bed.ovs import OvsError, PrivateOvs
from tests.bed.processes import end, is_alive, mentions, read_pid
from topologies import plan, rundir
from topologies.emulator import Switch
from topologies.queues import long_receive_queues
from topologies.rundir import KEEPER_TOKEN, secret
from topologies.shell import LabNode
from topologies.shell import checked as checked
from topologies.steps import step

ROOT_INTERFACE = "lbctl-mgmt"
"""The controller's end of the management network, in the namespace that the lab is started from."""

NO_IPV6 = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1"
OFFLOADS = "tx off gso off tso off gro off"
"""With OVS's userspace datapath TCP hangs if a sender leaves checksums to a device that does not exist."""

NOT_FILTERED = (
    "[ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || sysctl -qw net.bridge.bridge-nf-call-iptables=0"
)
"""Where the kernel module br_netfilter is loaded, a Linux bridge hands packets to iptables, which only costs time
here."""

AHEAD = ("nice", "-n", "-15")
"""An LB is a machine of its own: here it shares processors with those who load it, but must not wait for them."""

Routes = Sequence[tuple[str, Address]]
"""(network or `default`, via)."""


class LabSwitch(LabNode, Switch):
    """A Mininet switch in a network namespace of its own."""

    controlIntf = None

    def __init__(self, name: str, **params: object) -> None:
        params["inNamespace"] = True
        params.setdefault("dpid", "1")
        super().__init__(name, **params)
        checked(self, NO_IPV6, "ip link set lo up")


class Segment(LabSwitch):
    """One broadcast domain: a Linux bridge, which learns as real switches do."""

    BRIDGE = "bridge0"

    def start(self, controllers: Sequence[object]) -> None:
        """Make the bridge of all its interfaces."""
        checked(
            self,
            NOT_FILTERED,
            f"ip link add {self.BRIDGE} type bridge stp_state 0 forward_delay 0",
            f"ip link set {self.BRIDGE} up",
            *(f"ip link set {interface} master {self.BRIDGE} up" for interface in self.intfNames()),
        )


class ManagementSegment(Segment):
    """Where the controller meets the load balancers; the controller's end is outside, in the namespace we start
    from."""

    def __init__(self, name: str, **params: object) -> None:
        super().__init__(name, **params)
        # The controller starts before the switches, and must find its address then.
        root = LabNode("root", inNamespace=False)
        try:
            root.cmd(f"ip link del {ROOT_INTERFACE} 2>/dev/null")
            checked(
                root,
                f"ip link add {ROOT_INTERFACE} type veth peer name root netns {self.pid}",
                f"ip addr add {plan.interface(plan.CONTROLLER)} dev {ROOT_INTERFACE}",
                f"ip link set {ROOT_INTERFACE} up",
            )
        finally:
            root.terminate()

    def start(self, controllers: Sequence[object]) -> None:
        super().start(controllers)
        checked(self, f"ip link set root master {self.BRIDGE} up")


class LoadBalancerSwitch(LabSwitch):
    """One LB: an OVS bridge with an external and an internal port, and a device for its control connection.

    `external_port` and `internal_port` as in the site file; `control_address`: from where it talks to the `controller`.
    """

    def __init__(
        self,
        name: str,
        *,
        external_port: str,
        internal_port: str,
        controller: IPv4Address,
        control_address: IPv4Address,
        **params: object,
    ) -> None:
        super().__init__(name, **params)
        self.ports_of_bridge = (external_port, internal_port)
        self.controller = controller
        self.control_address = control_address
        self.ovs = PrivateOvs(name, rundir.current().path / name, prefix=(*AHEAD, "mnexec", "-a", str(self.pid)))

    @property
    def bridge(self) -> str:
        return self.name

    def start(self, controllers: Sequence[object]) -> None:
        """Start its Open vSwitch. Whatever controller listens on the management network is taken."""
        checked(
            self,
            # The bridge's ports may be on the same network as the control address; they must not answer for it.
            "sysctl -qw net.ipv4.conf.all.arp_ignore=1",
            *(f"ip link set {interface} up" for interface in self.intfNames()),
            *(f"ethtool -K {port} {OFFLOADS} >/dev/null" for port in self.ports_of_bridge),
            f"ip addr add {plan.interface(self.control_address)} dev {self.name}-mgmt",
        )
        controller = f"tcp:{self.controller}:{plan.OPENFLOW_PORT}"
        with step(f"{self.name}: the start of its Open vSwitch"), long_receive_queues():
            self.ovs.start()
            self.ovs.add_bridge(self.bridge, int(self.dpid, 16), controller, self.ports_of_bridge)
        # What makes the ovs-* commands typed at the prompt talk to this LB.
        self.cmd("; ".join(f"export {name}={value}" for name, value in self.ovs.environment.items()))

    def stop(self, deleteIntfs: bool = True) -> None:  # noqa: N803 (Mininet's name)
        self.ovs.stop()
        super().stop(deleteIntfs)

    def connected(self) -> bool:
        """Whether its controller is connected."""
        try:
            return self.ovs.is_connected(self.bridge)
        except OvsError:
            return False

    def dropped(self) -> int:
        """Packets that its ports' receive queues had no room for (userspace datapath only), since they were opened."""
        return sum(int(drops) for drops in re.findall(r",d(\d+)\)", self.cmd("ss --packet --memory")))

    def kill(self) -> None:
        """kill -9 its ovs-vswitchd: an LB that dies. `revive` starts it again."""
        self.ovs.kill()

    def revive(self) -> None:
        """Start its ovs-vswitchd again after `kill`; its tables are empty then."""
        with long_receive_queues():
            self.ovs.start_vswitchd()


class LabHost(LabNode):
    """A machine. `addresses`: one for each interface, in order."""

    def __init__(self, name: str, *, addresses: Sequence[IPv4Address], routes: Routes = (), **params: object) -> None:
        params["ip"] = None  # Mininet would invent one
        super().__init__(name, **params)
        self.addresses = addresses
        self.routes = routes

    def config(self, **_params: object) -> dict[str, object]:
        """Addresses, routes, no offloads; then what `serve` starts."""
        commands = [NO_IPV6, "ip link set lo up"]
        for interface, address in zip(self.intfList(), self.addresses, strict=True):
            commands += [f"ip addr add {plan.interface(address)} dev {interface}", f"ip link set {interface} up"]
            commands += [f"ethtool -K {interface} {OFFLOADS} >/dev/null"]
            interface.ip, interface.prefixLen = str(address), str(plan.interface(address).network.prefixlen)
        commands += [f"ip route replace {network} via {via}" for network, via in self.routes]
        checked(self, *commands)
        self.serve()
        return {}

    def serve(self) -> None:
        """Start what the machine serves; a plain host serves nothing."""

    def directory(self) -> Path:
        """Where its files are."""
        return rundir.current().subdirectory(self.name)


class DaemonHost(LabHost):
    """A machine with one daemon that writes `daemon.pid` to the machine's directory."""

    def terminate(self) -> None:
        pid_file = self.directory() / "daemon.pid"
        pid = read_pid(pid_file)
        if pid is not None and is_alive(pid) and mentions(pid, str(pid_file.parent)):
            end(pid)
        super().terminate()


class Client(LabHost):
    """A client; it resolves names by the lab's name server, if there is one."""

    def __init__(
        self,
        name: str,
        *,
        addresses: Sequence[IPv4Address],
        routes: Routes = (),
        name_server: IPv4Address | None = None,
        **params: object,
    ) -> None:
        super().__init__(name, addresses=addresses, routes=routes, **params)
        self.name_server = name_server

    def serve(self) -> None:
        if self.name_server is not None:
            resolver = self.directory() / "resolv.conf"
            resolver.write_text(f"nameserver {self.name_server}\noptions timeout:1\n")
            # Mininet gives each node its own mount namespace, so this shows inside only.
            checked(self, f"mount --bind {resolver} /etc/resolv.conf")


class Router(LabHost):
    """Forwards between its interfaces."""

    def serve(self) -> None:
        checked(
            self, "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.all.rp_filter=0"
        )


class WebServer(DaemonHost):
    """A server with a real nginx: `/` says which server it is, `/1k`, `/100k` and `/10m` are files of that size.

    keeper: the one of its entries, which runs on it, if there is one.
    """

    SIZES = {"1k": 1 << 10, "100k": 100 << 10, "10m": 10 << 20}

    def __init__(
        self,
        name: str,
        *,
        addresses: Sequence[IPv4Address],
        routes: Routes = (),
        keeper: Keeper | None = None,
        **params: object,
    ) -> None:
        super().__init__(name, addresses=addresses, routes=routes, **params)
        self.keeper = keeper

    def serve(self) -> None:
        directory = self.directory()
        for name, size in self.SIZES.items():
            (directory / name).write_bytes(bytes(range(256)) * (size // 256))
        # One JSON line, so that scripts can read which server answered whom.
        answer = json.dumps({"server": self.name, "address": str(self.addresses[0]), "client": "CLIENT"})
        configuration = NGINX % {
            "directory": directory,
            "answer": answer.replace("CLIENT", "$remote_addr:$remote_port"),
        }
        (directory / "nginx.conf").write_text(configuration)
        (directory / "pid").write_text(str(self.pid))
        checked(self, f"nginx -p {directory} -e {directory}/error.log -c {directory}/nginx.conf")
        if self.keeper is not None:
            self.start_keeper(self.keeper)

    def start_keeper(self, keeper: Keeper) -> None:
        """Start `lbctl keeper`, which ends with the lab."""
        directory = self.directory()
        options = (
            "--server",
            keeper.server,
            "--listen",
            urlsplit(keeper.url).netloc,
            "--directory",
            directory / "keeper",
            "--token-file",
            secret(KEEPER_TOKEN),
        )
        command = [str(Path(sys.executable).parent / "lbctl"), "keeper", *map(str, options)]
        with (directory / "keeper.log").open("a") as log:
            self.popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class NameServer(DaemonHost):
    """dnsmasq: answers `name` with all of `answers`, in turn."""

    def __init__(
        self,
        name: str,
        *,
        addresses: Sequence[IPv4Address],
        routes: Routes = (),
        site_name: str,
        answers: Sequence[IPv4Address],
        **params: object,
    ) -> None:
        super().__init__(name, addresses=addresses, routes=routes, **params)
        self.site_name = site_name
        self.answers = answers

    def serve(self) -> None:
        directory = self.directory()
        hosts = directory / "hosts"
        hosts.write_text("".join(f"{answer} {self.site_name}\n" for answer in self.answers))
        options = (
            *("--conf-file=/dev/null", "--no-resolv", "--no-hosts", f"--addn-hosts={hosts}", "--local-ttl=0"),
            *("--user=root", "--bind-interfaces", f"--listen-address={self.addresses[0]}"),
            *(f"--pid-file={directory}/daemon.pid", f"--log-facility={directory}/dnsmasq.log"),
        )
        checked(self, f"dnsmasq {' '.join(options)}")


NGINX = """\
user root;
worker_processes 1;
pid %(directory)s/daemon.pid;
error_log %(directory)s/error.log;
events { worker_connections 4096; }
http {
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    client_body_temp_path %(directory)s;
    proxy_temp_path %(directory)s;
    fastcgi_temp_path %(directory)s;
    uwsgi_temp_path %(directory)s;
    scgi_temp_path %(directory)s;
    server {
        listen 80 backlog=4096;
        location = / { default_type application/json; return 200 '%(answer)s\\n'; }
        location / { root %(directory)s; }
    }
}
"""
