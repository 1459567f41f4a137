"""Rules of the `archiver` command, run as a process of its own: what it prints where, and its exit codes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archiver_pipeline.cli.shell import View
from archiver_pipeline.cli.status import _put
from archiver_pipeline.cli.status import command as status_command
from archiver_pipeline.errors import ArchiveError, WrongUsage
from archiver_pipeline.formats.waits import Waits
from archiver_pipeline.storage.base import Attached
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.batches import archive, event
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce, read_all
from archiver_pipeline_tests.waiting import LIMIT_SECONDS

ROOT = Path(__file__).parents[1]
COMMANDS = ("status", "verify", "export", "generate", "sql", "tail", "metrics")
COMMAND = [sys.executable, "-m", "archiver_pipeline.cli"]
FIRST_MS = 1_564_628_400_000  # 2019-08-01T03:00:00Z

Run = Callable[..., subprocess.CompletedProcess[str]]


def _environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of this process without settings of the archiver, and with those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "ARCHIVER_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "BASE_DIR": str(folder / "data"), "HOME": str(folder), **more}


@pytest.fixture
def archiver(tmp_path: Path, bootstrap_servers: str, topic_name: str) -> Run:
    """Runs the command in a folder of its own, on the shared broker and the test's topic."""

    def run(*arguments: str, typed: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        settings = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "ARCHIVER_TOPICS": topic_name, **more}
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=_environment(tmp_path, **settings),
            input=typed,
            stdin=subprocess.DEVNULL if typed is None else None,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )

    return run


@contextmanager
def _started(folder: Path, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Runs the command until the test is done with it."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=_environment(folder, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def archived(tmp_path: Path, bootstrap_servers: str, topic_name: str) -> Archived:
    """An archive with three messages of two types."""
    create_topic(bootstrap_servers, topic_name)
    messages = [
        Sent(b'{"type": "a.b", "n": 1}', b"k1", (("h", b"\xff"), ("h", None)), FIRST_MS),
        Sent(b'{"type": "a.b", "n": 2}', b"\xff\x00", (), FIRST_MS + 1000),
        Sent(b"two\nlines", None, (), FIRST_MS + 2000),
    ]
    produce(bootstrap_servers, topic_name, messages)
    archive = Archived(tmp_path / "data", bootstrap_servers, topic_name)
    archive.run()
    return archive


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_examples(command: str, tmp_path: Path) -> None:
    """The help of each command shows how it is called, and of all of them which there are."""
    shown = subprocess.run(
        [*COMMAND, *command.split(), "--help"],
        cwd=tmp_path,
        env=_environment(tmp_path, COLUMNS="100"),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
    ).stdout
    assert "Examples" in shown
    assert f"archiver {command}" in shown.split("Examples")[1]
    if not command:
        assert all(re.search(rf"\b{name}\b", shown) for name in COMMANDS)


def test_help_waits_for_no_library(tmp_path: Path) -> None:
    """What takes long to import is imported by the command that needs it and not before."""
    heavy = ("polars", "duckdb", "deltalake", "confluent_kafka", "dagster", "pyarrow", "pydantic")
    code = f"import sys, archiver_pipeline.cli; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
    )
    assert shown.stdout.strip() == "[]"


def test_version_is_shown(archiver: Run) -> None:
    """`--version` names the program and is no error."""
    done = archiver("--version")
    assert done.returncode == 0
    assert re.match(r"archiver \S+", done.stdout)


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["status", "--nonsense"], ["tail", "--count", "0"], ["sql", "--csv", "--json", "x"]]
)
def test_wrong_usage_is_exit_code_2(archiver: Run, arguments: list[str]) -> None:
    """A command or an option that does not exist or fit is refused with exit code 2, nothing on standard output, and
    one line that says where help is."""
    done = archiver(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"archiver: [^A-Z].+\. Try 'archiver( \w+)? --help'\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    "arguments", [["status"], ["verify"], ["generate"], ["sql", "SELECT 1"], ["tail", "--messages"]]
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(archiver: Run, arguments: list[str]) -> None:
    """A wrong setting stops every command with one line that names it."""
    done = archiver(*arguments, ARCHIVER_LANES="many")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"archiver: ARCHIVER_LANES is 'many': allowed is .+\n", done.stderr)


