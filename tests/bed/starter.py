"""Controllers that start at once: a process that has imported what ryu-manager needs forks for each of them.

Half a second of processor time is saved each time, which is half of what a run of the integration tests would take.
What runs then is ryu-manager's own main function, with our apps loaded by it. As a program, with a socket's number: the
process itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bed.processes import CommandFailed
from tests.bed.switch_library import main_function
from topologies import programs

CHECKOUT = Path(__file__).resolve().parents[2]
CLONE_NEWNET = 0x40000000


class Starter:
    """The process that forks. `environment`: that of the controllers. Ends with close(), or with us."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, far = socket.socketpair()
        with far:
            command = [sys.executable, "-m", "tests.bed.starter", str(far.fileno())]
            # numpy would make threads, which a fork would lose.
            environment = {**environment, "OPENBLAS_NUM_THREADS": "1"}
            self._errors = tempfile.TemporaryFile("w+")
            self._process = programs.popen(
                command,
                cwd=CHECKOUT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[far.fileno()],
            )

    def start(self, arguments: Sequence[str], namespace: Path, log: Path) -> Started:
        """ryu-manager with `arguments`, in a network namespace; `log` gets what it says. Raises CommandFailed."""
        pid, handles = self._ask({"arguments": list(arguments), "namespace": str(namespace), "log": str(log)})
        return Started(self, pid, *handles)

    def status(self, pid: int) -> int:
        """The exit status of a controller that has ended, negative if by a signal. To be asked for once.

        Raises CommandFailed.
        """
        return self._ask({"ended": pid})[0]

    def _ask(self, order: Mapping[str, object]) -> tuple[int, list[int]]:
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(json.dumps(order).encode() + b"\n")
            answer, handles, _, _ = socket.recv_fds(self._socket, 100, 1)
            if answer:
                return int(answer), handles
        self._errors.seek(0)
        raise CommandFailed(f"the process that starts controllers has ended:\n{self._errors.read()[-2000:]}")

    def close(self) -> None:
        self._socket.close()
        self._process.wait()
        self._errors.close()


class Started:
    """A controller that the starter has forked; with the methods of subprocess.Popen that are needed.

    `pid`: its process id.
    """

    def __init__(self, starter: Starter, pid: int, handle: int) -> None:
        self.pid = pid
        self._starter = starter
        self._handle = handle
        self._status: int | None = None

    def __del__(self) -> None:
        os.close(self._handle)

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        if self._status is None and select.select([self._handle], [], [], 0)[0]:
            self._status = self._starter.status(self.pid)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status when it has ended. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        select.select([self._handle], [], [], timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired(f"ryu-manager, process {self.pid}", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Does nothing when it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _serve(orders: socket.socket) -> None:
    """Fork for each order until the other side is gone; the children go on as ryu-manager, and end."""
    main = main_function()

    import lbctl.api.dispatch
    import lbctl.control  # noqa: F401

    lines = orders.makefile("rb")
    for order in map(json.loads, lines):
        if "ended" in order:
            orders.sendall(b"%d" % os.waitstatus_to_exitcode(os.waitpid(order["ended"], 0)[1]))
            continue
        pid = os.fork()
        if pid == 0:
            lines.close()
            orders.close()
            _become(order)
            main()
            sys.exit()
        handle = os.pidfd_open(pid)
        socket.send_fds(orders, [b"%d" % pid], [handle])
        os.close(handle)


def _become(order: Mapping[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["ryu-manager", *order["arguments"]]
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    namespace = os.open(order["namespace"], os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {order['namespace']}")
    os.close(namespace)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who use the controllers
    _serve(socket.socket(fileno=int(sys.argv[1])))
