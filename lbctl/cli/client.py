"""Calls of the controller's REST API. Whatever goes wrong is a Failure that says what to do."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from lbctl.cli.failure import Failure

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT = 30.0
"""Seconds to wait for an answer. No call waits for a move: it is asked after instead."""
START = "ryu-manager --config-file lbctl.conf ryu_apps/load_balancer.py ryu_apps/rest.py"


class Unreachable(Failure):
    """Nothing answers there."""


class Client:
    """Paths are given in parts, which are quoted: client.get("load-balancers", name)."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """Raises Failure if the URL or the token cannot be one."""
        if not _is_http(url):
            raise Failure(f"LBCTL_URL is {url!r}, which is no http address; set it to one such as {DEFAULT_URL}.")
        if token is not None and not (token.isascii() and token.isprintable() and token):
            raise Failure("LBCTL_TOKEN holds characters that no token has; set it to the content of token_file.")
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a .netrc may come between us and the controller
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    @classmethod
    def from_environment(cls) -> Client:
        """By LBCTL_URL and LBCTL_TOKEN."""
        return cls(os.environ.get("LBCTL_URL") or DEFAULT_URL, os.environ.get("LBCTL_TOKEN") or None)

    @property
    def is_local(self) -> bool:
        """The controller is (to be) on this machine."""
        host = urlsplit(self.url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")

    def get(self, *parts: str, **query: Any) -> Any:
        return self._call("GET", parts, query)

    def post(self, *parts: str, body: Any = None) -> Any:
        return self._call("POST", parts, {}, body)

    def patch(self, *parts: str, body: Any) -> Any:
        return self._call("PATCH", parts, {}, body)

    def delete(self, *parts: str) -> Any:
        return self._call("DELETE", parts, {})

    def _call(self, method: str, parts: tuple[str, ...], query: dict[str, Any], body: Any = None) -> Any:
        url = "/".join([self.url, "v1", *(quote(part, safe="") for part in parts)])
        query = {name: value for name, value in query.items() if value is not None}
        try:
            response = self._session.request(method, url, params=query, json=body, timeout=TIMEOUT,
                                             allow_redirects=False)
        except requests.Timeout as error:
            raise Unreachable(
                f"The controller at {self.url} does not answer within {TIMEOUT:g} s; see its log."
            ) from error
        except requests.ConnectionError as error:
            raise Unreachable(
                f"There is no controller at {self.url} ({_cause(error)}): start it ({START}), or set "
                "LBCTL_URL to where it is."
            ) from error
        except requests.RequestException as error:
            raise Failure(f"The call of {url} failed: {error}. Is LBCTL_URL right?") from error
        return self._content(response)

    def _content(self, response: requests.Response) -> Any:
        try:
            content = response.json()
            if response.ok:
                return content
            detail, status = content["detail"], content["status"]
        except (ValueError, KeyError, TypeError):
            raise Failure(f"What answers at {self.url} (status {response.status_code}) is not lbctl's REST API; set "
                          "LBCTL_URL to where the controller is.") from None
        if status == 401:
            raise Failure(f"{detail.rstrip('.')}. Set LBCTL_TOKEN to the content of the controller's token_file.")
        raise Failure(detail if detail.endswith((".", "?")) else detail + ".")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _cause(error: BaseException) -> str:
    """The operating system's words for a failed connection, from the depths of an exception."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror.lower()
        inner = [getattr(seen, "reason", None), *seen.args, seen.__cause__, seen.__context__]
        seen = next((part for part in inner if isinstance(part, BaseException)), None)
    return "no connection"
