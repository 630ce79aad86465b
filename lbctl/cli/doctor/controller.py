"""Checks of the controller: does it answer, is what it needs installed, and what does it say of its load balancers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lbctl.cli.client import START, Client, Unreachable
from lbctl.cli.doctor.finding import Finding, fail, ok, warn
from lbctl.cli.failure import Failure
from lbctl.frames.discovery import asked_by


def check_controller(client: Client) -> Iterator[Finding]:
    """Without an answer, whether a controller could run here at all."""
    try:
        health = client.get("health")
    except Unreachable:
        yield fail(f"There is no controller at {client.url}.", f"{START}, or set LBCTL_URL")
        if client.is_local:
            yield from check_stack()
        return
    except Failure as failure:
        yield fail(str(failure), "export LBCTL_URL=http://ADDRESS:8080 LBCTL_TOKEN=TOKEN")
        return
    yield ok(f"The controller at {client.url} answers (lbctl {health['version']}).")
    for lb in client.get("load-balancers")["load_balancers"]:
        yield from check_load_balancer(lb)
        yield from check_health(lb)
    for external_ip in client.get("external-ips")["external_ips"]:
        yield from check_servers(external_ip)
    for keeper in client.get("keepers")["keepers"]:
        yield check_keeper(keeper)


def check_stack() -> Iterator[Finding]:
    """Ryu as this project needs it, in the Python that runs this command."""
    mend = "./test.sh installs .venv with all that the controller needs; then: . .venv/bin/activate"
    eventlet, fork, original = _version("eventlet"), _version("c65ryu"), _version("ryu")
    if original:
        yield fail(f"PyPI's ryu {original} is installed, which does not start with a current eventlet.", mend)
    elif fork is None or eventlet is None:
        yield warn("Ryu is not installed beside this lbctl, so no controller can start from here.", mend)
    else:
        yield ok(f"Ryu (c65ryu {fork}) and eventlet {eventlet} are installed.")


def check_load_balancer(lb: dict[str, Any]) -> Iterator[Finding]:
    """What the controller says of one load balancer."""
    name, state = lb["name"], lb["state"]
    if state == "disconnected":
        yield fail(f"{name} is not connected to the controller: {lb['reason']}.",
                   f"on its host: lbctl doctor (its bridge must have the dpid {lb['dpid']})")
    elif state != "ready":
        yield fail(f"{name} is {state}: {lb['reason']}.", "lbctl status; then the controller's log")
    elif lb["reason"]:
        yield fail(f"{name} is ready, but: {lb['reason']}.", "on its host: lbctl doctor")
    else:
        yield ok(f"{name} is ready.")
    for reason, count in lb["counters"]["dropped"].items():
        if count:
            yield warn(f"The controller has dropped {count} packets of {name}: {reason}.", "see the controller's log")
    if refused := lb["counters"]["other"].get("ports_exhausted", 0):
        yield warn(f"{name} has refused {refused} connections because no translated port was left.",
                   "the controller's log names the external IPs: give them more internal_ips, a larger port_range, or more servers")


def check_health(lb: dict[str, Any]) -> Iterator[Finding]:
    """What other load balancers' probes say of its data path. One that is not connected has been told of already."""
    name, why = lb["name"], lb["health_reason"]
    if lb["health"] == "failed":
        yield fail(f"{name} has failed: {why}.", "mend that; it gets external IPs again by lbctl move, or if another one fails")
    elif lb["health"] in ("unmanaged", "silent"):
        yield fail(f"{name}: {why}.", "lbctl status shows whether it is relieved; docs/failover.md tells what is waited for")
    elif lb["health"] == "unwatched" and lb["state"] == "ready":
        yield warn(f"{name} is not watched: {why}.",
                   "load balancers need to reach each other's ports on both networks, see docs/failover.md")


def check_keeper(keeper: dict[str, Any]) -> Finding:
    """Is the copy of that server's entries as it should be?"""
    if keeper["last_failure"] or keeper["behind"]:
        return warn(f"The keeper of {keeper['server']} is {keeper['lag']:.1f} s behind: {keeper['last_failure'] or 'it is slow'}.",
                    f"on the server: journalctl -u lbctl-keeper; does the controller's host reach {keeper['url']}?")
    return ok(f"The keeper of {keeper['server']} {'has a full copy' if keeper['synced'] else 'is being given a copy'}.")


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
    router = external_ip["router"]
    if router and router["mac"] is None:
        yield warn(f"The router {router['address']} of the NAT gateway {external_ip['address']} does not answer the "
                   f"{asked_by(router['address'])} requests of {lb}: nothing goes out.", "on the router: ip address show; ip link show")
    elif router:
        yield ok(f"The router of {external_ip['address']} was found by {lb}.")


def _down(external_ip: dict[str, Any]) -> Iterator[Finding]:
    """What its health checks have found, of servers whose MAC is known."""
    for service in external_ip["services"]:
        for server in service["servers"]:
            if server["state"] == "down" and server["mac"] is not None:
                yield warn(f"Server {server['address']} port {server['port']} of {external_ip['address']} ({service['protocol']}/"
                           f"{service['port']}) is down: {server['reason']}.",
                           "on the server: is the process there, and does it answer what health_check asks? See docs/health-checks.md")


def _mend_server(external_ip: dict[str, Any], server: dict[str, Any]) -> str:
    if server["tunnel"]:
        tunnel = server["tunnel"]
        return f"on {tunnel['remote']}: ip -d link show type {tunnel['transport']} (key {tunnel['key']}); ip address show"
    if server["next_hop"]:
        return "on that router: ip address show; ip route show"
    return "on the server: ip address show" + (f"; ip route show (default via {external_ip['gateway']})" if external_ip["gateway"] else "")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