def test_a_missing_broker_is_a_wrong_setting(archiver: Run, archived: Archived) -> None:
    """What needs a broker says so where none is named; the archive itself can be verified without one."""
    for arguments in (["status"], ["verify", "--against-kafka"], ["generate"], ["tail"], ["tail", "--messages"]):
        done = archiver(*arguments, KAFKA_BOOTSTRAP_SERVERS="")
        assert done.returncode == 2
        assert re.fullmatch(r"archiver: KAFKA_BOOTSTRAP_SERVERS is not set: .+\n", done.stderr)
    assert archiver("verify", KAFKA_BOOTSTRAP_SERVERS="", ARCHIVER_TOPICS="").returncode == 0


def test_status_as_lines_and_as_json(archiver: Run, archived: Archived, topic_name: str) -> None:
    """Away from a terminal the status is plain lines, and with --json one document with every promised field."""
    done = archiver("status")
    assert done.returncode == 0
    assert re.fullmatch(r"warning: no type was found for 1 of 3 messages .+: _malformed 1\. .+\n", done.stderr)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"archive {archived.path}: table version {archived.version()}, format 1, 3 messages in ")
    assert f"{topic_name}/0: next 3, end 3, lag 0, messages 3" in lines
    assert "total lag 0" in lines
    assert "no gaps" in lines
    found = json.loads(archiver("status", "--json").stdout)
    assert list(found) == [
        *("archive", "time", "version", "format", "messages", "files", "bytes", "types", "hours"),
        *("sealed_hours", "lag", "partitions", "last_batch"),
        *("age_seconds", "rates", "gaps", "given_up", "interrupted_erasures", "followers", "waits", "warnings"),
        "broker_error",
    ]
    assert list(found["partitions"][0]) == ["topic", "topic_id", "partition", "first", "next", "end", "lag", "messages"]
    assert set(found["last_batch"]) == {
        *("version", "time", "messages", "bytes", "files", "seconds", "run_id", "messages_per_second")
    }
    assert set(found["rates"][0]) == {"minutes", "batches", "messages_per_second", "bytes_per_second"}
    assert (found["messages"], found["lag"], found["types"], found["broker_error"]) == (3, 0, 2, None)


def test_status_while_messages_wait_for_a_schema(archiver: Run, archived: Archived, topic_name: str) -> None:
    """Each partition that waits has a line, or an entry in the JSON, and the exit code is 1."""
    (at,) = archived.archiver().archive.ledger().committed
    Waits(archived.settings).note(at, 3, "4711", "http://registry:8081", "it does not answer")
    done = archiver("status")
    assert done.returncode == 1
    line = rf"waiting: {topic_name}/0 waits since \S+ at offset 3 for schema 4711 of http://registry:8081: it does not"
    assert re.search(line, done.stdout)
    (wait,) = json.loads(archiver("status", "--json").stdout)["waits"]
    assert list(wait) == ["topic", "topic_id", "partition", "offset", "schema", "registry", "why", "since"]


def test_status_without_an_archive(archiver: Run, bootstrap_servers: str, topic_name: str) -> None:
    """No archive yet is said plainly and is no fault; that no wanted topic is there is one."""
    create_topic(bootstrap_servers, topic_name)
    done = archiver("status")
    assert done.returncode == 0
    assert done.stdout.startswith("no archive yet at ")
    assert "follower events_per_minute: nothing is archived yet" in done.stdout
    done = archiver("status", ARCHIVER_TOPICS=f"{topic_name}-else")
    assert (done.returncode, "total lag" in done.stdout) == (1, False)
    assert "archiver: none of the wanted topics can be read. Make the topic, or check ARCHIVER_TOPICS" in done.stderr


