"""A crash loop is slowed and told; being told to end is no crash."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

from lbctl.store.runs import Run, Runs
from ryu_apps.shell.log import log


def begin(file: Path) -> Run:
    """To be called once at the start, when all that is configured can be used: waits, if need be, and from then on
    notes when somebody tells this controller to end."""
    runs = Runs(file)
    run = runs.last().next(time.time())
    if run.wait:
        log.error("crash loop: the controller has ended soon after its last starts", times=run.crashes,
                  waits=run.wait, hint="the log before this says why; load balancers forward on meanwhile")
        time.sleep(run.wait)
    run = replace(run, began=time.time())
    runs.write(run)

    def end(number: int, _: FrameType | None) -> None:
        runs.write(replace(run, told=True))
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    return run
