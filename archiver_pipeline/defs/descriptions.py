"""What each asset is, where it lies and what to do with it, in Markdown; and no secret in any of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from archiver_pipeline.defs import columns
from archiver_pipeline.settings.aggregates import Aggregate
from archiver_pipeline.settings.secrets import without_user
from archiver_pipeline.settings.settings import Settings

TOPICS, ARCHIVE, FOLLOWERS, RESULTS = "1_topics", "2_archive", "3_followers", "4_results"
"""The groups. The UI sorts them by name, and they are to be read in the order in which messages flow."""

KINDS: Mapping[str, set[str]] = {"mysql_messages": {"mysql"}, "search_messages": {"elasticsearch"}}
_STORES = {"s3": "s3", "gs": "gcs", "az": "azure"}

Asset = dict[str, Any]
"""Keywords of an asset's definition: description, metadata, and what else is to be seen of it."""


def topic(settings: Settings, name: str) -> Asset:
    """A topic that is archived."""
    decoded = settings.is_registry(name)
    what = "with payloads that are decoded by the schemas of the registry" if decoded else "archived as it is"
    return {
        "group_name": TOPICS,
        "kinds": {"kafka", "avro"} if decoded else {"kafka"},
        "tags": {"archiver/format": "registry"} if decoded else {},
        "description": f"The topic `{name}`, {what}. Nobody can materialize it here: producers write it.\n\n"
        "*Metadata* shows its lag (messages that are not archived yet) and its end offset, and as *Plots* both over "
        "time, as each batch that took messages of it saw them.\n\n"
        + _sql(f"SELECT * FROM offsets WHERE topic = '{name}'")
        + f"\n\nFrom the command line: `archiver status`, `archiver tail --messages`, "
        f"`archiver replay --topics {name} …` to send archived messages back.",
        "metadata": _uri(f"kafka://{_brokers(settings)}/{name}"),
    }


def results(settings: Settings) -> Asset:
    """The topic of finished minutes."""
    name = settings.results_topic
    return {
        "group_name": RESULTS,
        "kinds": {"kafka", "json"},
        "description": f"The topic `{name}`: each finished minute of `events_per_minute` as JSON, sent exactly once. A "
        "late message sends its minute again with the next `revision`. The key is `{minute}/{topic}/{type}`.",
        "metadata": _uri(f"kafka://{_brokers(settings)}/{name}"),
    }


def messages(settings: Settings) -> Asset:
    """The archive."""
    where = settings.mask(settings.archive_uri)
    return {
        "group_name": ARCHIVE,
        "kinds": {"polars", "parquet", "deltalake"},
        "description": f"""Every message of the topics, once, as Parquet by type, date and hour.

**Each materialization is a micro-batch**: its files and its offsets were committed in one step. *Checks*
says whether a message was lost; *Metadata*, below, has the last batch, and as *Plots* lag and throughput over time.

It lies in `{where}`, as a Delta table that DuckDB, Polars, Spark and Trino read as it is:

{_sql("SELECT type, count(*) FROM messages GROUP BY ALL ORDER BY ALL")}

| what you see | what to do |
| --- | --- |
| the lag grows | look at the newest runs of `archive`, then raise `ARCHIVER_LANES` |
| `nothing_was_lost` fails | the check names the offsets; raise the topic's `retention.ms`, or archive sooner |
| nothing comes any more | *Automation*, `archive_sensor`: each tick says why it started nothing |
| you do not trust it | `archiver verify --against-kafka` compares it with Kafka, message by message |
""",
        "metadata": {
            **_uri(_place(where)),
            "dagster/table_name": "messages",
            "dagster/storage_kind": "deltalake",
            "dagster/column_schema": columns.of_archive(),
        },
    }


def view(settings: Settings) -> Asset:
    """The DuckDB file."""
    path = str(settings.view_path)
    return {
        "group_name": ARCHIVE,
        "kinds": {"duckdb"},
        "description": f"""The DuckDB file with a view over the archive. It is replaced as a whole after each batch.

It is `{path}`, with `messages`, a view per type with the JSON fields as columns, the aggregates, and what is known
of the archive: `offsets`, `batches`, `gaps`, `hours`, `fields`, `losses`.

{_sql("SELECT * FROM batches ORDER BY time DESC LIMIT 10")}

or `archiver sql` without anything, for a shell with completion. Open the file read-only.

It is **fresh** while it is known to show what Kafka has: each batch makes it so, and with nothing to archive the sensor
says so every half hour. An idle topic does not make it stale; a sensor that is off, a broker that is down or runs that
fail do.
""",
        "metadata": {**_uri(f"file://{path}"), "dagster/storage_kind": "duckdb"},
    }


