"""lbctl doctor: what on this machine, or in the site, would make it fail, each with the command that mends it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated

import typer

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.cli.doctor.addresses import check_addresses
from lbctl.cli.doctor.bridges import Networks
from lbctl.cli.doctor.controller import check_controller
from lbctl.cli.doctor.finding import Finding, Level, fail, warn
from lbctl.cli.doctor.open_vswitch import check_open_vswitches, load_balancers_in
from lbctl.cli.failure import Failure
from lbctl.cli.namespace import NetworkNamespace
from lbctl.cli.ovs import Ovs, Rundirs
from lbctl.site.file import ConfigError, load
from lbctl.site.model import LoadBalancer


def doctor(
    site: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Take the load balancers from this site file, not from the controller."),
    ] = None,
    ovs_rundir: Rundirs = None,
    json: output.Json = False,
) -> None:
    """Find what would fail here, and how to mend it."""
    findings = list(_findings(Client.from_environment(), site, Ovs.all_in(ovs_rundir)))
    if json:
        output.print_json(
            {
                "findings": [
                    {"level": finding.level.value, "what": finding.what, "mend": finding.mend, "keep": finding.keep}
                    for finding in findings
                ]
            }
        )
    else:
        for finding in findings:
            style = output.STATE_STYLES[finding.level.value]
            output.print_line(
                f"{finding.level.value:4}  {finding.what}", style="" if finding.level is Level.OK else style
            )
            if finding.mend:
                output.print_line(f"      -> {finding.mend}")
            if finding.keep:
                output.print_line(f"      -> so that it lasts: {finding.keep}")
        output.print_line(_summary(findings))
    if any(finding.level is Level.FAIL for finding in findings):
        raise typer.Exit(1)


def _findings(client: Client, site: str | None, installations: Sequence[Ovs]) -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield warn("You are not root: Open vSwitch will not let you look.", "sudo lbctl doctor")
    yield from check_controller(client)
    networks = Networks({}, False)
    try:
        load_balancers, networks = _from_file(site) if site else _from_controller(client)
    except ConfigError as error:
        for problem in error.errors:
            yield fail(str(problem), f"correct {site}; then: lbctl config check {site}")
        load_balancers = []
    except Failure:
        load_balancers = []
        yield warn("Which bridges to look at is not known, without a controller and without --site.",
                   "lbctl doctor --site FILE")
    yield from check_open_vswitches(installations, load_balancers, networks)
    try:
        views = client.get("load-balancers")["load_balancers"], client.get("external-ips")["external_ips"]
    except Failure:
        return  # told above
    yield from check_addresses(*views, _namespaces(installations, load_balancers))


def _namespaces(installations: Sequence[Ovs], load_balancers: Sequence[LoadBalancer]) -> dict[str, NetworkNamespace]:
    """By load balancer: where its Open vSwitch runs."""
    found: dict[str, NetworkNamespace] = {}
    for ovs in installations:
        with suppress(Failure):  # told above
            found |= {lb.name: ovs.namespace for lb in load_balancers_in(ovs, load_balancers)}
    return found


def _from_file(file: str) -> tuple[Sequence[LoadBalancer], Networks]:
    site = load(file)
    mtus = {"external": site.settings.external_mtu, "internal": site.settings.internal_mtu}
    return site.load_balancers, Networks(mtus, any(network.version == 6 for network in site.internal_networks))


def _from_controller(client: Client) -> tuple[Sequence[LoadBalancer], Networks]:
    found = client.get("load-balancers")["load_balancers"]
    mtus = {side: lb["ports"][side]["mtu"] for lb in found for side in ("external", "internal")}
    return [
        LoadBalancer(
            lb["name"],
            int(lb["dpid"], 16),
            lb["ports"]["external"]["name"],
            lb["ports"]["internal"]["name"],
            tuple((transport, port["name"]) for transport, port in lb["ports"]["tunnels"].items()),
        )
        for lb in found
    ], Networks(mtus, any(":" in network for lb in found for network in lb["internal_networks"]))


def _summary(findings: Sequence[Finding]) -> str:
    failed = sum(finding.level is Level.FAIL for finding in findings)
    warned = sum(finding.level is Level.WARN for finding in findings)
    if failed:
        return f"{failed} of {len(findings)} checks failed, {warned} warn."
    return f"Nothing failed in {len(findings)} checks" + (f", {warned} warn." if warned else ".")
