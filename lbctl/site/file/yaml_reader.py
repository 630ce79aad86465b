"""YAML text -> nodes with line numbers, and the readers that take values out of them.

A `Reader` collects problems instead of raising, so that one run names all of them: each reading method
returns None (or leaves the item out) where it noted a problem.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import yaml

MAX_DEPTH = 16
"""Levels of nesting; a site file has 7."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR, _INT, _FLOAT = "tag:yaml.org,2002:str", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_BOOL, _NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,15})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?")
_KINDS = {_STR: "text", _INT: "a number", _FLOAT: "a number", _BOOL: "a truth value"}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to mend in a site file. `line` counts from 1; None: the file as a whole."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}" if self.line is None else f"{self.file}:{self.line}: {self.message}"


class ConfigError(Exception):
    """A site file that cannot be used; `errors` are all its problems, in the order of lines."""

    def __init__(self, errors: Iterable[Mistake]) -> None:
        self.errors = sorted(errors, key=lambda problem: problem.line or 0)
        super().__init__("\n".join(map(str, self.errors)))


def line_of(node: yaml.Node) -> int:
    """The line where the node starts, from 1. It is for people: nothing is told from anything else by its line."""
    return int(node.start_mark.line) + 1


def in_quotes(text: str) -> str:
    """The text as a message shows it, not longer than a line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What to add to "unknown WORD": the nearest known word, if one is near, and all of them."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    choices = f"one of: {', '.join(known)}" if known else "there are none"
    return f"did you mean {near[0]!r}?" if near else choices


class Reader:
    """Takes values out of the nodes of one file, and collects what is wrong with them in `problems`."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Mistake] = []

    def problem(self, where: yaml.Node | int | None, message: str) -> None:
        """Note a problem at a node, in a line, or with the file as a whole."""
        line = line_of(where) if isinstance(where, yaml.Node) else where
        self.problems.append(Mistake(self.file, line, message))

    def compose(self, text: str) -> yaml.Node | None:
        """The root node of the text's one document; None if there is none, or none that can be read."""
        if found := yaml.reader.Reader.NON_PRINTABLE.search(text):
            line = text.count("\n", 0, found.start()) + 1
            self.problem(line, f"the character U+{ord(found.group()):04X} is not allowed here: remove it")
            return None
        try:
            if not self._harmless(text):
                return None
            return yaml.compose(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = ", ".join(part for part in (error.problem, error.context) if part)
            self.problem(mark.line + 1 if mark else None, f"this is not valid YAML: {what}{_hint(text, mark)}")
        return None

    def mapping(
        self, node: yaml.Node, what: str, required: Collection[str], optional: Collection[str] = (),
        only_for: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, yaml.Node] | None:
        """The values by key. A key that is nearly a known one that is missing counts as that one from here on.

        only_for: keys that are known elsewhere, and where.
        """
        if not isinstance(node, yaml.MappingNode):
            keys = ", ".join(required or optional)
            self.problem(node, f"{what} must be a mapping with the keys {keys}; it is {_kind(node)}")
            return None
        values: dict[str, yaml.Node] = {}
        unknown: list[tuple[yaml.Node, yaml.Node]] = []
        seen: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(key, f"{what}: a key must be a word, not {_kind(key)}")
            elif key.value in seen:
                self.problem(
                    key,
                    f"{what}: the key {in_quotes(key.value)} is already in line {line_of(seen[key.value])}: remove one",
                )
            else:
                seen[key.value] = key
                if key.value in required or key.value in optional:
                    values[key.value] = value
                elif key.value in only_for:
                    self.problem(key, f"{what}: the key {key.value!r} is only for {only_for[key.value]}")
                else:
                    unknown.append((key, value))
        self._unknown_keys(what, unknown, values, (*required, *optional))
        for key in required:
            if key not in values:
                self.problem(node, f"{what}: the key {key!r} is missing")
        return values

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        """The items of a list that must have at least one."""
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.problem(node, f"{what} must be a list ('- ...' lines); it is {_kind(node)}")
            return []
        if not node.value:
            self.problem(node, f"{what} is empty: at least one is needed")
        found: list[yaml.Node] = node.value
        return found

    def raw(self, node: yaml.Node | None, what: str, wanted: str) -> str | None:
        """A scalar as it is written, whatever YAML takes it for; for formats that are checked afterwards."""
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or node.tag == _NULL:
            self.problem(node, f"{what} must be {wanted}; it is {_kind(node)}")
            return None
        return str(node.value)

    def text(self, node: yaml.Node | None, what: str) -> str | None:
        """A scalar that YAML takes for text."""
        value = self.raw(node, what, "text")
        if value is None or node is None or node.tag == _STR:
            return value
        self.problem(
            node, f"{what} must be text, and YAML reads {in_quotes(value)} as {_kind(node)}: write it in quotes"
        )
        return None

    def whole(self, node: yaml.Node | None, what: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`, both included."""
        text = self._number(node, what, f"a whole number from {low} to {high}", _WHOLE)
        if text is None or low <= int(text) <= high:
            return None if text is None else int(text)
        self.problem(node, f"{what} must be a whole number from {low} to {high}; it is {text}")
        return None

    def positive(self, node: yaml.Node | None, what: str) -> float | None:
        """A number above 0."""
        text = self._number(node, what, "a number above 0", _DECIMAL)
        if text is None or float(text) > 0:
            return None if text is None else float(text)
        self.problem(node, f"{what} must be a number above 0; it is {text}")
        return None

    def boolean(self, node: yaml.Node | None, what: str) -> bool | None:
        """true or false."""
        value = self.raw(node, what, "true or false")
        if value is None or value in ("true", "false"):
            return None if value is None else value == "true"
        self.problem(node, f"{what} must be true or false; it is {in_quotes(value)}")
        return None

    def choice(self, node: yaml.Node | None, what: str, known: Collection[str]) -> str | None:
        """One of the known words."""
        value = self.raw(node, what, f"one of: {', '.join(known)}")
        if value is None or value in known:
            return value
        self.problem(node, f"unknown {what} {in_quotes(value)}: {did_you_mean(value, known)}")
        return None

    def _harmless(self, text: str) -> bool:
        """Refuse, before anything recurses, what no site file needs: aliases, deep nesting, further documents."""
        depth = documents = 0
        before = len(self.problems)
        for event in yaml.parse(text, Loader=_LOADER):
            if type(event) is yaml.ScalarEvent:
                continue  # most are
            line = event.start_mark.line + 1 if event.start_mark else None
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents == 2:
                self.problem(line, "a second YAML document starts here, and a site file has one: remove the '---'")
                break
            if isinstance(event, yaml.AliasEvent):
                self.problem(line, f"aliases are not supported: write out what *{event.anchor} stands for")
            elif isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    self.problem(line, f"more than {MAX_DEPTH} levels of nesting; is a bracket missing?")
                    break
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        return len(self.problems) == before

    def _unknown_keys(
        self,
        what: str,
        unknown: list[tuple[yaml.Node, yaml.Node]],
        values: dict[str, yaml.Node],
        known: Collection[str],
    ) -> None:
        for key, value in unknown:
            missing = [word for word in known if word not in values]
            near = difflib.get_close_matches(key.value, missing, n=1)
            if near:
                values[near[0]] = value
            self.problem(key, f"{what}: unknown key {in_quotes(key.value)}: {did_you_mean(key.value, near or known)}")

    def _number(self, node: yaml.Node | None, what: str, wanted: str, form: re.Pattern[str]) -> str | None:
        """A scalar in plain decimal notation: what YAML 1.1 also takes for numbers (010 is 8, 1:30 is 90) surprises."""
        value = self.raw(node, what, wanted)
        if value is None or node is None or (node.tag in (_INT, _FLOAT) and form.fullmatch(value)):
            return value
        hint = "; remove the quotes" if node.tag == _STR and form.fullmatch(value) else ""
        self.problem(node, f"{what} must be {wanted}; it is {in_quotes(value)}{hint}")
        return None


def _hint(text: str, mark: yaml.Mark | None) -> str:
    lines = text.splitlines()
    at = lines[mark.line][mark.column : mark.column + 1] if mark and mark.line < len(lines) else ""
    if at == "\t":
        return "; indent with spaces, not with tabs"
    return f"; put a value that begins with {at} in quotes" if at and at in "@`%" else ""


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "empty" if node.tag == _NULL else _KINDS.get(node.tag, f"of the YAML type {node.tag}")
