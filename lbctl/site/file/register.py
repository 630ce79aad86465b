"""What must not occur twice in a site, and where it was."""

from __future__ import annotations

import yaml

from lbctl.site.file.yaml_reader import Reader, line_of

What = tuple[object, ...]
"""What it is (a word) and which (values that tell it from others of the kind)."""


class Register:
    """Remembers what it has seen by what it is, never by its line; the line is for people."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._where: dict[What, str] = {}

    def once(self, node: yaml.Node, what: What, message: str) -> None:
        """Note a problem if it was there before; the message says where."""
        if what in self._where:
            self._reader.problem(node, f"{message} ({self._where[what]})")
        else:
            self._where[what] = f"line {line_of(node)}"

    def where(self, what: What) -> str | None:
        """In words; None: it was not there."""
        return self._where.get(what)

    def known(self, what: What, where: str) -> None:
        """It is there already, elsewhere than in a file."""
        self._where[what] = where