def test_status_while_the_broker_is_down(archiver: Run, archived: Archived, topic_name: str) -> None:
    """What the archive knows is shown, the broker's silence is one line without the password, and exit code 1."""
    done = archiver(
        "status",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9",
        KAFKA_SECURITY_PROTOCOL="sasl_plaintext",
        KAFKA_SASL_MECHANISM="PLAIN",
        KAFKA_SASL_USERNAME="me",
        KAFKA_SASL_PASSWORD="hunter2",
    )
    assert done.returncode == 1
    assert f"{topic_name}/0: next 3, end -, lag -, messages 3" in done.stdout.splitlines()
    assert re.fullmatch(r"warning: .+\narchiver: 127\.0\.0\.1:9 did not answer .+\n", done.stderr)
    assert "hunter2" not in done.stdout + done.stderr


def test_status_while_a_follower_is_down(archiver: Run, archived: Archived, topic_name: str) -> None:
    """What is known is shown all the same, the follower's line says why, and the exit code is 1."""
    produce(archived.bootstrap_servers, topic_name, [Sent(b"{}")])
    archived.run()
    done = archiver("status", ARCHIVER_MYSQL_URL="mysql://me@127.0.0.1:1/archive")
    assert done.returncode == 1
    assert "total lag 0" in done.stdout
    assert re.search("^follower mysql_messages: MySQL does not answer", done.stdout, re.MULTILINE), done.stdout


def test_verify_of_a_good_archive(archiver: Run, archived: Archived) -> None:
    """Exit code 0 and a short summary on standard output, with and without Kafka, and as JSON."""
    done = archiver("verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"good: \d+ files, .+, 3 messages of 1 partition, table version \d+, [\d.]+ s\n$", done.stdout)
    done = archiver("verify", "--against-kafka")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Kafka still has 3 of the archived messages, in 1 partition: all the same" in done.stdout
    found = json.loads(archiver("verify", "--against-kafka", "--json").stdout)
    assert set(found) == {
        *("good", "archive", "version", "files", "bytes", "messages", "partitions", "seconds", "faults", "kafka"),
        *("given_up", "kafka_error"),
    }
    assert (found["good"], found["faults"], found["messages"]) == (True, [], 3)
    partition = found["kafka"]["partitions"][0]
    assert partition["kafka"] == partition["archive"]
    assert len(partition["kafka"]["digest"]) == 64
    assert partition["equal"] is True


def test_verify_names_every_fault_on_standard_output(archiver: Run, archived: Archived) -> None:
    """Exit code 1, and on standard output nothing but a line for each fault with its kind and whole path."""
    first, second = sorted(archived.path / name for name in archived.listed_files())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    strange = archived.path / "type=x" / "dt=2019-08-01" / "hr=00" / "strange.parquet"
    strange.parent.mkdir(parents=True)
    strange.write_bytes(b"?")
    done = archiver("verify")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    wanted = {f"missing: {first}: ", f"changed: {second}: ", f"unlisted: {strange}: "}
    assert len(lines) == 3
    assert {start for start in wanted for line in lines if line.startswith(start)} == wanted
    assert done.stderr.startswith("3 faults in ")
    found = json.loads(archiver("verify", "--json").stdout)
    assert found["good"] is False
    assert {(fault["kind"], fault["path"]) for fault in found["faults"]} == {
        ("missing", str(first)),
        ("changed", str(second)),
        ("unlisted", str(strange)),
    }


def test_verify_of_a_damaged_log(archiver: Run, archived: Archived) -> None:
    """A log that cannot be read is one line and exit code 1."""
    log = sorted((archived.path / "_delta_log").glob("*.json"))[-1]
    log.write_text("{")
    done = archiver("verify")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"archiver: .+\n", done.stderr)
    assert str(log) in done.stderr


