"""A test's own archive: filled as a run fills it, read back by other libraries, and compared with Kafka side by side.

Nothing that reads here is the archiver's: Kafka is read by a plain consumer, the table by Polars and deltalake, the
DuckDB file by DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import polars as pl
from confluent_kafka import IsolationLevel, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from pydantic import SecretStr

from archiver_pipeline.batch.batch import Archiver, Batch
from archiver_pipeline.batch.follow import drain
from archiver_pipeline.batch.planner import Targets
from archiver_pipeline.kafka.broker import TIMEOUT_SECONDS
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import OnStep
from archiver_pipeline.table.archive import archive_of
from archiver_pipeline.view import view
from archiver_pipeline_tests.against_kafka import NO_TIME, Comparison, compare, kafka_messages
from archiver_pipeline_tests.kafka.produce import Message
from archiver_pipeline_tests.kafka.topics import end_offsets, start_offsets
from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for

_CHUNK = 5_000
_COLUMNS = ("offset", "key", "value", "value_bytes", "headers", "us", "timestamp_type")


class Archived:
    """An archive of some topics in a folder of its own.

    Attributes:
        settings: those of the archiver.
        path: the table's folder; of an archive in a bucket, the one that the object store keeps it in.
        answer_seconds: how long the broker may take for an answer.
    """

    def __init__(
        self, folder: Path, bootstrap_servers: str, *topics: str, kafka: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        """Make the settings; nothing is archived yet.

        Args:
            folder: holds the archive and the DuckDB file, as `BASE_DIR`.
            bootstrap_servers: address of the broker.
            topics: names or regexes.
            kafka: more librdkafka properties.
            more: fields of `Settings`.
        """
        self.bootstrap_servers = bootstrap_servers
        clear = {"bootstrap.servers": bootstrap_servers, **(kafka or {})}
        secret = {name: SecretStr(value) for name, value in clear.items()}
        self.settings = Settings(**{"topics": topics, "BASE_DIR": folder, "kafka": secret, **more})
        self.path = Path(self.settings.archive_uri)
        self.answer_seconds = TIMEOUT_SECONDS

    def archiver(self, lane: int = 0, on_step: OnStep = lambda _: None) -> Archiver:
        """A fresh archiver, as every run has one."""
        return Archiver(self.settings, lane, "test", on_step, Cluster(self.settings, self.answer_seconds))

    def run(self, targets: Targets | None = None, lane: int = 0, on_step: OnStep = lambda _: None) -> list[Batch]:
        """Do what a run does: archive up to the end seen now in bounded batches, and bring the view up to date."""
        archiver = self.archiver(lane, on_step)
        batches = []
        for batch in drain(archiver, targets):
            batches.append(batch)
            view.refresh(self.settings.view_path, archiver.archive, batch.look)
        view.refresh(self.settings.view_path, archiver.archive)
        return batches

    def environment(self) -> dict[str, str]:
        """The variables that give another process the same settings, but for librdkafka's."""
        fields: dict[str, object] = {
            "topics": ",".join(self.settings.topics),
            "batch_messages": self.settings.batch_messages,
        }
        fields |= {"lanes": self.settings.lanes, "batch_bytes": int(self.settings.batch_bytes)}
        if self.settings.uri:
            fields["uri"] = self.settings.uri
        return {
            "BASE_DIR": str(self.settings.base_dir),
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            **{f"ARCHIVER_{name.upper()}": str(value) for name, value in fields.items()},
        }

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the DuckDB file."""
        with self.view() as connection:
            return connection.execute(query).fetchall()

    @contextmanager
    def view(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The DuckDB file, opened to be read; objects of a bucket it reads as `archiver sql` does."""
        with duckdb.connect(str(self.settings.view_path), read_only=True) as connection:
            archive_of(self.settings).storage.attach(connection)
            yield connection

    def messages(self, topic: str, topic_id: str | None = None) -> dict[int, list[Message]]:
        """What the archive has of a topic, or of one life of it, by partition and in the order of offsets."""
        frame = pl.scan_delta(str(self.path)).filter(pl.col("topic") == topic)
        if topic_id is not None:
            frame = frame.filter(pl.col("topic_id") == topic_id)
        numbers = frame.select("partition").unique().collect()["partition"].sort().to_list()
        return {number: list(_table_rows(frame, number)) for number in numbers}

    def values(self, topic: str) -> list[bytes | None]:
        """The payloads that the archive has of a topic, by partition and offset."""
        return [message.value for messages in self.messages(topic).values() for message in messages]

    def next_offsets(self, topic: str) -> dict[int, int]:
        """The next offset to archive of each partition, as the view `offsets` has it."""
        return dict(self.sql(f"""SELECT "partition", "next" FROM offsets WHERE topic = '{topic}'"""))

    def gaps(self) -> list[tuple[str, int, int, int, str]]:
        """The gaps that the view `gaps` names: topic, partition, start, end, reason."""
        return self.sql('SELECT topic, "partition", "start", "end", reason FROM gaps ORDER BY ALL')

    def version(self) -> int:
        """The table's version."""
        return deltalake.DeltaTable(self.path).version()

    def listed_files(self) -> set[str]:
        """The files that the table lists, relative to its folder."""
        return {str(Path(uri).relative_to(self.path)) for uri in deltalake.DeltaTable(self.path).file_uris()}

    def stray_files(self) -> set[str]:
        """Files and empty folders below the archive that neither the table nor its log accounts for."""
        found = set()
        for path in self.path.rglob("*"):
            relative = path.relative_to(self.path)
            if relative.parts[0] == "_delta_log" or relative in (Path("_staging"), Path("_staging/clock")):
                continue
            if path.is_file() or not any(path.iterdir()):
                found.add(str(relative))
        return found - self.listed_files()

    def compare(self, *topics: str) -> Comparison:
        """Compare topics with the table (by Polars) and with the view (by DuckDB); what either has wrong counts."""
        result = Comparison()
        for topic in topics:
            topic_id = topic_id_of(self.bootstrap_servers, topic)
            frame = pl.scan_delta(str(self.path)).filter(pl.col("topic") == topic, pl.col("topic_id") == topic_id)
            starts, ends = start_offsets(self.bootstrap_servers, topic), end_offsets(self.bootstrap_servers, topic)
            for number, start in starts.items():
                kafka = list(kafka_messages(self.bootstrap_servers, topic, number, start, ends[number]))
                result.messages += len(kafka)
                for rows in (_table_rows(frame, number), self._view_rows(topic, topic_id, number)):
                    compare(kafka, rows, result, (topic, number))
        return result

    def assert_equal(self, *topics: str) -> None:
        """Assert that the archive has what Kafka has, byte for byte and once, and its folder nothing else."""
        result = self.compare(*topics)
        assert result.equal, result
        assert self.stray_files() == set()
        missing = {path for path in self.listed_files() if not (self.path / path).is_file()}
        assert missing == set()

    def _view_rows(self, topic: str, topic_id: str, partition: int) -> Iterator[Message]:
        query = (
            'SELECT "offset", key, value, value_bytes, headers, epoch_us("timestamp") AS us, timestamp_type '
            'FROM messages WHERE topic = ? AND topic_id = ? AND "partition" = ? ORDER BY "offset"'
        )
        with self.view() as connection:
            cursor = connection.execute(query, [topic, topic_id, partition])
            while rows := cursor.fetchmany(_CHUNK):
                for row in rows:
                    yield _row_message(*row)


