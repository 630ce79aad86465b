"""How controllers are started: by ryu-manager; or with os-ken, if the environment says LBCTL_SWITCH_LIBRARY=os_ken."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bed.processes import CommandFailed

CHOICE = "LBCTL_SWITCH_LIBRARY"
"""As ryu_apps/library/names.py reads it."""


def manager() -> list[str]:
    """The command that wants options and apps. Raises CommandFailed if it is not installed beside this Python."""
    if _os_ken():
        return [sys.executable, "-m", "ryu_apps.os_ken_manager"]
    program = Path(sys.executable).parent / "ryu-manager"
    if not program.exists():
        raise CommandFailed(f"{program} is missing; run the tests with the Python of the checkout's .venv")
    return [sys.executable, str(program)]


def main_function() -> Callable[[], object]:
    """What that command calls, in this process, which from now on has green threads only."""
    if _os_ken():
        from ryu_apps import os_ken_manager

        return os_ken_manager.main
    from ryu.cmd import manager as ryu_manager
    from ryu.lib import hub

    hub.patch(thread=True)  # as its main function does, before our apps are loaded
    main: Callable[[], object] = ryu_manager.main
    return main


def _os_ken() -> bool:
    return os.environ.get(CHOICE) == "os_ken"
