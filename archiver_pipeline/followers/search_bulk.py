"""Documents sent in bodies of bounded size, and the answer to each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from archiver_pipeline.errors import FollowerError, Superseded
from archiver_pipeline.followers.search_client import BULK_SECONDS, BUSY, Answer, SearchClient, reason_of
from archiver_pipeline.followers.search_documents import Document, rest_name

BODY_BYTES = 6 * 1024 * 1024
"""A body gets no larger, unless one document alone is."""

_PATH = "/_bulk?filter_path=errors,items.*.status,items.*.error"
_TOO_LARGE = 413
_FULL = re.compile(r"maximum .{0,40}shards open")


@dataclass(frozen=True, slots=True)
class _Item:
    """A document, and its lines."""

    document: Document
    lines: bytes


class Bulk:
    """Gathers documents, and sees to those that were not taken. One body is under way while the next is made."""

    def __init__(
        self, client: SearchClient, attempt: int, check: Callable[[], None], body_bytes: int = BODY_BYTES
    ) -> None:
        """Begin.

        Args:
            client: the connection; nothing else may use it meanwhile.
            attempt: the number that all documents get.
            check: called before each body; raises Superseded when another attempt has begun.
            body_bytes: how large a body may get.
        """
        self._client, self._attempt, self._check = client, attempt, check
        self._body_bytes = body_bytes
        self._held: list[_Item] = []
        self._size = 0
        self._pool = ThreadPoolExecutor(1, "bulk")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is under way, and after an error send nothing more."""
        try:
            if kind is None:
                self._send_held()
                self._wait()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def add(self, document: Document) -> None:
        """Take a document; it is sent with others.

        Raises:
            Superseded: another attempt has begun.
            FollowerUnavailable: the server does not answer or asks to wait for too long.
            FollowerError: it refuses a document for good.
        """
        item = self._item(document)
        if self._held and self._size + len(item.lines) > self._body_bytes:
            self._send_held()
        self._held.append(item)
        self._size += len(item.lines)

    def _send_held(self) -> None:
        self._wait()
        held, self._held, self._size = self._held, [], 0
        if held:
            self._under_way = self._pool.submit(self._checked, held)

    def _wait(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _checked(self, items: Sequence[_Item]) -> None:
        self._check()
        self._send(items)

    def _item(self, document: Document) -> _Item:
        return _Item(document, document.lines(self._attempt))

    def _send(self, items: Sequence[_Item]) -> None:
        patience = self._client.patience()
        while items:
            body = b"".join(item.lines for item in items)
            answer = self._client.ask("POST", _PATH, body, expected=(200, _TOO_LARGE), seconds=BULK_SECONDS)
            if answer.status == _TOO_LARGE:
                self._split(items, answer)
                return
            left, busy = self._left(items, answer)
            if len(left) < len(items):
                patience.restart()
            if busy:
                patience.wait(busy)
                self._check()
            items = left

    def _split(self, items: Sequence[_Item], answer: Answer) -> None:
        """Send in halves what was too much at once; a document that is too much alone goes with less in it."""
        if len(items) > 1:
            half = len(items) // 2
            self._send(items[:half])
            self._send(items[half:])
            return
        document = items[0].document
        if not (document.fields or document.payload):
            raise self._refused(document, answer.status, answer.why)
        why = "the cluster takes no request as large (http.max_content_length)"
        less = document.without_fields(why) if document.fields else document.without_payload(why)
        self._send([self._item(less)])

    def _left(self, items: Sequence[_Item], answer: Answer) -> tuple[list[_Item], str]:
        """The documents to send again, some of them changed, and why to wait before, if there is a reason."""
        results = [next(iter(result.values())) for result in answer.body.get("items", ())]
        if len(results) != len(items):
            raise FollowerError("the search cluster answered for other documents than were sent", hint="Run again")
        left: list[_Item] = []
        busy = ""
        for item, result in zip(items, results, strict=True):
            if result["status"] in (200, 201):
                continue
            if result["status"] in BUSY:
                busy = reason_of(result.get("error"))
                left.append(item)
            else:
                left.append(self._item(self._changed(item.document, result)))
        return left, busy

    def _changed(self, document: Document, result: dict[str, Any]) -> Document:
        """A document as it may be taken after all."""
        status, why = int(result["status"]), reason_of(result.get("error"))
        if status == 409:
            raise Superseded("another run has written these documents since", hint="Run again")
        rest = rest_name(self._client.address.prefix)
        if status == 400 and _FULL.search(why) and document.index != rest:
            return replace(document, index=rest, left_out=(*document.left_out, "index"), why=why)
        if status == 400 and document.fields:
            return document.without_fields(why)
        raise self._refused(document, status, why)

    def _refused(self, document: Document, status: int, why: str) -> FollowerError:
        return self._client.refused(f"document {document.id} of index {document.index}", status, why)
