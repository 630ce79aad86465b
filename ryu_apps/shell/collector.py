"""Python's garbage collector, kept from stopping the controller for long.

A full collection looks at every object: 350 ms with 600 000 of them (200 LBs, 150 000 connections), while packets wait.
Almost all of them stay, and what goes is freed without the collector when its last reference goes; only cycles need it.
So what has survived a full collection is not looked at again until it is thawed: seldom, for the few cycles (of
connections that ended) that become garbage later.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = 700, 5, 1
"""A full collection follows each second one of the younger objects: it looks at some 7 000 objects, which takes 5 ms.
With Python's own thresholds it is 60 ms while 100 000 entries are read back."""
THAW_INTERVAL, THAW_PATIENCE, QUIET = 3600.0, 82_800, 10
"""Seconds; then, as one long collection follows, until a second in which fewer packets have come to the controller, but
no longer than so many seconds more."""


def install() -> None:
    """From now on what survives a full collection is frozen; what there is by now, at once."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(_freeze)


def _freeze(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


@contextmanager
def held() -> Iterator[None]:
    """While much is made that stays: a collection would look at all of it. Then it is frozen, too."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def thaw() -> None:
    """To be called every THAW_INTERVAL."""
    gc.unfreeze()