def test_verify_without_an_archive(archiver: Run) -> None:
    """Where there is nothing to verify, nothing is called good."""
    done = archiver("verify")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"archiver: there is no archive yet .+\n", done.stderr)


def test_generate_produces_what_it_says(archiver: Run, bootstrap_servers: str, topic_name: str) -> None:
    """The topics of ARCHIVER_TOPICS get exactly the messages that the summary counts."""
    arguments = [
        "--rate",
        "0",
        "--count",
        "200",
        "--types",
        "x,y",
        "--headers",
        "--no-keys",
        "--late",
        "10%",
        "--seed",
        "1",
    ]
    done = archiver("generate", *arguments, "--json", ARCHIVER_TOPICS=f"{topic_name},^other-.*")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert set(found) == {"sent", "delivered", "failed", "seconds", "rate", "topics", "bytes", "error"}
    assert (found["sent"], found["delivered"], found["failed"], found["topics"]) == (200, 200, 0, {topic_name: 200})
    messages = [message for part in read_all(bootstrap_servers, topic_name).values() for message in part]
    assert {json.loads(message.value or b"")["type"] for message in messages} == {"x", "y"}
    assert all(message.key is None and len(message.headers) == 2 for message in messages)
    done = archiver("generate", "--count", "3", "--topics", topic_name)
    assert re.match(rf"3 messages delivered \({topic_name} 3\), ", done.stdout)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_generate_sends_the_lines_of_a_file(
    archiver: Run, bootstrap_servers: str, topic_name: str, tmp_path: Path, compressed: bool
) -> None:
    """Each line is a message as it is, whatever is in it, and it ends with the file."""
    content = b'{"uid": 1}\n\xff\x00\r\n\n' + b"x" * 100_000 + b"\nlast"
    path = tmp_path / "lines"
    path.write_bytes(gzip.compress(content) if compressed else content)
    create_topic(bootstrap_servers, topic_name, partitions=1)
    done = archiver("generate", "--rate", "0", "--topics", topic_name, "--file", str(path), "--json")
    assert json.loads(done.stdout)["delivered"] == 4, done.stderr
    values = [message.value for message in read_all(bootstrap_servers, topic_name)[0]]
    assert values == [b'{"uid": 1}', b"\xff\x00", b"x" * 100_000, b"last"]


def test_generate_says_why_a_file_cannot_be_sent(archiver: Run, bootstrap_servers: str, tmp_path: Path) -> None:
    """A file that is not there or cut short, and two topics for one file, are refused in one line."""
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(b"x" * 100_000)[:-20])
    for path in (cut, tmp_path / "nothing"):
        done = archiver("generate", "--topics", "t", "--file", str(path))
        assert (done.returncode, done.stdout) == (2, "")
        assert "cannot be read" in done.stderr
    done = archiver("generate", "--topics", "a,b", "--file", str(cut))
    assert "--file is given, and its lines go to one topic" in done.stderr


def test_generate_needs_no_topics(archiver: Run) -> None:
    """Without ARCHIVER_TOPICS, or with regexes alone, messages go to orders and clicks."""
    for topics in ("", "^other-.*"):
        done = archiver("generate", "--count", "0", "--json", ARCHIVER_TOPICS=topics)
        assert set(json.loads(done.stdout)["topics"]) == {"orders", "clicks"}


