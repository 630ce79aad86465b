"""The bounds of an external IP's entries, and what becomes of half-open ones when they are near."""

from __future__ import annotations

from lbctl.ground.serving import Serving
from lbctl.values.protocols import TCP

LEAST = 3.0
"""Seconds that a client has at any rate: the way there and back, and one repetition of what got lost."""
MANY = 1_000
"""Half-open entries that are looked for soon."""


def full(serving: Serving, protocol: int) -> str | None:
    """Why there is no room for one more entry of that protocol (IANA number); None: there is."""
    table, settings = serving.table, serving.settings
    if len(table) >= settings.max_entries:
        return "entries_full"
    if protocol == TCP and len(table.half_open) >= settings.max_half_open:
        return "half_open_full"
    return None


def half_open_timeout(serving: Serving) -> float:
    """Seconds that a half-open entry may live: the fewer, the nearer the bounds are (as pf's adaptive timeouts,
    pf.conf(5))."""
    table, settings = serving.table, serving.settings
    pressure = max(len(table.half_open) / settings.max_half_open, len(table) / settings.max_entries)
    return max(settings.half_open_timeout * (1.0 - pressure), min(LEAST, settings.half_open_timeout))


def look_after(serving: Serving) -> float:
    """Seconds after which half-open entries are worth being looked for again."""
    timeout = half_open_timeout(serving)
    return timeout / 4 if len(serving.table.half_open) >= MANY else timeout
