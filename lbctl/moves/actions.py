"""What a move asks for, step by step: values. Those with a label are to be confirmed, by whom `confirmer` says."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from lbctl.entries.access_table import Entry
from lbctl.openflow.rules import Role
from lbctl.values.transfer import TransferMode

HOLD_ALL = Role(TransferMode.TRANSITION, hold_all=True)
HOLD_UNKNOWN = Role(TransferMode.TRANSITION)
HOLDING = Role(TransferMode.TRANSITION, arp=True)
"""It has the route, and holds what it does not know."""
SERVING_UNANNOUNCED = Role(TransferMode.NORMAL)
"""Still normal, for packets that come all the same, but no longer answering ARP."""


class Elsewhere(enum.Enum):
    """Who confirms what no LB does."""

    STORE = "store"
    COPIES = "copies"
    FENCE = "fence"

    def __str__(self) -> str:
        return self.value


Confirmer = str | Elsewhere
"""The name of an LB, or somebody else."""


@dataclass(frozen=True, slots=True)
class SetRole:
    lb: str
    role: Role


@dataclass(frozen=True, slots=True)
class SetHolder:
    """From now on the LB is (not) given the external IP's new entries."""

    lb: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Confirm:
    """Confirm the label when the LB has done all before."""

    lb: str
    label: str

    @property
    def confirmer(self) -> Confirmer:
        return self.lb


@dataclass(frozen=True, slots=True)
class CopyEntries:
    """Give the LB these entries, all or none, and confirm the label."""

    lb: str
    entries: tuple[Entry, ...]
    label: str

    @property
    def confirmer(self) -> Confirmer:
        return self.lb


@dataclass(frozen=True, slots=True)
class Assign:
    """The external IP belongs to the LB now. Keep that across a restart, with the fact that this move is
    (not) finished; confirm the label, if there is one."""

    lb: str
    unfinished: bool
    label: str | None = None

    @property
    def confirmer(self) -> Confirmer:
        return Elsewhere.STORE


@dataclass(frozen=True, slots=True)
class Announce:
    """Gratuitous ARP from the LB, on both sides."""

    lb: str


@dataclass(frozen=True, slots=True)
class Release:
    """Send the held packets through the LB's tables, in order."""

    lb: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the external IP's entries at the LB."""

    lb: str


@dataclass(frozen=True, slots=True)
class Fence:
    """Make sure that the LB, which is not connected, answers ARP for nobody; confirm the label."""

    lb: str
    label: str

    @property
    def confirmer(self) -> Confirmer:
        return Elsewhere.FENCE


@dataclass(frozen=True, slots=True)
class Fetch:
    """Put the entries that the LB had into the table, from the best source there is; confirm the label. planned: the LB
    is well, and the table the authority."""

    lb: str
    label: str
    planned: bool = False

    @property
    def confirmer(self) -> Confirmer:
        return Elsewhere.COPIES


@dataclass(frozen=True, slots=True)
class Known:
    """The table has what the LB had: it is not to be read for that any more."""

    lb: str


Confirmed = Confirm | CopyEntries | Assign | Fence | Fetch
Action = SetRole | SetHolder | Announce | Release | Forget | Known | Confirmed