@pytest.mark.parametrize("arguments", [["--late", "x"], ["--ugly", "2"], ["--rate", "-1"], ["--types", ","]])
def test_generate_refuses_nonsense(archiver: Run, arguments: list[str]) -> None:
    """A value that makes no sense is one line and exit code 2."""
    done = archiver("generate", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"(late|ugly|rate|types)", done.stderr)
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_generate_with_its_summary(tmp_path: Path, bootstrap_servers: str, topic_name: str) -> None:
    """Ctrl-C ends it quietly with exit code 130, after all that was sent is delivered and counted."""
    create_topic(bootstrap_servers, topic_name)
    settings = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers}
    with _started(tmp_path, "generate", "--rate", "50", "--topics", topic_name, "--json", **settings) as process:
        _wait(lambda: any(read_all(bootstrap_servers, topic_name).values()))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, errors) == (130, "")
    assert json.loads(output)["delivered"] == len(read_all(bootstrap_servers, topic_name)[0])


def test_sql_from_the_argument_and_from_standard_input(archiver: Run, archived: Archived) -> None:
    """Every statement's result is printed, as a table, as CSV or as JSON."""
    done = archiver("sql", "SELECT type, count(*) AS n FROM messages GROUP BY 1 ORDER BY 1")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"│ a\.b +│ +2 │", done.stdout)
    done = archiver(
        "sql", "--json", typed='SELECT n FROM a_b ORDER BY n; SELECT "offset", key FROM messages WHERE key IS NULL;'
    )
    first, second = done.stdout.splitlines()[:2], done.stdout.splitlines()[2:]
    assert json.loads("".join(first)) == [{"n": 1}, {"n": 2}]
    assert json.loads("".join(second)) == [{"offset": 2, "key": None}]
    query = 'SELECT "timestamp", key, value, headers FROM messages ORDER BY "offset"'
    rows = list(csv.reader(io.StringIO(archiver("sql", "--csv", query).stdout)))
    assert rows == [
        ["timestamp", "key", "value", "headers"],
        [
            "2019-08-01T03:00:00Z",
            "k1",
            '{"type": "a.b", "n": 1}',
            '[{"key": "h", "value": "\\\\xFF"}, {"key": "h", "value": null}]',
        ],
        ["2019-08-01T03:00:01Z", "\\xFF\\x00", '{"type": "a.b", "n": 2}', ""],
        ["2019-08-01T03:00:02Z", "", "two\nlines", ""],
    ]
    assert json.loads(archiver("sql", "--json", "SELECT * FROM gaps").stdout) == []


def test_sql_errors(archiver: Run, archived: Archived) -> None:
    """DuckDB's message is printed once, exit code 1, and what came before it was run."""
    done = archiver("sql", "--csv", "SELECT 42 AS a; SELECT nothing FROM nowhere; SELECT 43")
    assert (done.returncode, done.stdout) == (1, "a\n42\n")
    assert done.stderr.startswith("archiver: Catalog Error: ")
    assert done.stderr.count("nowhere") == 1
    done = archiver("sql", "SELECT value->>'$.n' FROM messages")
    assert "Malformed JSON" in done.stderr
    assert "TRY(value->>'$.field')" in done.stderr
    done = archiver("sql", "DELETE FROM offsets")
    assert done.returncode == 1
    assert "read-only" in done.stderr


def test_sql_without_an_archive(archiver: Run) -> None:
    """No archive yet is one line and exit code 1, and no file is made by asking."""
    done = archiver("sql", "SELECT 1")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"archiver: there is no archive to query yet .+\n", done.stderr)
    again = archiver("sql", "--refresh", "SELECT 1")
    assert (again.returncode, again.stderr) == (1, done.stderr)


def test_ctrl_c_ends_a_query_once_polars_is_loaded(tmp_path: Path) -> None:
    """Polars, which --refresh loads, has a handler of its own for SIGINT; the query ends all the same."""
    archive(Archive(str(tmp_path / "archive")), [event()])
    begun = tmp_path / "begun.csv"
    query = f"COPY (SELECT 1) TO '{begun}'; SELECT count(*) FROM range(100_000_000_000) WHERE random() < 2"
    with _started(tmp_path, "sql", "--refresh", query, BASE_DIR=str(tmp_path)) as process:
        _wait(begun.exists)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 130


