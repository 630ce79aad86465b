"""What the commands print: tables for people, JSON for programs, both on standard output; remarks on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lbctl.frames.discovery import asked_by

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

STATE_STYLES = {
    **dict.fromkeys(("ready", "done", "ok", "normal", "up"), "green"),
    **dict.fromkeys(("reading", "transition", "running", "warn", "aborted", "drained", "full"), "yellow"),
    **dict.fromkeys(("disconnected", "unfit", "rolled-back", "fail", "down"), "red"),
}
NONE = "-"


def console() -> Console:
    """Standard output. Where it is no terminal there is no width to keep to, so that nothing is cut off."""
    return Console(width=None if sys.stdout.isatty() else 500, highlight=False, soft_wrap=False)


def print_json(content: Any) -> None:
    json.dump(content, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str, optional: Sequence[str] = ()
) -> None:
    """A table, or the line `empty` if there are no rows. None is shown as a dash; states have their colours.

    optional: columns that are left out where no row has anything in them.
    """
    rows = list(rows)
    shown = [
        number for number, column in enumerate(columns) if column not in optional or any(row[number] for row in rows)
    ]
    table = Table(
        *(columns[number] for number in shown),
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    for row in rows:
        table.add_row(*(_cell(row[number]) for number in shown))
    if table.row_count:
        console().print(table)
    else:
        console().print(Text(empty))


def print_line(text: str = "", style: str = "") -> None:
    """One line, in one style; what looks like markup is printed as it is."""
    console().print(Text(text, style=style), soft_wrap=True)


def remark(text: str) -> None:
    """A line for people on standard error."""
    print(text, file=sys.stderr, flush=True)


def unfound(address: str) -> str:
    """That nobody has told the MAC of that address."""
    return f"no {asked_by(address)} answer"


def endpoint(address: str, port: int) -> str:
    """ADDRESS:PORT, and [ADDRESS]:PORT with IPv6 (RFC 3986)."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def local_time(iso: str | None) -> str:
    """An API time in this machine's time zone, to the second."""
    if iso is None:
        return NONE
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _cell(value: object) -> Text:
    text = NONE if value is None or value == "" else str(value)
    return Text(text, style=STATE_STYLES.get(text, ""))
