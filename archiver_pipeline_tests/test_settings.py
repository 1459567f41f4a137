"""The settings: environment, archiver.toml, defaults, and one line for a wrong value."""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from archiver_pipeline.envelope import TypeRule
from archiver_pipeline.errors import SettingsError
from archiver_pipeline.settings.aggregates import Aggregate
from archiver_pipeline.settings.settings import Settings, load
from archiver_pipeline_tests.processes import CHECKOUT, is_taken

Write = Callable[[str], Path]

DEFAULTS = {
    "topics": (),
    "start": "earliest",
    "base_dir": Path("data"),
    "uri": "",
    "interval_seconds": 10,
    "batch_messages": 1_000_000,
    "batch_bytes": 256 * 1024**2,
    "min_messages": 1,
    "max_delay_seconds": 60,
    "run_seconds": 0,
    "lanes": 1,
    "type_path": "$.type",
    "types": {},
    "topic_ids": "required",
    "max_types": 1000,
    "seal_grace_minutes": 15,
    "keep_replaced_hours": 1,
    "user_path": "$.uid",
    "follow_seconds": 30,
    "users": "exact",
    "time_path": "",
    "aggregates": (),
    "minute_grace_seconds": 120,
    "results_topic": "events_per_minute",
    "mysql_url": "",
    "search_url": "",
    "registry_url": "",
    "registry_token": "",
    "registry_ca": "",
    "registry_certificate": "",
    "registry_key": "",
    "registry_key_password": "",
    "registry_wait_seconds": 60,
    "registry_undecoded": (),
    "payload_format": "json",
    "formats": {},
    "log_format": "text",
    "keep_runs_days": 30,
    "view": "on",
    "run_tags": {},
    "kafka": {},
}

PATHS = "a JSON path such as $.type, $.meta.kind or $['event type'], or header:NAME, or constant:NAME"
NUMBER, WHOLE = "a number from 0 on", "a whole number from 1 on"
TIME = "earliest, latest or an ISO time such as 2019-08-01T00:00:00Z (default earliest)"
TOPICS = "topic names (letters, digits, '.', '_', '-') or regexes that start with '^', comma-separated"
TABLES = "tables with name, window, group_by and measures"
RESULTS = "a topic name of up to 239 letters, digits, '.', '_' and '-', or '' (default events_per_minute)"
FORMATS = "json or registry (default json)"
IDS = "ids of schemas, numbers or GUIDs, comma-separated"
SIZE = "a size such as 64MiB or 67108864 (default 256MiB)"