def hours(settings: Settings) -> Asset:
    """The hours of the archive."""
    return {
        "group_name": ARCHIVE,
        "kinds": {"polars", "parquet", _STORES.get(urlsplit(settings.archive_uri).scheme, "deltalake")},
        "description": f"""Hours of the archive, in UTC. A sensor seals those that are closed: a sorted file per type.

**To materialize an hour reads it from Kafka again** and compares it with the archive, message by message. What differs
is replaced. Choose hours under *Partitions*, then *Materialize*.

An hour that **failed** is red under *Partitions*, and stays as it is in the archive. The check `every_hour_is_whole`
names it and says why. With damaged files that Kafka cannot make good any more:

    archiver backfill --from 2019-08-01T03:00 --to 2019-08-01T04:00 --accept-loss

{_sql("SELECT * FROM hours ORDER BY dt DESC, hr DESC LIMIT 20")}
""",
        "metadata": _uri(_place(settings.mask(settings.archive_uri))),
    }


def aggregate(settings: Settings, what: Aggregate) -> Asset:
    """Counts per window of time."""
    measures = ", ".join(f"`{name}` ({measure})" for name, measure in what.measures.items())
    by = ", ".join(f"`{name}`" for name in what.group_by) or "nothing else"
    folder = settings.aggregates_path / what.name
    sent = ""
    if what.name == "events_per_minute" and settings.results_topic:
        sent = f" It is sent to the topic `{settings.results_topic}`, too."
    return {
        "group_name": FOLLOWERS,
        "kinds": {"parquet", "sqlite"},
        "description": f"Per {what.window}, by {by}: {measures}.{sent}\n\n"
        "A window is final once message time has passed its end; late messages correct it. To materialize an hour "
        f"counts it anew from the archive.\n\nIt lies in `{folder}`, as Parquet by date and hour.\n\n"
        + _sql(f"SELECT * FROM {what.name} ORDER BY {what.window} DESC LIMIT 20"),
        "metadata": {
            **_uri(f"file://{folder}"),
            "dagster/table_name": what.name,
            "dagster/column_schema": columns.of_aggregate(what),
        },
    }


def store(settings: Settings, name: str) -> Asset:
    """The archive in another store."""
    if name == "mysql_messages":
        return _mysql(settings)
    if name == "search_messages":
        return _search(settings)
    return {"group_name": FOLLOWERS, "description": "Every message of the archive."}


def _mysql(settings: Settings) -> Asset:
    url = _server(settings.mysql_url.get_secret_value())
    return {
        "group_name": FOLLOWERS,
        "kinds": KINDS["mysql_messages"],
        "description": f"Every message of the archive in the table `messages` of `{url}`, once. Its position is in the "
        "same database, in the same transaction. Each materialization brings it up to the archive.\n\n"
        "    SELECT type, count(*) FROM messages GROUP BY type\n\nHow far it is behind: *Metadata*, `lag`, or "
        "`archiver status`.",
        "metadata": {
            **_uri(url),
            "dagster/table_name": "messages",
            "dagster/storage_kind": "mysql",
            "dagster/column_schema": columns.of_mysql(),
        },
    }


def _search(settings: Settings) -> Asset:
    url = _server(settings.search_url.get_secret_value())
    return {
        "group_name": FOLLOWERS,
        "kinds": KINDS["search_messages"],
        "description": f"Every message of the archive as a document in Elasticsearch or OpenSearch at `{url}`: an "
        "index per type and day, and an alias over all of them. Each materialization brings it up to the archive.\n\n"
        "How far it is behind: *Metadata*, `lag`, or `archiver status`.",
        "metadata": _uri(url),
    }


def _sql(query: str) -> str:
    return f'    archiver sql "{query}"'


def _uri(uri: str) -> dict[str, Any]:
    return {"dagster/uri": uri}


def _place(where: str) -> str:
    return where if "://" in where else f"file://{where}"


def _brokers(settings: Settings) -> str:
    return settings.mask(settings.kafka_properties.get("bootstrap.servers", ""))


def _server(url: str) -> str:
    """A URL without user, password and options: where something is, and nothing that lets anybody in."""
    return without_user(url).partition("?")[0].partition("#")[0]
