"""A request and a response, free of any web framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BODY_LIMIT = 64 * 1024
"""Bytes that a request's body may have."""


@dataclass(frozen=True, slots=True)
class Request:
    """path: decoded, with its leading slash. query: each parameter's values in order. headers: names in lower case.

    body: None if it is longer than BODY_LIMIT, so that nobody has to read it.
    """

    method: str
    path: str
    query: Mapping[str, list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = b""


@dataclass(frozen=True, slots=True)
class Response:
    """headers: names as they are sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes
