"""Replays killed at every step: the topic gets each message once, in order, and none is archived a second time."""

from __future__ import annotations

import random
import threading
import uuid
from pathlib import Path

import pytest

from archiver_pipeline.stored.verify import verify
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.crash.rewriting import copy_of, environment, new_archive, seal
from archiver_pipeline_tests.crash.run import Run, Trap
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic, delete_topic, read_all
from archiver_pipeline_tests.replays import assert_not_archived_again, assert_sent, plain, replay

STEPS = ("plan", "send", "flush", "record", "commit", "committed", "sent")


@pytest.fixture(scope="module")
def original(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Archived:
    """An archive of a topic, which each test copies."""
    return new_archive(tmp_path_factory.mktemp("original"), kafka.bootstrap_servers, f"replays-{uuid.uuid4().hex[:8]}")


@pytest.mark.parametrize("step", STEPS)
def test_a_replay_killed_at_a_step(
    original: Archived, topic_name: str, runs: list[Run], tmp_path: Path, step: str
) -> None:
    """After SIGKILL as a step of a transaction begins, the same replay goes on; batches before and after archive
    nothing of it, whether or not it is known to the ledger what was never committed."""
    archived = copy_of(original, tmp_path / "copy", topics=(*original.settings.topics, topic_name))
    create_topic(archived.bootstrap_servers, topic_name, 4)
    runs.append(Run(environment(archived), trap=Trap("KILL", step), work=f"replay:{topic_name}"))
    assert runs[-1].wait() == -9, runs[-1].errors
    archived.run()
    done = replay(archived, topic_name)
    assert done.sent == (0 if step in ("committed", "sent") else done.messages)
    assert_sent(archived, original.settings.topics[0], topic_name)
    assert_not_archived_again(archived, topic_name)
    assert verify(archived.settings, against_kafka=True).good
    assert archived.stray_files() == set()


def test_a_replay_into_its_own_topic_killed_between_record_and_commit(
    bootstrap_servers: str, topic_name: str, runs: list[Run], tmp_path: Path
) -> None:
    """Offsets that are recorded, but whose transaction was then aborted, hide no message of anyone."""
    archived = new_archive(tmp_path / "archive", bootstrap_servers, topic_name)
    before = plain(read_all(bootstrap_servers, topic_name))
    runs.append(Run(environment(archived), trap=Trap("KILL", "commit"), work=f"replay:{topic_name}"))
    assert runs[-1].wait() == -9
    replay(archived, topic_name)
    assert plain(read_all(bootstrap_servers, topic_name)) == {number: every * 2 for number, every in before.items()}
    assert_not_archived_again(archived, topic_name)
    assert verify(archived.settings, against_kafka=True).good


@pytest.mark.slow
def test_a_topic_brought_back_by_runs_that_are_killed(
    bootstrap_servers: str, topic_name: str, runs: list[Run], tmp_path: Path
) -> None:
    """A lost topic is whole again after runs that were killed at any moment, while batches and a seal go on."""
    chance = random.Random(3)
    archived = new_archive(tmp_path / "archive", bootstrap_servers, topic_name)
    wanted = plain(archived.messages(topic_name))
    delete_topic(bootstrap_servers, topic_name)
    create_topic(bootstrap_servers, topic_name, 4)
    for number in range(4):
        runs.append(Run(environment(archived), work=f"replay:{topic_name}"))
        runs[-1].wait_for_step(STEPS[number])
        threading.Event().wait(chance.uniform(0, 0.05))
        runs[-1].kill()
        archived.run()
        if number == 1:
            seal(archived)
    replay(archived, topic_name)
    assert plain(read_all(bootstrap_servers, topic_name)) == wanted
    assert_not_archived_again(archived, topic_name)
    assert verify(archived.settings, against_kafka=True).good
