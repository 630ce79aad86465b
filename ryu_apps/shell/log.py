"""The controller's log, and what happens after an exception that nobody has foreseen."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import structlog

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger("lbctl").bind()


def tell(event: str, /, level: str = "info", **keys: object) -> None:
    """As the core wants to be heard."""
    getattr(log, level)(event, **keys)


def fatal(function: Callable[P, R]) -> Callable[P, R]:
    """An exception in a green thread would vanish: log it and stop, so that a supervisor starts us anew."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception:
            log.exception("internal error, stopping", where=getattr(function, "__qualname__", repr(function)))
            os._exit(70)

    return guarded
