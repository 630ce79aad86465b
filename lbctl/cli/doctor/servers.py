"""What the controller says of the servers, and of the routers that they, NAT gateways, or the clients of
sliced services are behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lbctl.cli.doctor.finding import Finding, ok, warn
from lbctl.frames.discovery import asked_by
from lbctl.values.slices import SLICES


def check_servers(external_ip: dict[str, Any]) -> Iterator[Finding]:
    """Servers (and their routers) whose MAC the load balancer does not know get no packets."""
    servers = {server["address"]: server for service in external_ip["services"] for server in service["servers"]}
    lb = external_ip["load_balancer"]
    silent = [server for server in servers.values() if server["mac"] is None]
    for server in silent:
        hop, address = server["next_hop"] or server["address"], server["address"]
        asked = f"Server {address}" if hop == address else f"The router {hop} that server {address} is behind"
        yield warn(f"{asked} of {external_ip['address']} does not answer the {asked_by(hop)} requests of {lb}.",
                   _mend_server(external_ip, server))
    if servers and not silent:
        yield ok(f"All servers of {external_ip['address']} were found by {lb}.")
    yield from _down(external_ip)
    yield from _without_slices(external_ip)
    router = external_ip["router"]
    if router and router["mac"] is None:
        whose, missed = "NAT gateway", "nothing goes out"
        if not external_ip["inside"]:
            whose, missed = "sliced external IP", "clients that are not on the external network get no answers"
        yield warn(
            f"The router {router['address']} of the {whose} {external_ip['address']} does not answer the "
            f"{asked_by(router['address'])} requests of {lb}: {missed}.",
            "on the router: ip address show; ip link show",
        )
    elif router:
        yield ok(f"The router of {external_ip['address']} was found by {lb}.")


def check_limit(external_ip: dict[str, Any]) -> Iterator[Finding]:
    """An external IP of which more connections are asked for than can be served."""
    if (limit := external_ip["new_rate_limit"]) is not None:
        of = "" if external_ip["connections"] is None else f"of {external_ip['connections']} "
        yield warn(
            f"More new connections of {external_ip['address']} come than can be served: {external_ip['load_balancer']} "
            f"passes {limit:.0f} a second on and drops the others ({external_ip['half_open']} {of}entries are "
            "half-open).",
            "an attack, if most are half-open: see docs/field.md; else move other external IPs away from that load "
            "balancer, or use more of them",
        )


def _down(external_ip: dict[str, Any]) -> Iterator[Finding]:
    """What its health checks have found, of servers whose MAC is known."""
    for service in external_ip["services"]:
        if service["fails_open"]:
            yield warn(
                f"{external_ip['address']} {service['protocol']}/{service['port']} serves in spite of its health "
                f"checks: {service['fails_open']}.",
                "does health_check ask what the servers answer? Ask one yourself; see docs/health-checks.md#fail-open",
            )
        for server in service["servers"]:
            if server["state"] == "down" and server["mac"] is not None:
                yield warn(
                    f"Server {server['address']} port {server['port']} of {external_ip['address']} "
                    f"({service['protocol']}/{service['port']}) is down: {server['reason']}.",
                    "on the server: is the process there, and does it answer what health_check asks? See "
                    "docs/health-checks.md",
                )


def _without_slices(external_ip: dict[str, Any]) -> Iterator[Finding]:
    """Servers of sliced services that should have connections, and have too small a share to get any."""
    for service in external_ip["services"]:
        for server in service["servers"]:
            if server["slices"] == 0 and 0 < server["ideal_share"] < 1 / SLICES:
                yield warn(
                    f"Server {server['address']} port {server['port']} of {external_ip['address']} "
                    f"({service['protocol']}/{service['port']}) gets no connections: its share by weight, "
                    f"{server['ideal_share']:.2%}, is less than a slice.",
                    "have weights that are nearer to one another, or fewer servers; see docs/slices.md#shares",
                )


def _mend_server(external_ip: dict[str, Any], server: dict[str, Any]) -> str:
    if server["tunnel"]:
        tunnel = server["tunnel"]
        return (
            f"on {tunnel['remote']}: ip -d link show type {tunnel['transport']} (key {tunnel['key']}); ip address show"
        )
    if server["next_hop"]:
        return "on that router: ip address show; ip route show"
    return "on the server: ip address show" + (
        f"; ip route show (default via {external_ip['gateway']})" if external_ip["nat"] == "destination" else ""
    )
