"""Rules of an export: whole or not at all, as of its start, and refused in one line where it makes no sense."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from archiver_pipeline.cli.main import app
from archiver_pipeline.errors import ArchiveDamaged, ExportError
from archiver_pipeline.export.exporter import Exported, Exporter
from archiver_pipeline.export.target import Target, target
from archiver_pipeline.hours import parse_hour
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.stored.files import OnProgress, quietly
from archiver_pipeline.stored.selected import Selected
from archiver_pipeline.stored.selection import Selection
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.table.batch_info import BatchInfo
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, archive, event
from archiver_pipeline_tests.disk import mounted
from archiver_pipeline_tests.exported import archived_messages, by_json, text_of
from archiver_pipeline_tests.processes import CHECKOUT, environment
from archiver_pipeline_tests.sealable import THREE, Sealable, filled
from archiver_pipeline_tests.waiting import LIMIT_SECONDS

COMMAND = [sys.executable, "-m", "archiver_pipeline.cli", "export"]
FORMATS = ("jsonl", "csv", "orc", "parquet")

Export = Callable[..., Result]


@pytest.fixture
def sealable(tmp_path: Path) -> Sealable:
    """An archive of two types and two hours, 31 messages."""
    return filled(tmp_path / "data")


@pytest.fixture
def export(sealable: Sealable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Runs the command in this process, on that archive, in a folder of its own."""
    monkeypatch.setenv("BASE_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ARCHIVER_TOPICS", "orders")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *arguments: CliRunner().invoke(app, ["export", *arguments])


def run(target_archive: Archive, kind: str, out: Path | str, on_progress: OnProgress = quietly) -> Exported:
    """Export everything."""
    moment = Selected(target_archive, Selection())
    return Exporter(target_archive, moment, Selection(), target(kind, str(out)), on_progress).run()


def here() -> set[str]:
    """All that lies in the present folder."""
    return {str(path) for path in Path().rglob("*")}


def test_a_report_for_people_and_one_for_programs(export: Export, tmp_path: Path) -> None:
    """Both name messages, files, bytes, time and place; the exit code is 0."""
    done = export("--all", "--format", "jsonl", "--out", "x.jsonl")
    assert (done.exit_code, done.stderr) == (0, "")
    pattern = r"31 messages, 1 file, [\d.]+ kB in [\d.]+ s \([\d,]+ messages/s\): (.+)\n"
    found = re.fullmatch(pattern, done.stdout)
    assert found is not None
    assert found[1] == str(tmp_path / "here" / "x.jsonl")
    done = export("--all", "--format", "orc", "--out", "x.orc", "--json")
    report = json.loads(done.stdout)
    assert list(report) == ["good", "messages", "files", "bytes", "seconds", "left_out", "out"]
    assert (report["good"], report["messages"], report["files"], report["left_out"]) == (True, 31, 1, 0)
    assert report["bytes"] == os.path.getsize("x.orc")
    assert here() == {"x.jsonl", "x.orc"}


def test_times_topics_and_types_are_chosen(export: Export, sealable: Sealable) -> None:
    """From a time, to one that is not included, of some types: just these messages."""
    archive(sealable.target, [event("x,y")], TopicPartition("clicks", "B", 0))
    export("--from", "2019-08-01T04:00", "--format", "jsonl", "--out", "a")
    export("--to", "2019-08-01T04:00Z", "--types", "x", "--topics", "orders", "--format", "jsonl", "--out", "b")
    export("--all", "--types", '"x,y", y', "--format", "jsonl", "--out", "c")
    counts = [len(Path(name).read_text().splitlines()) for name in "abc"]
    assert counts == [1, 15, 16]


def test_nothing_selected_is_said(export: Export) -> None:
    """A file without a message, a sentence, and exit code 0; a folder is empty."""
    done = export("--from", "2030-01-01", "--format", "jsonl", "--out", "x")
    assert (done.exit_code, Path("x").read_bytes()) == (0, b"")
    assert done.stdout.startswith("nothing was selected")
    done = export("--from", "2030-01-01", "--format", "jsonl", "--out", "y/")
    assert (done.exit_code, here()) == (0, {"x", "y"})


