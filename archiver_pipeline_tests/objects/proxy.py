"""An HTTP server before an object store that lets some requests fail: a store cannot be asked to have a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import unquote, urlsplit

from archiver_pipeline_tests.listening import QuietHandler, listening

PASS, LOSE, DENY, DROP = 0, 1, 2, 3
"""Hand a request on; hand it on and lose the answer, or answer 500; let it get lost itself. Else an HTTP status."""

_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"

Judge = Callable[[str, str], int]
"""Given method and path, not escaped, says what becomes of a request; it may take its time."""


Headers = dict[str, str]


@contextmanager
def proxy(endpoint: str, judge: Judge, alter: Callable[[Headers], Headers] = lambda headers: headers) -> Iterator[str]:
    """Listen on an address that is yielded; what `judge` says becomes of each request, and `alter` has the headers of
    each answer."""
    target = urlsplit(endpoint).netloc

    class Handler(QuietHandler):
        def handle_any(self) -> None:
            body = self.body()
            what = judge(self.command, unquote(self.path))
            if what in (PASS, LOSE, DENY):
                connection = HTTPConnection(target, timeout=60)
                # With the host as it was signed.
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                answer = connection.getresponse()
                content = answer.read()
                if what == PASS:
                    self._answer(answer.status, alter(dict(answer.getheaders())), content)
                connection.close()
            if what == DENY or what >= 100:
                text = _DENIED if what == 403 else _SLOW_DOWN
                self._answer(500 if what == DENY else what, {"Content-Type": "application/xml"}, text)
            self.close_connection = what in (LOSE, DROP) or self.close_connection

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", len(content)) if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    with listening(Handler) as address:
        yield address
