"""What the REST API needs of the control function: read by views and metrics, called by operations.

`lbctl.control.ControlFunction` is the real one; the Ryu app around it gives the three verbs of `Orders`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from lbctl.access_table import Entry
from lbctl.feeds import KeeperState
from lbctl.loads import Load
from lbctl.model import Address, Site, Strategy, TransferMode
from lbctl.move import Move, MoveRecord
from lbctl.switch import Switch


class Control(Protocol):
    """The state that is shown. Nothing here may be changed by a reader."""

    site: Site
    counters: Counter[str]
    switches: Mapping[str, Switch]
    moves: Mapping[str, Move]

    def assigned_to(self, address: Address) -> str: ...
    def transfer_modes(self, name: str) -> Mapping[Address, TransferMode]: ...
    def neighbour(self, lb_name: str, hop: Address) -> str | None: ...
    def health(self, name: str) -> tuple[str, str | None]: ...
    def keepers(self, now: float) -> Sequence[KeeperState]: ...
    def load(self, address: Address) -> Load: ...
    def carried(self) -> Mapping[tuple[str, int, str], int]: ...
    def connection_count(self, address: Address) -> int: ...
    def entries(self, address: Address) -> Sequence[Entry]: ...


class Orders(Protocol):
    """The Ryu app. start_move, fail_over and abort_move raise lbctl.control.Refused."""

    control: Control

    def now(self) -> float: ...
    def start_move(self, address: Address, to: str, strategy: Strategy, from_copies: bool) -> MoveRecord: ...
    def fail_over(self, name: str) -> Sequence[MoveRecord]: ...
    def abort_move(self, id: str) -> None: ...
    def wait_for_move(self, id: str, timeout: float) -> None: ...
