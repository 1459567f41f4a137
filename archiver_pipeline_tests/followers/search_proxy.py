"""An HTTP server before a search node that answers some requests on its own: a node cannot be asked to be busy."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests


@dataclass(frozen=True)
class Asked:
    """A request: its method, path with query, headers and body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answered = tuple[int, Any]
Forward = Callable[[Asked], Answered]
Answer = Callable[[Asked, Forward], Answered]
"""Given a request and a way to let the node answer: status and JSON."""


@contextmanager
def proxy(node: str, answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Listen on an address that is yielded, by TLS if that is given; what comes is answered by `answer`."""

    def forward(asked: Asked) -> Answered:
        kept = {name: value for name, value in asked.headers.items() if name in ("Content-Type", "Content-Encoding")}
        found = requests.request(asked.method, node + asked.path, data=asked.body, headers=kept, timeout=60)
        return found.status_code, found.json() if found.content else None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, found = answer(Asked(self.command, self.path, dict(self.headers.items()), body), forward)
            text = b"" if found is None else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = do_HEAD = handle_any

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
