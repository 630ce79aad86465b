"""What is to be done when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Agenda(Generic[Item]):
    """The earliest first; what is due at the same time, in the order in which it was put down."""

    def __init__(self) -> None:
        self._items: list[tuple[float, int, Item]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, when: float, item: Item) -> None:
        self._number += 1
        heapq.heappush(self._items, (when, self._number, item))

    def keep(self, wanted: Callable[[Item], bool]) -> None:
        """Forgets the others."""
        self._items = [item for item in self._items if wanted(item[2])]
        heapq.heapify(self._items)

    def due(self, now: float) -> bool:
        """Is there anything to be done?"""
        return bool(self._items) and self._items[0][0] <= now

    def take(self) -> Item:
        """The earliest. Raises IndexError if there is none."""
        return heapq.heappop(self._items)[2]
