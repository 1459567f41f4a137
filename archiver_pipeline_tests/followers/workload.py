"""An archive for followers, filled without a broker: two partitions, late and ugly messages, several hours."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from archiver_pipeline.envelope import ERASED
from archiver_pipeline.hours import Hour
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.stored.files import COLUMNS
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Replaced, batch_of, rewrite_of
from archiver_pipeline.table.ledger import Transaction, caught_up_transaction
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, archive, event

PLACES = (TopicPartition("orders", "A", 0), TopicPartition("orders", "A", 1), TopicPartition("clicks", "B", 0))
UGLY: Sequence[bytes | None] = (
    b"not json",
    b'{"type": "object.one", "uid": ',
    b"\xff\xfe",
    b"",
    None,
    b"[]",
    b'{"type": "a/b \xf0\x9f\x98\x80 \'\\"\\n\\t\\\\", "uid": "\xf0\x9f\x98\x80", "nul": "\\u0000"}',
    b"[" * 60 + b"]" * 60,
    b'{"type": "object.one", "uid": 12345678901234567890, "price": 1.10, "price": 2}',
    '{"type": "object.two", "uid": "é\' \\\\ \\" ; -- \\n", "url": "/a?b=%20"}'.encode(),
)


def catch_up_now(target: Archive) -> None:
    """Commit that the archive has all that Kafka has."""
    attempt = batch_of(target, 0)
    attempt.commit([caught_up_transaction(0, int(time.time() * 1000))], {})
    attempt.clean()


class Filled:
    """An archive, and what is done to it under a follower.

    Attributes:
        settings: those of the archive and of the follower.
        target: the archive.
    """

    def __init__(self, folder: Path, more: Mapping[str, str]) -> None:
        self.more = {"keep_replaced_hours": "0", "seal_grace_minutes": "0", **more}
        self.folder = folder
        fields: dict[str, Any] = {"topics": ("orders", "clicks"), "BASE_DIR": folder, **self.more}
        self.settings = Settings(**fields)
        self.target = Archive(self.settings.archive_uri)
        self._count = 0

    def environment(self) -> dict[str, str]:
        """The variables that give another process the same settings."""
        more = {f"ARCHIVER_{name.upper()}": value for name, value in self.more.items()}
        return {"ARCHIVER_TOPICS": "orders,clicks", "BASE_DIR": str(self.folder), **more}

    def add(self, batches: int = 1, count: int = 40) -> None:
        """Archive batches of so many messages, spread over three hours, some of them late, and the ugly ones."""
        for _ in range(batches):
            self._count += 1
            at = PLACES[self._count % len(PLACES)]
            payloads: list[bytes | None] = [
                event(f"object.{n % 3}", uid=f"user-{(self._count + n) % 17}", url=f"/page/{n % 5}", n=n)
                for n in range(count)
            ]
            payloads += UGLY
            stamps = [
                AUGUST_FIRST_AT_THREE
                + self._count * 60_000
                + n * 1500
                - HOUR_MS * (n % 7 == 0)
                + HOUR_MS * (n % 5 == 0)
                for n in range(len(payloads))
            ]
            headers = [("trace", b"\x00\xff"), ("trace", None), ("ü", b"")]
            archive(self.target, payloads, at, milliseconds=stamps, headers=headers)
        catch_up_now(self.target)

    def messages(self) -> pl.DataFrame:
        """Every row of the table, as Polars reads it."""
        return pl.read_delta(self.target.uri)

    def hours(self) -> list[Hour]:
        """The hours that the archive has."""
        return sorted({Hour(dt, hr) for dt, hr in self.target.files().select("dt", "hr").unique().iter_rows()})

    def rewrite(self, hour: Hour, change: pl.Expr | None = None, erase: pl.Expr | None = None) -> None:
        """Rewrite an hour as a backfill or an erasure does: rows changed, or left with identity and time only."""
        attempt = rewrite_of(self.target, "mend", hour.name)
        listed = self.target.files(attempt.table, hour)
        replaced = [
            Replaced(path, size, {"type": kind, "dt": hour.dt, "hr": hour.hr})
            for path, size, kind in listed.select("path", "bytes", "type").iter_rows()
        ]
        parts = [
            pl.read_parquet(Path(self.target.uri) / path, hive_partitioning=False, glob=False).with_columns(
                type=pl.lit(kind)
            )
            for path, kind in listed.select("path", "type").iter_rows()
        ]
        rows = pl.concat(parts).with_columns(*([] if change is None else [change]))
        if erase is not None:
            emptied = [
                pl.when(~erase).then(pl.col(name)).alias(name) for name in ("key", "value", "value_bytes", "headers")
            ]
            rows = rows.with_columns(*emptied, type=pl.when(erase).then(pl.lit(ERASED)).otherwise("type"))
        for (kind,), part in rows.partition_by("type", as_dict=True).items():
            written = io.BytesIO()
            part.select(COLUMNS).sort("topic", "partition", "offset").write_parquet(written)
            stats = {
                "numRecords": part.height,
                "minValues": {"offset": part["offset"].min()},
                "maxValues": {"offset": part["offset"].max()},
            }
            attempt.write({"type": str(kind), "dt": hour.dt, "hr": hour.hr}, written.getvalue(), stats)
        attempt.staging.sync()
        attempt.staging.place()
        count = attempt.ledger.changed.get(hour.name, 0) + 1
        attempt.commit([Transaction(f"changed/{hour}", count)], {"rewrite": "test"}, replaced)
        attempt.clean()
        for file in replaced:
            (Path(self.target.uri) / file.path).unlink()
