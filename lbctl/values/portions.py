"""What is too much for one go, in parts: packets wait for all that is done at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """So many of them at a time, computed when their turn comes; the last part may be smaller."""
    rest = iter(items)
    while some := list(itertools.islice(rest, size)):
        yield some


def each_once(items: Iterable[T]) -> Iterator[T]:
    """In their order."""
    seen: set[T] = set()
    for item in items:
        if item not in seen:
            seen.add(item)
            yield item
