"""The yardstick of failover: two Linux routers with keepalived (VRRP), conntrackd and nftables NAT.

The active one dies. Both are set up as their authors advise: conntrackd in FTFW mode with the commit script of its
documentation (doc/sync/primary-backup.sh), keepalived in a sync group of both sides with `nopreempt`, VRRP version 3.
Packets that match no entry are dropped and never adopted (nf_conntrack_tcp_loose=0, `ct state invalid drop`): else a
packet that comes before the entries have been committed would break its connection.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.bed.bed import Bed
from tests.bed.faults import Established, Fates, Silence
from tests.bed.namespaces import Namespace
from tests.bed.processes import CommandFailed
from tests.bed.sites import SERVER_PORT, simple_site
from topologies import programs
from topologies.queues import long_receive_queues

VIRTUAL_EXTERNAL, VIRTUAL_INTERNAL = "198.51.100.70", "10.0.0.70"
SETTLED = 20.0

NFT = """\
table ip nat {{
    chain prerouting {{
        type nat hook prerouting priority dstnat
        ip daddr {virtual} tcp dport 80 dnat to numgen inc mod {count} map {{ {servers} }}
    }}
}}
table ip filter {{
    chain input {{ type filter hook input priority filter; ip daddr {virtual} drop; }}
    chain forward {{ type filter hook forward priority filter; ct state invalid drop; }}
}}
"""
KEEPALIVED = """\
global_defs {{
    vrrp_version 3
    script_user root
    enable_script_security
}}
vrrp_sync_group both {{
    group {{
        external
        internal
    }}
    notify_master "{directory}/primary.sh"
}}
vrrp_instance external {{
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 61
    priority {priority}
    advert_int {advert:g}
    virtual_ipaddress {{ {external}/24 dev eth0 }}
}}
vrrp_instance internal {{
    state BACKUP
    nopreempt
    interface eth1
    virtual_router_id 62
    priority {priority}
    advert_int {advert:g}
    virtual_ipaddress {{ {internal}/24 dev eth1 }}
}}
"""
CONNTRACKD = """\
Sync {{
    Mode FTFW {{
    }}
    UDP {{
        IPv4_address {here}
        IPv4_Destination_Address {there}
        Port 3780
        Interface eth2
        SndSocketBuffer 8388608
        RcvSocketBuffer 8388608
        Checksum on
    }}
}}
General {{
    HashSize 65536
    HashLimit 262144
    LockFile {directory}/conntrackd.lock
    UNIX {{
        Path {directory}/conntrackd.ctl
    }}
    NetlinkBufferSize 8388608
    NetlinkBufferSizeMaxGrowth 33554432
    Filter From Userspace {{
        Protocol Accept {{
            TCP
        }}
        Address Ignore {{
            IPv4_address 127.0.0.1
            IPv4_address {here}
            IPv4_address {there}
        }}
    }}
}}
"""
PRIMARY = """\
#!/bin/sh
for order in -c -f -R -B; do conntrackd -C {directory}/conntrackd.conf $order; done
"""


ROOM = 4.0
"""Seconds that are waited for the other router, and three advertisements more."""


@dataclass(frozen=True)
class Death:
    """What the clients of the active router saw when it died. silence: None if nothing was forwarded any more."""

    fates: Fates
    silence: Silence | None


def die(advert: float, count: int) -> Death:
    """The active router's death, with `count` established connections."""
    with long_receive_queues(), RouterPair(advert) as pair:
        pair.start()
        # Rarer than with lbctl: the connections must be enough for the whole silence (see tests/bed/established.py).
        established = Established(
            pair, pair.remote, VIRTUAL_EXTERNAL, count, interval=0.001 if advert < ROOM / 20 else 0.004
        )
        pair.wait_copied(count)
        time.sleep(1.0)
        begun = pair.kill_active()
        time.sleep(ROOM + 3 * advert)
        fates = established.finish()
    return Death(fates, fates.silence(begun))


def missing() -> str:
    """Debian packages that the yardstick needs and that are not there; empty if it can run."""
    return " ".join(programs.missing("keepalived", "conntrackd", "nft"))