WRONG = [
    ("ARCHIVER_TOPICS", "a b", f"{TOPICS}, but 'a b' is neither"),
    ("ARCHIVER_TOPICS", "ok,^(", f"{TOPICS}, but '^(' is no regex: missing ), unterminated subpattern at position 1"),
    ("ARCHIVER_TOPICS", "x" * 250, f"{TOPICS}, but '{'x' * 250}' is neither"),
    ("ARCHIVER_TOPICS", "..", f"{TOPICS}, but '..' is neither"),
    ("ARCHIVER_LOG_FORMAT", "xml", "text or json (default text)"),
    ("ARCHIVER_KEEP_RUNS_DAYS", "-1", "a number from 0 to 3650; 0 is for ever (default 30)"),
    ("ARCHIVER_START", "yesterday", TIME),
    ("ARCHIVER_START", "2019-13-01", TIME),
    ("ARCHIVER_START", "0001-01-01T00:00:00+14:00", TIME),
    ("ARCHIVER_START", "", TIME),
    ("BASE_DIR", "/x/dt=1", "a folder (default data), but 'dt=' in its path keeps some reader from it"),
    (
        "ARCHIVER_URI",
        "a%20b",
        "a folder, or s3://bucket/archive, gs://… or az://…, but '%20' in its path keeps some reader from it",
    ),
    ("ARCHIVER_INTERVAL_SECONDS", "0", "a number above 0 and up to 86400 (default 10)"),
    ("ARCHIVER_INTERVAL_SECONDS", "inf", "a number above 0 and up to 86400 (default 10)"),
    ("ARCHIVER_INTERVAL_SECONDS", "nan", "a number above 0 and up to 86400 (default 10)"),
    ("ARCHIVER_BATCH_MESSAGES", "1.5", f"{WHOLE} (default 1000000)"),
    ("ARCHIVER_BATCH_MESSAGES", "", f"{WHOLE} (default 1000000)"),
    ("ARCHIVER_BATCH_BYTES", "0", SIZE),
    ("ARCHIVER_BATCH_BYTES", "-1", SIZE),
    ("ARCHIVER_BATCH_BYTES", "many", SIZE),
    ("ARCHIVER_MIN_MESSAGES", "0", f"{WHOLE} (default 1)"),
    ("ARCHIVER_MAX_DELAY_SECONDS", "-1", f"{NUMBER} (default 60)"),
    ("ARCHIVER_RUN_SECONDS", "long", f"{NUMBER} (default 0)"),
    ("ARCHIVER_LANES", "0", "a whole number from 1 to 1000 (default 1)"),
    ("ARCHIVER_LANES", "1001", "a whole number from 1 to 1000 (default 1)"),
    ("ARCHIVER_TYPE_PATH", "type", f"{PATHS} (default $.type)"),
    ("ARCHIVER_TYPE_PATH", "$.a\n$.b", f"{PATHS} (default $.type)"),
    ("ARCHIVER_TOPIC_IDS", "maybe", "required or none (default required)"),
    ("ARCHIVER_MAX_TYPES", "0", f"{WHOLE} (default 1000)"),
    ("ARCHIVER_SEAL_GRACE_MINUTES", "-1", f"{NUMBER} (default 15)"),
    ("ARCHIVER_KEEP_REPLACED_HOURS", "-1", "a number from 0 to 240 (default 1)"),
    ("ARCHIVER_KEEP_REPLACED_HOURS", "241", "a number from 0 to 240 (default 1)"),
    ("ARCHIVER_USER_PATH", "uid", f"{PATHS} (default $.uid)"),
    ("ARCHIVER_FOLLOW_SECONDS", "-1", "a number from 0 to 86400 (default 30)"),
    ("ARCHIVER_USERS", "some", "exact or approximate (default exact)"),
    ("ARCHIVER_TIME_PATH", "ts", PATHS),
    ("ARCHIVER_MINUTE_GRACE_SECONDS", "-1", f"{NUMBER} (default 120)"),
    ("ARCHIVER_VIEW", "maybe", "on or off (default on)"),
    ("ARCHIVER_PAYLOAD_FORMAT", "avro", FORMATS),
    ("ARCHIVER_PAYLOAD_FORMAT", "registry", f"{FORMATS}, but ARCHIVER_REGISTRY_URL is not set"),
    ("ARCHIVER_REGISTRY_WAIT_SECONDS", "-1", "a number from 0 to 600 (default 60)"),
    ("ARCHIVER_REGISTRY_UNDECODED", "7,seven", f"{IDS}, but 'seven' is neither"),
    ("ARCHIVER_REGISTRY_UNDECODED", "4294967296", f"{IDS}, but '4294967296' is neither"),
    ("ARCHIVER_REGISTRY_CA", "no/such", "a file or folder of certificates in PEM, but there is no such file"),
    ("ARCHIVER_REGISTRY_CERTIFICATE", "no/such", "a file in PEM, but there is no such file"),
    ("ARCHIVER_REGISTRY_KEY", "no/such", "a file in PEM, but there is no such file"),
    *(("ARCHIVER_RESULTS_TOPIC", value, RESULTS) for value in ("a b", "x" * 240, ".", "..")),
]

TAGS = "archive, view, seal, backfill or follow, and for each the tags of its runs"

