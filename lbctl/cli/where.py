"""lbctl where: which rule, and which server, a client's packet would meet."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address
from typing import Annotated, Any

import typer

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.cli.failure import Failure
from lbctl.cli.ovs import Ovs
from lbctl.cli.trace import trace
from lbctl.cli.verdict import SEGMENT, SYN, Situation, Verdict, ports_of, verdict
from lbctl.model import Endpoint

_NAMES = {SYN: "A SYN", SEGMENT: "A packet without SYN or RST"}


def where(
    client: Annotated[str, typer.Argument(metavar="CLIENT:PORT", help="Where the packet comes from.")],
    external: Annotated[str, typer.Argument(metavar="IP:PORT", help="External IP and port that it goes to.")],
    with_trace: Annotated[bool, typer.Option("--trace", help="Ask the switch as well; on the load balancer's host.")] = False,
    ovs_rundir: Annotated[str | None, typer.Option(metavar="DIR", help="Where Open vSwitch's sockets are, if not in "
                                                   "OVS_RUNDIR or the usual place.")] = None,
    json: output.Json = False,
) -> None:
    """Show which rules and which server a packet meets."""
    situation = _situation(Client.from_environment(), _endpoint(client, "CLIENT:PORT"), _endpoint(external, "IP:PORT"))
    first, second = (SEGMENT, SYN) if situation.entry else (SYN, SEGMENT)
    verdicts = {packet: verdict(situation, packet) for packet in (first, second)}
    traced = trace(Ovs(ovs_rundir), situation, first) if with_trace else None
    if json:
        output.print_json(_as_json(situation, verdicts, first, traced))
        return
    _print_situation(situation)
    _print_path(first, verdicts[first])
    output.print_line(f"\n{_NAMES[second]}: {verdicts[second].sentence}.")
    if traced is not None:
        output.print_line(f"\n{_NAMES[first]}, by the switch's own trace:\n{traced.rstrip()}")


def _endpoint(text: str, what: str) -> Endpoint:
    address, _, port = text.rpartition(":")
    try:
        endpoint = Endpoint(IPv4Address(address), int(port))
        if not (port.isascii() and port.isdigit() and 0 < endpoint.port < 65536):
            raise ValueError
    except (AddressValueError, ValueError):
        raise typer.BadParameter(f"{text!r} is not ADDRESS:PORT, such as 198.51.100.1:80.", param_hint=what) from None
    return endpoint


def _situation(api: Client, client: Endpoint, external: Endpoint) -> Situation:
    external_ip = api.get("external-ips", str(external.address))
    name = external_ip["load_balancer"]
    load_balancer = api.get("load-balancers", name)
    if ports_of(load_balancer) is None:
        raise Failure(f"{external.address} is assigned to {name}, which is {load_balancer['state']}: "
                      f"{load_balancer['reason']}. So nothing forwards its packets; `lbctl doctor` says what to do.")
    modes = api.get("load-balancers", name, "transfer-modes")["transfer_modes"]
    move = api.get("moves", external_ip["move"]) if external_ip["move"] else None
    return Situation(client, external, external_ip, load_balancer, modes.get(str(external.address)),
                     _entry(api, name, client, external), move)


def _entry(api: Client, name: str, client: Endpoint, external: Endpoint) -> dict[str, Any] | None:
    """A client's port has one entry for each port of the external IP at most, so one page holds them all."""
    page = api.get("load-balancers", name, "access-table", external_ip=str(external.address), limit=1000,
                   client=str(client.address), client_port=client.port)
    return next((entry for entry in page["entries"] if entry["external_port"] == external.port), None)


def _print_situation(situation: Situation) -> None:
    lb, entry = situation.load_balancer, situation.entry
    mode = situation.mode or "none (not assigned)"
    output.print_line(f"{situation.external.address} is assigned to {lb['name']} ({lb['state']}), transfer mode {mode}.")
    if situation.move:
        output.print_line(f"Move {situation.move['id']} from {situation.move['from']} to {situation.move['to']} is running, "
                          f"step {situation.move['step']}.")
    connection = f"{situation.client} -> {situation.external}"
    if entry:
        output.print_line(f"{connection} has an entry: server {entry['server']}:{entry['server_port']}, {entry['state']}, "
                          f"last seen {output.local_time(entry['last_seen'])}.")
    else:
        output.print_line(f"{connection} has no entry.")


def _print_path(packet: str, found: Verdict) -> None:
    output.print_line(f"\n{_NAMES[packet]}: {found.sentence}.", style="bold")
    output.print_table("", ("table", "", "rule"), [(hit.number, hit.table, hit.text()) for hit in found.path], "")


def _as_json(situation: Situation, verdicts: dict[str, Verdict], first: str, traced: str | None) -> dict[str, Any]:
    return {
        "client": str(situation.client), "external": str(situation.external),
        "load_balancer": situation.load_balancer["name"], "transfer_mode": situation.mode, "entry": situation.entry,
        "move": situation.move and situation.move["id"], "packet": first,
        "verdicts": {packet: {"outcome": found.outcome, "sentence": found.sentence, "path": [
            {"table": hit.number, "name": hit.table, "purpose": hit.purpose, "rule": hit.text()} for hit in found.path]}
            for packet, found in verdicts.items()},
        "trace": traced}
