"""What the REST API orders of the control function, and what it reads: the one object that `dispatch` is given.

The Ryu app carries the orders out, and waits for what they have begun (in a green thread of the caller's).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, Protocol, TypeVar

from lbctl.api.shown import Shown
from lbctl.assignment import Plan
from lbctl.ground.move_record import MoveRecord
from lbctl.load.balancing import Run
from lbctl.site.model import EntryKind, SchedulerName, Server, ServiceName
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.transfer import Strategy

P = ParamSpec("P")
R = TypeVar("R")


class MoveOrders(Protocol):
    """start_move, fail_over and abort_move raise Refused. timeout: seconds."""

    def start_move(self, address: Address, to: str, strategy: Strategy, from_copies: bool) -> MoveRecord: ...
    def fail_over(self, name: str) -> Sequence[MoveRecord]: ...
    def abort_move(self, id: str) -> None: ...
    def wait_for_move(self, id: str, timeout: float) -> None: ...


class AssignmentOrders(Protocol):
    """plan raises Unassignable, and rebalance Refused. algorithm: None, the site file's. timeout: seconds."""

    def plan(self, algorithm: str | None) -> Plan: ...
    def rebalance(self, plan: Plan) -> Run: ...
    def wait_for_run(self, run: Run, timeout: float) -> None: ...
    def set_drained(self, name: str, drained: bool) -> None: ...


class ServiceOrders(Protocol):
    """All of them raise Refused, and return once the order will outlive the control function.

    fields: weight and max_connections of the server, those of them that change. drained: None, as it is.
    """

    def set_scheduler(self, name: ServiceName, scheduler: SchedulerName) -> None: ...
    def set_entries(self, name: ServiceName, entries: EntryKind) -> None: ...
    def add_server(self, name: ServiceName, server: Server) -> None: ...
    def remove_server(self, name: ServiceName, endpoint: Endpoint) -> None: ...
    def change_server(self, name: ServiceName, endpoint: Endpoint, fields: Mapping[str, int | None],
                      drained: bool | None) -> None: ...


class Orders(MoveOrders, AssignmentOrders, ServiceOrders, Protocol):
    """What the Ryu app offers to the API. now: seconds since the epoch."""

    @property
    def shown(self) -> Shown: ...

    def now(self) -> float: ...

    def pause(self) -> None:
        """Lets others run, if this has taken long."""

    def apart(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns, which uses nothing that may change. Others run meanwhile."""
        ...