WRONG_IN_FILE = [
    ("run_tags.seals.x = 'y'", f"run_tags.seals in {{file}} is 'seals': allowed is {TAGS}"),
    ("run_tags.seal = 3", f"run_tags.seal in {{file}} is 3: allowed is {TAGS}, but this is no table of tags"),
    (
        "run_tags.seal.'archiver/lane' = '1'",
        f"run_tags.seal in {{file}} is {{{{'archiver/lane': '1'}}}}: allowed is {TAGS}, "
        "but 'archiver/lane' is a tag of the archiver's own",
    ),
    (
        "run_tags.seal.a = [1]",
        f"run_tags.seal in {{file}} is {{{{'a': [1]}}}}: allowed is {TAGS}, "
        "but the tag 'a' has neither text nor a table",
    ),
    ("lanes = 'x'", "lanes in {file} is 'x': allowed is a whole number from 1 to 1000 (default 1)"),
    ("lanes = 2.5", "lanes in {file} is 2.5: allowed is a whole number from 1 to 1000 (default 1)"),
    ("topics = 3", f"topics in {{file}} is 3: allowed is {TOPICS}"),
    ("topics = ['a', 'b c']", f"topics.1 in {{file}} is 'b c': allowed is {TOPICS}, but 'b c' is neither"),
    ("base_dir = 3", "base_dir in {file} is 3: allowed is a folder (default data)"),
    ("start = 03:00:00", f"start in {{file}} is '03:00:00': allowed is {TIME}"),
    ("types.a = 'x'", f"types.a in {{file}} is 'x': allowed is {PATHS}"),
    ("types = 3", "types in {file} is 3: allowed is topics, or regexes that start with '^', and their rules"),
    (
        "types.'a b' = '$.x'",
        "types.a b in {file} is 'a b': allowed is topics, or regexes that start with '^', and their rules, "
        "but 'a b' is neither",
    ),
    (
        "formats.a = 'avro'",
        "formats.a in {file} is 'avro': allowed is topics, or regexes that start with '^', and their formats: json or "
        "registry",
    ),
    (
        "registry_undecoded = [7, -1]",
        f"registry_undecoded.1 in {{file}} is -1: allowed is {IDS}, but '-1' is neither",
    ),
    ("lane = 1", "'lane' in {file} is not a setting; is it 'lanes'?"),
    ("wholly_unlike = 1", "'wholly_unlike' in {file} is not a setting"),
    ("kafka = 3", "kafka in {file} is not a table: allowed is [kafka] with librdkafka properties"),
    (
        "[kafka]\nbootstrap.server = 'x'",
        "'bootstrap.server' below [kafka] in {file} is not a librdkafka property",
    ),
    (
        "[[aggregates]]\nname = 'sales'\nwindow = 'week'\nmeasures = {n = 'count'}",
        f"aggregates.0.window in {{file}} is 'week': allowed is {TABLES}, but input should be "
        "'minute', 'hour' or 'day'",
    ),
    (
        "[[aggregates]]\nname = 'sales'\nwindow = 'day'\nmeasures = {n = 'average $.a'}",
        f"aggregates.0.measures.n in {{file}} is 'average $.a': allowed is {TABLES}, but 'average $.a' is no measure: "
        "count, or one of distinct, approx_distinct, sum, min, max and a JSON path",
    ),
    *(
        (
            f"aggregates = [{{name = '{name}', window = 'day', measures = {{n = 'count'}}}}]",
            f"aggregates.0 in {{file}} is {{{{'name': '{name}', 'window': 'day', 'measures': {{{{'n': 'count'}}}}}}}}: "
            f"allowed is {TABLES}, but '{name}' is the name of another view or asset",
        )
        for name in ("messages", "archive_view", "sealed_hours", "mysql_messages", "search_messages")
    ),
    (
        "aggregates = [\n" + "{name = 'a', window = 'day', measures = {n = 'count'}},\n" * 2 + "]",
        "aggregates in {file} is ["
        + ", ".join(["{{'name': 'a', 'window': 'day', 'measures': {{'n': 'count'}}}}"] * 2)
        + f"]: allowed is {TABLES}, but 'a' is there twice",
    ),
    ("lanes =", "{file} cannot be read as TOML: Invalid value (at end of document)"),
]

PASSWORD = "hunter2-is-secret"
SECRETS = {
    "KAFKA_SASL_PASSWORD": PASSWORD,
    "KAFKA_SSL_KEY_PASSWORD": PASSWORD + "-key",
    "KAFKA_SSL_KEY_PEM": f"-----BEGIN PRIVATE KEY-----\n{PASSWORD}\n-----END PRIVATE KEY-----",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": PASSWORD + "-oauth",
    "ARCHIVER_MYSQL_URL": f"mysql://archiver:{PASSWORD}@db/events",
    "ARCHIVER_SEARCH_URL": f"https://archiver:{PASSWORD}@search:9200",
    "ARCHIVER_REGISTRY_URL": f"https://archiver:{PASSWORD}%21@one:8081,https://two:8081",
    "ARCHIVER_REGISTRY_TOKEN": PASSWORD + "-token",
    "ARCHIVER_REGISTRY_KEY_PASSWORD": PASSWORD + "-registry",
}
SECRET_FIELDS = ("mysql_url", "search_url", "registry_url", "registry_token", "registry_key_password")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine counts, and the working directory has no archiver.toml."""
    for name in os.environ:
        if is_taken(name):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes archiver.toml of the working directory."""

    def write(content: str) -> Path:
        path = tmp_path / "archiver.toml"
        path.write_text(content, "utf-8")
        return path

    return write


