"""Writes docs/settings.md: every setting with its default and what is allowed, as the code has them.

`python -m archiver_pipeline_tests.docs.settings_page` writes it anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo

from archiver_pipeline.settings.settings import ENV_PREFIX, Settings
from archiver_pipeline_tests.processes import CHECKOUT

PAGE = CHECKOUT / "docs" / "settings.md"
COMMAND = ".venv/bin/python -m archiver_pipeline_tests.docs.settings_page"

GROUPS: Mapping[str, Mapping[str, str]] = {
    "What is archived, and where to": {
        "topics": "the topics to archive; topics of Kafka's own never match a regex",
        "start": "where a topic seen for the first time begins; decided once, and committed. Partitions that are added "
        "later begin at 0",
        "base_dir": "holds `archive/` (unless `uri` says otherwise), `archive.duckdb`, `aggregates/`, `dagster_home/` "
        "and what is on its way",
        "uri": "where the archive is: a folder, or [in a bucket](object-storage.md); empty is `archive/` in `BASE_DIR`",
        "topic_ids": "`none` for a broker older than 2.8, which has no topic ids",
    },
    "Batches and runs": {
        "interval_seconds": "how often the sensor looks how far Kafka has run ahead, at most every five seconds; "
        "between batches of a run that stays, any time",
        "batch_messages": "the most messages of a batch, fairly shared by the partitions that are behind",
        "batch_bytes": "the most bytes of a batch, shared likewise",
        "min_messages": "the sensor waits for so many messages, which makes fewer runs and files of a trickle",
        "max_delay_seconds": "but no longer than this",
        "run_seconds": "how long a run stays, a batch each interval: data is visible sooner; runs of followers stay, "
        "too",
        "lanes": "independent runs side by side; a partition belongs to one lane "
        "([more](deployment.md#more-lanes-fewer-lanes))",
        "view": "`off` on a machine whose DuckDB file nobody asks",
        "run_tags": "tags of runs by job, for launchers that go by them "
        "([many machines](deployment.md#many-machines-by-celery))",
    },
    "Types and payloads": {
        "type_path": "the type of a message ([more](archive.md#types))",
        "types": "the type rule of single topics; the name goes first, then the first regex that matches",
        "max_types": "distinct types that the archive may have; messages of more are `_other`",
        "payload_format": "`registry` for topics of a [Schema Registry](formats.md)",
        "formats": "the format of single topics, as for types",
    },
    "Schema Registry": {
        "registry_url": "its URL; several, comma-separated, are tried in turn",
        "registry_token": "a token in place of user and password",
        "registry_ca": "certificates to check it by; empty is those of the Python package certifi",
        "registry_certificate": "a certificate of one's own",
        "registry_key": "its key",
        "registry_key_password": "where the key is encrypted",
        "registry_wait_seconds": "how long a batch waits for a schema before it fails; the next run tries again",
        "registry_undecoded": "schemas whose messages are archived as they are, under `_malformed`",
    },
    "Hours": {
        "seal_grace_minutes": "how long an hour stays open after its end ([hours](hours.md))",
        "keep_replaced_hours": "how long replaced files stay on disk for those who still read them",
    },
    "What follows the archive": {
        "follow_seconds": "how often followers are started; 0 for never ([followers](followers.md))",
        "aggregates": "aggregates of your own ([more](followers.md#aggregates-of-your-own))",
        "user_path": "the user of an event",
        "users": "how distinct users are counted by the aggregates that ship; `approximate` takes bounded space, with "
        "a standard error of 0.8 %",
        "time_path": "the time of an event for the aggregates that ship; empty is the message's own",
        "minute_grace_seconds": "how long a minute stays open after its end",
        "results_topic": "where finished minutes go; empty for nowhere",
        "mysql_url": "MySQL or MariaDB; empty is off",
        "search_url": "Elasticsearch or OpenSearch; empty is off",
    },
    "Operation": {
        "log_format": "`json` makes each log record a line of JSON ([logs](monitoring.md#logs))",
        "keep_runs_days": "how long Dagster keeps runs that ended; 0 for ever",
    },
}
"""What each field of `Settings` is for, by the heading that it stands under."""

OTHERS: Mapping[str, str] = {
    "`KAFKA_*`, `[kafka]`": "any property of librdkafka: `KAFKA_SASL_PASSWORD` is `sasl.password` "
    "([secured Kafka](secured-kafka.md)). What librdkafka does not know is passed over with a warning; in the file it "
    "is an error",
    "`AWS_*`, `GOOGLE_*`, `AZURE_*`": "the credentials of a bucket ([in a bucket](object-storage.md)); in the "
    "environment only",
    "`ARCHIVER_CONFIG`": "the path of the settings file, `archiver.toml` in the working directory without it; one that "
    "is named must be there",
    "`DAGSTER_HOME`": "Dagster's own folder; `make dev` takes `dagster_home/` in `BASE_DIR`",
    "`DEMO_SECONDS`, `CI`": "`make demo` ends by itself: after so many seconds and three batches; `CI=true` is five of "
    "them",
}

_HEAD = f"""# Settings

The environment goes first, then [`archiver.toml`](../archiver.toml) (or the file in `ARCHIVER_CONFIG`), then the
defaults. A wrong value stops the start with one line that names the setting, its value and what is allowed, and exit
code 2. A variable that looks like a setting and is none gets a warning.

This page is written from the code by `{COMMAND}`.
"""

_ONLY_IN_FILE = ("types", "formats", "aggregates", "run_tags")


def default_of(field: FieldInfo) -> str:
    """The default of a field as a page shows it; empty where it is nothing."""
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, ByteSize):
        value = value.human_readable().replace(".0", "").replace("MiB", " MiB")
    return f"`{value}`" if value not in ("", (), {}) else ""


def places_of(name: str) -> str:
    """The variable of a field, and its key in the file."""
    variable = "BASE_DIR" if name == "base_dir" else ENV_PREFIX + name.upper()
    if name in _ONLY_IN_FILE:
        return f"`[[{name}]]`" if name == "aggregates" else f"`[{name}]`"
    return f"`{variable}`"


def row_of(name: str, meaning: str) -> str:
    """The row of a field."""
    field = Settings.model_fields[name]
    # Single characters and nothing are quoted for a terminal; a page has other marks for them.
    allowed = re.sub(r"'([^'A-Za-z0-9])'", r"`\1`", field.description or "").replace("''", "empty").replace("|", "\\|")
    return f"| {places_of(name)} | {default_of(field)} | {allowed} | {meaning} |"


def page() -> str:
    """The page."""
    parts = [_HEAD]
    for heading, fields in GROUPS.items():
        rows = [row_of(name, meaning) for name, meaning in fields.items()]
        table = ["| setting | default | allowed | what it is |", "| --- | --- | --- | --- |", *rows]
        parts.append(f"## {heading}\n\n" + "\n".join(table) + "\n")
    rows = [f"| {name} | {meaning} |" for name, meaning in OTHERS.items()]
    parts.append("## Beside these\n\n| variable | what it is |\n| --- | --- |\n" + "\n".join(rows) + "\n")
    parts.append(
        "In `archiver.toml` a setting has its name in small letters without the prefix (`ARCHIVER_BATCH_BYTES` is\n"
        "`batch_bytes`, `BASE_DIR` is `base_dir`); what is shown in brackets is a table and stands there only.\n"
    )
    return "\n".join(parts)


def main() -> None:
    """Write it."""
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