def test_sql_without_a_file_names_where_it_would_be(tmp_path: Path) -> None:
    """The demo's archive is named where there is one, and how the file is made where it alone is missing."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "archive.duckdb").touch()
    for archived, hint in ((False, f"set BASE_DIR={tmp_path / 'demo'}$"), (True, "`archiver sql --refresh` makes it$")):
        view = View(tmp_path / "archive.duckdb", lambda _: Attached(), [archived].pop)
        with pytest.raises(ArchiveError, match=hint):
            view.connection()


def test_sql_on_another_machine(archiver: Run, archived: Archived, topic_name: str) -> None:
    """Where no run has been, `--refresh` makes the DuckDB file, and where one was, brings it up to the archive."""
    counted = ("sql", "--json", "--refresh", "SELECT count(*) AS n FROM messages")
    archived.settings.view_path.unlink()
    assert json.loads(archiver(*counted).stdout) == [{"n": 3}]
    produce(archived.bootstrap_servers, topic_name, [Sent(b"{}")])
    archived.archiver().batch()
    assert json.loads(archiver(*counted).stdout) == [{"n": 4}]


def test_sql_sees_new_batches(archived: Archived, topic_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A batch that lands between two statements is seen by the second one."""
    view = View(archived.settings.view_path, archived.archiver().archive.storage.attach)
    for count in (3, 4):
        view.run("SELECT count(*) AS n FROM messages", "json")
        assert json.loads(capsys.readouterr().out) == [{"n": count}]
        produce(archived.bootstrap_servers, topic_name, [Sent(b"{}")])
        archived.run()
    view.close()


def test_a_closed_pipe_is_no_error(archiver: Run, archived: Archived, tmp_path: Path) -> None:
    """A reader that has seen enough ends the command quietly."""
    with _started(tmp_path, "sql", "--csv", "SELECT repeat('x', 1000) FROM range(100000)") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, errors) == (141, "")


@pytest.mark.parametrize(
    ("redirected", "code", "errors"),
    [
        ("2>&-", 0, ""),
        (">/dev/full", 1, "archiver: standard output cannot be written: No space left on device. Free space"),
        (">&-", 1, "archiver: standard output cannot be written: Bad file descriptor. Free space"),
    ],
)
def test_a_stream_that_is_closed_or_full(tmp_path: Path, redirected: str, code: int, errors: str) -> None:
    """Without standard error all else is said; output that cannot be written is one line and exit code 1."""
    line = f"{shlex.join([*COMMAND, 'status'])} {redirected}"
    done = subprocess.run(["sh", "-c", line], env=_environment(tmp_path), cwd=tmp_path, capture_output=True, text=True,
                          timeout=LIMIT_SECONDS, check=False)  # fmt: skip
    assert (done.returncode, done.stdout.startswith("no archive yet")) == (code, code == 0)
    assert errors in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_goes_where_it_is_told(tmp_path: Path) -> None:
    """A link and a pipe stay what they are, and what is no file is refused before anything is looked at."""
    target, link, pipe = tmp_path / "page", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    os.mkfifo(pipe)
    _put(link, b"<page>")
    assert (link.is_symlink(), target.read_bytes()) == (True, b"<page>")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    _put(pipe, b"<page>")
    assert (pipe.is_fifo(), os.read(reader, 100)) == (True, b"<page>")
    os.close(reader)
    for wrong in ("", ".", "/"):
        with pytest.raises(WrongUsage, match="allowed is a file, or - for standard output"):
            status_command(html=wrong)


def test_the_shell_on_a_terminal(archived: Archived, tmp_path: Path) -> None:
    """On a terminal statements go over several lines up to ; and an error does not end the shell."""
    typed = [
        "SELECT 40 +\n",
        "2 AS answer;\n",
        "SELECT nonsense;\n",
        ".tables\n",
        ".tables gaps\n",
        ".help\n",
        ".quit\n",
    ]
    shown, code = _on_terminal(tmp_path, typed, "sql")
    assert code == 0
    assert "The archive as of table version" in shown
    assert re.search(r"│ +42 │", shown)
    assert "Binder Error" in shown
    assert re.search(r"^a_b\r?$", shown, re.MULTILINE)
    assert re.search(r"^  reason VARCHAR\r?$", shown, re.MULTILINE)
    assert "Ctrl-D" in shown


