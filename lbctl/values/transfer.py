"""How packets of an external IP are treated, and in which order a move goes."""

from __future__ import annotations

import enum


class TransferMode(enum.Enum):
    """How an LB treats packets of an external IP (seed figure 7, column 71). No mode at all: not ours."""

    NORMAL = "normal"
    TRANSITION = "transition"


class Strategy(enum.Enum):
    """The order of a move's steps; see docs/move.md."""

    BUFFERED = "buffered"
    PRECOPY = "precopy"
