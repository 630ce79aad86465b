"""What REST asks for: the `Orders` of lbctl.api. Where one waits, only the caller's green thread does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from lbctl.api import shown
from lbctl.assignment import Plan, Unassignable
from lbctl.control import ControlFunction
from lbctl.ground.effects import Outbox
from lbctl.ground.move_record import MoveRecord
from lbctl.load.balancing import Run
from lbctl.site.model import EntryKind, SchedulerName, Server, ServiceName
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.transfer import Strategy
from ryu_apps.shell.effects import Effects
from ryu_apps.shell.solver import solve
from ryu_apps.shell.threads import Threads, Turn

GLANCE = 0.05
"""Seconds between two looks at what somebody waits for."""
SAVE_TIMEOUT = 5.0
"""Seconds that an order waits for the state file before it is answered all the same."""


class Orders:
    """`now` tells seconds since the epoch, on a clock that does not jump."""

    def __init__(self, control: ControlFunction, effects: Effects, threads: Threads, now: Callable[[], float]) -> None:
        self.shown = shown.of(control)
        self.now = now
        self.pause, self.apart = Turn(threads.sleep).pause, threads.apart
        self._control, self._effects, self._threads = control, effects, threads

    def start_move(self, address: Address, to: str, strategy: Strategy, from_copies: bool) -> MoveRecord:
        """Returns the move's record. Raises Refused."""
        record, out = self._control.movement.start(address, to, strategy, self.now(), from_copies)
        self._effects.carry_out(out)
        return record

    def fail_over(self, name: str) -> list[MoveRecord]:
        """Returns the records of its moves. Raises Refused."""
        records: list[MoveRecord] = []
        for some, out in self._control.relief.order(name, self.now()):
            self._effects.carry_out(out)
            records += some
            self.pause()
        return records

    def abort_move(self, id: str) -> None:
        """Raises Refused."""
        self._effects.carry_out(self._control.movement.abort(id, self.now()))

    def wait_for_move(self, id: str, timeout: float) -> None:
        """Waits until the move has ended or the time (seconds) is over."""
        records = self._control.movement.records
        self._wait_while(lambda: (record := records().get(id)) is not None and record.ended is None, timeout)

    def plan(self, algorithm: str | None) -> Plan:
        """An assignment for the loads of now. Raises Unassignable. Nothing waits for it but the caller."""
        balancing = self._control.balancing
        algorithm = algorithm or self._control.ground.site.rebalance.algorithm
        plan = solve(balancing.problem(self.pause), algorithm, self._threads)
        if isinstance(plan, Unassignable):
            raise plan
        return plan

    def rebalance(self, plan: Plan) -> Run:
        """Carries a plan out. Returns its run. Raises Refused."""
        run, out = self._control.balancing.begin(plan, self.now())
        self._effects.carry_out(out)
        return run

    def wait_for_run(self, run: Run, timeout: float) -> None:
        """Waits until the rebalancing has ended or the time (seconds) is over."""
        self._wait_while(lambda: run.state == "running", timeout)

    def set_drained(self, name: str, drained: bool) -> None:
        """Raises Refused."""
        self._keep(self._control.balancing.set_drained(name, drained))

    def set_scheduler(self, name: ServiceName, scheduler: SchedulerName) -> None:
        """Raises Refused, as all that changes a service."""
        self._keep(self._control.services.set_scheduler(name, scheduler))

    def set_entries(self, name: ServiceName, entries: EntryKind) -> None:
        self._keep(self._control.services.set_entries(name, entries))

    def add_server(self, name: ServiceName, server: Server) -> None:
        self._keep(self._control.services.add_server(name, server))

    def remove_server(self, name: ServiceName, endpoint: Endpoint) -> None:
        self._keep(self._control.services.remove_server(name, endpoint))

    def change_server(self, name: ServiceName, endpoint: Endpoint, fields: Mapping[str, int | None],
                      drained: bool | None) -> None:
        self._keep(self._control.services.change_server(name, endpoint, fields, drained))

    def _keep(self, out: Outbox) -> None:
        """Returns when the state is saved (or the log says why not): what is answered outlives the controller."""
        self._effects.carry_out(out)
        saver = self._effects.saver
        last = saver.last
        self._wait_while(lambda: saver.saved < last, SAVE_TIMEOUT)

    def _wait_while(self, running: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while running() and time.monotonic() < deadline:
            self._threads.sleep(GLANCE)
