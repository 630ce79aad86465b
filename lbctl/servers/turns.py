"""Smooth weighted round-robin (nginx's): whose turn it is, so that neighbours in the sequence are different where that
can be, and in any window each one's share is close to its weight's."""

from __future__ import annotations

from collections.abc import Sequence


class Turns:
    """Of so many as there are weights."""

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = weights
        self._current = [0] * len(weights)

    def next(self, candidates: Sequence[int]) -> int:
        """One of these numbers, of which there is one at least."""
        current, weights = self._current, self._weights
        total = 0
        for number in candidates:
            current[number] += weights[number]
            total += weights[number]
        chosen = max(candidates, key=current.__getitem__)
        current[chosen] -= total
        return chosen
