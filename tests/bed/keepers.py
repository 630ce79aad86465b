"""The keepers of a bed: one on each server that the site names one for, reached over the management network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

from tests.bed.namespaces import Namespace
from tests.bed.processes import end
from tests.bed.traffic import connect

TOKEN, TOKEN_FILE = "the-keepers-token-of-a-bed", "keeper-token"
"""The file is beside the site file."""


class KeeperNode:
    """`lbctl keeper` on a server. Its copy is in `directory`, and outlives it."""

    def __init__(self, space: Namespace, server: object, url: str, directory: Path) -> None:
        self.space = space
        self.server = server
        self.place = urlsplit(url)
        self.directory = directory
        self.log_file = directory.with_suffix(".log")
        self.process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> IPv4Address:
        return IPv4Address(self.place.hostname or "")

    def start(self) -> None:
        """Start the process; wait_listening() says when it serves."""
        command = (sys.executable, "-c", "from lbctl.cli.main import app; app(prog_name='lbctl')", "keeper")
        options = (
            "--server",
            self.server,
            "--listen",
            self.place.netloc,
            "--directory",
            self.directory,
            "--token-file",
            self._token(),
        )
        with self.log_file.open("a") as log:
            self.process = self.space.popen(
                *command,
                *options,
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def listens(self) -> bool:
        """Whether it takes connections. Raises OSError if not yet."""
        connect(self.space, self.address, self.place.port).close()
        return True

    def kill(self) -> None:
        """kill -9; does no harm when it does not run."""
        if self.process is not None:
            end(self.process.pid, grace=0)
            self.process.wait()
            self.process = None

    def forget(self) -> None:
        """End it, and remove its copy."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _token(self) -> Path:
        file = self.directory.with_suffix(".token")
        file.write_text(TOKEN)
        file.chmod(0o600)
        return file
