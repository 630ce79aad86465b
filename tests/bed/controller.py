"""The controller of a bed: ryu-manager as a process of its own in a namespace, and its REST API."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbctl.site.file.text import site_text
from lbctl.site.model import Site
from tests.bed import keepers
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.starter import Started, Starter
from tests.bed.switch_library import CHOICE, manager
from tests.bed.traffic import connect
from topologies import programs

CHECKOUT = Path(__file__).resolve().parents[2]
APPS = ("ryu_apps/load_balancer.py", "ryu_apps/rest.py")
REST_PORT = 8080
STOP_TIMEOUT = limit(10.0)
_BORING = re.compile(r'" 20\d \d+ [0-9.]+$|^\(\d+\) accepted ')
_CLI = "import sys; sys.argv[0] = 'lbctl'; from lbctl.cli.main import app; app()"


@dataclass(frozen=True)
class Reply:
    """An answer of the REST API. `json`: the body read, None if it is empty or no JSON."""

    status: int
    headers: dict[str, str]
    text: str
    json: Any


class ControllerError(RuntimeError):
    """The controller did not start, or did not end; the message holds the end of its log."""


class Controller:
    """ryu-manager with the product's apps. Its files are in `directory`: site.yaml, lbctl.conf, controller.log.

    It listens for switches on `address` port 6653, and for REST on 127.0.0.1 port 8080 of its namespace. With a
    `starter`, that starts its process, else it is started as anyone would start it.
    """

    def __init__(
        self,
        space: Namespace,
        directory: Path,
        address: str,
        *,
        apps: Sequence[str] = APPS,
        starter: Starter | None = None,
    ) -> None:
        self.space = space
        self.directory = directory
        self.address = address
        self.apps = tuple(apps)
        self.site_file = directory / "site.yaml"
        self.config_file = directory / "lbctl.conf"
        self.log_file = directory.parent / "controller.log"
        self.process: subprocess.Popen[str] | Started | None = None
        self._starter = starter

    def configure(self, site: Site | str) -> None:
        """Write its files anew; all that was in its directory is gone. `site`: a Site, or the text of a site file."""
        for path in self.directory.glob("*"):
            path.unlink()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.write_site(site)
        (self.directory / keepers.TOKEN_FILE).write_text(keepers.TOKEN)
        self.config_file.write_text(
            f"[DEFAULT]\nofp_listen_host = {self.address}\nofp_tcp_listen_port = 6653\n"
            f"wsapi_host = 127.0.0.1\nwsapi_port = {REST_PORT}\n\n[lbctl]\nsite = {self.site_file.name}\n"
        )

    def write_site(self, site: Site | str) -> None:
        """Write the site file; reload() makes it count."""
        self.site_file.write_text(site if isinstance(site, str) else site_text(site))

    def start(self) -> None:
        """Start the process, and wait until its REST API answers. Raises ControllerError."""
        if self.running:
            raise ControllerError("the controller runs already; stop() or kill() it first")
        self.process = self.launch()
        deadline = time.monotonic() + limit(20.0)
        while not self.answers():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise ControllerError(f"the controller does not serve. The end of its log:\n{self.log_tail()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM, and wait for its end. Raises ControllerError if it does not end."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ControllerError(f"the controller ignores SIGTERM. The end of its log:\n{self.log_tail()}") from None
        self.process = None

    def kill(self) -> None:
        """kill -9; does no harm when it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def reload(self, site: Site | str) -> None:
        """Write a new site file and send SIGHUP."""
        self.write_site(site)
        self.signal(signal.SIGHUP)

    def site_files_read(self) -> int:
        """How many it has read by SIGHUP, and applied or refused."""
        return self.logged("site applied") + self.logged("site file refused")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal (SIGSTOP and SIGCONT too). Raises ControllerError if it does not run."""
        if not self.running:
            raise ControllerError("the controller does not run")
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        """Whether its REST API answers."""
        try:
            return self.rest("GET", "/v1/health", timeout=limit(2.0)).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def rest(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float = limit(30.0),
    ) -> Reply:
        """One REST request. `body`: sent as JSON, or as it is if bytes.

        Raises OSError or http.client.HTTPException when there is no answer.
        """
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if raw is not None else {}
        connection = http.client.HTTPConnection("127.0.0.1", REST_PORT, timeout=timeout)
        connection.sock = connect(self.space, "127.0.0.1", REST_PORT, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body=raw, headers=kind | {"Connection": "close"} | (headers or {}))
            answer = connection.getresponse()
            text = answer.read().decode()
        return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, text, _read_json(text))

    def cli(self, *args: object, timeout: float = limit(30.0)) -> subprocess.CompletedProcess[str]:
        """`lbctl ARGS` where the controller is; whatever its status."""
        command = [*self.space.prefix, sys.executable, "-c", _CLI, *map(str, args)]
        return programs.run(command, capture_output=True, timeout=timeout, env=environment())

    def log_tail(self, lines: int = 60) -> str:
        """The end of what it logged, without the lines about REST requests that went well."""
        try:
            logged = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join([line for line in logged if not _BORING.search(line)][-lines:])

    def logged(self, text: str) -> int:
        """In how many lines of its log that is."""
        return sum(text in line for line in self.log_tail(100_000).splitlines())

    def wait_log(self, wanted: Callable[[str], bool], timeout: float = 5.0) -> bool:
        """Whether a line that is `wanted` comes in the log. timeout: on an idle machine, see patience.limit."""
        deadline = time.monotonic() + limit(timeout)
        while not any(wanted(line) for line in self.log_tail(2000).splitlines()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def launch(self) -> subprocess.Popen[str] | Started:
        """Its process, just begun, for whoever wants to see it fail; start() is for all others."""
        arguments = ("--config-file", str(self.config_file), *self.apps)
        with self.log_file.open("a") as log:
            log.write(f"--- started {time.strftime('%H:%M:%S')}\n")
            log.flush()
            if self._starter:
                return self._starter.start(arguments, self.space.path, self.log_file)
            return self.space.popen(
                *manager(),
                *arguments,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )


def environment() -> dict[str, str]:
    """The checkout's packages can be imported, whatever is installed; no proxy or URL of the caller's counts."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LBCTL_") or key == CHOICE}
    return {**kept, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1", "NO_PROXY": "*"}


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