def values(settings: Settings) -> dict[str, Any]:
    """Every setting in clear."""
    clear = {name: getattr(settings, name) for name in type(settings).model_fields}
    clear |= {name: clear[name].get_secret_value() for name in SECRET_FIELDS}
    return {**clear, "kafka": settings.kafka_properties}


def refused() -> str:
    """The text with which the settings are refused."""
    with pytest.raises(SettingsError) as refusal:
        load()
    return str(refusal.value)


def test_without_anything_every_setting_has_its_default() -> None:
    """The defaults are those of the documentation, and no setting is without one."""
    assert values(load()) == DEFAULTS


def test_the_environment_goes_before_the_file_and_the_file_before_the_defaults(
    monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    """A value of the file that the environment overrides is not even looked at."""
    write("lanes = 'wrong'\nmax_types = 7\nbase_dir = 'file'\n[kafka]\n'client.id' = 'file'\nlinger.ms = 3\n")
    monkeypatch.setenv("ARCHIVER_LANES", "3")
    monkeypatch.setenv("BASE_DIR", "env")
    monkeypatch.setenv("KAFKA_CLIENT_ID", "env")
    kafka = {"client.id": "env", "linger.ms": "3"}
    changed = {"lanes": 3, "max_types": 7, "base_dir": Path("env"), "kafka": kafka}
    assert values(load()) == {**DEFAULTS, **changed}


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG)
def test_a_wrong_variable_is_one_line_with_name_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    """Whoever reads that line knows what to change, and where."""
    monkeypatch.setenv(name, value)
    shown = f"{value!r}"[:200]
    assert refused() == f"{name} is {shown}: allowed is {allowed}"
    assert "\n" not in refused()


@pytest.mark.parametrize(("content", "line"), WRONG_IN_FILE)
def test_a_wrong_value_of_the_file_is_one_line_with_the_file(write: Write, content: str, line: str) -> None:
    """The line has the setting as the file has it; an unknown one is refused, with the one that may be meant."""
    write(content)
    assert refused() == line.format(file="archiver.toml")


def test_an_aggregate_may_take_the_place_of_one_that_ships(write: Write) -> None:
    """Once, by its name; the other one that ships stays."""
    write("[[aggregates]]\nname = 'page_views'\nwindow = 'day'\nmeasures = {n = 'count'}")
    windows = {item.name: item.window for item in load().every_aggregate}
    assert windows == {"events_per_minute": "minute", "page_views": "day"}


@pytest.mark.parametrize("topics", ["orders,minutes", "minutes-positions"])
def test_results_do_not_go_where_they_are_archived(monkeypatch: pytest.MonkeyPatch, topics: str) -> None:
    """They would be counted, sent, and archived again, for ever."""
    monkeypatch.setenv("ARCHIVER_TOPICS", topics)
    monkeypatch.setenv("ARCHIVER_RESULTS_TOPIC", "minutes")
    assert refused().startswith("ARCHIVER_RESULTS_TOPIC is 'minutes': allowed is ")
    assert "ARCHIVER_TOPICS names it, too" in refused()


def test_every_setting_has_a_wrong_value_tested() -> None:
    """A new setting comes with a sentence of what it allows, and with a test of it."""
    tested = {name.removeprefix("ARCHIVER_").lower() for name, *_ in WRONG}
    assert tested | {"types", "formats", "aggregates", "run_tags", "kafka", *SECRET_FIELDS} == set(
        Settings.model_fields
    )
    assert [name for name, info in Settings.model_fields.items() if not info.description] == ["kafka"]


@pytest.mark.parametrize("name", ["ARCHIVER_MYSQL_URL", "ARCHIVER_SEARCH_URL", "ARCHIVER_REGISTRY_URL"])
@pytest.mark.parametrize(
    "value",
    [
        *(PASSWORD, f"://{PASSWORD}", f"mysql:{PASSWORD}", f"postgresql://me:{PASSWORD}@host/db"),
        *(f"mysql://me:{PASSWORD}@host", f"mysql://me:a@{PASSWORD}@host/db", f"https://me:a/{PASSWORD}@host"),
        f"mysql://me:{PASSWORD}@host:port/db",
    ],
)
def test_a_url_that_is_none_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """What was meant for a URL may be a password."""
    monkeypatch.setenv(name, value)
    assert refused().startswith(f"{name} is ***: allowed is a URL such as ")
    assert PASSWORD not in refused()


