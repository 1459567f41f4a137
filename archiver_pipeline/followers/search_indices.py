"""What indices are made from: the template with its mapping, and the indices that are there from the start."""

from __future__ import annotations

from typing import Any

from archiver_pipeline.followers.search_address import POSITIONS
from archiver_pipeline.followers.search_client import SearchClient
from archiver_pipeline.followers.search_documents import rest_name

VERSION = 1
"""A template of this version or a later one is left as it is, with what its owner has changed in it."""

# A keyword of Lucene has at most 32766 bytes, and a character up to four of them.
_LONGEST = 8191
_EXACT = {"type": "keyword", "ignore_above": _LONGEST}
_KEPT = {"type": "keyword", "index": False, "doc_values": False}
_PARSED: dict[str, dict[str, Any]] = {
    "opensearch": {"type": "flat_object"},
    "elasticsearch": {"type": "flattened", "ignore_above": 1024},
    "neither": {"type": "object", "enabled": False},
}


def prepare(client: SearchClient) -> None:
    """Make the template, the index of positions and that of the rest, unless they are there."""
    prefix = client.address.prefix
    path = f"/_index_template/{prefix}"
    found = client.ask("GET", path, expected=(200, 404))
    templates = found.body.get("index_templates", []) if found.status == 200 else []
    if not any(item["index_template"].get("version", 0) >= VERSION for item in templates):
        _put_template(client, path)
    _make(client, rest_name(prefix), {})
    settings = {"number_of_shards": 1, "auto_expand_replicas": "0-1"}
    mapping = {"dynamic": False, "properties": {"follower": _EXACT, "written": {"type": "date"}}}
    _make(client, POSITIONS, {"settings": settings, "mappings": mapping})


def mapping(parsed: dict[str, Any]) -> dict[str, Any]:
    """The mapping of messages: whatever comes in them, no field is ever added."""
    base64 = {"type": "binary"}
    header = {"key": _EXACT, "value": _EXACT, "value_base64": base64}
    return {
        "dynamic": False,
        "properties": {
            **dict.fromkeys(("topic", "topic_id", "timestamp_type", "type", "dt", "hr", "key"), _EXACT),
            "partition": {"type": "integer"},
            **{name: {"type": "long"} for name in ("offset", "timestamp_ms", "size", "attempt")},
            "timestamp": {"type": "date", "format": "strict_date_time"},
            "value": {"type": "text", "norms": False},
            **dict.fromkeys(("key_base64", "value_base64"), base64),
            "headers": {"dynamic": False, "properties": header},
            "fields": parsed,
            "left_out": _EXACT,
            "left_out_why": _KEPT,
        },
    }


def _put_template(client: SearchClient, path: str) -> None:
    """Make the template with the first type for parsed JSON that the server has."""
    version = client.ask("GET", "/", expected=(200, 403)).body.get("version", {})
    product = "opensearch" if version.get("distribution") == "opensearch" else "elasticsearch"
    for kind in (product, "neither"):
        template = {
            "index_patterns": [f"{client.address.prefix}-*"],
            "priority": 300,
            "version": VERSION,
            "template": {
                "settings": {"number_of_shards": 1},
                "mappings": mapping(_PARSED[kind]),
                "aliases": {client.address.prefix: {}},
            },
        }
        answer = client.ask("PUT", path, template, expected=(200, 400))
        if answer.status == 200:
            return
    raise client.refused(f"the template {path.rpartition('/')[2]}", answer.status, answer.why)


def _make(client: SearchClient, index: str, body: dict[str, Any]) -> None:
    if client.ask("HEAD", f"/{index}", expected=(200, 404)).status == 404:
        answer = client.ask("PUT", f"/{index}", body, expected=(200, 400))
        # Another run may have been faster.
        if answer.status == 400 and "already_exists" not in answer.why:
            raise client.refused(f"index {index}", answer.status, answer.why)
