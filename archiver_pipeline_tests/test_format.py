"""Rules of the archive's format: what is newer is refused before anything happens, what is older is brought up."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from archiver_pipeline.errors import ArchiveDamaged, FormatTooNew, Superseded
from archiver_pipeline.table import delta_log, format_version, upgrade
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.table.upgrade import Step
from archiver_pipeline_tests.batches import archive, commit, event, files_in, offsets_in, place
from archiver_pipeline_tests.processes import Ended, Processes, environment

NEWER = format_version.KNOWN + 1
SENTENCE = f"has format {NEWER}, this archiver knows up to {format_version.KNOWN}"


def put_format(target: Archive, version: object) -> None:
    """Do what another archiver does to the table: one commit that gives it this format, or takes the property away."""
    state, _ = Archive(target.uri).standing() if version is not None else target.standing()
    configuration = dict(state.metadata["configuration"])
    configuration.pop(format_version.PROPERTY, None)
    if version is not None:
        configuration[format_version.PROPERTY] = str(version)
    metadata = {**state.metadata, "configuration": configuration}
    path = Path(target.uri) / delta_log.commit_name(state.version + 1)
    path.write_text(json.dumps({"metaData": metadata}) + "\n")


@pytest.fixture
def target(tmp_path: Path) -> Archive:
    """An archive of two messages."""
    found = Archive(str(tmp_path / "archive"))
    archive(found, [event(), event("object.two")])
    return found


def test_a_new_archive_has_the_present_format(target: Archive) -> None:
    """The property is in the first commit already, so that no moment is without it."""
    first = (Path(target.uri) / delta_log.commit_name(0)).read_text()
    assert f'"{format_version.PROPERTY}":"{format_version.KNOWN}"' in first


def test_an_archive_without_the_property_is_of_the_oldest_format(target: Archive) -> None:
    """Archives from before there was the property go on, and are not stamped: nothing in them is to be changed."""
    put_format(target, None)
    assert format_version.version_of(target.standing()[0].metadata, target.uri) == format_version.OLDEST
    version = archive(Archive(target.uri), [event()])
    assert version == target.standing()[0].version
    assert len(offsets_in(Path(target.uri))) == 3
    assert format_version.PROPERTY not in target.standing()[0].metadata["configuration"]


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "two", "²"])
def test_what_is_no_version_is_no_format(target: Archive, text: str) -> None:
    """A property that somebody broke is neither taken for an old format nor for a new one."""
    put_format(target, text)
    with pytest.raises(ArchiveDamaged, match=f"{format_version.PROPERTY} is '.*', which is no version"):
        Archive(target.uri).ledger()


def test_a_running_archiver_stops_before_its_next_commit(target: Archive) -> None:
    """An archive that is upgraded under an archiver in mid-batch gets no commit and keeps no file of it."""
    attempt = batch_of(target, 0)
    place(attempt, [event()], 2)
    before = files_in(Path(target.uri))
    put_format(target, NEWER)
    with pytest.raises(FormatTooNew, match=SENTENCE):
        commit(attempt, 2, 3, messages=1)
    attempt.discard()
    assert len(files_in(Path(target.uri))) == len(before) - 1
    assert len(offsets_in(Path(target.uri))) == 2
    with pytest.raises(FormatTooNew):
        batch_of(target, 0)


def test_a_checkpoint_keeps_the_format(target: Archive) -> None:
    """Who reads the log from a checkpoint on is told, too."""
    put_format(target, NEWER)
    import deltalake

    table = deltalake.DeltaTable(target.uri)
    table.create_checkpoint()
    for version in range(table.version()):
        (Path(target.uri) / delta_log.commit_name(version)).unlink()
    with pytest.raises(FormatTooNew, match=SENTENCE):
        Archive(target.uri).ledger()
    with pytest.raises(FormatTooNew, match=SENTENCE):
        Archive(target.uri).table()


STEPS = (
    Step(2, "the second"),
    Step(3, "the third", lambda state: [{"txn": {"appId": "third", "version": state.version}}]),
)


def _upgraded(monkeypatch: pytest.MonkeyPatch, steps: Sequence[Step]) -> None:
    """Make this process an archiver that knows these steps."""
    known: Callable[..., int] = format_version.check_known
    monkeypatch.setattr(upgrade, "STEPS", tuple(steps))
    monkeypatch.setattr(
        format_version, "check_known", lambda metadata, uri: known(metadata, uri, steps[-1].version if steps else 1)
    )


@pytest.mark.parametrize("checkpoint", [False, True])
def test_steps_are_taken_in_one_commit(target: Archive, monkeypatch: pytest.MonkeyPatch, checkpoint: bool) -> None:
    """The first run of a newer archiver brings an archive up in one commit, once, and goes on archiving."""
    before = target.standing()[0].version
    if checkpoint:
        target.table().create_checkpoint()
        target = Archive(target.uri)
    _upgraded(monkeypatch, STEPS)
    version = archive(target, [event()])
    assert version == before + 2
    line = (Path(target.uri) / delta_log.commit_name(before + 1)).read_text()
    kinds = [next(iter(json.loads(each))) for each in line.splitlines()]
    assert kinds == ["commitInfo", "txn", "txn", "metaData"]
    state, ledger = Archive(target.uri).standing()
    assert state.metadata["configuration"][format_version.PROPERTY] == "3"
    assert (ledger.numbers["format"], ledger.numbers["third"]) == (1, before)
    assert state.metadata["configuration"]["delta.checkpointInterval"] == "100"
    assert len(offsets_in(Path(target.uri))) == 3
    assert archive(Archive(target.uri), [event()]) == version + 1


def test_a_batch_from_before_an_upgrade_starts_over(target: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written for the old format is not committed to the new one, though the archiver knows both."""
    attempt = batch_of(target, 0)
    place(attempt, [event()], 2)
    _upgraded(monkeypatch, STEPS)
    Archive(target.uri).made()
    with pytest.raises(Superseded):
        commit(attempt, 2, 3, messages=1)
    attempt.discard()
    archive(Archive(target.uri), [event()])
    assert len(offsets_in(Path(target.uri))) == 3


