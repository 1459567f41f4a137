"""The newest version of every final window as Hive-partitioned Parquet: a file an hour, replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline.aggregates import WHOLE, Aggregate
from archiver_pipeline.durable import force
from archiver_pipeline.followers.store import Store
from archiver_pipeline.hours import Hour, hour_at
from archiver_pipeline.staging import translated
from archiver_pipeline.view_aggregates import SCHEMA_FILE

if TYPE_CHECKING:
    import polars as pl


def publish(store: Store, aggregate: Aggregate, folder: Path) -> list[Hour]:
    """Write the file of each hour that lacks a version, and return these hours; what a kill leaves is done next time.

    Raises:
        StorageError: the folder is full or refuses to be written.
    """
    hours = store.unpublished()
    with translated(folder):
        with store.transaction():
            if not (folder / SCHEMA_FILE).exists():
                _replace(folder / SCHEMA_FILE, _frame([], aggregate))
        for hour in hours:
            named = hour_at(hour)
            path = folder / f"dt={named.dt}" / f"hr={named.hr}" / f"{aggregate.name}.parquet"
            # Under the lock of the state, or another run could write an older version over a newer one.
            with store.transaction():
                frame = _frame(store.hour(hour), aggregate)
                if frame.height:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _replace(path, frame)
                else:
                    path.unlink(missing_ok=True)
                store.published(hour)
    return [hour_at(hour) for hour in hours]


def _frame(rows: list[tuple[Any, ...]], aggregate: Aggregate) -> pl.DataFrame:
    import polars as pl

    schema: dict[str, Any] = {
        aggregate.window: pl.Int64,
        **dict.fromkeys(aggregate.group_by, pl.String),
        **{name: pl.Int64 if kind in WHOLE else pl.Float64 for name, kind in aggregate.kinds.items()},
        "revision": pl.Int32,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    moment = (pl.col(aggregate.window) * 1_000_000).cast(pl.Datetime("us", "UTC"))
    return frame.with_columns(moment.alias(aggregate.window))


def _replace(path: Path, frame: pl.DataFrame) -> None:
    working = path.with_name(f".{path.name}.new")
    frame.write_parquet(working, compression="zstd")
    force([working])
    os.replace(working, path)
    force([path.parent])
