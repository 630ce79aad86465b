"""lbctl move, moves and abort: order a move and follow it, read the records, abort one."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.values.entry_states import EntriesFrom
from lbctl.values.transfer import Strategy

COLUMNS = (
    "id",
    "kind",
    "external IP",
    "from",
    "to",
    "strategy",
    "state",
    "step",
    "started",
    "seconds",
    "entries",
    "held",
    "lost",
    "remark",
)
INTERVAL = 0.2
"""Seconds between two looks at a move that is waited for."""


def move(
    external_ip: Annotated[str, typer.Argument(metavar="IP", help="The external IP to move.")],
    load_balancer: Annotated[str, typer.Argument(metavar="LB", help="Where it is to go.")],
    strategy: Annotated[Strategy, typer.Option(help="Order of the steps, see docs/move.md.")] = Strategy.PRECOPY,
    entries: Annotated[
        EntriesFrom, typer.Option(help="Where they come from: the controller's access table, or the copies.")
    ] = "table",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; fail if it was rolled back.")] = False,
    json: output.Json = False,
) -> None:
    """Move an external IP to another load balancer."""
    client = Client.from_environment()
    record = client.post("external-ips", external_ip, "move", body={
        "to": load_balancer, "strategy": strategy.value, **({"entries": entries} if entries != "table" else {})})
    if wait:
        record = _follow(client, record)
    if json:
        output.print_json(record)
    elif wait:
        _print_record(record)
    else:
        output.print_line(f"Move {record['id']} has started; `lbctl moves {record['id']}` shows it.")
    if record["state"] not in ("running", "done"):
        raise typer.Exit(1)


def failover(
    load_balancer: Annotated[
        str, typer.Argument(metavar="LB", help="The load balancer that has failed, or is to be freed.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; fail if one was rolled back.")] = False,
    json: output.Json = False,
) -> None:
    """Take all external IPs of a load balancer away, as if it had failed."""
    client = Client.from_environment()
    records = client.post("load-balancers", load_balancer, "failover")["moves"]
    if wait:
        records = [_follow(client, record) for record in records]
    if json:
        output.print_json({"moves": records})
    else:
        output.print_table("", COLUMNS, map(_row, records), f"{load_balancer} has no external IP.")
    if any(record["state"] not in ("running", "done") for record in records):
        raise typer.Exit(1)


def moves(
    id: Annotated[str | None, typer.Argument(metavar="ID", help="Show this move with its steps.")] = None,
    json: output.Json = False,
) -> None:
    """Show the records of moves, newest first."""
    client = Client.from_environment()
    content = client.get("moves") if id is None else client.get("moves", id)
    if json:
        output.print_json(content)
    elif id is not None:
        _print_record(content)
    else:
        output.print_table("", COLUMNS, map(_row, content["moves"]), "No moves on record.")


def abort(id: Annotated[str, typer.Argument(metavar="ID", help="Id of the move.")], json: output.Json = False) -> None:
    """Abort a move, if its route has not changed yet."""
    record = Client.from_environment().delete("moves", id)
    if json:
        output.print_json(record)
    else:
        output.print_line(f"Move {id} is {record['state']}; {record['external_ip']} stays on {record['from']}.")


def _follow(client: Client, record: dict[str, Any]) -> dict[str, Any]:
    """The record at the move's end; meanwhile its progress on standard error."""
    show = _Progress(record)
    try:
        while record["state"] == "running":
            show.update(record)
            time.sleep(INTERVAL)
            record = client.get("moves", record["id"])
    except KeyboardInterrupt:
        output.remark(f"lbctl: the move goes on; `lbctl moves {record['id']}` shows it, `lbctl abort {record['id']}` "
                      "aborts it.")
        raise typer.Exit(1) from None
    finally:
        show.end()
    return record


class _Progress:
    """On a terminal one line that changes, elsewhere a line for each step."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._heading = f"move {record['id']}, {record['external_ip']} to {record['to']}"
        self._step: str | None = None
        self._status: Status | None = None
        if sys.stderr.isatty():
            self._status = Console(stderr=True, highlight=False).status(self._heading)
            self._status.start()

    def update(self, record: dict[str, Any]) -> None:
        text = (f"{self._heading}: {record['step']}, {record['entries_copied']} of {record['entries_total']} entries "
                f"copied, {record['packets_held']} packets held")
        if self._status:
            self._status.update(text)
        elif record["step"] != self._step:
            output.remark(text)
        self._step = record["step"]

    def end(self) -> None:
        if self._status:
            self._status.stop()


def _seconds(record: dict[str, Any]) -> str:
    steps = [step["seconds"] for step in record["steps"]]
    return "-" if record["ended"] is None or None in steps else f"{sum(steps):.3f}"


def _row(record: dict[str, Any]) -> tuple[object, ...]:
    return (
        record["id"],
        record["kind"],
        record["external_ip"],
        record["from"],
        record["to"],
        record["strategy"],
        record["state"],
        record["step"],
        output.local_time(record["started"]),
        _seconds(record),
        record["entries_copied"],
        record["packets_held"],
        record["packets_lost"],
        "; ".join(filter(None, (record["cause"], record["reason"]))),
    )


def _print_record(record: dict[str, Any]) -> None:
    reason = f" ({record['reason']})" if record["reason"] else ""
    output.print_line(f"Move {record['id']}: {record['external_ip']} from {record['from']} to {record['to']}, "
                      f"{record['strategy']}: {record['state']}{reason}.")
    if record["cause"]:
        output.print_line(f"{record['from']} has failed: {record['cause']}.")
    output.print_table("", ("step", "started", "seconds"),
                       [(step["name"], output.local_time(step["started"]),
                         None if step["seconds"] is None else f"{step['seconds']:.3f}") for step in record["steps"]],
                       "No step has begun.")
    origin = ", ".join(f"{count} from {copy}" for copy, count in record["entries_from"].items())
    output.print_line(
        f"{record['entries_copied']} of {record['entries_total']} entries copied{f' ({origin})' if origin else ''}; "
        f"packets: {record['packets_held']} held, {record['packets_released']} released, "
        f"{record['packets_lost']} lost."
    )