def topic_id_of(bootstrap_servers: str, topic: str) -> str:
    """Kafka's id of a topic in the form in which its own tools write it."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    described = admin.describe_topics(TopicCollection([topic]))[topic].result(LIMIT_SECONDS)
    return str(described.topic_id).replace("/", "_").replace("+", "-")


def wait_until_stable(bootstrap_servers: str, *topics: str) -> None:
    """Wait until the markers of ended transactions are written, which the broker does after it has said so."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

    def ends(topic: str, level: IsolationLevel) -> dict[int, int]:
        asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in end_offsets(bootstrap_servers, topic)}
        answers = admin.list_offsets(asked, isolation_level=level, request_timeout=LIMIT_SECONDS)
        return {place.partition: answer.result(LIMIT_SECONDS).offset for place, answer in answers.items()}

    def stable(topic: str) -> bool:
        return ends(topic, IsolationLevel.READ_COMMITTED) == ends(topic, IsolationLevel.READ_UNCOMMITTED)

    for topic in topics:
        wait_for(f"the end of transactions in {topic}", partial(stable, topic))


def _table_rows(frame: pl.LazyFrame, partition: int) -> Iterator[Message]:
    rows = (
        frame.filter(pl.col("partition") == partition)
        .with_columns(pl.col("timestamp").cast(pl.Int64).alias("us"))
        .select(_COLUMNS)
        .sort("offset")
        .collect()
    )
    for part in rows.iter_slices(_CHUNK):
        for row in part.iter_rows():
            yield _row_message(*row)


def _row_message(
    offset: int,
    key: bytes | None,
    value: str | None,
    value_bytes: bytes | None,
    headers: list[dict[str, Any]] | None,
    us: int | None,
    timestamp_type: str,
) -> Message:
    text = None if value is None else value.encode()
    assert text is None or text != value_bytes, f"offset {offset} has its payload twice"
    pairs = tuple((header["key"], header["value"]) for header in headers or ())
    milliseconds = NO_TIME if us is None else us // 1000
    payload = text if value_bytes is None else value_bytes
    return Message(offset, key, payload, pairs, milliseconds, timestamp_type)
