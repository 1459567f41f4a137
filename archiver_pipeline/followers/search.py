"""The follower `search_messages`: every message as a document of Elasticsearch or OpenSearch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from archiver_pipeline.followers.base import Follower, FollowerPosition
from archiver_pipeline.followers.search_address import parse_address
from archiver_pipeline.followers.search_bulk import Bulk
from archiver_pipeline.followers.search_client import BULK_SECONDS, SearchClient
from archiver_pipeline.followers.search_documents import COLUMNS, day_name, documents, rest_name
from archiver_pipeline.followers.search_indices import prepare
from archiver_pipeline.followers.search_position import Attempt, Positions
from archiver_pipeline.hours import Hour
from archiver_pipeline.settings.settings import Settings

if TYPE_CHECKING:
    import polars as pl

NAME = "search_messages"

_AT_ONCE = 5000
"""So many documents one request removes, so that it ends in time."""


class SearchFollower(Follower):
    """Keeps one document a message, in one index a type and day, with an alias over all.

    A search cluster has no transactions. What stands in for one:

    - A document's id is the message's place in Kafka, so to write it again changes nothing. The position moves after
      all documents of a step are acknowledged, and only if it still is what it was (a conditional write). Whatever is
      killed in between, the next run writes the same documents again. Until then half a step can be seen.
    - Each step is an attempt with a number of its own, which its documents have, too, as their version. To begin one
      ends the claim of every attempt before: that can write over nothing newer, looks before each body whether it
      still counts, and cannot move the position.
    - To replace an hour is to write its messages, then to remove all that lower attempts left of it, wherever they
      were: so what half a step left of messages that an erasure has changed since goes before they are taken again.
    - Lucene keeps the bytes of a removed document until it merges the segment; `_forcemerge?only_expunge_deletes=true`
      sees to that at once.
    """

    name = NAME
    columns = COLUMNS

    def __init__(self, settings: Settings) -> None:
        """Follow into the cluster of `search_url`; nothing is sent yet. Raises SettingsError."""
        self._client = SearchClient(parse_address(settings.search_url.get_secret_value()))
        self._prefix = self._client.address.prefix
        self._positions = Positions(self._client, NAME)
        self._prepared = False

    def position(self) -> FollowerPosition:
        """Read the position."""
        return self._positions.read().position

    def take(self, messages: Iterator[pl.DataFrame], before: FollowerPosition, after: FollowerPosition) -> None:
        """Write new messages."""
        self._write(messages, before, after, None)

    def replace(
        self, hour: Hour, messages: Iterator[pl.DataFrame], before: FollowerPosition, after: FollowerPosition
    ) -> None:
        """Write the messages of an hour, then remove what else there is of it."""
        self._write(messages, before, after, hour)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _write(
        self, messages: Iterator[pl.DataFrame], before: FollowerPosition, after: FollowerPosition, hour: Hour | None
    ) -> None:
        if not self._prepared:
            prepare(self._client)
            self._prepared = True
        attempt = self._positions.begin(before)
        with Bulk(self._client, attempt.number, partial(self._positions.check, attempt)) as bulk:
            for frame in messages:
                for document in documents(frame, self._prefix):
                    bulk.add(document)
        if hour is not None:
            self._remove_older(hour, attempt)
        self._positions.end(attempt, after)

    def _remove_older(self, hour: Hour, attempt: Attempt) -> None:
        """Remove what lower attempts left of an hour; a document written meanwhile stays, for its number is higher."""
        indices = f"{self._prefix}-*-{day_name(hour.dt)},{rest_name(self._prefix)}"
        there = "ignore_unavailable=true&allow_no_indices=true"
        self._client.ask("POST", f"/{indices}/_refresh?{there}", seconds=BULK_SECONDS)
        older = {"range": {"attempt": {"lt": attempt.number}}}
        query = {"bool": {"filter": [{"term": {"dt": hour.dt}}, {"term": {"hr": hour.hr}}, older]}}
        path = f"/{indices}/_delete_by_query?conflicts=proceed&refresh=true&max_docs={_AT_ONCE}&{there}"
        found = _AT_ONCE
        while found >= _AT_ONCE:
            self._positions.check(attempt)
            found = self._client.ask("POST", path, {"query": query}, seconds=BULK_SECONDS).body["total"]
