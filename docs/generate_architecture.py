"""Writes the generated parts of docs/architecture.md: the picture of the rooms and their table, from the contract in
setup.cfg and the rooms' own docstrings; and how many files each walk goes through.

    python docs/generate_architecture.py

Each stop of a walk names a file and what is called there; one that does not exist is an error. tests/unit/test_docs.py
runs this.
"""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
TARGET = Path(__file__).with_name("architecture.md")
BEFORE = {"a SYN": 21, "a move": 32, "the death of an LB": 33, "a key of the site file": 11}
"""Files on each walk before the library was cut into rooms (commit 74baedd), as a reviewer counted them."""
MODULES = ("control",)
"""Lines of the contract that are no rooms but a module."""

_STOP = re.compile(r"^\d+\. `(?P<path>[\w/.-]+\.\w+)` `(?P<name>[\w.]+)`: ", re.MULTILINE)
_WALK = re.compile(r"^### (?P<title>.+?)\n(?P<body>.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)


class Stop(NamedTuple):
    """Where a walk passes: a file, and a function, class or field in it."""

    path: str
    name: str


def layers() -> list[list[str]]:
    """The lines of the contract, the upper ones first; each with the rooms that it names."""
    contracts = configparser.ConfigParser()
    contracts.read(CHECKOUT / "setup.cfg")
    lines = contracts["importlinter:contract:rooms"]["layers"].strip().splitlines()
    return [[room.strip() for room in line.split("|")] for line in lines]


def purpose(room: str) -> str:
    """The first paragraph of the room's docstring."""
    path = CHECKOUT / "lbctl" / (f"{room}.py" if room in MODULES else f"{room}/__init__.py")
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    if not docstring:
        raise ValueError(f"{path} does not say what lives there")
    return " ".join(docstring.partition("\n\n")[0].split())


def picture() -> str:
    """A mermaid picture: a box for each line of the contract."""
    boxes = [f'  line{number}["{" &nbsp; ".join(line)}"]' for number, line in enumerate(layers())]
    arrows = " --> ".join(f"line{number}" for number in range(len(boxes)))
    return "\n".join(["```mermaid", "flowchart TB", *boxes, f"  {arrows}", "```"])


def table() -> str:
    """A row for each room, the upper ones first."""
    rows = [f"| `{room}{'.py' if room in MODULES else '/'}` | {purpose(room)} |" for line in layers() for room in line]
    return "\n".join(["| room | what lives there |", "|---|---|", *rows])


def walks(text: str) -> dict[str, list[Stop]]:
    """Title -> stops, of the document's section "Four walks". Raises ValueError for a stop that there is not."""
    section = text.partition("\n## Four walks\n")[2].partition("\n## ")[0]
    found = {match["title"]: [Stop(stop["path"], stop["name"]) for stop in _STOP.finditer(match["body"])]
             for match in _WALK.finditer(section)}
    for title, stops in found.items():
        for stop in stops:
            path = CHECKOUT / stop.path
            if not path.is_file() or path.suffix == ".py" and stop.name not in names(path):
                raise ValueError(f"{title}: there is no {stop.name} in {stop.path}")
    return found


def names(path: Path) -> set[str]:
    """What a module defines: functions, classes, and what is in them, as Class.name; and names at its top level."""

    def within(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name
                if isinstance(node, ast.ClassDef):
                    yield from within(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield prefix + node.target.id
            elif isinstance(node, ast.Assign):
                yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))

    return set(within(ast.parse(path.read_text()).body, ""))


def counts(found: dict[str, list[Stop]]) -> str:
    """A row for each walk: files before the rooms, and now."""
    rows = [f"| {title} | {BEFORE[title]} | {len({stop.path for stop in stops})} |" for title, stops in found.items()]
    return "\n".join(["| walk | files before | files now |", "|---|---|---|", *rows])


def filled(text: str) -> str:
    """The document with its generated parts made anew. Raises ValueError if a walk is wrong."""
    parts = {"picture": picture(), "rooms": table(), "walks": counts(walks(text))}
    for name, part in parts.items():
        begin, end = f"<!-- generated: {name} -->", "<!-- end -->"
        before, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"{TARGET} has no {begin}")
        text = before + begin + "\n\n" + part + "\n\n" + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    TARGET.write_text(filled(TARGET.read_text()))
    print(f"{TARGET} written")
