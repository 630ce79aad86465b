"""Who may order by the REST API besides who has the token: nobody's web page (OWASP: cross-site request forgery, DNS
rebinding).

A browser on the controller's host sends what any page asks it to. It tells where the page is from by headers that the
page can't set: `Origin` and `Sec-Fetch-Site` (W3C Fetch Metadata); and the name under which it found the controller, by
`Host`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from lbctl.http.problems import RequestProblem

SAFE = {"GET", "HEAD", "OPTIONS"}
"""Methods that order nothing (RFC 9110 9.2.1)."""
FORMS = {"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
"""What a form can send without being asked whether it may (Fetch standard: CORS-safelisted request-header)."""


def check_origin(method: str, headers: Mapping[str, str]) -> None:
    """Raises RequestProblem for an order that a page of another site may have sent."""
    if method in SAFE:
        return
    site, origin, host = (headers.get(name, "") for name in ("sec-fetch-site", "origin", "host"))
    if site not in ("", "same-origin", "none") or origin and _split(origin).netloc != (host or None):
        raise RequestProblem(403, "A web page of another site may not give orders here.")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in FORMS:
        raise RequestProblem(415, f"An order is sent as application/json, or without a body and type, not as {kind}.")


def check_host(headers: Mapping[str, str], names: Collection[str]) -> None:
    """Raises RequestProblem if the controller was asked under a name that is none of its own: an address always is.

    Not needed where a token is wanted, which a strange page does not have.
    """
    host = headers.get("host", "")
    name = _split(f"//{host}").hostname or ""
    if not host or name == "localhost" or name in names or _is_address(name):
        return
    raise RequestProblem(421, f"The controller is not known as {name!r}: ask it by its address, by a name of its host, "
                         "or with a token (token_file).")


def _split(url: str) -> SplitResult:
    """Of what no host could be in, nothing."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
