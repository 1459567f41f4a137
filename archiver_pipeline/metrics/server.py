"""The HTTP side: a small WSGI application with routes, and the server that runs it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from archiver_pipeline.errors import ArchiverError

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

_LIMIT_SECONDS = 30.0
"""So long a client may take to send its request: one that says nothing keeps no thread for ever."""

_WAITING = 128
"""So many clients may wait for their turn."""

_PAGE_SECONDS = 1.0

_STATUS = {200: "200 OK", 404: "404 Not Found", 405: "405 Method Not Allowed", 503: "503 Service Unavailable"}


@dataclass(frozen=True)
class Response:
    """What is answered: the body, its type, the status, and more headers."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


Environ = Mapping[str, Any]
Route = Callable[[Environ], Response]
"""Answers a GET; it is given WSGI's environment (PEP 3333)."""


class Application:
    """A WSGI application: one route for each path, and nothing below it."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = dict(routes)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        answer = self._answer(environ)
        # What is told is of this moment, and no page of another site has anything to do with it.
        headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
        headers += [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), *answer.headers]
        start_response(_STATUS[answer.status], headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _answer(self, environ: Environ) -> Response:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return Response(b"only GET and HEAD\n", status=405, headers=(("Allow", "GET, HEAD"),))
        route = self._routes.get(environ.get("PATH_INFO") or "/")
        if route is None:
            return Response(f"there is {', '.join(sorted(self._routes))}\n".encode(), status=404)
        return route(environ)


def metrics_route(registry: CollectorRegistry) -> Route:
    """Answer with the metrics, as Prometheus text or OpenMetrics, whichever the client asks for."""

    def answer(environ: Environ) -> Response:
        from prometheus_client import exposition

        try:
            encode, content_type = exposition.choose_encoder(environ.get("HTTP_ACCEPT", ""))
        except (TypeError, ValueError):  # It compares versions that are none.
            encode, content_type = exposition.choose_encoder("")
        return _packed(environ, Response(encode(registry), content_type))

    return answer


def _packed(environ: Environ, answer: Response) -> Response:
    """The same answer by gzip, if the client takes that."""
    from prometheus_client import exposition

    if not exposition.gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
        return answer
    import gzip

    return replace(answer, body=gzip.compress(answer.body, 1), headers=(*answer.headers, ("Content-Encoding", "gzip")))


def json_route(ask: Callable[[], tuple[bool, Any]]) -> Route:
    """Answer with a JSON document: 200 where what it says is good, else 503."""

    def answer(_: Environ) -> Response:
        good, content = ask()
        body = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        return Response(body, "application/json", 200 if good else 503)

    return answer


def page_route(draw: Callable[[], str], policy: str) -> Route:
    """Answer with a page of HTML, which is drawn at most once a second, however many ask for it.

    Args:
        draw: draws it.
        policy: its content security policy.
    """
    lock, kept, until = threading.Lock(), b"", 0.0

    def answer(environ: Environ) -> Response:
        nonlocal kept, until
        with lock:
            if time.monotonic() >= until:
                kept = draw().encode("utf-8", "replace")
                until = time.monotonic() + _PAGE_SECONDS
            body = kept
        headers = (("Content-Security-Policy", policy), ("Referrer-Policy", "no-referrer"))
        return _packed(environ, Response(body, "text/html; charset=utf-8", headers=headers))

    return answer


class _Handler(WSGIRequestHandler):
    timeout = _LIMIT_SECONDS

    def handle(self) -> None:
        """Answer; a client that says nothing, or goes, is no error."""
        with suppress(TimeoutError, ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is nothing to tell of."""


def serve(application: Application, host: str, port: int) -> WSGIServer:
    """Listen; `serve_forever` of what is returned answers.

    Raises:
        ArchiverError: nobody can listen there.
    """
    from prometheus_client.exposition import ThreadingWSGIServer

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        kind = type("Server", (ThreadingWSGIServer,), {"address_family": family, "request_queue_size": _WAITING})
        return make_server(host, port, application, kind, _Handler)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "it is no port"
        raise ArchiverError(
            f"metrics cannot be served at port {port} of {host}: {why[:1].lower()}{why[1:]}",
            hint="Name another address in --listen or another port in --port, or end what uses it",
        ) from error
