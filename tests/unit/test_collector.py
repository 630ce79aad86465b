"""What has survived a full collection is not looked at by the next one; cycles are found after a thaw."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from ryu_apps.shell import collector


class Thing:
    """In a cycle with itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def installed() -> Iterator[None]:
    collector.install()
    yield
    gc.callbacks.remove(collector._freeze)
    gc.unfreeze()


def test_survivors_are_looked_at_once(installed) -> None:
    kept = [Thing() for _ in range(1000)]
    gc.collect()
    assert len(gc.get_objects()) < 1000, "get_objects tells of what the collector looks at"
    assert gc.get_freeze_count() > len(kept)


def test_a_cycle_that_becomes_garbage_later_goes_after_a_thaw(installed) -> None:
    thing = Thing()
    gone = weakref.ref(thing)
    gc.collect()
    del thing
    gc.collect()
    assert gone() is not None
    collector.thaw()
    gc.collect()
    assert gone() is None
