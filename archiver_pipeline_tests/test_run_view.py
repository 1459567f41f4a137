"""The DuckDB file of a run: up to date where nothing is left, now and then else, and in the end whatever happened."""

from __future__ import annotations

from pathlib import Path

import duckdb

from archiver_pipeline.batch.follow import drain
from archiver_pipeline.view.run_view import RunView
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.samples import numbered


def shown(path: Path) -> int:
    """How many messages the DuckDB file shows."""
    with duckdb.connect(str(path), read_only=True) as connection:
        ((messages,),) = connection.execute("SELECT count(*) FROM messages").fetchall()
    return int(messages)


def test_a_backlog_shows_at_its_first_and_last_batch(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """While more is left a batch need not wait for the file; what is committed shows when the run is over."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(50)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_messages=10)
    archiver, path = archived.archiver(), archived.settings.view_path
    view = RunView(path, archiver.archive)
    assert view.finish() is None, "nothing was archived yet"
    assert not path.exists()
    seen = [(view.show(batch), shown(path)) for batch in drain(archiver)]
    assert [messages for _, messages in seen] == [10, 10, 10, 10, 50]
    assert [version is not None for version, _ in seen] == [True, False, False, False, True]
    assert view.finish() is None
    produce(bootstrap_servers, topic_name, numbered(range(50, 80)))
    first, second, *_ = drain(archiver)
    view.show(second)
    assert (first.lag > 0, second.lag > 0, shown(path)) == (True, True, 50)
    assert view.finish() is not None, "a run that ends before the end offsets shows what it has archived"
    assert shown(path) == 80
