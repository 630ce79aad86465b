"""lbctl nat-log: who had a translated address and port, of the records of NAT (docs/nat.md)."""

from __future__ import annotations

import gzip
import itertools
import json as json_format
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from lbctl.cli import output
from lbctl.cli.failure import Failure


@dataclass
class Tenure:
    """Of a translated address and port. who: the inside host (of full NAT: the client). Times
    as in the records; until: None if no end is recorded."""

    protocol: str
    translated: str
    who: str
    spoke_with: str
    since: str
    until: str | None = None

    def covers(self, time: str) -> bool:
        return self.since <= time and (self.until is None or time <= self.until)


def nat_log(
    place: Annotated[str, typer.Argument(metavar="ADDRESS:PORT", help="The address and port that the outside saw.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Records, the oldest first; .gz too.")],
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="ISO 8601; without a zone it is local. Left out: ever.")
    ] = None,
    json: output.Json = False,
) -> None:
    """Tell who had a port of a NAT gateway (or of an internal IP), and when."""
    time = _time(at) if at is not None else None
    found = [each for each in tenures(_lines(files), place) if time is None or each.covers(time)]
    if json:
        output.print_json([asdict(each) for each in found])
        return
    output.print_table(
        f"Who had {place}" + (f" at {output.local_time(time)}" if time else ""),
        ("protocol", "who", "spoke with", "since", "until"),
        [
            (each.protocol, each.who, each.spoke_with, output.local_time(each.since), output.local_time(each.until))
            for each in found
        ],
        f"Nobody is recorded to have had {place}" + (f" at {output.local_time(time)}." if time else "."),
    )


def tenures(lines: Iterable[str], place: str) -> list[Tenure]:
    """Of that place, in the order of their first records. A line that is no record (half of one, after a full disk) is
    passed over."""
    found: list[Tenure] = []
    open_: dict[tuple[str, str, str], Tenure] = {}
    wanted = f'"translated":"{place}"'
    for text in lines:
        if wanted not in text:
            continue
        try:
            record = json_format.loads(text)
            who, with_whom = record.get("inside") or record["client"], record.get("outside") or record["server"]
            key = record["protocol"], who, with_whom
            event, time, since = record["event"], record["time"], record["since"]
        except (ValueError, KeyError):
            continue
        tenure = open_.get(key)
        if tenure is None:
            tenure = open_[key] = Tenure(record["protocol"], place, who, with_whom, since)
            found.append(tenure)
        if event == "ended":
            tenure.until = time
            del open_[key]
    return found


def _lines(files: Iterable[Path]) -> Iterator[str]:
    return itertools.chain.from_iterable(map(_lines_of, files))


def _lines_of(file: Path) -> Iterator[str]:
    try:
        with (gzip.open(file, "rt", errors="replace") if file.suffix == ".gz"
              else file.open(errors="replace")) as opened:
            yield from opened
    except OSError as error:
        raise Failure(f"{file}: {error.strerror or error}") from error


def _time(text: str) -> str:
    """As the records tell times. Raises Failure."""
    try:
        time = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise Failure(f"--at {text}: write it as 2026-11-27T10:40:00, or with a zone, 2026-11-27T10:40:00Z") from error
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
