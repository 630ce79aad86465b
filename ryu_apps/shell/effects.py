"""Effects out: each goes to who carries it out, and the core is told what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec

from lbctl.control import ControlFunction
from lbctl.ground.effects import CountSockets, FetchCopy, Outbox, Save, SendBatch, Solve, ToSwitch, WriteRecords
from lbctl.keeper.batches import Reply
from lbctl.keeper.rows import Row
from lbctl.site.model import Keeper
from lbctl.store import FileStore
from ryu_apps.shell.faults import Faults
from ryu_apps.shell.keepers import KeeperCalls
from ryu_apps.shell.records import RecordWriter
from ryu_apps.shell.saving import Saver
from ryu_apps.shell.sender import Sender
from ryu_apps.shell.solver import solve
from ryu_apps.shell.switchboard import Switchboard
from ryu_apps.shell.threads import Threads, Turn

P = ParamSpec("P")


class Effects:
    """directory: of the site file. now: seconds since the epoch, on a clock that does not jump. Raises KeeperError."""

    def __init__(self, control: ControlFunction, switchboard: Switchboard, store: FileStore, directory: Path,
                 threads: Threads, now: Callable[[], float], faults: Faults) -> None:
        self._control, self._threads, self._now, self._faults = control, threads, now, faults
        self._senders = switchboard.senders
        self.keepers = KeeperCalls(directory, control.ground.site, self._sent, self._fetched, self._counted, threads)
        self.saver = Saver(store, self._saved, threads)
        self.records = RecordWriter(directory, control.ground.counters, threads, now)

    def carry_out(self, out: Outbox) -> None:
        """In order. What goes to one switch without anything between leaves in one write. Returns at once."""
        last: Sender | None = None
        for effect in out:
            if isinstance(effect, ToSwitch):
                name, message = effect
                sender = self._senders.get(name)
                if last is not None and last is not sender:
                    last.flush()
                last = sender
                if sender is not None and not sender.send(message):
                    self._control.ground.switches[name].counters["dropped_send_queue_full"] += 1
            else:
                self._carry_out_elsewhere(effect)
        if last is not None:
            last.flush()

    def _carry_out_elsewhere(self, effect: Save | Solve | FetchCopy | CountSockets | SendBatch | WriteRecords) -> None:
        match effect:
            case Save():
                self.saver.save(effect)
            case Solve():
                self._threads.spawn(self._solve, effect)
            case FetchCopy():
                self.keepers.fetch(effect)
            case CountSockets():
                self.keepers.count(effect)
            case SendBatch():
                self.keepers.send(effect)
            case WriteRecords():
                self.records.write(effect)

    def _answer(self, told: Callable[P, Outbox | None], *args: P.args, **kwargs: P.kwargs) -> None:
        """The core is told what came of an effect, and has an answer."""
        self._faults.contain(lambda: self.carry_out(told(*args, **kwargs) or []))

    def _saved(self, token: int, error: str | None) -> None:
        if error is None:
            self._answer(self._control.confirmed, token, self._now())
        else:
            self._answer(self._control.not_saved, token, error, self._now())

    def _solve(self, order: Solve) -> None:
        problem = order.problem(Turn(self._threads.sleep).pause)
        answer = solve(problem, order.algorithm, self._threads)
        self._answer(self._control.balancing.solved, answer, self._now())

    def _sent(self, keeper: Keeper, reply: Reply | None, detail: str) -> None:
        self._answer(self._control.feeds.answered, keeper.server.packed, reply, detail, self._now())

    def _counted(self, token: int, counts: Mapping[int, int] | None) -> None:
        self._answer(self._control.sockets_counted, token, counts, self._now())

    def _fetched(self, token: int, rows: list[Row] | None) -> None:
        self._answer(self._control.copy_fetched, token, rows, self._now())
