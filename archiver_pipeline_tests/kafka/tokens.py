"""An endpoint that gives out tokens to clients with the right secret, as an identity provider does (RFC 6749, 4.4)."""

from __future__ import annotations

import base64
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from archiver_pipeline_tests.kafka.keys import TokenSigner
from archiver_pipeline_tests.processes import HOST

AUDIENCE = "kafka-tests"


class TokenEndpoint:
    """The endpoint; its tokens are good for ten minutes.

    Attributes:
        url: where it is.
        clients: the secret of each client.
        audience: who its tokens are for.
    """

    def __init__(self, signer: TokenSigner) -> None:
        self.clients: dict[str, str] = {}
        self.audience = AUDIENCE
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
                name, secret = _credentials(self.headers.get("Authorization", ""), form)
                good = endpoint.clients.get(name) == secret
                answer = {"access_token": signer.token(name, aud=endpoint.audience), "token_type": "Bearer"}
                answer |= {"expires_in": "600"}
                body = json.dumps(answer if good else {"error": "invalid_client"}).encode()
                self.send_response(200 if good else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _credentials(header: str, form: dict[str, list[str]]) -> tuple[str, str]:
    """Name and secret of a client, from the header or the form."""
    if header.startswith("Basic "):
        name, _, secret = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return urllib.parse.unquote(name), urllib.parse.unquote(secret)
    return form.get("client_id", [""])[0], form.get("client_secret", [""])[0]
