"""What a person is told."""

from __future__ import annotations

from typing import Protocol


class Log(Protocol):
    """Is told what a person might want to know: in a constant sentence, with what belongs to it by name."""

    def __call__(self, event: str, /, level: str = "info", **keys: object) -> None: ...


def no_log(event: str, /, level: str = "info", **keys: object) -> None:
    """For who wants to know nothing."""
