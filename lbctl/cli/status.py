"""lbctl status: load balancers, external IPs, and the moves under way."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from lbctl.cli import output
from lbctl.cli.client import Client

WATCH_INTERVAL = 2.0


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, until interrupted.")] = False,
    json: output.Json = False,
) -> None:
    """Show load balancers, external IPs, running moves."""
    client = Client.from_environment()
    _show(client, json)
    while watch:
        time.sleep(WATCH_INTERVAL)
        if not json:
            output.print_line("\033[2J\033[H" if sys.stdout.isatty() else "")
        _show(client, json)


def _show(client: Client, json: bool) -> None:
    state = {**client.get("load-balancers"), **client.get("external-ips")}
    state |= client.get("keepers")
    state["cut_off_since"] = client.get("health")["cut_off_since"]
    state["moves"] = [move for move in client.get("moves")["moves"] if move["state"] == "running"]
    if json:
        output.print_json(state)
        return
    if since := state["cut_off_since"]:
        output.print_line(f"The controller has been cut off from most load balancers since {output.local_time(since)}: "
                          "they forward on, but new connections wait. Look at the management network, and at this "
                          "host.\n")
    output.print_table(
        "Load balancers",
        (
            "name",
            "state",
            "health",
            "dpid",
            "external port",
            "internal port",
            "tunnel ports",
            "external IPs",
            "connections",
            "load",
            "remark",
        ),
        [_load_balancer(lb) for lb in state["load_balancers"]],
        "No load balancers.",
        optional=("tunnel ports",),
    )
    output.print_line()
    output.print_table(
        "External IPs",
        (
            "address",
            "load balancer",
            "NAT",
            "gateway",
            "internal IPs",
            "services",
            "servers",
            "connections",
            "load",
            "move",
        ),
        [_external_ip(ip) for ip in state["external_ips"]],
        "No external IPs.",
        optional=("internal IPs",),
    )
    for address, service, change in _slice_changes(state["external_ips"]):
        since = f" since {output.local_time(change['since'])}" if change["since"] else ""
        old = ", ".join(change["old_servers"])
        output.print_line(
            f"{address} {service}: {change['slices']} slices of {old} change hands{since} ({change['why']}), step "
            f"{change['step']}."
        )
    if state["keepers"]:
        output.print_line()
        output.print_table(
            "Keepers", ("server", "url", "copy", "lag", "remark"), [_keeper(keeper) for keeper in state["keepers"]], ""
        )
    for move in state["moves"]:
        output.print_line(f"\nMove {move['id']}: {move['external_ip']} from {move['from']} to {move['to']}, "
                          f"step {move['step']}, {move['entries_copied']} of {move['entries_total']} entries copied, "
                          f"{move['packets_held']} packets held.")


def _slice_changes(external_ips: list[dict[str, Any]]) -> list[tuple[str, str, dict[str, Any]]]:
    """External IP, service, and what of its slices changes hands."""
    return [(ip["address"], f"{service['protocol']}/{service['port']}", change) for ip in external_ips
            for service in ip["services"] for change in service["slice_changes"]]


def _load_balancer(lb: dict[str, Any]) -> tuple[object, ...]:
    ports = lb["ports"]
    name = lb["name"] + (" (standby)" if lb["standby"] else "") + (" (drained)" if lb["drained"] else "")
    return (
        name,
        lb["state"],
        lb["health"],
        lb["dpid"],
        _port(ports["external"]),
        _port(ports["internal"]),
        ", ".join(map(_port, ports["tunnels"].values())),
        ", ".join(lb["external_ips"]),
        lb["connections"],
        _load(lb["load"]),
        lb["health_reason"] or lb["reason"],
    )


def _load(load: dict[str, float]) -> str:
    return (f"{load['packets_per_second']:.0f} packets/s, {load['bytes_per_second'] * 8 / 1e6:.1f} Mbit/s, "
            f"{load['new_connections_per_second']:.1f} new/s")


def _keeper(keeper: dict[str, Any]) -> tuple[object, ...]:
    copy = "behind" if keeper["behind"] else "full" if keeper["synced"] else "on its way"
    return keeper["server"], keeper["url"], copy, f"{keeper['lag']:.1f} s", keeper["last_failure"]


def _port(port: dict[str, Any]) -> str:
    if port["number"] is None:
        return f"{port['name']} (missing)"
    return port["name"] if port["up"] else f"{port['name']} (down)"


def _external_ip(ip: dict[str, Any]) -> tuple[object, ...]:
    services = ", ".join(map(_service, ip["services"]))
    servers: dict[str, list[dict[str, Any]]] = {}
    for server in (server for service in ip["services"] for server in service["servers"]):
        servers.setdefault(server["address"], []).append(server)
    shown = ", ".join(map(_server, servers.values()))
    nat = ip["nat"] if ip["kind"] == "service" else f"gateway of {', '.join(ip['inside'])}"
    if ip["router"]:
        router = f"router {_found(ip['router']['address'], ip['router']['mac'])}"
        shown = f"{shown}, {router}" if shown else router
    return (
        ip["address"],
        ip["load_balancer"],
        nat,
        ip["gateway"],
        ", ".join(ip["internal_ips"]),
        services,
        shown,
        ip["connections"],
        _load(ip["load"]),
        ip["move"],
    )


def _service(service: dict[str, Any]) -> str:
    ordered = "" if service["scheduler"] == service["site_file_scheduler"] else " (ordered)"
    sliced = ", sliced" if service["entries"] == "slices" else ""
    if service["entries"] != service["site_file_entries"]:
        sliced = f", {service['entries']} (ordered)"
    return f"{service['protocol']}/{service['port']} {service['scheduler']}{ordered}{sliced}"


def _server(alike: list[dict[str, Any]]) -> str:
    """One address, which several services may have."""
    server = alike[0]
    behind = f" by {server['tunnel']['transport']}" if server["tunnel"] else ""
    if server["next_hop"]:
        behind += f" via {server['next_hop']}"
    states = sorted({one["state"] for one in alike} - {"up"})
    return _found(server["address"] + behind, server["mac"]) + (f" ({', '.join(states)})" if states else "")


def _found(name: str, mac: str | None) -> str:
    return name if mac else f"{name} ({output.unfound(name)})"
