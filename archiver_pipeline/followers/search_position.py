"""The position of a follower as a document that only one attempt at a time can change."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from archiver_pipeline.errors import Superseded
from archiver_pipeline.followers.base import FollowerPosition, check_position
from archiver_pipeline.followers.search_address import POSITIONS
from archiver_pipeline.followers.search_client import SearchClient
from archiver_pipeline.plan import TopicPartition

_CONFLICT = 409


@dataclass(frozen=True)
class Attempt:
    """What the document says: the position, and the latest attempt to go on from it.

    Attributes:
        position: the position.
        number: the attempt's number; each has a greater one than those before, also where positions were removed.
        run: a word that no other attempt has.
        seq_no, primary_term: the version of the document in the server's count; -1 before there is one.
    """

    position: FollowerPosition = FollowerPosition()  # noqa: RUF009, frozen
    number: int = 0
    run: str = ""
    seq_no: int = -1
    primary_term: int = -1


class Positions:
    """Keeps the position of one follower with one prefix."""

    def __init__(self, client: SearchClient, name: str) -> None:
        """Keep the position of a follower of that name."""
        self._client, self._name = client, name
        self._id = f"{name}:{client.address.prefix}"

    def read(self) -> Attempt:
        """Read the document."""
        answer = self._client.ask("GET", f"/{POSITIONS}/_doc/{self._id}", expected=(200, 404))
        if answer.status == 404:
            return Attempt()
        source = answer.body["_source"]
        offsets = {TopicPartition(topic, id_, number): at for topic, id_, number, at in source["offsets"]}
        position = FollowerPosition(offsets, dict(source["changed"]))
        return Attempt(
            position,
            source["attempt"],
            source["run"],
            answer.body["_seq_no"],
            answer.body["_primary_term"],
        )

    def begin(self, before: FollowerPosition) -> Attempt:
        """Begin an attempt, which ends the claim of any other. Raises Superseded if the position is not `before`."""
        found = self.read()
        check_position(self._name, found.position, before)
        number = max(found.number + 1, time.time_ns() // 1_000_000)
        return self._write(replace(found, number=number, run=uuid.uuid4().hex))

    def check(self, attempt: Attempt) -> None:
        """Raise Superseded if another attempt has begun since."""
        if self.read().run != attempt.run:
            raise self._superseded()

    def end(self, attempt: Attempt, after: FollowerPosition) -> None:
        """Move the position: the attempt came to its end. Raises Superseded if another has begun since."""
        self._write(replace(attempt, position=after))

    def _write(self, attempt: Attempt) -> Attempt:
        """Write the document over the version that was read, and over no other."""
        condition = "op_type=create"
        if attempt.seq_no >= 0:
            condition = f"if_seq_no={attempt.seq_no}&if_primary_term={attempt.primary_term}"
        body = self._source(attempt)
        path = f"/{POSITIONS}/_doc/{self._id}"
        answer = self._client.ask("PUT", f"{path}?{condition}", body, expected=(200, 201, _CONFLICT))
        if answer.status != _CONFLICT:
            return replace(attempt, seq_no=answer.body["_seq_no"], primary_term=answer.body["_primary_term"])
        # A request that was sent twice, because the answer to the first one got lost, is in its own way.
        found = self.read()
        if replace(found, seq_no=attempt.seq_no, primary_term=attempt.primary_term) != attempt:
            raise self._superseded()
        return found

    def _source(self, attempt: Attempt) -> dict[str, Any]:
        places = attempt.position.offsets.items()
        return {
            "follower": self._name,
            "written": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "offsets": [[at.topic, at.topic_id, at.partition, offset] for at, offset in places],
            "changed": dict(attempt.position.changed),
            "attempt": attempt.number,
            "run": attempt.run,
        }

    def _superseded(self) -> Superseded:
        return Superseded(
            f"another run of {self._name} began since", hint="Nothing is lost or doubled: the next run goes on"
        )
