"""What is wrong with a request, in the words of the REST API."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lbctl.api.types import FieldError
from lbctl.http.problems import RequestProblem
from lbctl.values.refused import Refused


def not_found(kind: str, name: str, known: Sequence[str]) -> RequestProblem:
    """404 for a name; lists up to ten names that there are."""
    names = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    there_are = f"there are: {names}" if known else "there are none"
    return RequestProblem(404, f"There is no {kind} {name}; {there_are}.")


def wrong_field(where: str, field: str, message: str) -> RequestProblem:
    """422 for one field. `where` is "body" or "query"."""
    return _wrong(where, [FieldError(field=field, message=message)])


def from_validation(error: ValidationError, where: str) -> RequestProblem:
    """422 that names each wrong field. `where` is "body" or "query"."""
    return _wrong(where, [FieldError(field=_field(item["loc"]), message=_message(item)) for item in error.errors()])


def refusal(refused: Refused) -> RequestProblem:
    """What the control function will not do."""
    return RequestProblem(refused.status, refused.detail, title=refused.title)


def _wrong(where: str, errors: Sequence[FieldError]) -> RequestProblem:
    fields = "; ".join(f"{item.field}: {item.message}" for item in errors)
    return RequestProblem(422, f"Wrong {where}: {fields}.", errors=[item.model_dump() for item in errors])


def _field(location: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in location) or "body"


def _message(item: ErrorDetails) -> str:
    if item["type"] == "extra_forbidden":
        return "is not known here"
    if item["type"] == "missing":
        return "is missing"
    return item["msg"].removeprefix("Value error, ")
