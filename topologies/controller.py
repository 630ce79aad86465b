"""The control function of a lab: ryu-manager with our apps, and the files that it reads."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bed.processes import wait_gone
from topologies import plan, programs, rundir
from topologies.emulator import Controller
from topologies.plan import Plan
from topologies.rundir import LabError
from topologies.shell import LabNode

CHECKOUT = Path(__file__).resolve().parent.parent
APPS = ("ryu_apps/load_balancer.py", "ryu_apps/rest.py")

AHEAD = ("nice", "-n", "-10")
"""As with the LBs: those who load the site must not keep its control function waiting."""

SEE_ALL = (
    "To see all that it says, start the lab with --no-controller, and then ryu-manager by the command that it prints"
)

CONFIGURATION = """\
[DEFAULT]
ofp_listen_host = {controller}
ofp_tcp_listen_port = {openflow}
wsapi_host = {rest_address}
wsapi_port = {rest}

[lbctl]
site = site.yaml
"""


class ControlFunctionProcess:
    """One ryu-manager with the site of `lab_plan`; it can be ended, killed, and started again with other apps."""

    def __init__(self, lab_plan: Plan, directory: Path) -> None:
        self.plan = lab_plan
        self.directory = directory
        self.log_file = directory / "controller.log"
        self.configuration = directory / "lbctl.conf"
        self._process: subprocess.Popen[str] | None = None
        self.write_site(lab_plan)
        text = CONFIGURATION.format(
            controller=lab_plan.controller,
            openflow=plan.OPENFLOW_PORT,
            rest_address=lab_plan.rest_address,
            rest=plan.REST_PORT,
        )
        if lab_plan.control_server:
            text += f"token_file = {rundir.secret(rundir.REST_TOKEN)}\n"
        self.configuration.write_text(text)

    def write_site(self, lab_plan: Plan) -> None:
        """The site file, which it reads when it starts, and on SIGHUP. lab_plan: of the same machines."""
        (self.directory / "site.yaml").write_text(plan.site_yaml(lab_plan))

    def command(self, apps: Sequence[str] = APPS) -> list[str]:
        """What starts it, as one would type it in the checkout."""
        return [*place(self.plan), ryu_manager(), "--config-file", str(self.configuration), *apps]

    def start(self, apps: Sequence[str] = APPS, environment: Mapping[str, str] | None = None) -> None:
        """Start it with `apps` (paths relative to the checkout), `environment` added. Does not wait until it serves.

        Raises LabError if another program has its REST port.
        """
        if self.plan.control_server is None:
            check_port_free()
        with self.log_file.open("ab") as log:
            # In a session of its own: Ctrl-C at the lab's prompt is not for the controller.
            self._process = programs.popen(
                [*AHEAD, *self.command(apps)],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            )

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End it by `sig`, by SIGKILL if that does not do within 5 s."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sig)
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5.0)
        wait_gone(process.pid, 1.0)

    def check(self) -> None:
        """Raises LabError with the last line of its log if it ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise LabError(f"ryu-manager ended with status {self._process.returncode}; {self.last_words()}. {SEE_ALL}")

    def last_words(self) -> str:
        """What the last line of its log is."""
        lines = [line.strip() for line in self.log_file.read_text(errors="replace").splitlines() if line.strip()]
        return f"the last line of its log is `{lines[-1]}`" if lines else "its log is empty"


class LabController(LabNode, Controller):
    """The control function as a Mininet controller, for `mn --controller`; a figure's file sets `plan`."""

    plan: Plan

    def __init__(self, name: str, **params: object) -> None:
        super().__init__(name, ip=str(self.plan.controller), port=plan.OPENFLOW_PORT, **params)
        self.control_function = ControlFunctionProcess(self.plan, rundir.current().subdirectory("controller"))

    def checkListening(self) -> None:  # noqa: N802 (Mininet's name)
        """Nothing to check: the address is the lab's own, and there is none before the lab is built."""

    def start(self) -> None:
        self.control_function.start()

    def stop(self, *args: object, **kwargs: object) -> None:
        self.control_function.stop()
        self.terminate()


def place(lab_plan: Plan) -> list[str]:
    """What runs a command where the control function runs: nothing, or what enters its server."""
    return ["mnexec", "-a", str(_server_pid(lab_plan))] if lab_plan.control_server else []


def namespace(lab_plan: Plan) -> Path:
    """The network namespace that the control function runs in."""
    return Path(f"/proc/{_server_pid(lab_plan) if lab_plan.control_server else 'self'}/ns/net")


def credentials(lab_plan: Plan) -> dict[str, str]:
    """What the lbctl command has to have in its environment there."""
    if lab_plan.control_server is None:
        return {}
    url = f"http://{lab_plan.rest_address}:{plan.REST_PORT}"
    return {"LBCTL_URL": url, "LBCTL_TOKEN": rundir.secret(rundir.REST_TOKEN).read_text()}


def _server_pid(lab_plan: Plan) -> int:
    assert lab_plan.control_server is not None
    return int((rundir.current().path / lab_plan.control_server.name / "pid").read_text())


def check_port_free() -> None:
    """Raises LabError if somebody listens on the REST port: we would take another controller for ours."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", plan.REST_PORT))
        except OSError:
            raise LabError(
                f"port {plan.REST_PORT} of 127.0.0.1 is in use, and the lab's controller needs it: "
                f"end what listens there (ss -ltnp 'sport = {plan.REST_PORT}' tells)"
            ) from None


def ryu_manager() -> str:
    """The ryu-manager of this Python's environment, else the one on the path. Raises LabError if there is none."""
    beside = Path(sys.executable).parent / "ryu-manager"
    found = str(beside) if beside.exists() else shutil.which("ryu-manager")
    if found is None:
        raise LabError("ryu-manager is not installed here: run ./test.sh or ./demo.sh once, then use .venv/bin/python")
    return found
