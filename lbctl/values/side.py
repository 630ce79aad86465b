"""The two sides of an LB."""

from __future__ import annotations

import enum


class Side(enum.Enum):
    """Where a packet has come from: the external network (clients) or the internal one (servers and inside hosts).

    What differs by side hangs on it, so that few have to ask which of the two it is. An entry has a flow for each side.
    """

    EXTERNAL = 0, "access_in"
    INTERNAL = 1, "access_out"

    def __init__(self, number: int, access_table: str) -> None:
        self.number = number
        """Its place in a pair of what there is for each side."""
        self.flag = 1 << number
        """Stands for it in a set of sides; in an entry's flags: the flow for this side has seen FIN, and ran out."""
        self.access_table = access_table
        """The table with the entries' flows for packets from this side."""

    @property
    def other(self) -> Side:
        """Where packets from this side go to."""
        return INTERNAL if self is EXTERNAL else EXTERNAL


EXTERNAL, INTERNAL = Side.EXTERNAL, Side.INTERNAL
"""To be used by these names: Side.EXTERNAL costs 60 ns with Python 3.11, and each packet of a new connection asks for
it."""
