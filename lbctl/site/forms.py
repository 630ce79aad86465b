"""The forms that the values of the site file's keys have.

A form says what it is in words, and how a value of it is written. How it is read from a file, and what is said of a
wrong value, is in site/file/values.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Generic, TypeVar

from lbctl.values.addresses import Address, Network, address_order

Value = TypeVar("Value")


class Form(Generic[Value]):
    """What values a key may have."""

    def words(self) -> str:
        """For people, in docs/site-file.md."""
        raise NotImplementedError

    def document(self, value: Value) -> object:
        """The value as JSON has it."""
        return value

    def value(self, document: object) -> Value:
        """The inverse of `document`, for the forms of what is ordered at run time. Raises ValueError for what that
        never gives."""
        raise NotImplementedError(f"no order holds values of the form {self}")

    def of_variant(self, variant: str | None) -> Form[Value]:
        """What it is in a variant of its part of the file."""
        return self


# Numbers and words.


@dataclass(frozen=True)
class Whole(Form[int]):
    """A whole number, both bounds included. bounds: other upper bounds that it has in some variants."""

    low: int
    high: int
    bounds: Mapping[str, int] = field(default_factory=dict, hash=False)

    def words(self) -> str:
        least = min([self.high, *self.bounds.values()])
        more = "" if least == self.high else f" (some: {least})"
        return f"whole number from {self.low} to {self.high}{more}"

    def of_variant(self, variant: str | None) -> Whole:
        high = self.bounds.get(variant) if variant else None
        return self if high is None else Whole(self.low, high)

    def value(self, document: object) -> int:
        if not isinstance(document, int) or isinstance(document, bool) or not self.low <= document <= self.high:
            raise ValueError(f"{document!r} is no {self.words()}")
        return document


PORT = Whole(1, 65535)


@dataclass(frozen=True)
class Positive(Form[float]):
    """A number above 0."""

    def words(self) -> str:
        return "number above 0"


@dataclass(frozen=True)
class Seconds(Form[float]):
    """Both bounds included."""

    least: float
    most: float

    def words(self) -> str:
        return f"{self.least:g} to {self.most:g} seconds"


@dataclass(frozen=True)
class Truth(Form[bool]):
    """true or false."""

    def words(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Choice(Form[str]):
    """One of some words. The first is what counts where none is given."""

    choices: tuple[str, ...]

    def words(self) -> str:
        return ", ".join(f"`{choice}`" for choice in self.choices)

    def value(self, document: object) -> str:
        if not isinstance(document, str) or document not in self.choices:
            raise ValueError(f"{document!r} is none of {', '.join(self.choices)}")
        return document


@dataclass(frozen=True)
class Text(Form[str]):
    """wrong: what is said of a text that is not of that pattern; {} is the text."""

    what: str
    pattern: re.Pattern[str] | None = None
    wrong: str = ""

    def words(self) -> str:
        return self.what


NAME = Text("name: at most 63 letters, digits, `.`, `_` and `-`", re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"),
            "{}: use at most 63 letters, digits, '.', '_' and '-', a letter or digit first")
"""It is part of URLs and commands."""
PORT_NAME = Text(
    "name of a port", re.compile(r"[^\s/:]{1,15}"), "{} is no interface name: 1 to 15 characters, no space, '/' or ':'"
)
FILE = Text("file name")
PATH = Text("path", re.compile(r"/[!-~]{0,255}"),
            "must begin with / and have at most 256 printable ASCII characters, no space; it is {}")
HOST_NAME = Text("host name or address, with or without :PORT", re.compile(r"[!-.0-~]{1,128}"),
                 "must be a host name, an address, or either with :PORT; it is {}")


@dataclass(frozen=True)
class Url(Form[str]):
    """Where a keeper is."""

    def words(self) -> str:
        return "`http://ADDRESS:PORT` or `https://NAME:PORT`"


@dataclass(frozen=True)
class LoadBalancerName(Form[str]):
    """A name that one of the load balancers has."""

    def words(self) -> str:
        return "name of a load balancer"


@dataclass(frozen=True)
class Dpid(Form[int]):
    """A datapath id as Open vSwitch writes it."""

    def words(self) -> str:
        return "16 hex digits in quotes"

    def document(self, value: int) -> object:
        return f"{value:016x}"


# Addresses and ports.


@dataclass(frozen=True)
class HostAddress(Form[Address]):
    """An address that a host can have. within: the key of the network that it is in."""

    within: str | None = None

    def words(self) -> str:
        return f"address in `{self.within}`" if self.within else "IP address"

    def document(self, value: Address) -> object:
        return str(value)

    def value(self, document: object) -> Address:
        if not isinstance(document, str):
            raise ValueError(f"{document!r} is no IP address")
        return ip_address(document)


@dataclass(frozen=True)
class Prefix(Form[Network]):
    """A network, or a single host."""

    def words(self) -> str:
        return "network such as 10.0.0.128/25"

    def document(self, value: Network) -> object:
        return str(value)


@dataclass(frozen=True)
class Networks(Form[tuple[Network, ...]]):
    """At most one network of each IP version."""

    def words(self) -> str:
        return "network such as 10.0.0.0/24, or a list of one of each IP version"

    def document(self, value: tuple[Network, ...]) -> object:
        return str(value[0]) if len(value) == 1 else [str(network) for network in value]


@dataclass(frozen=True)
class PortRange(Form[tuple[int, int]]):
    """First and last port."""

    def words(self) -> str:
        return "`[1024, 65535]` or `1024-65535`"

    def document(self, value: tuple[int, int]) -> object:
        return list(value)


# What a health check sends and wants.


@dataclass(frozen=True)
class Statuses(Form[tuple[tuple[int, int], ...]]):
    """HTTP status codes: first and last of each range."""

    def words(self) -> str:
        return "an HTTP status such as 200, a range such as 200-399, or a list of them"

    def document(self, value: tuple[tuple[int, int], ...]) -> object:
        return [first if first == last else f"{first}-{last}" for first, last in value]


@dataclass(frozen=True)
class Payload(Form[bytes]):
    """Bytes of a packet."""

    most: int

    def words(self) -> str:
        return f'text, or `{{hex: "00ff"}}`; at most {self.most} bytes'

    def document(self, value: bytes) -> object:
        return {"hex": value.hex()} if value else ""


# What holds others.


@dataclass(frozen=True)
class Several(Form[Collection[Value]]):
    """A list of values. item: what each is called in messages; None: as the key."""

    of: Form[Value]
    item: str | None = None

    def words(self) -> str:
        return f"list: {self.of.words()}"

    def document(self, value: Collection[Value]) -> object:
        return [self.of.document(each) for each in value]


@dataclass(frozen=True)
class Unordered(Several[Value]):
    """A list whose order means nothing: a frozenset. Addresses are written in their order."""

    def document(self, value: Collection[Value]) -> object:
        return [self.of.document(each) for each in sorted(value, key=_order)]


@dataclass(frozen=True)
class Part(Form[object]):
    """A mapping with keys of its own. of: its value type; called: what it is called in messages. inherits: keys of its
    own that are, when they are left out, as which key beside it."""

    of: type
    called: str
    inherits: tuple[tuple[str, str], ...] = ()

    def words(self) -> str:
        return "mapping, see below"


@dataclass(frozen=True)
class Parts(Form[tuple[object, ...]]):
    """A list of such mappings; at least one."""

    part: Part

    def words(self) -> str:
        return "list of mappings, see below"


@dataclass(frozen=True)
class Inline(Form[object]):
    """A value type whose keys stand beside those of the one that has it. decided_by: the key without which, or with
    whose value `unless`, there is none; None: there always is one. whose: the keys are, in messages."""

    of: type
    decided_by: str | None = None
    unless: object = None
    whose: str = ""


@dataclass(frozen=True)
class Spread(Form[tuple[tuple[str, object], ...]]):
    """One key for each of several items; the value: pairs of item and its value. items: (key, item)."""

    items: tuple[tuple[str, str], ...]
    of: Form[object]


def _order(value: object) -> tuple[int, bytes]:
    return (0, value.encode()) if isinstance(value, str) else address_order(value)  # type: ignore[arg-type]