@pytest.mark.parametrize("content", [f"mysql_url = ['{PASSWORD}']", f"search_url = '{PASSWORD}'"])
def test_a_url_of_the_file_is_never_shown(write: Write, content: str) -> None:
    """Neither is one that is not even text."""
    write(content)
    assert re.match(r"(mysql|search)_url in archiver.toml is \*\*\*: allowed is a URL", refused())
    assert PASSWORD not in refused()


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not by repr, str, a dump, an error or the log; a client has them in clear, `mask` takes them out of a text."""
    for name, value in SECRETS.items():
        if not name.endswith("_PEM"):
            monkeypatch.setenv(name, value)
    settings = load()
    assert settings.kafka_properties["sasl.password"] == PASSWORD
    for text in (
        repr(settings),
        str(settings),
        f"{settings!r:s}",
        settings.model_dump_json(),
        str(settings.model_dump()),
    ):
        assert PASSWORD not in text
    said = f"login as {PASSWORD}-oauth failed, {PASSWORD}-key too, at {SECRETS['ARCHIVER_MYSQL_URL']}"
    said += f", {PASSWORD}! and {PASSWORD}-token and {PASSWORD}-registry at {SECRETS['ARCHIVER_REGISTRY_URL']}"
    assert PASSWORD not in settings.mask(said)
    assert (settings.registry_address, settings.registry_user) == (
        "https://one:8081,https://two:8081",
        f"archiver:{PASSWORD}!",
    )
    monkeypatch.setenv("ARCHIVER_LANES", "0")
    assert PASSWORD not in refused()
    monkeypatch.delenv("ARCHIVER_LANES")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext")
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "WRONG")
    assert "KAFKA_SASL_MECHANISM is 'WRONG'" in refused()
    assert PASSWORD not in refused() + caplog.text


def test_a_key_that_librdkafka_refuses_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting and says that it is no PEM, in one line."""
    monkeypatch.setenv("KAFKA_SSL_KEY_PEM", SECRETS["KAFKA_SSL_KEY_PEM"])
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "ssl")
    assert refused().startswith("KAFKA_SSL_KEY_PEM is ***: ")
    assert PASSWORD not in refused()
    assert "\n" not in refused()


def test_a_refusal_keeps_no_secret_in_its_causes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback shows the causes of an error too."""
    monkeypatch.setenv("ARCHIVER_MYSQL_URL", PASSWORD)
    with pytest.raises(SettingsError) as refusal:
        load()
    assert PASSWORD not in str(refusal.getrepr(chain=True, showlocals=False, style="native"))


def test_variables_that_are_no_librdkafka_property_are_passed_over_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Kubernetes sets `KAFKA_PORT` for a service called kafka; that stops nothing."""
    monkeypatch.setenv("KAFKA_PORT", "tcp://10.0.0.1:9092")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    assert load().kafka_properties == {"bootstrap.servers": "localhost:9092"}
    assert [record.message for record in caplog.records] == [
        "KAFKA_PORT is passed over: librdkafka has no property 'port'"
    ]