BASE = ("--all", "--format", "jsonl", "--out", "x")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "jsonl", "--out", "x"), "--from, --to or both, or --all"),
        ((*BASE, "--from", "2019-08-01"), "--all is given with a time"),
        ((*BASE[1:], "--from", "yesterday"), "--from is 'yesterday': allowed is an ISO time"),
        ((*BASE[1:], "--from", "2019-08-02", "--to", "2019-08-01"), "--to is '2019-08-01': it has to be after --from"),
        ((*BASE[1:], "--to", "0001-01-01"), "--to is '0001-01-01': there is no time before it"),
        ((*BASE[1:], "--to", "0001-01-01T00:00+05:00"), "--to is '0001-01-01T00:00+05:00'"),
        ((*BASE, "--topics", "ordres"), "--topics is 'ordres': the archive has no such topic; it has orders"),
        ((*BASE, "--topics", ""), "--topics is ''"),
        ((*BASE, "--types", "x,z"), "--types is 'z': the archive has no such type; it has x, y"),
        ((*BASE, "--types", "_erased"), "--types is '_erased': the archive has no such type"),
        (("--all", "--format", "xml", "--out", "x"), "--format is 'xml': allowed is jsonl, csv, orc, parquet"),
        (("--all", "--format", "csv", "--payloads", "--out", "x"), "--format is 'csv': --payloads takes jsonl alone"),
        ((*BASE, "--leave-out"), "--leave-out is given without --payloads"),
        ((*BASE, "--compression", "gz"), "--compression is 'gz': it is for folders"),
        ((*BASE[:-1], "x/", "--compression", "rar"), "--compression is 'rar': allowed is gz, zst, none"),
        (("--all", "--format", "orc", "--out", "x/", "--compression", "gz"), "orc has its own"),
        (("--all", "--format", "orc", "--out", "-"), "--out is '-': orc cannot go to standard output"),
        (("--all", "--format", "orc", "--out", "x.orc.gz"), "--out is 'x.orc.gz': orc is compressed within"),
        (("--all", "--format", "csv", "--out", "x.jsonl.gz"), "its name says jsonl, --format says csv"),
        ((*BASE[:-1], ""), "--out is '': allowed is"),
        ((*BASE[:-1], "nowhere/x"), "--out is 'nowhere/x': there is no folder"),
        ((*BASE[:-1], "/dev/null", "--overwrite"), "--out is '/dev/null': it is no regular file"),
        ((*BASE[:-1], "/dev/", "--overwrite"), "--out is '/dev/'"),
        ((*BASE[:-1], "-", "--json"), "--json is given, but standard output has the messages"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, tuple) else None,
)
def test_wrong_usage_is_one_line(export: Export, arguments: tuple[str, ...], words: str) -> None:
    """The option, its value and what is allowed; exit code 2, and nothing is written."""
    done = export(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(r"archiver: .+\n", done.stderr)
    assert words in done.stderr
    assert here() == set()


def test_what_is_there_is_replaced_only_on_demand(export: Export) -> None:
    """A file, or a folder with an export, is refused without --overwrite; other folders are refused with it, too."""
    Path("x").write_text("mine")
    assert export(*BASE).exit_code == 2
    assert Path("x").read_text() == "mine"
    assert export(*BASE, "--overwrite").exit_code == 0
    assert len(Path("x").read_text().splitlines()) == 31
    folder = (*BASE[:-1], "f/")
    assert export(*folder).exit_code == 0
    assert export(*folder, "--compression", "none").exit_code == 2
    assert export(*folder, "--compression", "none", "--overwrite").exit_code == 0
    assert {path.name for path in Path("f").rglob("*.jsonl*")} == {"messages.jsonl"}
    Path("f/notes").write_text("mine")
    done = export(*folder, "--overwrite")
    assert (done.exit_code, "other things than an export" in done.stderr) == (2, True)
    Path("empty").mkdir()
    assert export(*BASE[:-1], "empty").exit_code == 0
    assert {path.name for path in Path("empty").iterdir()} == {"type=x", "type=y"}
    assert not [name for name in here() if "partial" in name or "replaced" in name]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_folder_is_laid_out_as_the_archive(export: Export, sealable: Sealable, kind: str) -> None:
    """A file per type and hour below Hive's names, and Hive's readers find each message with its type and hour."""
    for name in ("a/b", "тип"):
        archive(sealable.target, [event(name)], milliseconds=2**62)
    done = export("--all", "--format", kind, "--out", "f/")
    ending = f".{kind}.gz" if kind in ("jsonl", "csv") else f".{kind}"
    wanted = {f"f/{os.path.dirname(path)}/messages{ending}" for path in sealable.target.files()["path"]}
    assert {str(path) for path in Path("f").rglob("*") if path.is_file()} == wanted
    assert f"33 messages, {len(wanted)} files" in done.stdout
    if kind == "orc":
        return
    reader = {"jsonl": "read_json", "csv": "read_csv", "parquet": "read_parquet"}[kind]
    import duckdb

    with duckdb.connect() as connection:
        query = f"""SELECT type, dt, hr, topic, "partition", "offset", value
            FROM {reader}('f/*/*/*/*', hive_partitioning = true, hive_types_autocast = false) ORDER BY "offset" """
        rows = connection.sql(query).fetchall()
    names = ("type", "dt", "hr", "topic", "partition", "offset", "value")
    assert rows == pl.read_delta(str(sealable.path)).sort("offset").select(names).rows()


def test_standard_output(export: Export, sealable: Sealable) -> None:
    """The messages alone are on standard output, what is to say is on standard error."""
    done = export("--all", "--format", "jsonl", "--out", "-")
    assert by_json(done.stdout_bytes) == archived_messages(sealable.target)
    assert re.fullmatch(r"31 messages, [\d.]+ kB in .+: -\n", done.stderr)
    done = export("--all", "--format", "csv", "--out", "-")
    assert done.stdout_bytes.count(b"\r\n") == 32
    assert here() == set()


@pytest.mark.parametrize("out", ["x.jsonl", "f/", "-"])
def test_payloads_that_cannot_be_lines(export: Export, sealable: Sealable, out: str) -> None:
    """They are counted by reason and nothing is written, unless they are to be left out."""
    archive(sealable.target, [None, None, b"\xff", b"two\nlines", b'{\n"type": "x"}'])
    options = ("--all", "--format", "jsonl", "--payloads", "--out", out)
    reasons = "1 not UTF-8, 1 with line breaks but no JSON, 2 without a payload (tombstones)"
    done = export(*options)
    assert (done.exit_code, done.stdout, here()) == (1, "", set())
    assert done.stderr.startswith("archiver: 4 of 36 messages have no payload that can be a line: " + reasons)
    assert "--leave-out" in done.stderr
    done = export(*options, "--leave-out")
    assert done.exit_code == 0
    assert f"left out: {reasons}" in done.output
    text = done.stdout_bytes if out == "-" else b"".join(map(text_of, filter(Path.is_file, Path().rglob("*"))))
    assert len([json.loads(line) for line in text.splitlines()]) == 32
    if out != "-":
        assert json.loads(export(*options, "--leave-out", "--overwrite", "--json").stdout)["left_out"] == 4


def test_a_damaged_file_is_named(export: Export, sealable: Sealable) -> None:
    """A file whose content is not what its name claims stops the export, and nothing is there."""
    path = sealable.path / sealable.listed()["x"][0]
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    for out in ("x", "f/"):
        done = export("--all", "--format", "jsonl", "--out", out)
        assert (done.exit_code, here()) == (1, set())
        assert str(path) in done.stderr
    with pytest.raises(ArchiveDamaged):
        run(sealable.target, "jsonl", "x")


def test_without_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No archive yet is one line and exit code 1."""
    monkeypatch.setenv("BASE_DIR", str(tmp_path / "nothing"))
    done = CliRunner().invoke(app, ["export", "--all", "--format", "csv", "--out", str(tmp_path / "x.csv")])
    assert (done.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert done.stderr.startswith("archiver: there is no archive yet")


@pytest.mark.parametrize("out", ["x.jsonl", "f/"])
def test_an_hour_that_is_sealed_meanwhile(export: Export, sealable: Sealable, out: str) -> None:
    """What the archive had at the start goes out, each message once, although its files are replaced and removed."""
    wanted = archived_messages(sealable.target)
    archive(sealable.target, [event(name) for name in ("x", "y")], milliseconds=AUGUST_FIRST_AT_THREE - HOUR_MS)
    wanted = archived_messages(sealable.target)
    hours = ["2019-08-01T03", "2019-08-01T04"]

    def disturb(*_: object) -> None:
        if hours:
            archive(sealable.target, [event("x", late=True)])
            sealable.sealer().seal(parse_hour(hours.pop(0)))
            for path in sealable.target.removed():
                (sealable.path / path).unlink(missing_ok=True)

    done = run(sealable.target, "jsonl", out, disturb)
    assert not hours
    if out == "x.jsonl":
        assert by_json(Path(out).read_bytes()) == wanted
    assert done.messages == len(wanted)
    assert offsets(Path(out)) == sorted(message.offset for message in wanted)


def offsets(out: Path) -> list[int]:
    """The offsets of all messages of a file, or of the files of a folder, in order."""
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
    return sorted(json.loads(line)["offset"] for path in files for line in text_of(path).splitlines())


def test_messages_that_get_another_type_meanwhile(export: Export, sealable: Sealable) -> None:
    """A backfill that types an hour anew while it is exported to a folder loses and doubles none of its messages."""
    wanted = sorted(message.offset for message in archived_messages(sealable.target))
    selected = Selected(sealable.target, Selection())
    Disturbed(sealable, selected, target("jsonl", "f/")).run()
    assert offsets(Path("f")) == wanted
    assert {path.name for path in Path("f").iterdir()} == {"type=new", "type=x"}


class Disturbed(Exporter):
    """An export during which, after the first of its files, all types of that hour change and the old files go."""

    def __init__(self, sealable: Sealable, moment: Selected, wanted: Target) -> None:
        super().__init__(sealable.target, moment, Selection(), wanted, quietly)
        self._sealable: Sealable | None = sealable

    def _partition(self, *arguments: Any) -> bool:
        same = super()._partition(*arguments)
        if self._sealable is not None:
            rule = self._sealable.settings.model_copy(update={"type_path": "constant:new"})
            (changed,) = Backfiller(rule, from_kafka=False).run([THREE])
            assert changed.retyped
            for path in self._sealable.target.removed():
                (self._sealable.path / path).unlink(missing_ok=True)
            self._sealable = None
        return same


def test_erased_messages_do_not_go_out(export: Export, sealable: Sealable) -> None:
    """Those of the type `_erased` are no messages any more, and what is erased in the meantime stops the export."""
    files = sealable.target.files()
    assert Selection().files(files.with_columns(pl.lit("_erased").alias("type"))).is_empty()

    def erase(*_: object) -> None:
        attempt = batch_of(sealable.target, 0)
        info = BatchInfo("run", 0, (), 0, 0, 0, 0.1)
        attempt.commit([deltalake.Transaction(f"erased/1/{'0' * 64}", 3, 1)], info.metadata())  # type: ignore[list-item]
        attempt.clean()

    with pytest.raises(ExportError, match="erased while they were exported"):
        run(sealable.target, "jsonl", "x", erase)
    assert here() == set()


@pytest.mark.parametrize(
    "out", [*(f"x.{kind}" for kind in FORMATS), *(f"x.jsonl{end}" for end in (".gz", ".zst")), "f/"]
)
def test_a_full_disk_leaves_nothing(tmp_path: Path, out: str) -> None:
    """An error with path and remedy, an empty folder, and with space the same export is there."""
    source = Archive(str(tmp_path / "archive"))
    noise = random.Random(1)
    for _ in range(4):
        archive(source, [event(fill=noise.randbytes(500).hex()) for _ in range(3000)])
    kind = "csv" if out == "f/" else out.split(".")[1]
    with mounted(tmp_path / "disk", megabytes=24) as disk:
        place = f"{disk.path}/{out}"
        for leave in (0, 300_000, 2_000_000):
            disk.fill(leave)
            with pytest.raises(ExportError, match=r"No space left on device.*Free space") as refused:
                run(source, kind, place)
            assert place.rstrip("/") in str(refused.value)
            assert [path.name for path in disk.path.iterdir()] == ["filler"]
        disk.free()
        assert run(source, kind, place).messages == 12_000


def test_a_folder_that_cannot_be_written(export: Export, sealable: Sealable, tmp_path: Path) -> None:
    """A read-only disk is an error in one line."""
    with mounted(tmp_path / "disk", megabytes=1) as disk, disk.read_only():
        done = export("--all", "--format", "jsonl", "--out", f"{disk.path}/x")
    assert done.exit_code == 1
    assert re.fullmatch(r"archiver: the export cannot be written: Read-only file system .+\n", done.stderr)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base folder of an archive whose export takes a while: 200,000 messages in four hours."""
    folder = tmp_path_factory.mktemp("large")
    noise = random.Random(1)
    target_archive = Archive(str(folder / "archive"))
    for hour in range(4):
        payloads = [event(f"object.{n % 3}", n=n, fill=noise.randbytes(40).hex()) for n in range(50_000)]
        archive(target_archive, payloads, milliseconds=AUGUST_FIRST_AT_THREE + hour * HOUR_MS)
    return folder


@contextmanager
def started(base: Path, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, until the test is done with it."""
    variables = environment({"PYTHONPATH": str(CHECKOUT), "BASE_DIR": str(base), "HOME": str(folder)})
    line = [*COMMAND, "--all", *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, cwd=folder, env=variables, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    until = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def partials(folder: Path) -> list[Path]:
    """What is being made."""
    return list(folder.glob(".*.partial-*"))


def written(folder: Path) -> int:
    """How many bytes of it there are."""
    found = 0
    for each in partials(folder):
        for path in (str(each), *(os.path.join(root, name) for root, _, names in os.walk(each) for name in names)):
            with suppress(FileNotFoundError):
                found += os.stat(path).st_size if os.path.isfile(path) else 0
    return found


@pytest.mark.parametrize(("kind", "out"), [("jsonl", "x.jsonl.gz"), ("parquet", "x.parquet"), ("csv", "f/")])
def test_a_kill_leaves_nothing_at_the_place(large: Path, tmp_path: Path, kind: str, out: str) -> None:
    """Killed at any moment, there is nothing or all of it; the next run removes what is left beside and ends well."""
    chance = random.Random(out)
    arguments = ("--format", kind, "--out", out, "--json")
    for _ in range(4):
        enough = chance.randrange(1, 4_000_000)
        with started(large, tmp_path, *arguments) as process:
            wait(lambda: written(tmp_path) >= enough or process.poll() is not None)  # noqa: B023, it is called here
            process.kill()
            output, _ = process.communicate()
        if (tmp_path / out).exists():
            assert whole_at(tmp_path / out) == 200_000
            subprocess.run(["rm", "-r", str(tmp_path / out)], check=True)
        else:
            assert output == ""
            assert len(partials(tmp_path)) == 1
    with started(large, tmp_path, *arguments) as process:
        output, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, errors, json.loads(output)["messages"]) == (0, "", 200_000)
    assert os.listdir(tmp_path) == [out.rstrip("/")]


def whole_at(out: Path) -> int:
    """How many messages an export has."""
    if out.suffix == ".parquet":
        return pl.read_parquet(out).height
    if out.is_dir():
        return sum(text_of(path).count(b"\r\n") - 1 for path in out.rglob("*.gz"))
    return text_of(out).count(b"\n")


def test_ctrl_c_leaves_nothing(large: Path, tmp_path: Path) -> None:
    """Ctrl-C ends it with exit code 130 and a line on how far it was, and nothing is left, nor beside it."""
    with started(large, tmp_path, "--format", "jsonl", "--out", "x.jsonl.xz") as process:
        wait(lambda: written(tmp_path) > 0)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, output, os.listdir(tmp_path)) == (130, "", [])
    assert re.fullmatch(r"stopped: .+; nothing was left at .+: run the same command again for the whole\n", errors)


def test_a_reader_that_has_seen_enough(large: Path, tmp_path: Path) -> None:
    """A closed pipe ends it quietly; standard output that cannot be written is an error in one line."""
    with started(large, tmp_path, "--format", "jsonl", "--out", "-") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, errors) == (141, "")
    variables = environment({"PYTHONPATH": str(CHECKOUT), "BASE_DIR": str(large), "HOME": str(tmp_path)})
    line = [*COMMAND, "--all", "--format", "csv", "--out", "-"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(line, env=variables, stdout=full, stderr=subprocess.PIPE, timeout=120, check=False)
    assert done.returncode == 1
    assert re.fullmatch(rb"archiver: the export cannot be written: No space left on device .+\n", done.stderr)


def test_two_at_a_time_do_not_meet(large: Path, tmp_path: Path) -> None:
    """A live export is not taken for a dead one by another to the same place; one of them is refused at its end."""
    arguments = ("--format", "jsonl", "--out", "x.jsonl.gz")
    with started(large, tmp_path, *arguments) as first:
        wait(lambda: bool(partials(tmp_path)))
        with started(large, tmp_path, *arguments) as second:
            ended = [process.communicate(timeout=LIMIT_SECONDS) for process in (first, second)]
    codes = sorted(process.returncode for process in (first, second))
    # A slow machine may start the second one when the first is done: then it is refused before it begins.
    assert codes in ([0, 1], [0, 2]), ended
    assert any("File exists" in errors or "it exists" in errors for _, errors in ended)
    assert whole_at(tmp_path / "x.jsonl.gz") == 200_000
    assert os.listdir(tmp_path) == ["x.jsonl.gz"]


def test_a_folder_between_two_renames_comes_back(export: Export) -> None:
    """Killed while it took the place of a folder, the next run puts that back before it begins."""
    export(*BASE[:-1], "f/")
    os.rename("f", ".f.replaced-0123456789ab")
    Path(".f.partial-0123456789ab").mkdir()
    done = export("--from", "2030-01-01", "--format", "jsonl", "--out", "f/")
    assert (done.exit_code, "it is not empty; --overwrite replaces it" in done.stderr) == (1, True)
    assert {path.name for path in Path("f").iterdir()} == {"type=x", "type=y"}
    assert not partials(Path())


def test_memory_is_bounded_by_a_stretch(tmp_path: Path) -> None:
    """A moment of a large hour does not take all of the hour into memory."""
    target_archive = Archive(str(tmp_path / "archive"))
    stamps = [AUGUST_FIRST_AT_THREE + n * 100 for n in range(1000)]
    for _ in range(3):
        archive(target_archive, [event(fill="x" * 50_000) for _ in range(1000)], milliseconds=stamps)
    code = (
        "import resource, sys; from archiver_pipeline.cli import main\n"
        "try:\n    main()\nfinally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    variables = environment({"PYTHONPATH": str(CHECKOUT), "BASE_DIR": str(tmp_path), "HOME": str(tmp_path)})

    def peak(*arguments: str) -> int:
        line = [sys.executable, "-c", code, "export", "--format", "jsonl", "--out", "x", "--overwrite", *arguments]
        done = subprocess.run(
            line, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True, timeout=120
        )
        return int(done.stderr.splitlines()[-1]) // 1024

    nothing = peak("--from", "2030-01-01")
    assert peak("--from", "2019-08-01T03:00:10", "--to", "2019-08-01T03:00:10.100") < nothing + 100
    assert peak("--all") < nothing + 450