def test_tail_echoes_messages(archiver: Run, archived: Archived, topic_name: str) -> None:
    """From the beginning, each message is a line, whatever is in it, and the count stops it."""
    done = archiver("tail", "--messages", "--from-beginning", "--count", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f'2019-08-01T03:00:00.000Z {topic_name}/0@0 k1 {{"type": "a.b", "n": 1}}',
        f'2019-08-01T03:00:01.000Z {topic_name}/0@1 \\xff\\x00 {{"type": "a.b", "n": 2}}',
        f"2019-08-01T03:00:02.000Z {topic_name}/0@2 - two\\nlines",
    ]
    done = archiver("tail", "--messages", "--from-beginning", "--count", "2", "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == {
        "topic": topic_name,
        "partition": 0,
        "offset": 0,
        "time": "2019-08-01T03:00:00.000Z",
        "timestamp": FIRST_MS,
        "timestamp_type": "create",
        "key": "k1",
        "value": '{"type": "a.b", "n": 1}',
        "headers": [{"key": "h", "value_base64": "/w=="}, {"key": "h", "value": None}],
    }
    assert second["key_base64"] == "/wA="


def test_tail_begins_at_the_end(tmp_path: Path, archived: Archived, topic_name: str) -> None:
    """Without --from-beginning only what comes from now on is echoed, and Ctrl-C ends it quietly."""
    settings = {"KAFKA_BOOTSTRAP_SERVERS": archived.bootstrap_servers, "ARCHIVER_TOPICS": topic_name}
    with _started(tmp_path, "tail", "--messages", **settings) as process:
        assert process.stdout is not None
        stdout = process.stdout

        def arrived() -> bool:
            produce(archived.bootstrap_servers, topic_name, [Sent(b"news")])
            return bool(select.select([stdout], [], [], 0.2)[0])

        _wait(arrived)
        assert re.match(rf"\S+ {topic_name}/0@\d+ - news$", stdout.readline())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, errors) == (130, "")


def test_tail_is_cut_to_the_terminal(archived: Archived, tmp_path: Path, topic_name: str) -> None:
    """On a terminal a line is no wider than that, unless it is asked for."""
    settings = {"KAFKA_BOOTSTRAP_SERVERS": archived.bootstrap_servers, "ARCHIVER_TOPICS": topic_name, "COLUMNS": "60"}
    arguments = ["tail", "--messages", "--from-beginning", "--count", "1"]
    shown, code = _on_terminal(tmp_path, [], *arguments, **settings)
    assert code == 0
    assert len(shown.strip()) == 60
    assert shown.strip().endswith("…")
    shown, _ = _on_terminal(tmp_path, [], *arguments, "--full", **settings)
    assert shown.strip().endswith('"n": 1}')


def _on_terminal(folder: Path, typed: list[str], *arguments: str, **settings: str) -> tuple[str, int]:
    """Run the command on a terminal, type a line each time it is silent, and return what it shows and its exit code."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=_environment(folder, TERM="dumb", **settings),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    shown, left, deadline = b"", list(typed), time.monotonic() + LIMIT_SECONDS
    try:
        while time.monotonic() < deadline:
            if select.select([leader], [], [], 0.3)[0]:
                try:
                    part = os.read(leader, 65536)
                except OSError:  # the other side is closed
                    break
                shown += part
            elif left and shown.rstrip().endswith(b">"):
                os.write(leader, left.pop(0).encode())
        return shown.decode(), process.wait(LIMIT_SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
