"""Requests to Elasticsearch or OpenSearch, and their errors translated."""

from __future__ import annotations

import gzip
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from archiver_pipeline.errors import FollowerError, FollowerUnavailable
from archiver_pipeline.followers.search_address import SearchAddress
from archiver_pipeline.visible import without_number

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
"""How long small requests may take, so that a node that hangs is known within seconds."""

BULK_SECONDS = 120.0
"""How long a request may take that writes, refreshes or deletes."""

PATIENCE_SECONDS = 60.0
"""How long a server may ask to wait without taking anything in the meantime."""

BUSY = frozenset({429, 502, 503, 504})
"""Answers that ask to come again later, for a request or for one of its items."""

_MOST_BYTES = 64 * 1024**2
"""The largest answer is that to a bulk request of some megabytes."""

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0

_CONNECTION = re.compile(r"^(HTTPS?Connection\([^)]*\)|<[^>]*>): ")


class Patience:
    """Waits longer from time to time, and not for ever."""

    def __init__(self, place: str, seconds: float) -> None:
        self._place, self._seconds = place, seconds
        self.restart()

    def restart(self) -> None:
        """Begin anew, since something was taken."""
        self._deadline = time.monotonic() + self._seconds
        self._wait = _FIRST_WAIT

    def wait(self, why: str) -> None:
        """Wait before the next try. Raises FollowerUnavailable when it was too long already."""
        if time.monotonic() + self._wait > self._deadline:
            raise FollowerUnavailable(
                f"the search cluster asked to wait for over {self._seconds:.0f} s: {why}",
                path=self._place,
                hint="The next run goes on from where it is; if this stays, look at its heap, queues and disk",
            )
        time.sleep(self._wait * random.uniform(0.5, 1))
        self._wait = min(_LONGEST_WAIT, self._wait * 2)


@dataclass(frozen=True)
class Answer:
    """What came back: the HTTP status, and the JSON of the body; an empty one where there was none."""

    status: int
    body: dict[str, Any]

    @property
    def why(self) -> str:
        """The server's words for what went wrong."""
        failures = self.body.get("failures") or [{}]
        return f"status {self.status}: {reason_of(self.body.get('error') or failures[0].get('cause'))}"


def reason_of(error: Any) -> str:
    """An error as servers give it, in one line: its type and reasons, shortened."""
    if not isinstance(error, dict):
        return str(error or "no reason given")[:300]
    parts = [f"{error.get('type')}: {error.get('reason')}"]
    cause = error.get("caused_by")
    if isinstance(cause, dict) and str(cause.get("reason")) not in parts[0]:
        parts.append(str(cause.get("reason")))
    return " ".join("; ".join(parts).split())[:500]


