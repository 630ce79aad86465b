"""Site files are read by a program of their own: YAML takes a second for each thousand external IPs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lbctl.site.file import ConfigError, Mistake
from lbctl.site.model import ExternalIp, Site
from ryu_apps.shell import programs
from ryu_apps.shell.threads import Threads

PATIENCE = 60.0
"""Seconds after which the process is ended."""


def read_site(path: Path, threads: Threads) -> Site:
    """Only the caller's green thread waits. Raises ConfigError, as `lbctl.site.file.load`."""
    external_ips: list[ExternalIp] = []
    try:
        bare, *portions = programs.run(["lbctl.site.file", str(path)], (), PATIENCE, threads)
    except programs.Unfinished as reason:
        raise ConfigError([Mistake(str(path), None, f"could not be read: {reason}")]) from None
    if not isinstance(bare, Site):
        raise ConfigError(bare)
    for portion in portions:
        external_ips += portion
    return replace(bare, external_ips=tuple(external_ips))
