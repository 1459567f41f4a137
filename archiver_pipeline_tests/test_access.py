"""Rules for brokers that ask who is there: whom they let in, and what the others are told, on a real secured broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archiver_pipeline.errors import AccessDenied, SettingsError
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.settings import settings
from archiver_pipeline.stored.verify import verify
from archiver_pipeline_tests.access import Access, Properties, Refusal, access_to
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.conftest import PLAIN_PASSWORD
from archiver_pipeline_tests.kafka.keys import encrypted, openssl
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.kafka.secured import SecuredBroker
from archiver_pipeline_tests.processes import HOST, forwarded, free_ports
from archiver_pipeline_tests.samples import numbered

WAYS = (
    "SCRAM-SHA-512",
    "SCRAM-SHA-256",
    "PLAIN",
    "certificate",
    "certificate with a locked key",
    "certificate in a store",
    "token of an endpoint",
    "token that nobody signed",
)
REFUSED = (
    "wrong password",
    "unknown user",
    "wrong password, PLAIN",
    "a mechanism that the user has not",
    "a mechanism that the listener has not",
    "no TLS, to a listener with TLS",
    "login without TLS, to a listener with TLS",
    "TLS, to a listener without",
    "TLS without a login, to a listener with one",
    "a login, to a listener without one",
    "an authority that did not sign",
    "another host name",
    "no client certificate",
    "an expired client certificate",
    "a client certificate of a stranger",
    "a token that nobody signed",
    "wrong client secret",
    "token endpoint down",
)
DIFFICULT = """p"a's\\s %41@:/#?&= ü☂ $HOME `x` {}"""

PATIENCE_SECONDS = 60.0
"""How long a question may wait for its answer."""

DOWN_SECONDS = 3.0
"""Longer than a client is waited for that is refused or hung up on."""

Told = dict[str, tuple[Refusal, Exception | None, float]]


