"""An HTTP server before a search node that answers some requests on its own: a node cannot be asked to be busy."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from archiver_pipeline_tests.listening import QuietHandler, listening


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

    class Handler(QuietHandler):
        def handle_any(self) -> None:
            body = self.body()
            status, found = answer(Asked(self.command, self.path, dict(self.headers.items()), body), forward)
            text = b"" if found is None else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = do_HEAD = handle_any

    with listening(Handler, tls) as address:
        yield address