class SearchClient:
    """One connection to a cluster."""

    def __init__(self, address: SearchAddress, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Prepare; nothing is sent before the first request."""
        import requests
        import urllib3

        self.address = address
        self._patience_seconds = patience_seconds
        self._session = requests.Session()
        # Neither a proxy nor the login of ~/.netrc nor other authorities: what counts is in the URL.
        self._session.trust_env = False
        self._session.auth = address.auth
        self._session.verify = address.verify
        if address.verify is False:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def patience(self) -> Patience:
        """A new supply of patience with this server."""
        return Patience(self.address.url, self._patience_seconds)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        expected: tuple[int, ...] = (200, 201),
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """Send a request, again and again while the server asks to wait.

        Args:
            method: the HTTP method.
            path: with the query, from the slash on.
            body: JSON, or bytes in the format of `_bulk`.
            expected: the answers that are no error.
            seconds: how long the answer may take.

        Raises:
            FollowerUnavailable: no connection, no answer in time, or it asks to wait for too long.
            FollowerError: it refuses; the text has its words.
        """
        patience = self.patience()
        while True:
            answer = self._send(method, path, body, seconds)
            if answer.status in expected:
                return answer
            if answer.status not in BUSY:
                raise self.refused(f"{method} {path.partition('?')[0]}", answer.status, answer.why)
            patience.wait(answer.why)

    def refused(self, what: str, status: int, why: str) -> FollowerError:
        """The error for a request or an item that waiting does not help."""
        mine = f"{self.address.prefix}-*"
        hints = {
            401: "Check user and password in ARCHIVER_SEARCH_URL",
            403: f"Let its user write, refresh, search and delete in {mine}, or lift the block",
            404: f"Is this the address of the cluster, and does action.auto_create_index allow {mine}?",
        }
        hint = hints.get(status, "Once what it says is mended, the next run goes on from where it is")
        return FollowerError(f"the search cluster refused {what}: {why}", path=self.address.url, hint=hint)

    def _send(self, method: str, path: str, body: Any, seconds: float) -> Answer:
        import requests

        kind = "application/x-ndjson" if isinstance(body, bytes) else "application/json"
        headers = {} if body is None else {"Content-Type": kind}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if data and self.address.gzip:
            headers["Content-Encoding"], data = "gzip", gzip.compress(data, 1)
        return self._translated(
            lambda: self._session.request(
                method,
                self.address.url + path,
                data=data,
                headers=headers,
                timeout=(CONNECT_SECONDS, seconds),
                allow_redirects=False,
                stream=True,
            ),
            seconds,
            requests,
        )

    def _translated(self, send: Callable[[], Any], seconds: float, requests: Any) -> Answer:
        """Send, and translate what the library raises; none of its texts has the password, for its URL has none."""
        errors = requests.exceptions
        try:
            response = send()
            content = _bounded(response, time.monotonic() + seconds)
        except errors.SSLError as error:
            hint = "Name the file of its authority as ?ca=FILE in ARCHIVER_SEARCH_URL"
            raise self._gone(f"its certificate was not accepted: {_root(error)}", hint) from None
        except errors.ConnectTimeout:
            raise self._gone(f"no connection within {CONNECT_SECONDS:.0f} s") from None
        except errors.ReadTimeout:
            raise self._gone(f"no answer within {seconds:.0f} s") from None
        except _TooLarge:
            raise self._gone(f"its answer goes on beyond {_MOST_BYTES >> 20} MiB") from None
        except (errors.RequestException, OSError) as error:
            raise self._gone(_root(error)) from None
        try:
            body = json.loads(content) if content else {}
        except (ValueError, RecursionError):
            body = {"error": " ".join(content.decode(errors="replace").split())[:200]}
            if response.ok:
                raise self.refused("an answer in JSON", response.status_code, body["error"]) from None
        return Answer(response.status_code, body if isinstance(body, dict) else {"error": str(body)})

    def _gone(self, why: str, hint: str = "Is it running, and is ARCHIVER_SEARCH_URL right?") -> FollowerUnavailable:
        return FollowerUnavailable(f"the search cluster does not answer: {why}", path=self.address.url, hint=hint)


class _TooLarge(Exception):
    """An answer is larger than any to a question that is asked."""


def _bounded(response: Any, deadline: float) -> bytes:
    """The body of an answer; whoever answers may go on for ever.

    Raises:
        ReadTimeout: it is not all there in time.
        _TooLarge: it is too large.
    """
    import requests

    with response:
        parts: list[bytes] = []
        size = 0
        for part in response.iter_content(64 * 1024):
            parts.append(part)
            size += len(part)
            if size > _MOST_BYTES:
                raise _TooLarge
            if time.monotonic() > deadline:
                raise requests.exceptions.ReadTimeout
        return b"".join(parts)


def _root(error: BaseException) -> str:
    """The innermost words of an error that wraps others."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    inner = getattr(error, "reason", None)
    # The HTTP client puts the representation of its connection in front.
    return _CONNECTION.sub("", without_number(str(inner if inner is not None else error)))[:300]