@pytest.fixture(scope="module")
def access(secured: SecuredBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A user of the shared secured broker."""
    with access_to(secured, tmp_path_factory.mktemp("access"), PLAIN_PASSWORD) as found:
        yield found


def archived(folder: Path, access: Access, properties: Properties, *topics: str) -> Archived:
    """An archive whose client has these properties, and that the tests compare as one whom nothing is forbidden."""
    return Archived(folder, access.broker.bootstrap_servers, *topics, kafka=properties)


@pytest.fixture(scope="module")
def told(access: Access, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What each wrong way is told and after how many seconds, all tried side by side."""
    folder = tmp_path_factory.mktemp("told")

    def look(refusal: Refusal) -> tuple[Refusal, Exception | None, float]:
        began = time.monotonic()
        try:
            Cluster(archived(folder, access, refusal.properties, "orders").settings, PATIENCE_SECONDS).look()
        except Exception as error:
            return refusal, error, time.monotonic() - began
        return refusal, None, time.monotonic() - began

    wrong = access.wrong()
    assert set(wrong) == set(REFUSED)
    with ThreadPoolExecutor(len(wrong)) as side_by_side:
        return dict(zip(wrong, side_by_side.map(look, wrong.values()), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_read_on_the_topics_is_all_it_takes(access: Access, topic_name: str, tmp_path: Path, way: str) -> None:
    """However it logs in, the archiver archives and verifies with Read on its topics alone, which implies Describe: it
    has no use for a consumer group or for anything on the cluster."""
    create_topic(access.broker.bootstrap_servers, topic_name, partitions=2)
    produce(access.broker.bootstrap_servers, topic_name, numbered(range(20), 1))
    access.broker.allow(access.user_of(way), f"Read on Topic {topic_name}")
    archive = archived(tmp_path, access, access.right()[way](), topic_name)
    assert [batch.messages for batch in archive.run()] == [20]
    archive.assert_equal(topic_name)
    report = verify(archive.settings, True, lambda *_: None)
    assert (report.good, report.kafka_error) == (True, None)
    assert report.kafka is not None
    assert report.kafka.notes == ()


@pytest.mark.parametrize("case", REFUSED)
def test_who_is_not_let_in_is_told_why(access: Access, told: Told, case: str) -> None:
    """Long before its time is up the error names the broker, the reason and the settings to check, and no secret."""
    refusal, error, seconds = told[case]
    assert isinstance(error, AccessDenied), error
    assert error.what.startswith(f"{refusal.properties['bootstrap.servers']} refused access when the broker was asked")
    with pytest.raises(AccessDenied, match=refusal.says):
        raise error
    assert seconds < PATIENCE_SECONDS / 2
    for secret in ("wrong-password", "wrong-secret", access.password):
        assert secret not in str(error)


def test_a_secured_broker_that_is_down_is_waited_for(access: Access, topic_name: str, tmp_path: Path) -> None:
    """Only what stays wrong ends a question early: a broker that comes back within its time answers it."""
    create_topic(access.broker.bootstrap_servers, topic_name)
    access.broker.allow(access.user, f"Read on Topic {topic_name}")
    right = access.right()["SCRAM-SHA-512"]()
    (port,) = free_ports(1)
    archive = archived(tmp_path, access, {**right, "bootstrap.servers": f"{HOST}:{port}"}, topic_name)
    with ThreadPoolExecutor(1) as aside:
        asked = aside.submit(Cluster(archive.settings).look)
        time.sleep(DOWN_SECONDS)  # It is the time that it is down which is tested.
        assert not asked.done()
        with forwarded(port, right["bootstrap.servers"]):
            assert [state.topic for state in asked.result().topics] == [topic_name]


@pytest.mark.parametrize("password", [DIFFICULT, "x" * 500], ids=["odd", "long"])
def test_a_password_may_have_any_characters(
    secured: SecuredBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, topic_name: str, password: str
) -> None:
    """Quotes, percent signs, spaces, dollars and letters of any script reach the broker as they are, from the
    environment and from archiver.toml."""
    create_topic(secured.bootstrap_servers, topic_name)
    secured.add_user(topic_name, password)
    secured.allow(topic_name, f"Read on Topic {topic_name}")
    given = secured.scram(topic_name, password)
    monkeypatch.setenv("ARCHIVER_TOPICS", topic_name)
    for name, value in given.items():
        monkeypatch.setenv(f"KAFKA_{name.upper().replace('.', '_')}", value)
    assert Cluster(settings.load()).look().topics
    monkeypatch.delenv("KAFKA_SASL_PASSWORD")
    escaped = "".join(f"\\U{ord(letter):08X}" for letter in password)
    (tmp_path / "archiver.toml").write_text(f'[kafka]\nsasl.password = "{escaped}"\n')
    monkeypatch.setenv("ARCHIVER_CONFIG", str(tmp_path / "archiver.toml"))
    loaded = settings.load()
    assert Cluster(loaded).look().topics
    assert password not in repr(loaded) + str(loaded)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"ssl.ca.location": "/nowhere/ca.pem"}, "KAFKA_SSL_CA_LOCATION is '/nowhere/ca.pem': there is no such file"),
        ({"ssl.key.location": "/nowhere/key"}, "KAFKA_SSL_KEY_LOCATION is '/nowhere/key': there is no such file"),
        ({"ssl.certificate.location": "."}, "KAFKA_SSL_CERTIFICATE_LOCATION is '.': it is a folder"),
        ({"ssl.key.location": "locked"}, "it is locked by a password, and KAFKA_SSL_KEY_PASSWORD is not set"),
        (
            {"ssl.key.location": "locked", "ssl.key.password": "wrong-password"},
            "it is locked by a password, and KAFKA_SSL_KEY_PASSWORD does not open it",
        ),
        (
            {"ssl.keystore.location": "store", "ssl.keystore.password": "wrong-password"},
            "it is locked by a password, and KAFKA_SSL_KEYSTORE_PASSWORD does not open it",
        ),
    ],
    ids=["no-ca", "no-key", "folder", "no-password", "wrong-password", "wrong-store-password"],
)
def test_a_file_that_cannot_be_used_stops_the_start(
    access: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Properties, line: str
) -> None:
    """One line names the variable, the path and what is wrong with the file, and no password."""
    monkeypatch.chdir(tmp_path)
    certificate, key = access.broker.authority.sign(access.user)
    encrypted(key, "key-password").rename(tmp_path / "locked")
    pair = ("-inkey", str(key), "-in", str(certificate))
    openssl("pkcs12", "-export", *pair, "-out", "store", "-passout", "pass:store-password")
    given = {**access.broker.mutual(certificate, key), **changes}
    if "ssl.keystore.location" in given:
        given = {name: value for name, value in given.items() if name.split(".")[1] not in ("key", "certificate")}
    for name, value in given.items():
        monkeypatch.setenv(f"KAFKA_{name.upper().replace('.', '_')}", value)
    with pytest.raises(SettingsError) as refused:
        settings.load()
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "wrong-password" not in str(refused.value)