def test_properties_that_carry_the_promises_are_passed_over_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    """`group.id` and `isolation.level` are the archiver's own, wherever they are set."""
    write("[kafka]\ngroup.id = 'mine'\n")
    monkeypatch.setenv("KAFKA_ISOLATION_LEVEL", "read_uncommitted")
    assert load().kafka_properties == {}
    assert sorted(record.message for record in caplog.records) == [
        "KAFKA_GROUP_ID is passed over: offsets live in the archive, not in a consumer group",
        "KAFKA_ISOLATION_LEVEL is passed over: reads are read_committed",
    ]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("ARCHIVER_TOPIC", "; is it ARCHIVER_TOPICS?"), ("ARCHIVER_BATCH_BYTE", "; is it ARCHIVER_BATCH_BYTES?")]
    + [(name, "") for name in ("ARCHIVER_PORT", "ARCHIVER_SERVICE_HOST", "ARCHIVER_KAFKA")],
)
def test_an_unknown_variable_of_the_archiver_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, suggestion: str
) -> None:
    """With the setting that may be meant; what Kubernetes sets for a service called archiver resembles none."""
    monkeypatch.setenv(name, "1")
    with caplog.at_level(logging.WARNING):
        assert values(load()) == DEFAULTS
    assert [record.message for record in caplog.records] == [f"{name} is not a setting and is passed over{suggestion}"]


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong path is not taken for 'no file'."""
    monkeypatch.setenv("ARCHIVER_CONFIG", "nowhere.toml")
    assert refused() == "ARCHIVER_CONFIG is 'nowhere.toml': there is no such file"
    monkeypatch.setenv("ARCHIVER_CONFIG", str(tmp_path))
    assert refused().startswith(f"{tmp_path} cannot be read as TOML: ")


@pytest.mark.parametrize(
    ("text", "size"), [("256MiB", 256 * 1024**2), ("1GB", 10**9), ("67108864", 67_108_864), ("1.5 MiB", 1_572_864)]
)
def test_a_size_has_a_unit_or_is_in_bytes(monkeypatch: pytest.MonkeyPatch, write: Write, text: str, size: int) -> None:
    """In the environment and in the file alike."""
    monkeypatch.setenv("ARCHIVER_BATCH_BYTES", text)
    assert load().batch_bytes == size
    monkeypatch.delenv("ARCHIVER_BATCH_BYTES")
    write(f"batch_bytes = '{text}'")
    assert load().batch_bytes == size


@pytest.mark.parametrize("content", ["topics = ['orders', '^clicks-.*']", "topics = ' orders, ^clicks-.* ,'"])
def test_topics_are_a_list_or_comma_separated(monkeypatch: pytest.MonkeyPatch, write: Write, content: str) -> None:
    """The file takes both, the environment the latter."""
    write(content)
    assert load().topics == ("orders", "^clicks-.*")
    monkeypatch.setenv("ARCHIVER_TOPICS", "other,^x")
    assert load().topics == ("other", "^x")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2019-08-01", datetime(2019, 8, 1, tzinfo=UTC)),
        ("2019-08-01T03:00:00", datetime(2019, 8, 1, 3, tzinfo=UTC)),
        ("2019-08-01T03:00:00+02:00", datetime(2019, 8, 1, 1, tzinfo=UTC)),
        ("2019-08-01T03:00:00Z", datetime(2019, 8, 1, 3, tzinfo=UTC)),
    ],
)
def test_a_start_is_in_utc_unless_it_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, write: Write, text: str, time: datetime
) -> None:
    """In the environment, and as one of TOML's own times."""
    monkeypatch.setenv("ARCHIVER_START", text)
    assert load().start_time == time
    monkeypatch.delenv("ARCHIVER_START")
    write(f"start = {text}")
    assert load().start_time == time


