"""Linux bridges that carry a load balancer's packets on this machine: do they hand them to iptables?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lbctl.cli.doctor.finding import Finding, keep_sysctl, ok, warn
from lbctl.cli.namespace import NetworkNamespace

SETTINGS = Path("/proc/sys/net/bridge")
"""There only where the kernel module br_netfilter is loaded; each network namespace has its own."""
CALLS = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")


def check_segments(lb: str, ports: Sequence[str], namespace: NetworkNamespace) -> Iterator[Finding]:
    """ports: of the load balancer's bridge. Only those whose other end is in a Linux bridge of the same namespace are
    looked at."""
    bridges = sorted(_bridges_behind(ports, namespace))
    if not bridges:
        return
    on = [name for name in CALLS if namespace.call(partial(_is_on, name))]
    if on:
        values = " ".join(f"net.bridge.{name}=0" for name in on)
        yield warn(
            f"{lb}: the Linux bridge {' and '.join(bridges)}, which its packets go through, hands each to iptables "
            f"({', '.join(f'net.bridge.{name} is 1' for name in on)}; 0 is recommended: Open vSwitch's main thread "
            "then needs an eighth less time for a connection).",
            f"sysctl -w {values} (not where firewall rules for bridged packets are wanted, as Kubernetes does)",
            "echo br_netfilter >/etc/modules-load.d/lbctl.conf; "
            f"{keep_sysctl(**{f'net__bridge__{name}': 0 for name in on})}",
        )
    else:
        yield ok(f"{lb}: the Linux bridge {' and '.join(bridges)} does not hand packets to iptables.")


def _is_on(name: str) -> bool:
    try:
        return (SETTINGS / name).read_text().strip() == "1"
    except OSError:
        return False


def _bridges_behind(ports: Sequence[str], namespace: NetworkNamespace) -> set[str]:
    """The Linux bridges that the other ends of these veths belong to."""
    links: list[dict[str, Any]] = json.loads(namespace.run("ip", "-json", "-details", "link", "show") or "[]")
    named = {link["ifname"]: link for link in links if "ifname" in link}
    bridges = {name for name, link in named.items() if link.get("linkinfo", {}).get("info_kind") == "bridge"}
    peers = [named.get(named[port].get("link", ""), {}) for port in ports if port in named]
    return {peer["master"] for peer in peers if peer.get("master") in bridges}
