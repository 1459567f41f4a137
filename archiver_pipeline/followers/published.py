"""The newest version of every final window as Hive-partitioned Parquet: a file an hour, replaced as a whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline.durable import force
from archiver_pipeline.followers.store import Store
from archiver_pipeline.hours import Hour, hour_at
from archiver_pipeline.settings.aggregates import WHOLE, Aggregate
from archiver_pipeline.storage.staging import translated
from archiver_pipeline.view.aggregates import SCHEMA_FILE

if TYPE_CHECKING:
    import pyarrow

Rows = list[tuple[Any, ...]]
"""Start, groups, values and revision of windows, as the state has them."""

_STORE = "store"
"""In the metadata of the schema file: the id of the state whose columns it has, and whose hours lie beside it."""


def publish(store: Store, aggregate: Aggregate, folder: Path) -> Iterator[Hour]:
    """Write the file of each hour that lacks a version, and yield the hour; what a kill leaves is done next time.

    Files of another state, which may have other columns, go first.

    Raises:
        StorageError: the folder is full or refuses to be written.
    """
    with translated(folder):
        _remove_others(store, aggregate, folder)
        for hour in store.unpublished():
            named = hour_at(hour)
            path = folder / f"dt={named.dt}" / f"hr={named.hr}" / f"{aggregate.name}.parquet"
            # Under the lock of the state, or another run could write an older version over a newer one.
            with store.transaction():
                pages = store.hour(hour)
                if first := next(pages, None):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _replace(path, aggregate, chain([first], pages))
                else:
                    path.unlink(missing_ok=True)
                store.published(hour)
            yield named


def _remove_others(store: Store, aggregate: Aggregate, folder: Path) -> None:
    """Remove the files of another state, if there are any, and then make the folder that of this one."""
    with store.transaction():
        if is_other := _store_of(folder / SCHEMA_FILE) != store.id:
            for day in folder.glob("dt=*"):
                shutil.rmtree(day)
            store.unpublish()
    if is_other:
        # Once that is committed: whatever is killed before, the next run begins here again and leaves no hour out.
        with store.transaction():
            _replace(folder / SCHEMA_FILE, aggregate, [], {_STORE: store.id})


def _store_of(path: Path) -> str | None:
    """The state that a schema file names; None where there is no such file, or none that can be read."""
    import polars as pl

    try:
        return pl.read_parquet_metadata(path).get(_STORE)
    except (FileNotFoundError, pl.exceptions.PolarsError):
        return None


def _table(rows: Rows, aggregate: Aggregate) -> pyarrow.Table:
    import polars as pl

    schema: dict[str, Any] = {
        aggregate.window: pl.Int64,
        **dict.fromkeys(aggregate.group_by, pl.String),
        **{name: pl.Int64 if kind in WHOLE else pl.Float64 for name, kind in aggregate.kinds.items()},
        "revision": pl.Int32,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    moment = (pl.col(aggregate.window) * 1_000_000).cast(pl.Datetime("us", "UTC"))
    return frame.with_columns(moment.alias(aggregate.window)).to_arrow(compat_level=pl.CompatLevel.oldest())


def _replace(path: Path, aggregate: Aggregate, pages: Iterable[Rows], about: Mapping[str, str] | None = None) -> None:
    """Put a file with a row group for each page in the place of another; an hour may have millions of groups."""
    import pyarrow.parquet

    working = path.with_name(f".{path.name}.new")
    with pyarrow.parquet.ParquetWriter(working, _table([], aggregate).schema, compression="zstd") as writer:
        for rows in pages:
            writer.write_table(_table(rows, aggregate))
        writer.add_key_value_metadata(dict(about or {}))
    force([working])
    os.replace(working, path)
    force([path.parent])