def test_two_that_upgrade_at_once_do_it_once(target: Archive) -> None:
    """Whoever comes second finds the version of the log taken, and reads what the first one did."""
    state = target.standing()[0]
    assert upgrade.upgrade(target.storage, state, STEPS)
    assert not upgrade.upgrade(target.storage, state, STEPS)


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("verify",),
    ("verify", "--against-kafka"),
    ("sql", "SELECT 1"),
    ("export", "--all", "--format", "jsonl", "--out", "-"),
    ("replay", "--all"),
    ("erase", "--where", "true", "--yes", "--everything"),
    ("erase", "--resume"),
    ("backfill", "--from", "2019-08-01T03:00", "--to", "2019-08-01T04:00"),
    ("backfill", "--from-archive", "--from", "2019-08-01T03:00", "--to", "2019-08-01T04:00"),
)


def _everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Any]:
    """What each command says to an archive of a newer format, all of them in one process after the other."""
    base = tmp_path_factory.mktemp("newer")
    found = Archive(str(base / "archive"))
    archive(found, [event()])
    put_format(found, NEWER)
    before = _everything(base)
    variables = environment(
        {"BASE_DIR": str(base), "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "ARCHIVER_TOPICS": "orders"}
    )
    program = (
        "import json, sys\n"
        "from typer.testing import CliRunner\n"
        "from archiver_pipeline.cli.main import app\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(app, line)\n"
        "    print(json.dumps([line, done.exit_code, done.output]))\n"
    )
    with Processes() as processes:
        done: Ended = processes.run(["-c", program, json.dumps(COMMANDS)], variables)
    assert done.code == 0, done.said
    answers = {tuple(line): (code, said) for line, code, said in map(json.loads, done.out.splitlines())}
    return {**answers, ("changed",): _everything(base).keys() ^ before.keys()}


@pytest.mark.parametrize("line", COMMANDS, ids=" ".join)
def test_every_command_refuses_a_newer_format(refused: dict[tuple[str, ...], Any], line: tuple[str, ...]) -> None:
    """One clear sentence and exit code 1."""
    code, said = refused[line]
    assert (code, said.count(SENTENCE)) == (1, 1), said
    assert "Upgrade the archiver" in said


def test_no_command_leaves_anything_in_a_newer_format(refused: dict[tuple[str, ...], Any]) -> None:
    """What a refused command made is gone, or was never made; a lock's own file is nothing."""
    assert {os.path.basename(path) for path in refused["changed",] if not path.endswith(".lock")} == set()


def test_an_archive_of_the_first_release_goes_on(tmp_path: Path) -> None:
    """What the first archiver wrote, from before there was a property, is read and continued as it is."""
    shutil.copytree(Path(__file__).with_name("old_archive"), tmp_path / "archive")
    old = Archive(str(tmp_path / "archive"))
    state, ledger = old.standing()
    assert format_version.PROPERTY not in state.metadata["configuration"]
    assert (ledger.messages, len(offsets_in(tmp_path / "archive"))) == (44, 44)
    at = min(ledger.committed)
    archive(old, [event(), b"not json"], at)
    assert Archive(old.uri).ledger().committed[at].next == ledger.committed[at].next + 2
    assert len(offsets_in(tmp_path / "archive")) == 46