class RouterPair(Bed):
    """A bed with two more machines on its networks, router-a (the active one) and router-b.

    Its servers route through them.

    advert: seconds between VRRP advertisements.
    """

    def __init__(self, advert: float, servers: int = 2) -> None:
        super().__init__(simple_site(lbs=1, external_ips=1, servers=servers))
        self._advert = advert

    def _build(self) -> None:
        super()._build()
        self.pair = [self._router("router-a", 61, 62, 101), self._router("router-b", 62, 61, 100)]
        for server in self.servers:
            server.ip("route", "replace", "default", "via", VIRTUAL_INTERNAL)

    def start(self) -> None:
        """Start the daemons; router-a is the active one when this returns."""
        for router in self.pair:
            self._run(router, "conntrackd", "-C", self._files(router) / "conntrackd.conf")
        for router in self.pair:
            files = self._files(router)
            pids = ("-p", files / "keepalived.pid", "-r", files / "vrrp.pid")
            self._run(
                router, "keepalived", "--dont-fork", "--log-console", "--vrrp", "-f", files / "keepalived.conf", *pids
            )
            self.wait_until(lambda: self._active(0), SETTLED, "router-a active")

    def wait_copied(self, count: int) -> None:
        """Wait until router-b has copies of so many connections."""
        control = self._files(self.pair[1]) / "conntrackd.conf"
        self.wait_until(lambda: self._copies(control) >= count, SETTLED, f"{count} connections copied")

    def kill_active(self) -> float:
        """router-a is dead from now on: its links have no carrier. The time of it.

        Raises CommandFailed if router-b had taken it for dead before.
        """
        if not self._active(0) or self._active(1):
            raise CommandFailed("a false alarm: router-b took over while router-a lived")
        plugs = [self.plugs[self.pair[0].name, device] for device in ("eth0", "eth1", "eth2")]
        fault = time.monotonic()
        self.switch.ip_batch(f"link set {plug.port} down" for plug in plugs)
        return fault

    def _active(self, number: int) -> bool:
        return VIRTUAL_INTERNAL in self.pair[number].ip("-o", "addr")

    def _copies(self, control: Path) -> int:
        said = self.pair[1].run("conntrackd", "-C", control, "-s")
        return int(said.partition("cache external:")[2].split()[3])

    def _router(self, name: str, number: int, other: int, priority: int) -> Namespace:
        router = self.hosts.add(name, "external", [f"198.51.100.{number}/24"], ["198.51.100.254"])
        for device, segment, address in (
            ("eth1", "internal", f"10.0.0.{number}/24"),
            ("eth2", "management", f"198.18.0.{number}/24"),
        ):
            self.hosts.plug(router, device, segment)
            router.ip("addr", "add", address, "dev", device)
        router.sysctl(ipv4__ip_forward=1, ipv4__conf__all__send_redirects=0, ipv4__conf__eth1__send_redirects=0)
        router.sysctl(netfilter__nf_conntrack_tcp_loose=0, netfilter__nf_conntrack_tcp_be_liberal=1)
        files = self._files(router)
        files.mkdir()
        backends = ", ".join(
            f"{n} : {space.name.removeprefix('server-')} . {SERVER_PORT}" for n, space in enumerate(self.servers)
        )
        (files / "nft.conf").write_text(NFT.format(virtual=VIRTUAL_EXTERNAL, count=len(self.servers), servers=backends))
        (files / "conntrackd.conf").write_text(
            CONNTRACKD.format(here=f"198.18.0.{number}", there=f"198.18.0.{other}", directory=files)
        )
        (files / "keepalived.conf").write_text(
            KEEPALIVED.format(
                directory=files,
                priority=priority,
                advert=self._advert,
                external=VIRTUAL_EXTERNAL,
                internal=VIRTUAL_INTERNAL,
            )
        )
        (files / "primary.sh").write_text(PRIMARY.format(directory=files))
        (files / "primary.sh").chmod(0o700)
        router.run("nft", "-f", files / "nft.conf")
        return router

    def _files(self, router: Namespace) -> Path:
        return self.directory / router.name

    def _run(self, router: Namespace, *command: object) -> None:
        """It ends with the bed, which ends whatever runs in its namespaces."""
        with self._log(f"{router.name}-{command[0]}").open("w") as log:
            router.popen(*command, stdout=log, stderr=log)
