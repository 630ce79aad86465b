"""Writes the generated parts of docs/slices.md: the arithmetic of shares, by lbctl.servers.slices itself.

    python docs/generate_slices.py

tests/unit/test_docs.py compares.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path

from lbctl.servers.slices import NOBODYS, Owners, divided
from lbctl.values.addresses import Endpoint
from lbctl.values.slices import SLICES

TARGET = Path(__file__).with_name("slices.md")
COUNTS = (2, 3, 5, 10, 20, 50, 100)
FEWER = 64


def _servers(count: int) -> list[Endpoint]:
    return [Endpoint(IPv4Address("10.0.0.0") + number, 80) for number in range(1, count + 1)]


def _most(owners: Owners, count: int) -> float:
    """The largest share, relative to what each would have exactly."""
    return max(Counter(owners).values()) * count / len(owners)


def shares() -> str:
    """A row for each number of servers alike."""
    rows = []
    for count in COUNTS:
        alike = dict.fromkeys(_servers(count), 1)
        owners, fewer = divided(NOBODYS, alike), divided((None,) * FEWER, alike) if count <= FEWER else None
        slices = sorted(set(Counter(owners).values()))
        more = f"{_most(fewer, count):.3f}" if fewer else "-"
        rows.append(f"| {count} | {' or '.join(map(str, slices))} | {_most(owners, count):.3f} | {more} |")
    head = f"| servers | slices of each | largest share / exact one | the same with {FEWER} slices |\n|---|---|---|---|"
    return "\n".join([head, *rows])


def changes() -> str:
    """A row for each number of servers alike: what changes hands when one joins or leaves."""
    rows = []
    for count in COUNTS:
        servers = _servers(count + 1)
        before = divided(NOBODYS, dict.fromkeys(servers[:-1], 1))
        more = divided(before, dict.fromkeys(servers, 1))
        less = divided(before, dict.fromkeys(servers[1:-1], 1))
        joins, leaves = (sum(one != other for one, other in zip(before, after, strict=True)) for after in (more, less))
        needless = sum(one not in (other, servers[0]) for one, other in zip(before, less, strict=True))
        rows.append(f"| {count} | {joins} ({joins / SLICES:.2%}) | {1 / (count + 1):.2%} | {leaves} "
                    f"({leaves / SLICES:.2%}) | {1 / count:.2%} | {needless} |")
    head = ("| servers | change hands when one joins | exact | when one leaves | exact | of these, others' |\n"
            "|---|---|---|---|---|---|")
    return "\n".join([head, *rows])


def weights() -> str:
    """Some weights, and what becomes of them."""
    rows = []
    for given in ((2, 1), (5, 1, 1), (100, 1), (1000, 1), (3, 2, 2, 1)):
        of = dict(zip(_servers(len(given)), given, strict=True))
        slices = Counter(divided(NOBODYS, of))
        rows.append(f"| {', '.join(map(str, given))} | {', '.join(f'{weight / sum(given):.2%}' for weight in given)} | "
                    f"{', '.join(str(slices[each]) for each in of)} | "
                    f"{', '.join(f'{slices[each] / SLICES:.2%}' for each in of)} |")
    return "\n".join(["| weights | exact shares | slices | shares |\n|---|---|---|---|", *rows])


def filled(text: str) -> str:
    """The document with its generated parts made anew. Raises ValueError if there is no place for one."""
    for name, part in {"shares": shares(), "changes": changes(), "weights": weights()}.items():
        begin, end = f"<!-- generated: {name} -->", "<!-- end -->"
        before, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"{TARGET} has no {begin}")
        text = before + begin + "\n\n" + part + "\n\n" + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    TARGET.write_text(filled(TARGET.read_text()))
    print(f"{TARGET} written")
