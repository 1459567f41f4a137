"""Rules for runs whose object store fails: a clear word, nothing lost or doubled, and the next run goes on."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver_pipeline.errors import StorageError
from archiver_pipeline.storage import bucket_staging, objects
from archiver_pipeline.stored.verify import verify
from archiver_pipeline.table.archive import Archive, archive_of
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.objects.conftest import Through, in_bucket, through_proxy
from archiver_pipeline_tests.objects.gateway import Gateway
from archiver_pipeline_tests.objects.proxy import DENY, DROP, LOSE, PASS
from archiver_pipeline_tests.samples import at_step, numbered
from archiver_pipeline_tests.waiting import wait_for


@pytest.fixture
def begun(bootstrap_servers: str, topic_name: str, tmp_path: Path, own_gateway: Gateway) -> Archived:
    """An archive with a batch in it, and more to archive, on a server of its own."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(100)))
    archived = in_bucket(tmp_path, bootstrap_servers, topic_name, own_gateway, batch_messages=50)
    archived.run()
    produce(bootstrap_servers, topic_name, numbered(range(100, 200)))
    return archived


@pytest.fixture
def through(own_gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Through]:
    """Puts a proxy before the server, whose judge may be replaced; the environment leads to it."""
    with through_proxy(own_gateway, monkeypatch) as put:
        yield put


def assert_goes_on(archived: Archived) -> None:
    """The next runs archive what is left, and nothing is lost, doubled or left over."""
    archived.run()
    storage = archive_of(archived.settings).storage
    wait_for("the lease of the one that failed to end", lambda: not storage.living(lambda _: True))
    archived.run()
    archived.assert_equal(archived.settings.topics[0])
    assert verify(archived.settings, against_kafka=True).good


def test_a_store_that_comes_back_is_waited_for(begun: Archived, through: Through) -> None:
    """A store that breaks all connections for two seconds in mid-batch is asked again, and the batch comes through."""
    gone: list[float] = []
    through(lambda *_: DROP if gone and time.monotonic() < gone[0] + 2 else PASS)
    archived = begun.run(on_step=at_step("place", lambda: gone.append(time.monotonic())))
    assert sum(batch.messages for batch in archived) == 100
    assert time.monotonic() >= gone[0] + 2
    assert_goes_on(begun)


@pytest.mark.parametrize("step", ["plan", "place", "commit", "clean"])
def test_a_store_that_is_gone(
    begun: Archived, own_gateway: Gateway, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """One that stays away fails the run within its time, with its address and what to do."""
    monkeypatch.setattr(objects, "RETRY_SECONDS", 1)
    with pytest.raises(StorageError, match=r"does not answer: Connection refused.*AWS_ENDPOINT_URL.*next run goes on"):
        begun.run(on_step=at_step(step, own_gateway.kill))
    own_gateway.start()
    assert_goes_on(begun)


def test_a_store_that_hangs(begun: Archived, own_gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes connections and says nothing fails the run, too."""
    monkeypatch.setattr(objects, "RETRY_SECONDS", 2)
    monkeypatch.setattr(objects, "ANSWER_SECONDS", 1)
    began = time.monotonic()
    with pytest.raises(StorageError, match="does not answer"):
        begun.run(on_step=at_step("commit", own_gateway.pause))
    assert time.monotonic() - began < 60
    own_gateway.resume()
    assert_goes_on(begun)


def test_a_tenth_of_all_calls_refused(begun: Archived, through: Through) -> None:
    """A store that asks for less (503) is asked again: all of it is archived, once."""
    chance = random.Random(1)
    through(lambda *_: 503 if chance.random() < 0.1 else PASS)
    assert sum(batch.messages for batch in begun.run()) == 100
    through(lambda *_: PASS)
    assert_goes_on(begun)


@pytest.mark.parametrize("what", [LOSE, DENY], ids=["lost", "denied"])
def test_a_commit_whose_answer_is_lost(begun: Archived, through: Through, what: int) -> None:
    """A commit that was put in the log before its answer went astray counts once, and the run goes on behind it."""
    lost: list[str] = []

    def judge(method: str, path: str) -> int:
        if method == "PUT" and "_delta_log" in path and not lost:
            lost.append(path)
            return what
        return PASS

    through(judge)
    assert sum(batch.messages for batch in begun.run()) == 100
    assert len(lost) == 1
    assert_goes_on(begun)


def test_a_commit_that_never_arrives(begun: Archived, through: Through) -> None:
    """Connections that break before the store has seen a commit are made again."""
    chance = random.Random(2)
    through(lambda method, path: DROP if "_delta_log" in path and chance.random() < 0.3 else PASS)
    assert sum(batch.messages for batch in begun.run()) == 100
    through(lambda *_: PASS)
    assert_goes_on(begun)


def test_a_bucket_without_permission_to_write(begun: Archived, own_gateway: Gateway) -> None:
    """It is told at once that the store refuses, which permissions it takes, and nothing is changed; reading works."""
    before = {path for path in begun.path.rglob("*") if path.is_file()}
    own_gateway.stop()
    own_gateway.read_only = True
    own_gateway.start()
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"the object store refused: AccessDenied.*s3:PutObject"):
        begun.run()
    assert time.monotonic() - began < objects.RETRY_SECONDS
    assert {path for path in begun.path.rglob("*") if path.is_file()} == before
    assert verify(begun.settings).good
    own_gateway.stop()
    own_gateway.read_only = False
    own_gateway.start()
    assert_goes_on(begun)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, r"SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, r"UserNotFound.*AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, r"127\.0\.0\.1:9 does not answer.*AWS_ENDPOINT_URL"),
    ],
    ids=["secret", "key", "address"],
)
def test_wrong_credentials(
    begun: Archived, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    """A wrong secret, key or address is told within seconds, by its variable, and no secret stands in the text."""
    monkeypatch.setattr(objects, "RETRY_SECONDS", 1)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(StorageError, match=words) as refused:
        begun.run()
    assert time.monotonic() - began < 30
    assert "wrong-secret" not in str(refused.value)


def test_a_bucket_that_is_not_there(gateway: Gateway, tmp_path: Path) -> None:
    """It is named, and not made: a wrong name would begin another archive."""
    with pytest.raises(StorageError, match=r"NoSuchBucket.*s3://nowhere/archive.*Make the bucket, or check ARCH"):
        Archive("s3://nowhere/archive", scratch=tmp_path).made()


def test_a_bucket_that_cannot_be_written_from_the_start(own_gateway: Gateway, tmp_path: Path, through: Through) -> None:
    """Where not even the table can be made, the error is as plain as later."""
    through(lambda method, _: 403 if method == "PUT" else PASS)
    with pytest.raises(StorageError, match=r"the object store refused: .*s3:PutObject.*what is archived is untouched$"):
        Archive(own_gateway.make_bucket("refused") + "/archive", scratch=tmp_path).made()


def test_a_run_that_wakes_up(begun: Archived, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose lease was over, and behind which another one cleaned, commits nothing and leaves nothing."""
    monkeypatch.setattr(bucket_staging, "RENEW_SECONDS", 3600.0)
    monkeypatch.setattr(bucket_staging, "DEAD_AFTER", 0)
    others: list[int] = []

    def overtake() -> None:
        others.extend(batch.messages for batch in begun.run())

    mine = begun.run(on_step=at_step("commit", overtake))
    assert sum(others) == 100
    assert sum(batch.messages for batch in mine) == 0
    begun.assert_equal(begun.settings.topics[0])
