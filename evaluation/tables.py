"""Makes the tables of figures in docs/ from the records in docs/figures/: `python -m evaluation tables [FILE...]`.

A document says where a table goes by two comments, between which nothing is written by hand:

    <!-- figures: move read_back -->
    <!-- end -->

It names records: `failover/faults` is the table `faults` of the record `failover`, while `failover` would be all tables
of it and its notes. Below the tables stands by which command they were measured, when, from which commit, and on which
machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evaluation.measuring.findings import markdown
from evaluation.measuring.machine import CHECKOUT
from evaluation.measuring.record import MEASURED, Machine, Record, Table, UnreadableRecord, read

DOCS = CHECKOUT / "docs"
FIGURES = DOCS / "figures"
END = "<!-- end -->"
BEGIN = re.compile(r"<!-- figures: (?P<what>[^>]*?) -->")
PLACE = re.compile(rf"^{BEGIN.pattern}\n(?P<shown>.*?)^{END}$", flags=re.MULTILINE | re.DOTALL)


class UnknownFigures(ValueError):
    """A document asks for figures that no record has, or does not say where they end."""


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or 1 if a file is no record or a document asks for what there is not."""
    parser = argparse.ArgumentParser(prog="python -m evaluation tables", description="Makes the tables in docs/.")
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="NAME.json of a run, to be taken into docs/figures/ first, with the pictures beside it",
    )
    options = parser.parse_args(arguments)
    try:
        for file in options.files:
            take(file, DOCS)
        changed = fill(DOCS)
    except (UnreadableRecord, UnknownFigures, OSError) as error:
        print(f"tables: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"{path.relative_to(CHECKOUT)}: made anew" for path in changed) or "all tables are as they were")
    return 0


def take(file: Path, docs: Path) -> None:
    """Copy a record into docs/figures/, and its pictures into docs/. Raises UnreadableRecord, OSError."""
    record = read(file)
    (docs / FIGURES.name).mkdir(exist_ok=True)
    for source, folder in [(file, docs / FIGURES.name), *((file.parent / name, docs) for name in record.pictures)]:
        if source.resolve() != (folder / source.name).resolve():
            shutil.copyfile(source, folder / source.name)


def records(docs: Path) -> dict[str, Record]:
    """All records in docs/figures/, by name. Raises UnreadableRecord."""
    return {file.stem: read(file) for file in sorted((docs / FIGURES.name).glob("*.json"))}


def fill(docs: Path) -> list[Path]:
    """Make all tables of all documents; returns the files that have changed.

    Raises UnreadableRecord, UnknownFigures.
    """
    known, changed = records(docs), []
    for document in sorted(docs.glob("*.md")):
        text = document.read_text()
        filled = filled_in(text, known, document.name)
        if filled != text:
            document.write_text(filled)
            changed.append(document)
    return changed


def filled_in(text: str, known: Mapping[str, Record], document: str) -> str:
    """The text of a document with its tables. Raises UnknownFigures."""
    if len(BEGIN.findall(text)) != len(PLACE.findall(text)):
        raise UnknownFigures(f"{document}: each line <!-- figures: ... --> needs a line {END} below it")
    return PLACE.sub(_replacement(known, document), text)


def shown(what: str, known: Mapping[str, Record], document: str) -> str:
    """What a document asks for by `what`, and where it comes from. Raises UnknownFigures."""
    asked = [_asked(each, known, document) for each in what.split()]
    if not asked:
        raise UnknownFigures(f"{document}: <!-- figures: --> names no record")
    sources = {record.name: record for record, _ in asked}
    tables = markdown(table for _, tables in asked for table in tables)
    notes = [record.notes for name, (record, _) in zip(what.split(), asked, strict=True) if record.name == name]
    return "\n\n".join((tables, *(note for some in notes for note in some), _origins(list(sources.values()))))


def _replacement(known: Mapping[str, Record], document: str) -> Callable[[re.Match[str]], str]:
    def replacement(place: re.Match[str]) -> str:
        return f"<!-- figures: {place['what']} -->\n\n{shown(place['what'], known, document)}\n\n{END}"

    return replacement


def _asked(what: str, known: Mapping[str, Record], document: str) -> tuple[Record, list[Table]]:
    name, _, wanted = what.partition("/")
    if name not in known:
        raise UnknownFigures(f"{document}: there is no record docs/figures/{name}.json")
    record = known[name]
    if not wanted:
        return record, list(record.tables.values())
    if wanted not in record.tables:
        raise UnknownFigures(
            f"{document}: docs/figures/{name}.json has no table {wanted}, only {', '.join(record.tables)}"
        )
    return record, [record.tables[wanted]]


def _origins(sources: Sequence[Record]) -> str:
    """Where the tables come from: one sentence if all were made alike on the same day, else a line for each record."""
    told = [(f"`{record.command}`", _origin(record)) for record in sources]
    if len({origin for _, origin in told}) == 1:
        return f"({', '.join(command for command, _ in told)}: {told[0][1]}.)"
    return "\n".join(f"- {command}: {origin}" for command, origin in told)


def _origin(record: Record) -> str:
    parts = [f"{record.date:%Y-%m-%d}", f"commit {record.commit}{' with changes' if record.modified else ''}"]
    if record.source != MEASURED:
        parts.append(f"figures from {record.source}")
    if record.others is not None:
        parts.append(f"others took at most {record.others:.0%} of the machine")
    parts += [_machine(record.machine), *(f"{name} {version}" for name, version in record.versions.items())]
    return "; ".join((", ".join(parts[:2]), *parts[2:])) if len(parts) > 2 else ", ".join(parts)


def _machine(machine: Machine) -> str:
    cpu = f" ({machine.cpu})" if machine.cpu else ""
    memory = f", {machine.memory / 2**30:.0f} GiB" if machine.memory else ""
    return f"{machine.cores} cores{cpu}{memory}, {machine.kernel}"
