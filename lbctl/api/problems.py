"""Errors of the REST API as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from pydantic import ValidationError

from lbctl.api.types import FieldError, Problem

CONTENT_TYPE = "application/problem+json"


class ApiProblem(Exception):
    """Ends a request with problem details. `detail` says what happened and what to do."""

    def __init__(self, status: int, detail: str, title: str | None = None, headers: Mapping[str, str] | None = None,
                 errors: Sequence[FieldError] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self.problem = Problem(title=title or HTTPStatus(status).phrase, status=status, detail=detail,
                               errors=list(errors) if errors else None)

    def body(self) -> bytes:
        return self.problem.model_dump_json(exclude_none=True).encode()


def not_found(kind: str, name: str, known: Sequence[str]) -> ApiProblem:
    """404 for a name; lists up to ten names that there are."""
    there_are = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    return ApiProblem(404, f"There is no {kind} {name}; " + (f"there are: {there_are}." if known else "there are none."))


def from_validation(error: ValidationError, where: str) -> ApiProblem:
    """422 that names each wrong field. `where` is "body" or "query"."""
    errors = [FieldError(field=_field(item["loc"]), message=_message(item)) for item in error.errors()]
    fields = "; ".join(f"{item.field}: {item.message}" for item in errors)
    return ApiProblem(422, f"Wrong {where}: {fields}.", errors=errors)


def _field(location: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in location) or "body"


def _message(item: Mapping) -> str:
    if item["type"] == "extra_forbidden":
        return "is not known here"
    if item["type"] == "missing":
        return "is missing"
    return item["msg"].removeprefix("Value error, ")
