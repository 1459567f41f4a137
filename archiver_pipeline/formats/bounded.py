"""Answers of a Schema Registry, no longer and no larger than a schema may be: whoever answers may go on for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

MOST_BYTES = 16 * 1024**2
MOST_SECONDS = 30.0
"""No schema is as large, or takes as long once its first byte is there. Confluent's client only limits each read."""


def bound(client: SchemaRegistryClient) -> None:
    """Let a client's answers end with an error where they are too large or take too long.

    They are not compressed: a few bytes could then be any number. A redirect is followed nowhere, which is the client's
    own way; it would take user and password along.
    """
    from confluent_kafka.schema_registry.common._httpx_compat import httpx

    class Bounded(httpx.SyncByteStream):
        def __init__(self, response: Any) -> None:
            self._response, self._stream = response, response.stream

        def __iter__(self) -> Any:
            deadline, size = time.monotonic() + MOST_SECONDS, 0
            for part in self._stream:
                size += len(part)
                if size > MOST_BYTES or time.monotonic() > deadline:
                    limits = f"{MOST_BYTES >> 20} MiB and {MOST_SECONDS:.0f} s"
                    raise httpx.ReadError(f"its answer goes on beyond {limits}", request=self._response.request)
                yield part

        def close(self) -> None:
            self._stream.close()

    def check(response: Any) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx.ReadError("its answer is compressed, although that was not asked for", request=response.request)
        response.stream = Bounded(response)

    session = client._rest_client.session
    session.headers["Accept-Encoding"] = "identity"
    session.event_hooks = {"response": [check]}
