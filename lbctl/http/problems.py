"""Errors as problem details (RFC 9457): of the controller's REST API and of the keepers' alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from lbctl.http.message import Response

CONTENT_TYPE = "application/problem+json"


class RequestProblem(Exception):
    """Ends a request with problem details. `detail` says what happened and what to do.

    title: None, the status's own phrase. errors: of a request with wrong fields, each field and what is wrong with it.
    """

    def __init__(self, status: int, detail: str, *, title: str | None = None, headers: Mapping[str, str] | None = None,
                 errors: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.title = title or HTTPStatus(status).phrase
        self.headers = dict(headers or {})
        self.errors = tuple(errors)

    def body(self) -> bytes:
        """The problem details, as JSON."""
        content: dict[str, object] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            content["errors"] = list(self.errors)
        return json.dumps(content).encode()

    def response(self) -> Response:
        """The answer that says what failed."""
        return Response(self.status, {"Content-Type": CONTENT_TYPE, **self.headers}, self.body())
