"""The columns of what lies in the archive, in aggregates and in MySQL, as Dagster shows them."""

from __future__ import annotations

from dagster import TableColumn, TableSchema

from archiver_pipeline.settings.aggregates import WHOLE, Aggregate

_ARCHIVE = {
    "topic": ("string", ""),
    "topic_id": ("string", "Kafka's own id of the topic: one that is deleted and made again is another one"),
    "partition": ("int32", ""),
    "offset": ("int64", "with topic, topic_id and partition the identity of a message"),
    "timestamp": ("timestamp[us, UTC]", "Kafka's time of the message; null where no calendar holds it"),
    "timestamp_type": ("string", "create, append or none"),
    "key": ("binary", "null where there is none"),
    "value": ("string", "the payload as it came, where it is UTF-8; its JSON, where it was decoded by a schema"),
    "value_bytes": ("binary", "the payload as it came, where value is not it"),
    "headers": ("list<struct<key: string, value: binary>>", "order and repeats kept"),
    "type": ("string", "the type of the message; a partition column"),
    "dt": ("string", "the date of the timestamp in UTC; a partition column"),
    "hr": ("string", "its hour; a partition column"),
}
_IN_MYSQL = {
    "timestamp": ("datetime(6)", "in UTC; null where it is unknown, or no calendar holds it"),
    "key": ("longblob", "null where there is none"),
    "value": ("json", "the payload, where the database takes it as JSON"),
    "value_text": ("longtext", "the payload as it came, where it is text and value is not it"),
    "value_bytes": ("longblob", "the payload as it came, where it is no text"),
    "headers": ("json", "a list of key and value; values in base64"),
}
_ORDER_IN_MYSQL = (
    "topic", "topic_id", "partition", "offset", "timestamp", "timestamp_type", "key", "value", "value_text",
    "value_bytes", "headers", "type", "dt", "hr",
)  # fmt: skip


def of_archive() -> TableSchema:
    """The columns of the archive, as every reader has them."""
    return _schema(_ARCHIVE)


def of_mysql() -> TableSchema:
    """The columns of the table `messages` in MySQL or MariaDB."""
    known = {**_ARCHIVE, **_IN_MYSQL}
    return _schema({name: known[name] for name in _ORDER_IN_MYSQL})


def of_aggregate(aggregate: Aggregate) -> TableSchema:
    """The columns of an aggregate: its window, what it is grouped by, its measures, and the revision."""
    return _schema(
        {
            aggregate.window: ("timestamp[us, UTC]", f"when the {aggregate.window} begins"),
            **{name: ("string", f"from {source}") for name, source in aggregate.group_by.items()},
            **{
                name: ("int64" if kind in WHOLE else "double", aggregate.measures[name])
                for name, kind in aggregate.kinds.items()
            },
            "revision": ("int32", "1, and one more with each correction by late messages"),
        }
    )


def _schema(columns: dict[str, tuple[str, str]]) -> TableSchema:
    return TableSchema([TableColumn(name, kind, description=text or None) for name, (kind, text) in columns.items()])