def test_the_committed_file_shows_the_defaults_and_every_line_of_it_can_be_taken(
    monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    """Uncommented, it loads; what the file says of defaults is true, and only the examples of it are none."""
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", PASSWORD)
    committed = (CHECKOUT / "archiver.toml").read_text("utf-8")
    assert tomllib.loads(committed) == {}
    lines = re.findall(r"^# ((?:[a-z_]+|\"[^\"]+\") = .*|\[\[?[a-z_.]+\]\]?)$", committed, re.MULTILINE)
    write("\n".join(lines))
    settings = load()
    examples = {
        "topics": ("orders", "^clicks-.*"),
        "types": {
            "payments": "header:event-type",
            r"^metrics\..*": "constant:metric",
            "clicks": "$.meta.kind",
        },
        "formats": {"orders": "registry", "^logs-.*": "json"},
        "run_tags": {"archive": {"dagster-celery/queue": "archive"}},
        "registry_url": "http://localhost:8081",
        "aggregates": (
            Aggregate(
                name="sales",
                window="day",
                group_by={"shop": "$.shop.id", "topic": "topic"},
                measures={"orders": "count", "buyers": "distinct $.uid", "revenue": "sum $.amount"},
                time="$.ts",
            ),
        ),
        "kafka": {
            "bootstrap.servers": "localhost:9092",
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "archiver",
            "sasl.password": PASSWORD,
        },
    }
    assert values(settings) == {**DEFAULTS, **examples}
    assert set(tomllib.loads("\n".join(lines))) <= set(Settings.model_fields)


def test_the_readers_of_the_file_see_only_settings_that_there_are(write: Write) -> None:
    """TOML's dots make tables; they are put together again, and truth values become librdkafka's words."""
    write("[kafka]\nbootstrap.servers = 'a:1'\nsocket.keepalive.enable = true\nlinger.ms = 5\n")
    kafka = {"bootstrap.servers": "a:1", "socket.keepalive.enable": "true", "linger.ms": "5"}
    assert load().kafka_properties == kafka


def test_the_rule_of_a_topic_is_its_own_then_a_regex_then_the_general_one(write: Write) -> None:
    """A topic's exact name goes before a regex, whichever comes first; of regexes the first that matches counts."""
    write(
        "type_path = '$.kind'\n[types]\n'^pay' = 'header:regex'\n'^pay.*' = 'constant:later'\n"
        "payments = 'constant:exact'\n"
    )
    rule = load().type_rule
    assert rule("payments") == TypeRule("constant", "exact")
    assert rule("payments2") == TypeRule("header", "regex")
    assert rule("xpay") == TypeRule("path", steps=("kind",))


def test_the_format_of_a_topic_is_found_as_its_rule_is(write: Write) -> None:
    """By its exact name, then by a regex, then the general one."""
    write(
        "registry_url = 'http://localhost:8081'\npayload_format = 'registry'\n"
        "[formats]\n'^log-' = 'json'\nlog-orders = 'registry'\n"
    )
    assert [load().is_registry(topic) for topic in ("orders", "log-x", "log-orders")] == [True, False, True]


def test_schemas_are_named_by_number_or_guid(monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are written, they are compared with what messages have."""
    monkeypatch.setenv("ARCHIVER_REGISTRY_UNDECODED", "007, 4294967295, {9E7B1A2C-0000-0000-0000-0000000000FF}")
    assert load().registry_undecoded == ("7", "4294967295", "9e7b1a2c-0000-0000-0000-0000000000ff")


def test_a_run_needs_a_broker_and_a_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only looks at the archive needs neither, so the settings load without them."""
    with pytest.raises(SettingsError, match=r"^KAFKA_BOOTSTRAP_SERVERS is not set: .* such as localhost:9092$"):
        load().require_kafka()
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    load().require_broker()
    with pytest.raises(SettingsError, match=r"^ARCHIVER_TOPICS is not set: "):
        load().require_kafka()
    monkeypatch.setenv("ARCHIVER_TOPICS", "orders")
    load().require_kafka()


def test_the_archive_lies_in_the_base_folder_unless_it_has_an_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Folders are absolute, as Dagster's processes have other working directories."""
    assert load().archive_uri == str(tmp_path / "data" / "archive")
    assert load().view_path == tmp_path / "data" / "archive.duckdb"
    monkeypatch.setenv("ARCHIVER_URI", "elsewhere")
    assert load().archive_uri == str(tmp_path / "elsewhere")
    for uri in ("s3://bucket/archive", "gs://bucket", "az://container/some/archive"):
        monkeypatch.setenv("ARCHIVER_URI", uri)
        assert load().archive_uri == uri
    monkeypatch.setenv("ARCHIVER_URI", "s3://bucket/archive/")
    assert load().archive_uri == "s3://bucket/archive"


@pytest.mark.parametrize(
    "uri",
    [
        "http://bucket/a",
        "s3://",
        "s3:///a",
        "s3://key:secret@bucket/a",
        "s3://b/a?x=1",
        "s3://b/a*",
        "s3://b/../a",
        "s3:/bucket/a",
    ],
)
def test_an_address_that_is_none_of_a_bucket(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    """It is refused before anything starts, with those that are allowed."""
    monkeypatch.setenv("ARCHIVER_URI", uri)
    with pytest.raises(SettingsError, match=r"^ARCHIVER_URI is .*: allowed is a folder, or s3://bucket/a") as wrong:
        load()
    assert "secret" not in str(wrong.value)


def test_a_copy_with_another_broker_asks_that_one() -> None:
    """What was worked out from the settings before is worked out anew in a copy of them."""
    before = Settings(kafka={"bootstrap.servers": SecretStr("one:9092")})
    assert before.kafka_properties == {"bootstrap.servers": "one:9092"}
    after = before.model_copy(update={"kafka": {"bootstrap.servers": SecretStr("two:9092")}})
    assert after.kafka_properties == {"bootstrap.servers": "two:9092"}
    assert before.kafka_properties == {"bootstrap.servers": "one:9092"}
