"""The HTTP side: a small WSGI application with routes, and the server that runs it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from archiver_pipeline.errors import ArchiverError

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

_LIMIT_SECONDS = 30.0
"""So long a client may take to send its request: one that says nothing keeps no thread for ever."""

_WAITING = 128
"""So many clients may wait for their turn."""

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
        body = encode(registry)
        if not exposition.gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            return Response(body, content_type)
        import gzip

        return Response(gzip.compress(body, 1), content_type, headers=(("Content-Encoding", "gzip"),))

    return answer


def json_route(ask: Callable[[], tuple[bool, Any]]) -> Route:
    """Answer with a JSON document: 200 where what it says is good, else 503."""

    def answer(_: Environ) -> Response:
        good, content = ask()
        body = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        return Response(body, "application/json", 200 if good else 503)

    return answer


def page_route(title: str, links: Mapping[str, str]) -> Route:
    """Answer with a plain page of links, by path what is there."""
    items = "".join(f'<li><a href="{path}">{path}</a>: {what}</li>' for path, what in links.items())
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><h1>{title}</h1><ul>{items}</ul>"
    return lambda _: Response(page.encode() + b"\n", "text/html; charset=utf-8")


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
