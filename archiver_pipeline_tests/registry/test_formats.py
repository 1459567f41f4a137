"""Topics in a registry's formats, from a real registry and a real Kafka to the archive and out of it again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.message_factory import GetMessageClass

from archiver_pipeline.envelope import MALFORMED
from archiver_pipeline.export.exporter import Exporter
from archiver_pipeline.export.target import target
from archiver_pipeline.formats.protoc import compiled
from archiver_pipeline.formats.registry import WriterSchema
from archiver_pipeline.stored.files import quietly
from archiver_pipeline.stored.selected import Selected
from archiver_pipeline.stored.selection import Selection
from archiver_pipeline.stored.verify import verify
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.damaged_hours import HOURS, assert_good, backfill, files_of, oldest
from archiver_pipeline_tests.erasing import erase
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, delete_records, produce
from archiver_pipeline_tests.registry.apicurio import Apicurio
from archiver_pipeline_tests.registry.written import (
    Json,
    avro,
    decoded_settings,
    evolved,
    framed,
    record,
    register,
    serialized,
)
from archiver_pipeline_tests.replays import assert_sent, replay
from archiver_pipeline_tests.samples import FIRST_MS

ORDER = record("Order", type="string", uid="string", cents="long")
MONEY = 'syntax = "proto3"; package shop; message Money { string currency = 1; int64 cents = 2; }'
SALE = """syntax = "proto3"; package shop; import "money.proto";
message Sale { string type = 1; Money price = 2; repeated string tags = 3; message Note { string type = 1; } }"""


def sent(payloads: list[bytes | None], **more: Any) -> list[Sent]:
    """Messages a second apart, all of one partition."""
    return [Sent(payload, b"k", timestamp_ms=FIRST_MS + n * 1000, **more) for n, payload in enumerate(payloads)]


def rows(archived: Archived, topic: str) -> list[tuple[Any, ...]]:
    """Type, value and value_bytes in the order of offsets."""
    return archived.sql(f"""SELECT type, value, value_bytes FROM messages WHERE topic = '{topic}' ORDER BY "offset" """)


def test_a_schema_that_evolves_in_mid_topic(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio
) -> None:
    """Messages of three versions of a schema, mixed: each has the fields that it was written with, in its type's view,
    too, and its payload as it came."""
    create_topic(bootstrap_servers, topic_name)
    second = evolved(ORDER, note=(["null", "string"], None))
    third = evolved(second, tags=({"type": "array", "items": "string"}, []))
    data: list[tuple[Json, Json]] = []
    for n in range(300):
        datum: Json = {"type": f"order.{n % 2}", "uid": f"u{n % 7}", "cents": n * 10**15}
        more: list[Json] = [{}, {"note": None if n % 4 else f"n{n}"}, {"note": "x", "tags": ["a"] * (n % 3)}]
        data.append(((ORDER, second, third)[n % 3], datum | more[n % 3]))
    payloads = [serialized(registry.url, topic_name, schema, [datum])[0] for schema, datum in data[:3]]
    ids = [int.from_bytes(payload[1:5], "big") for payload in payloads]
    payloads = [framed(ids[n % 3], avro(json.loads(json.dumps(s)), d)) for n, (s, d) in enumerate(data)]
    produce(bootstrap_servers, topic_name, sent([*payloads]))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(registry.url))
    archived.run()
    found = rows(archived, topic_name)
    assert [kind for kind, _, _ in found] == [datum["type"] for _, datum in data]
    assert [json.loads(value or "") for _, value, _ in found] == [datum for _, datum in data]
    assert [payload for _, _, payload in found] == payloads
    fields = archived.sql('SELECT cents, note, tags FROM order_0 ORDER BY "offset" LIMIT 3')
    assert fields == [(0, None, None), (2 * 10**15, "x", '["a","a"]'), (4 * 10**15, "n4", None)]
    archived.assert_equal(topic_name)
    assert_good(archived)


def test_protobuf_of_confluents_serializer(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio
) -> None:
    """Messages of a file that imports another one, of its first type and of one within it."""
    create_topic(bootstrap_servers, topic_name)
    file, _ = compiled(WriterSchema("PROTOBUF", SALE, (("money.proto", MONEY),)))
    sale = file.message_types_by_name["Sale"]
    note = sale.nested_types_by_name["Note"]
    context = SerializationContext(topic_name, MessageField.VALUE)
    payloads: list[bytes | None] = []
    with SchemaRegistryClient({"url": registry.url}) as client:
        for kind, fields in ((sale, {"type": "sale", "price": {"cents": 2**60}}), (note, {"type": "note"})):
            cls = GetMessageClass(kind)
            payloads.append(ProtobufSerializer(cls, client, {"use.deprecated.format": False})(cls(**fields), context))
    produce(bootstrap_servers, topic_name, sent(payloads))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(registry.url))
    archived.run()
    assert [(kind, json.loads(value or "")) for kind, value, _ in rows(archived, topic_name)] == [
        ("sale", {"type": "sale", "price": {"currency": "", "cents": 2**60}, "tags": []}),
        ("note", {"type": "note"}),
    ]
    archived.assert_equal(topic_name)


def test_every_payload_of_a_decoded_topic(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio
) -> None:
    """What is framed is decoded, what is not is taken as on any topic; what is not of its schema keeps its bytes."""
    create_topic(bootstrap_servers, topic_name)
    order = register(registry.url, f"{topic_name}-order", ORDER)
    money = register(registry.url, f"{topic_name}-money", MONEY, "PROTOBUF")
    sale = register(registry.url, f"{topic_name}-sale", SALE, "PROTOBUF", [("money.proto", f"{topic_name}-money", 1)])
    inner = {"type": "record", "name": "Outer", "fields": [{"name": "order", "type": "Order"}]}
    outer = register(registry.url, f"{topic_name}-outer", inner, "AVRO", [("Order", f"{topic_name}-order", 1)])
    page = register(registry.url, f"{topic_name}-page", {"$schema": "http://json-schema.org/draft-07/schema#"}, "JSON")
    body = avro(ORDER, {"type": "order", "uid": "u1", "cents": 5})
    text = '{"type":"order","uid":"u1","cents":5}'
    cases: list[tuple[bytes | None, str, str | None]] = [
        (framed(order, body), "order", text),
        (framed(outer, body), "_untyped", f'{{"order":{text}}}'),
        (framed(money, b"\0\n\3EUR"), "_untyped", '{"currency":"EUR","cents":0}'),
        (framed(sale, b"\0\n\4sale"), "sale", '{"type":"sale","tags":[]}'),
        (framed(sale, b"\4\0\0\n\4note"), "note", '{"type":"note"}'),
        (framed(page, b'{"type": "page",\n "n": 1}'), "page", '{"type": "page",\n "n": 1}'),
        (framed(page, b"no json"), MALFORMED, "no json"),
        (framed(page, b"\xff"), MALFORMED, None),
        (framed(order, body[:-1]), MALFORMED, None),
        (framed(order, body + b"\0"), MALFORMED, None),
        (framed(sale, b"\0\n\xff"), MALFORMED, None),
        (b'{"type": "plain"}', "plain", '{"type": "plain"}'),
        (b"\3\0" + bytes(16) + body, MALFORMED, "\3\0" + "\0" * 16 + body.decode()),
        (b"\0\0\0\1", MALFORMED, "\0\0\0\1"),
        (b"\xff\xfe", MALFORMED, None),
        (b"", MALFORMED, ""),
        (None, "_tombstone", None),
    ]
    produce(bootstrap_servers, topic_name, sent([payload for payload, _, _ in cases]))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, **decoded_settings(registry.url))
    archived.run()
    assert [(kind, value) for kind, value, _ in rows(archived, topic_name)] == [(kind, v) for _, kind, v in cases]
    archived.assert_equal(topic_name)
    assert_good(archived)
    # The schemas are known by now: the registry is not asked.
    produce(bootstrap_servers, topic_name, sent([framed(sale, b"\0\n\4sale")] * 2))
    registry.pause()
    try:
        archived.run()
    finally:
        registry.resume()
    assert rows(archived, topic_name)[len(cases) :] == [("sale", cases[3][2], framed(sale, b"\0\n\4sale"))] * 2


def test_other_type_rules_and_other_topics(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio
) -> None:
    """A type from a header or a constant stays what it is; a topic that is not to be decoded is taken as it comes."""
    topics = [f"{topic_name}-{name}" for name in ("header", "constant", "plain")]
    order = register(registry.url, topic_name, ORDER)
    good, bad = framed(order, avro(ORDER, {"type": "order", "uid": "u1", "cents": 5})), framed(order, b"\xff")
    for topic in topics:
        create_topic(bootstrap_servers, topic)
        produce(bootstrap_servers, topic, sent([good, bad], headers=(("event-type", b"mine"),)))
    rules = {topics[0]: "header:event-type", topics[1]: "constant:fixed"}
    settings = decoded_settings(
        registry.url, types=rules, payload_format="json", formats={"^.*-(header|constant)$": "registry"}
    )
    archived = Archived(tmp_path, bootstrap_servers, *topics, **settings)
    archived.run()
    text = '{"type":"order","uid":"u1","cents":5}'
    assert rows(archived, topics[0]) == [("mine", text, good), ("mine", None, bad)]
    assert rows(archived, topics[1]) == [("fixed", text, good), ("fixed", None, bad)]
    assert [(kind, value) for kind, value, _ in rows(archived, topics[2])] == [
        (MALFORMED, good.decode()),
        (MALFORMED, None),
    ]
    archived.assert_equal(*topics)


@pytest.fixture
def orders(bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio) -> tuple[Archived, list[bytes]]:
    """An archive of thirty decoded orders and a tombstone, in two batches, and their payloads."""
    create_topic(bootstrap_servers, topic_name)
    order = register(registry.url, topic_name, ORDER)
    payloads = [framed(order, avro(ORDER, {"type": "order", "uid": f"u{n % 3}", "cents": n})) for n in range(30)]
    settings = decoded_settings(registry.url, keep_replaced_hours=0)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, **settings)
    for part in (payloads[:10], [*payloads[10:], None]):
        produce(bootstrap_servers, topic_name, sent([*part]))
        archived.run()
    return archived, payloads


def export(archived: Archived, kind: str, out: Path, selection: Selection | None = None, **more: bool) -> None:
    """Export what is selected, everything by default."""
    archive = Archive(str(archived.path))
    found = target(kind, str(out), **more)  # type: ignore[arg-type]
    Exporter(archive, Selected(archive, Selection()), selection or Selection(), found, quietly).run()


def test_what_goes_out_again(
    orders: tuple[Archived, list[bytes]], bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """A replay sends what came; an export has both, and as lines the JSON."""
    archived, payloads = orders
    create_topic(bootstrap_servers, f"{topic_name}-again")
    replay(archived, f"{topic_name}-again")
    assert_sent(archived, topic_name, f"{topic_name}-again")
    table = tmp_path / "orders.parquet"
    export(archived, "parquet", table)
    assert pl.read_parquet(table)["value_bytes"].to_list() == [*payloads, None]
    lines = tmp_path / "orders.jsonl.gz"
    export(archived, "jsonl", lines, Selection(types=("order",)), payloads=True)
    with gzip.open(lines, "rt") as file:
        assert [json.loads(line)["cents"] for line in file] == list(range(30))


def test_an_hour_that_is_mended_is_decoded(
    orders: tuple[Archived, list[bytes]], bootstrap_servers: str, topic_name: str, registry: Apicurio
) -> None:
    """A backfill decodes what it reads from Kafka, and leaves what only the archive has as it was decoded once."""
    archived, _ = orders
    before = rows(archived, topic_name)
    delete_records(bootstrap_servers, topic_name, {0: 10})
    kept = oldest(archived, HOURS[0], "order")
    for path in files_of(archived, HOURS[0], "order"):
        if path != kept:
            path.unlink()
    registry.pause()
    try:
        (done,) = backfill(archived, [HOURS[0]])
    finally:
        registry.resume()
    assert done.fault is None
    assert (done.added, done.changed, done.retyped) == (20, 0, 0)
    assert rows(archived, topic_name) == before


def test_what_was_left_undecoded_is_decoded_by_a_backfill(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, registry: Apicurio
) -> None:
    """Messages that were given up with their schema get JSON and type once it is to be had, from Kafka or without."""
    create_topic(bootstrap_servers, topic_name)
    order = register(registry.url, topic_name, ORDER)
    payload = framed(order, avro(ORDER, {"type": "order", "uid": "u1", "cents": 5}))
    produce(bootstrap_servers, topic_name, sent([payload] * 4))
    given_up = decoded_settings(registry.url, registry_undecoded=(str(order),), keep_replaced_hours=0)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, **given_up)
    archived.run()
    assert rows(archived, topic_name) == [(MALFORMED, None, payload)] * 4
    delete_records(bootstrap_servers, topic_name, {0: 2})
    archived.settings = archived.settings.model_copy(update={"registry_undecoded": ()})
    (done,) = backfill(archived, [HOURS[0]])
    assert (done.changed, done.retyped) == (0, 4)
    assert rows(archived, topic_name) == [("order", '{"type":"order","uid":"u1","cents":5}', payload)] * 4


def test_what_is_erased_is_gone_in_both_forms(orders: tuple[Archived, list[bytes]], topic_name: str) -> None:
    """A condition on the JSON finds a message, and neither its JSON nor its payload stays; a message without JSON is
    none on which the condition failed."""
    archived, _ = orders
    erased = erase(archived.settings, "value->>'$.uid' = 'u1'")
    archived.run()
    assert erased.messages == 10
    gone = archived.sql("SELECT count(*), count(value), count(value_bytes) FROM messages WHERE type = '_erased'")
    assert gone == [(10, 0, 0)]
    assert archived.sql("SELECT count(*) FROM messages WHERE value LIKE '%u1%'") == [(0,)]
    assert verify(archived.settings, against_kafka=True).good
