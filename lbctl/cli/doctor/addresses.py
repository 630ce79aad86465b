"""Does somebody else answer for an address that is the load balancers' own? Asked through the ports of those on this
machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    sides = {
        "external": [ip["address"] for ip in external_ips],
        "internal": [address for ip in external_ips for address in (ip["gateway"], *ip["internal_ips"]) if address],
    }
    for side, addresses in sides.items():
        ours = {lb["ports"][side]["mac"] for lb in load_balancers}
        for lb in load_balancers:
            port = lb["ports"][side]
            if not (port["mac"] and port["up"]):
                continue
            namespace = namespaces.get(lb["name"], OWN)
            answers = namespace.call(partial(_ask, port["name"], port["mac"], addresses))
            if answers is not None:
                yield from _findings(
                    lb["name"], port["name"], side, [(address, mac) for address, mac in answers if mac not in ours]
                )


def _findings(lb: str, port: str, side: str, strangers: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    for address, mac in strangers:
        yield fail(
            f"{lb}: {mac}, which is no load balancer's, answers for {address} on the {side} network, too: who hears "
            "it first sends the packets astray.",
            f"on the host with that MAC: ip address del {address}/... dev ...",
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
