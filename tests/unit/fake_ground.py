"""A ground for one part alone: what it reads of it, given by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from types import SimpleNamespace

from lbctl.ground.tokens import Tokens
from lbctl.site.model import Settings


def fake_ground(switches: Mapping[str, object], external_ips: object = (), settings: Settings | None = None,
                log: Callable[..., None] = lambda *_, **__: None) -> SimpleNamespace:
    """In the place of a Ground, with real tokens. What is to survive is forgotten; what is saved is no effect."""
    return SimpleNamespace(
        switches=switches,
        external_ips=external_ips,
        settings=settings or Settings(),
        tokens=Tokens(),
        log=log,
        fence_code="1.2.3.4",
        counters=Counter(),
        survives=lambda _: None,
        save=lambda token=None: None,
    )
