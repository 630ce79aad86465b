"""lbctl drain-server: no new connections for a server; the old ones finish."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.cli.failure import Failure
from lbctl.cli.move import INTERVAL
from lbctl.cli.services import FoundServer, OnlyExternalIp, OnlyService, find_server


def drain_server(
    server: Annotated[
        str, typer.Argument(metavar="SERVER", help="ADDRESS: in all services that have it; or ADDRESS:PORT.")
    ],
    external_ip: OnlyExternalIp = None,
    service: OnlyService = None,
    undo: Annotated[bool, typer.Option("--undo", help="It may get connections again.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has no connection left.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Wait so many seconds at most, then fail; it stays drained.")
    ] = None,
    json: output.Json = False,
) -> None:
    """Give a server no new connections; those that it has go on until they end."""
    if undo and wait or timeout is not None and not wait:
        raise typer.BadParameter("--wait is for draining, --timeout for --wait", param_hint="--wait")
    client = Client.from_environment()
    drained = [each._replace(view=client.patch(*each.path, body={"drained": not undo}))
               for each in find_server(client, server, external_ip, service)]
    if wait:
        drained = _empty(client, server, drained, timeout)
    if json:
        output.print_json({"servers": [each.json for each in drained]})
        return
    for each in drained:
        what = f"is {each.view['state']} again" if undo else _drained(each.view["connections"])
        output.print_line(f"{each.name} of {each.external_ip} {each.service} {what}.")


def _empty(client: Client, server: str, drained: list[FoundServer], timeout: float | None) -> list[FoundServer]:
    """The servers when none of their connections is left. Raises Failure when the time (seconds) is over."""
    deadline = None if timeout is None else time.monotonic() + timeout
    told = None
    while left := _left(drained):
        if deadline is not None and time.monotonic() >= deadline:
            raise Failure(
                f"After {timeout:g} s {server} still has {left}. It stays drained: wait for longer, or end "
                "them on the server; `lbctl drain-server --undo` lets it take connections again."
            )
        if left != told:
            output.remark(f"{server}: {left} left")
            told = left
        time.sleep(INTERVAL)
        drained = [each._replace(view=client.get(*each.path)) for each in drained]
        if undone := [each.name for each in drained if each.view["state"] != "drained"]:
            raise Failure(f"Somebody has undone the draining of {', '.join(undone)} meanwhile.")
    return drained


def _left(drained: list[FoundServer]) -> str:
    """In words; "" if there are none. Services of one external IP and protocol that share a server see the same
    connections."""
    counts = {(each.external_ip, each.protocol, each.name): each.view["connections"] for each in drained}
    if None in counts.values():
        return "connections that are not counted yet (docs/slices.md)"
    total = sum(counts.values())
    return _counted(total) if total else ""


def _drained(connections: int | None) -> str:
    """connections: None, nobody counts them."""
    return "is drained, " + ("its open connections go on" if connections is None else f"{_counted(connections)} left")


def _counted(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"
