"""The search follower as the conformance suite sees it: documents by plain `_search`, and the same from the rows."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from typing import Any

import polars as pl
import requests

from archiver_pipeline.settings.settings import Settings
from archiver_pipeline_tests.followers.kit import Kit
from archiver_pipeline_tests.search.node import SearchNode

DEEPEST = 20
_PAGE = 2000

Documents = list[dict[str, Any]]


class SearchKit(Kit):
    """The follower, with a prefix of its own in a node that others use too.

    Attributes:
        node: the node.
        prefix: what its indices begin with.
    """

    name = "search_messages"

    def __init__(self, node: SearchNode) -> None:
        self.node = node
        self.prefix = f"t{uuid.uuid4().hex[:8]}"
        self.settings: Mapping[str, str] = {"search_url": f"{node.url}?prefix={self.prefix}", "results_topic": ""}

    def content(self, settings: Settings) -> Documents:
        """All documents, by identity; what its own housekeeping needs is left out."""
        self.refresh()
        found = self.pages()
        for hit in found:
            day = hit["_source"]["dt"].replace("-", ".").removeprefix("_")
            assert hit["_index"].endswith(f"-{day}"), hit["_index"]
        kept = [{name: hit["_source"][name] for name in hit["_source"].keys() - _OWN} for hit in found]
        return sorted(kept, key=_identity)

    def expected(self, messages: pl.DataFrame) -> Documents:
        """All rows of the archive, by identity."""
        return sorted(map(_document, messages.iter_rows(named=True)), key=_identity)

    def pages(self) -> Documents:
        """All documents as `_search` gives them."""
        order = [*({name: "asc"} for name in ("topic", "topic_id", "partition", "offset", "_index"))]
        body: dict[str, Any] = {"size": _PAGE, "query": {"match_all": {}}, "sort": order}
        found: Documents = []
        while page := self.ask("POST", f"/{self.prefix}/_search", body)["hits"]["hits"]:
            found += page
            body["search_after"] = page[-1]["sort"]
        return found

    def refresh(self) -> None:
        """Let searches find everything that was written."""
        self.ask("POST", f"/{self.prefix}/_refresh")

    def search(self, query: Mapping[str, Any]) -> set[tuple[str, int, int]]:
        """The topic, partition and offset of every message that a query finds; at most a thousand."""
        answer = self.ask("POST", f"/{self.prefix}/_search", {"size": 1000, "query": query})
        sources = [hit["_source"] for hit in answer["hits"]["hits"]]
        return {(source["topic"], source["partition"], source["offset"]) for source in sources}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the node."""
        answer = requests.request(method, self.node.url + path, json=body, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    def down(self) -> bool:
        """Kill the node."""
        self.node.kill()
        return True

    def up(self) -> None:
        """Start it again."""
        self.node.start()

    def drop(self) -> None:
        """Remove all indices of the prefix."""
        self.ask("DELETE", f"/{self.prefix}-*")
        requests.delete(f"{self.node.url}/_index_template/{self.prefix}", timeout=60)


_OWN = {"attempt", "left_out_why", "timestamp"}


def parsed(text: str | None) -> tuple[dict[str, Any] | None, bool]:
    """The JSON object of a text as far as the node takes one, and whether it was refused."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            doubled.append(pairs)
        return dict(pairs)

    def depth(node: Any) -> int:
        if not isinstance(node, dict | list):
            return 0
        return 1 + max(map(depth, node.values() if isinstance(node, dict) else node), default=0)

    doubled: list[Any] = []
    try:
        found = json.loads(text or "", parse_constant=refuse, object_pairs_hook=once)
    except ValueError:
        return None, False
    if not isinstance(found, dict):
        return None, False
    refused = bool(doubled) or depth(found) > DEEPEST
    return (None if refused else found), refused


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    moment = row["timestamp"]
    payload = row["value_bytes"] if row["value"] is None else row["value"].encode()
    fields, refused = parsed(row["value"])
    found = {name: row[name] for name in ("topic", "topic_id", "partition", "offset", "timestamp_type")}
    found |= {name: row[name] for name in ("type", "dt", "hr")}
    found["timestamp_ms"] = None if moment is None else round(moment.timestamp() * 1000)
    found["size"] = None if payload is None else len(payload)
    found |= _text_or_base64("key", row["key"]) | _text_or_base64("value", payload)
    if row["headers"]:
        found["headers"] = [{"key": item["key"], **_text_or_base64("value", item["value"])} for item in row["headers"]]
    if fields is not None:
        found["fields"] = fields
    if refused:
        found["left_out"] = ["fields"]
    return found


def _text_or_base64(name: str, value: bytes | None) -> dict[str, str]:
    if value is None:
        return {}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def _identity(document: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(document[name] for name in ("topic", "topic_id", "partition", "offset"))
