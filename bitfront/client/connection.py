"""Connection: requests to a server, asked again when an answer is lost; its problems as errors."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from bitfront import errors
from bitfront.errors import BitfrontError, InvalidArgument, Unreachable
from bitfront.version import __version__

LOST = (
    httpx2.NetworkError,
    httpx2.ProtocolError,
    httpx2.TimeoutException,
    errors.StorageError,
    errors.InFlight,
)
"""The answer did not come, or says that the server cannot work just now."""
_UNREACHED = (httpx2.ConnectError, httpx2.ConnectTimeout)
_CALL = httpx2.Timeout(30.0, connect=5.0)
# A stream of events has a comment every 15 seconds.
_STREAM = httpx2.Timeout(45.0, connect=5.0)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0
_PAGE_SIZE = 200


def silent(message: str) -> None:
    """Say nothing of a pause."""


@dataclass(eq=False)
class Connection:
    """A server, and the key with which it is asked.

    Args:
        url: address of the server.
        key: API key; `None` on a machine without keys.
        patience: seconds for which a server that went away is waited for.
        waiting: is told why a request is made again.
        http: makes the requests instead of a connection to `url`.
        is_reached: whether the server was ever there; one that never was is not waited for.

    Raises:
        InvalidArgument: `url` is no address, or `key` has letters that no key has.
    """

    url: str
    key: str | None = field(repr=False)
    patience: float
    waiting: Callable[[str], None] = field(default=silent, repr=False)
    http: httpx2.Client | None = field(default=None, repr=False)
    is_reached: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[^/\s]\S*", self.url):
            raise InvalidArgument(
                f"Server address {self.url!r} is not one: give http://HOST:PORT or https://HOST."
            )
        if self.key is not None and not re.fullmatch(r"[!-~]+", self.key):
            raise InvalidArgument("The API key has characters that no key has: copy it again.")

    @property
    def _http(self) -> httpx2.Client:
        if self.http is None:
            self.http = httpx2.Client(base_url=self.url.rstrip("/"), timeout=_CALL)
        return self.http

    def close(self) -> None:
        """Let go of it; the next request opens it again."""
        if self.http is not None:
            self.http.close()
            self.http = None

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> httpx2.Response:
        """An answer.

        Args:
            method: of HTTP.
            path: on the server.
            body: sent as JSON.
            params: of the query.
            headers: besides the key.
            repeatable: whether asking again does no harm where the answer was lost.

        Raises:
            BitfrontError: what the server refused, or that it does not answer.
        """
        patience, sent = Patience(self), self._headers(headers)
        content = None if body is None else _encoded(body)
        if content is not None:
            sent["Content-Type"] = "application/json"
        while True:
            try:
                answer = self._http.request(
                    method, path, content=content, params=params, headers=sent
                )
                self.is_reached = True
                _check(answer)
                return answer
            except LOST as error:
                patience.wait(error, repeatable)

    def json(self, method: str, path: str, *arguments: Any, **options: Any) -> Any:
        """An answer's JSON; arguments as of `call`."""
        answer = self.call(method, path, *arguments, **options)
        try:
            return answer.json()
        except ValueError as error:
            raise self.unknown(answer) from error

    def items(self, path: str, params: Mapping[str, Any]) -> Iterator[Any]:
        """Items of every page."""
        token: str | None = None
        while True:
            asked = {**params, "page_size": _PAGE_SIZE} | ({"page_token": token} if token else {})
            page = self.json("GET", path, params=asked)
            if not isinstance(page, dict) or "items" not in page:
                raise Unreachable(f"{self.url} answers, but not as a bitfront server does.")
            yield from page["items"]
            token = page.get("next_page_token")
            if not token:
                return

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """An answer whose body is read as it comes.

        Raises:
            BitfrontError: what the server refused; what is lost is for the caller.
        """
        headers = self._headers(headers)
        with self._http.stream("GET", path, headers=headers, timeout=_STREAM) as answer:
            if answer.is_error:
                answer.read()
            _check(answer)
            yield answer

    def _headers(self, more: Mapping[str, str] | None) -> dict[str, str]:
        made = {"User-Agent": f"bitfront/{__version__}"}
        if self.key:
            made["Authorization"] = f"Bearer {self.key}"
        return made | dict(more or {})

    def unknown(self, answer: httpx2.Response) -> Unreachable:
        """That something else than a server of bitfront answered."""
        return Unreachable(
            f"{self.url} answers {answer.status_code}, but not as a bitfront server does: check "
            "the address in BITFRONT_URL."
        )


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"The request cannot be sent ({error}): give texts, finite numbers, lists and tables."
        ) from error


class Patience:
    """How long one request is made again.

    Args:
        connection: to the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pause = _FIRST_PAUSE
        self._lost_at: float | None = None

    def answered(self) -> None:
        """The server is there."""
        self._pause, self._lost_at = _FIRST_PAUSE, None
        self._connection.is_reached = True

    def wait(self, error: Exception, repeatable: bool = True) -> None:
        """Pause before the next try.

        Raises:
            BitfrontError: there is no use in one.
        """
        where = self._connection.url
        if isinstance(error, _UNREACHED) and not self._connection.is_reached:
            raise Unreachable(
                f"No server answers at {where}: start one with `bitfront serve`, or set "
                "BITFRONT_URL to the address of yours."
            ) from error
        now = time.monotonic()
        self._connection.is_reached = True
        self._lost_at = self._lost_at or now
        if not repeatable and isinstance(error, BitfrontError):
            raise error
        if not repeatable:
            raise Unreachable(
                f"The answer of {where} was lost: see with `bitfront studies` whether it was done."
            ) from error
        if now - self._lost_at > self._connection.patience:
            reason = f" ({error})" if isinstance(error, BitfrontError) else ""
            raise Unreachable(
                f"{where} does not answer any more{reason}: see whether it runs, then try again."
            ) from error
        is_told = isinstance(error, BitfrontError)
        why = f"cannot answer now ({error})" if is_told else "does not answer now"
        self._connection.waiting(f"{where} {why}: trying again")
        self.sleep()

    def sleep(self) -> None:
        """Pause, the next time for longer."""
        # Clients that lost one server do not come back all at once.
        time.sleep(self._pause * (0.5 + random.random() / 2))
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)


_KINDS: Mapping[str, type[BitfrontError]] = {
    errors.code_of(kind): kind
    for kind in vars(errors).values()
    # Its other fields are not in a problem.
    if isinstance(kind, type) and kind is not errors.InfeasibleBudget
    if issubclass(kind, BitfrontError)
}
_STATUS: Mapping[int, type[BitfrontError]] = {
    401: errors.Unauthorised,
    403: errors.Unauthorised,
    404: errors.NotFound,
    409: errors.Conflict,
    429: errors.OverQuota,
    503: errors.StorageError,
}


def _check(answer: httpx2.Response) -> None:
    """Raise what a server refused.

    Raises:
        BitfrontError: of the kind that the server raised, with its one line.
    """
    if not answer.is_error:
        return
    try:
        problem = answer.json()
        code, detail = str(problem["code"]), " ".join(str(problem["detail"]).split())
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(
            f"The server answers {answer.status_code} and does not say why: check the address in "
            "BITFRONT_URL, or try again later."
        ) from error
    if answer.status_code == 401:
        detail = f"{detail.rstrip('.')}. The command takes the key from BITFRONT_API_KEY."
    kind = _KINDS.get(code) or _STATUS.get(answer.status_code, InvalidArgument)
    raise kind(detail)
