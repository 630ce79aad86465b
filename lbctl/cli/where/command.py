"""lbctl where: which rule, and which server, a client's packet would meet."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Annotated, Any

import typer

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.cli.failure import Failure
from lbctl.cli.ovs import Ovs, Rundirs
from lbctl.cli.where.fate import Fate, clients, fate_of
from lbctl.cli.where.situation import DATAGRAM, SEGMENT, SYN, Situation, ports_of
from lbctl.cli.where.trace import trace
from lbctl.site.model import Protocol
from lbctl.values.addresses import Endpoint

_NAMES = {SYN: "A SYN", SEGMENT: "A packet without SYN or RST", DATAGRAM: "A datagram"}


def where(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CLIENT:PORT", help="Where the packet comes from: a client, or a NAT gateway's inside host."
        ),
    ],
    destination: Annotated[
        str,
        typer.Argument(
            metavar="IP:PORT",
            help="External IP and port that it goes to (of an inside host: "
            "address and port outside). IPv6: [ADDRESS]:PORT.",
        ),
    ],
    protocol: Annotated[
        Protocol | None, typer.Option(help="Of the packet; tcp, unless only udp has a service there.")
    ] = None,
    with_trace: Annotated[
        bool, typer.Option("--trace", help="Ask the switch as well; on the load balancer's host.")
    ] = False,
    ovs_rundir: Rundirs = None,
    json: output.Json = False,
) -> None:
    """Show which rules and which server a packet meets."""
    situation = _situation(
        Client.from_environment(), _endpoint(source, "CLIENT:PORT"), _endpoint(destination, "IP:PORT"), protocol
    )
    first, *others = situation.packets
    fates = {packet: fate_of(packet, situation) for packet in (first, *others)}
    traced = trace(Ovs.all_in(ovs_rundir), situation, first) if with_trace else None
    if json:
        output.print_json(_as_json(situation, fates, first, traced))
        return
    _print_situation(situation)
    _print_path(first, fates[first])
    for packet in others:
        output.print_line(f"\n{_NAMES[packet]}: {fates[packet].sentence}.")
    if traced is not None:
        output.print_line(f"\n{_NAMES[first]}, by the switch's own trace:\n{traced.rstrip()}")


def _endpoint(text: str, what: str) -> Endpoint:
    address, _, port = text.rpartition(":")
    bracketed = address.startswith("[") and address.endswith("]")
    try:
        endpoint = Endpoint(ip_address(address[1:-1] if bracketed else address), int(port))
        if bracketed != (endpoint.address.version == 6) or not (
            port.isascii() and port.isdigit() and 0 < endpoint.port < 65536
        ):
            raise ValueError
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not ADDRESS:PORT, such as 198.51.100.1:80 or [2001:db8::1]:80.", param_hint=what
        ) from None
    return endpoint


def _situation(api: Client, source: Endpoint, destination: Endpoint, protocol: Protocol | None) -> Situation:
    if source.address.version != destination.address.version:
        raise typer.BadParameter(
            f"{source.address} and {destination.address} are of different IP versions.", param_hint="IP:PORT"
        )
    external_ips = api.get("external-ips")["external_ips"]
    near, outward = _found_inside(api, external_ips, source), None
    if str(destination.address) not in [ip["address"] for ip in external_ips]:
        outward = _gateway_of(external_ips, source)
        if near is not None and not outward:
            raise Failure(_no_way(near, source))
    external_ip = outward or api.get("external-ips", str(destination.address))
    name = external_ip["load_balancer"]
    load_balancer = api.get("load-balancers", name)
    ports = ports_of(load_balancer)
    if ports is None:
        raise Failure(f"{external_ip['address']} is assigned to {name}, which is {load_balancer['state']}: "
                      f"{load_balancer['reason']}. So nothing forwards its packets; `lbctl doctor` says what to do.")
    modes = api.get("load-balancers", name, "transfer-modes")["transfer_modes"]
    move = api.get("moves", external_ip["move"]) if external_ip["move"] else None
    chosen = protocol or _protocol(external_ip, destination.port)
    entries = _entries(api, external_ip, chosen, source, destination, bool(outward))
    entry = next((entry for entry in entries if entry["slice"] is None), None)
    slice = next((entry for entry in entries if entry["slice"] is not None and near is None), None)
    return Situation(chosen, source, destination, bool(outward), near is not None, (near or {}).get("load_balancer"),
                     external_ip, load_balancer, ports, modes.get(external_ip["address"]), entry, move, slice)


def _gateway_of(external_ips: list[dict[str, Any]], source: Endpoint) -> dict[str, Any] | None:
    """The NAT gateway that has the source among its inside hosts."""
    return next((ip for ip in external_ips if _within(source, ip["inside"])), None)


def _within(source: Endpoint, networks: Iterable[str]) -> bool:
    return any(network.version == source.address.version and source.address in network
               for network in map(ip_network, networks))


def _found_inside(api: Client, external_ips: list[dict[str, Any]], source: Endpoint) -> dict[str, Any] | None:
    """Whose server (by destination NAT) or inside host the source is: the external IP, whose gateway it sends to; of
    another host inside, what is known of it: nothing. None: it is outside."""
    for ip in external_ips:
        servers = {server["address"] for service in ip["services"] for server in service["servers"]}
        if ip["nat"] == "destination" and str(source.address) in servers:
            return ip
    if gateway := _gateway_of(external_ips, source):
        return gateway
    networks = {network for lb in api.get("load-balancers")["load_balancers"] for network in lb["internal_networks"]}
    return {} if _within(source, networks) else None


def _no_way(near: dict[str, Any], source: Endpoint) -> str:
    """Why a host inside can't reach the outside."""
    who, answer = f"{source.address} is inside", "ICMP host unreachable"
    if near:
        who = f"{source.address} is a server of {near['address']}"
        answer = "a RST or ICMP port unreachable"
    return (
        f"{who}, and no NAT gateway has it among its inside hosts: what it opens to the outside is answered with "
        f"{answer}, and counted as no_way_outside. To let it out, add its address to `inside` of an external IP with "
        "kind: nat-gateway (docs/nat.md)."
    )


