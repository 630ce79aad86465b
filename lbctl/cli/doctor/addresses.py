"""Does somebody else answer for an address that is the load balancers' own? Asked through the ports of those on this
machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from ipaddress import ip_address
from typing import Any

from lbctl.cli.doctor.finding import Finding, fail, ok
from lbctl.cli.namespace import NetworkNamespace
from lbctl.frames import discovery
from lbctl.frames.packets import Malformed, parse_mac

WAIT = 0.5
"""Seconds that answers are waited for."""
ETH_P_ALL = 3
OWN = NetworkNamespace()


def check_addresses(load_balancers: Sequence[dict[str, Any]], external_ips: Sequence[dict[str, Any]],
                    namespaces: Mapping[str, NetworkNamespace]) -> Iterator[Finding]:
    """Both as the REST API shows them; namespaces: where the ports of a load balancer are, if not in this command's
    own.

    Ports that are not there (so not on this machine) are left out.
    """
    direct = {ip["address"] for ip in external_ips if ip["nat"] == "none"}
    """Their servers have them, too, where nobody may ask for them."""
    own = [address for ip in external_ips for address in (ip["gateway"], *ip["internal_ips"]) if address]
    sides = {"external": [ip["address"] for ip in external_ips], "internal": [*own, *sorted(direct)]}
    for side, addresses in sides.items():
        ours = {lb["ports"][side]["mac"] for lb in load_balancers}
        for lb in load_balancers:
            port = lb["ports"][side]
            if not (port["mac"] and port["up"]):
                continue
            namespace = namespaces.get(lb["name"], OWN)
            answers = namespace.call(partial(_ask, port["name"], port["mac"], addresses))
            if answers is not None:
                strangers = [(address, mac) for address, mac in answers if mac not in ours]
                yield from _findings(lb["name"], port["name"], side, strangers, direct)


def _findings(
    lb: str, port: str, side: str, strangers: Sequence[tuple[str, str]], direct: Set[str]
) -> Iterator[Finding]:
    for address, mac in strangers:
        mend = f"ip address del {address}/... dev ..."
        if address in direct:
            mend = (
                f"if it is a server: {address} belongs on its loopback device alone, and sysctl -w "
                "net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2; else: " + mend
            )
        yield fail(
            f"{lb}: {mac}, which is no load balancer's, answers for {address} on the {side} network, too: who hears "
            "it first sends the packets astray.",
            f"on the host with that MAC: {mend}",
        )
    if not strangers:
        yield ok(f"{lb}: nobody but load balancers answers for their addresses on the {side} network ({port}).")


def _ask(device: str, mac: str, addresses: Iterable[str]) -> set[tuple[str, str]] | None:
    """(address, MAC) of each answer on that device; None if it cannot be asked there."""
    wanted = {ip_address(address).packed: address for address in addresses}
    own = parse_mac(mac)
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as raw:
            raw.bind((device, 0))
            for address in wanted:
                raw.send(discovery.probe(own, address))
            return set(_answers(raw, wanted, own))
    except OSError:
        return None


def _answers(raw: socket.socket, wanted: dict[bytes, str], own: bytes) -> Iterator[tuple[str, str]]:
    deadline = time.monotonic() + WAIT
    while (left := deadline - time.monotonic()) > 0:
        raw.settimeout(left)
        try:
            frame, source = raw.recvfrom(2048)
            address, mac = discovery.decode(frame)
        except (TimeoutError, Malformed):
            continue
        if source[2] != socket.PACKET_OUTGOING and address in wanted and mac != own:
            yield wanted[address], mac.hex(":")