def _protocol(external_ip: dict[str, Any], port: int) -> str:
    there = {service["protocol"] for service in external_ip["services"] if service["port"] == port}
    return "udp" if there == {"udp"} else "tcp"


def _entries(api: Client, external_ip: dict[str, Any], protocol: str, source: Endpoint, destination: Endpoint,
             outward: bool) -> list[dict[str, Any]]:
    """Its own, if it has one, and its slice's. A client's port has one of each for each port of the external IP at
    most, so one page holds them all."""
    client = destination if outward else source
    query = {"server": str(source.address)} if outward else {}
    side, port = ("server_port", source.port) if outward else ("external_port", destination.port)
    page = api.get(
        "load-balancers",
        external_ip["load_balancer"],
        "access-table",
        external_ip=external_ip["address"],
        limit=1000,
        client=str(client.address),
        client_port=client.port,
        protocol=protocol,
        **query,
    )
    return [entry for entry in page["entries"] if entry[side] == port]


def _print_situation(situation: Situation) -> None:
    lb, entry, external = situation.load_balancer, situation.entry, situation.external_ip["address"]
    mode = situation.mode or "none (not assigned)"
    output.print_line(f"{external} is assigned to {lb['name']} ({lb['state']}), transfer mode {mode}.")
    if situation.move:
        output.print_line(
            f"Move {situation.move['id']} from {situation.move['from']} to {situation.move['to']} is running, "
            f"step {situation.move['step']}."
        )
    connection = f"{situation.protocol} {situation.source} -> {situation.destination}"
    if entry:
        there = (f"external port {entry['external_port']}" if situation.outward
                 else f"server {output.endpoint(entry['server'], entry['server_port'])}")
        output.print_line(
            f"{connection} has an entry: {there}, {entry['state']}, last seen {output.local_time(entry['last_seen'])}."
        )
    elif not situation.slice:
        output.print_line(f"{connection} has no entry.")
    if found := situation.slice:
        what = "is" if entry is None else "would be without it"
        output.print_line(
            f"{connection} {what} in slice {found['slice']} ({clients(found)}) of a sliced service: "
            f"server {output.endpoint(found['server'], found['server_port'])}{_changing(found)}."
        )
    if situation.inside and situation.gateway_lb not in (None, lb["name"]):
        output.print_line(f"It comes in at {situation.gateway_lb}, where its sender's gateway is, and is passed on to "
                          f"{lb['name']} by the controller.")


def _changing(slice: dict[str, Any]) -> str:
    """What there is to be said of a slice that is not plain."""
    if slice["state"] == "plain":
        return ""
    if slice["state"] == "mixed":
        return "; some of its connections have entries of their own"
    old = f", and what has no entry goes to {slice['old_server']} still" if slice["old_server"] else ""
    return f"; it changes hands (step {slice['state']}){old}"


def _print_path(packet: str, found: Fate) -> None:
    output.print_line(f"\n{_NAMES[packet]}: {found.sentence}.", style="bold")
    output.print_table("", ("table", "", "rule"), [(hit.number, hit.table, hit.text()) for hit in found.path], "")


def _as_json(situation: Situation, fates: dict[str, Fate], first: str, traced: str | None) -> dict[str, Any]:
    return {
        "client": str(situation.source), "external": str(situation.destination), "protocol": situation.protocol,
        "load_balancer": situation.load_balancer["name"], "transfer_mode": situation.mode, "entry": situation.entry,
        "slice": situation.slice,
        "move": situation.move and situation.move["id"], "packet": first,
        "verdicts": {packet: {"outcome": found.outcome, "sentence": found.sentence, "path": [
            {"table": hit.number, "name": hit.table, "purpose": hit.purpose, "rule": hit.text()} for hit in found.path]}
            for packet, found in fates.items()},
        "trace": traced}
