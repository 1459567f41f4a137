"""Rules for how long a client is waited for that complains: what stays wrong ends a wait, what may go away does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from confluent_kafka import KafkaError as Codes
from confluent_kafka import KafkaException

from archiver_pipeline.errors import AccessDenied, BrokerUnavailable
from archiver_pipeline.kafka.client import HANGUP_SECONDS, REFUSED_SECONDS, Complaints, Refused
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.waiting import wait_for

LOGIN = Codes(
    Codes._AUTHENTICATION, "SASL authentication error: Authentication failed: letmein (after 302ms in state AUTH_REQ)"
)
TOKEN = Codes(Codes._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: Could not connect to server")
DOWN = Codes(
    Codes._TRANSPORT, "b:9092/1: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)"
)
CLOSED = "[thrd:b:9092/1]: b:9092/1: Disconnected: connection closed by peer (after 1ms in state APIVERSION_QUERY)"


@pytest.fixture
def complaints() -> Complaints:
    """Those of a client."""
    return Complaints({"bootstrap.servers": "b:9092", "sasl.password": "letmein"})


def is_refused(complaints: Complaints) -> bool:
    """Whether a wait ends now."""
    try:
        complaints.check()
    except Refused:
        return True
    return False


def seconds_until_refused(complaints: Complaints) -> float:
    """How long a wait goes on."""
    began = time.monotonic()
    wait_for("a refusal", lambda: is_refused(complaints))
    return time.monotonic() - began


def hang_up(complaints: Complaints) -> None:
    """Close a connection, which librdkafka tells to its log alone."""
    complaints.log(20, "%s [%s] %s", "FAIL", "archiver#producer-1", CLOSED)


def test_a_refused_login_ends_a_wait_soon(complaints: Complaints) -> None:
    """Not at once: another broker of the cluster may answer. Its error says why, and hides the password."""
    complaints.add(LOGIN)
    assert not is_refused(complaints)
    assert REFUSED_SECONDS * 0.9 < seconds_until_refused(complaints) < REFUSED_SECONDS + 10
    error = complaints.translate(Refused(), "it was asked")
    assert isinstance(error, AccessDenied)
    assert "b:9092 refused access when it was asked: SASL authentication error: Authentication failed: ***. " in str(
        error
    )


def test_a_client_that_is_hung_up_on_is_waited_for_once_it_was_answered(complaints: Complaints) -> None:
    """Before the first answer it speaks another protocol than the listener; behind it, a proxy has lost its broker. A
    connection that is refused says that nobody listens: what was closed before then was closed by that."""
    down = Complaints({})
    for each in (complaints, down):
        hang_up(each)
    down.add(DOWN)
    assert HANGUP_SECONDS * 0.9 < seconds_until_refused(complaints) < HANGUP_SECONDS + 10
    complaints.heard()
    assert not is_refused(complaints)
    assert not is_refused(down)
    assert isinstance(down.translate(TimeoutError(), "it was asked"), BrokerUnavailable)


def test_a_token_that_did_not_come_stands_until_a_broker_answers(complaints: Complaints) -> None:
    """librdkafka says so once in ten seconds; the next question must not wait for that."""
    complaints.add(TOKEN)
    complaints.add(LOGIN)
    complaints.clear()
    assert complaints.errors == [TOKEN]
    assert seconds_until_refused(complaints) < REFUSED_SECONDS + 10
    complaints.heard()
    assert complaints.errors == []
    assert not is_refused(complaints)


def test_what_librdkafka_quotes_of_a_secret_is_hidden(tmp_path: Path) -> None:
    """It quotes what it cannot parse of `sasl.oauthbearer.config` in its error."""
    kafka = {
        "bootstrap.servers": "127.0.0.1:1",
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": "principal=alice letmein-very-secret",
    }
    with pytest.raises(AccessDenied, match=r"Unrecognized sasl\.oauthbearer\.config beginning at: \*\*\*\. Check"):
        Cluster(Archived(tmp_path, "127.0.0.1:1", "orders", kafka=kafka).settings).look()


def test_a_missing_acl_of_a_group_is_nothing_to_complain_of(complaints: Complaints) -> None:
    """librdkafka looks for a group's coordinator unasked; the archiver has no use for one."""
    complaints.add(Codes(Codes.GROUP_AUTHORIZATION_FAILED, "FindCoordinator response error"))
    assert complaints.errors == []


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (Codes.TOPIC_AUTHORIZATION_FAILED, "the ACLs Read on topic a, Write on topic b. Grant it"),
        (Codes.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "the ACL Write on transactional id t. Grant it"),
    ],
)
def test_of_the_acls_that_something_needs_the_missing_kind_is_named(
    complaints: Complaints, code: int, named: str
) -> None:
    """The broker tells what kind of thing was forbidden, and the caller what it takes."""
    acls = ("Read on topic a", "Write on topic b", "Write on transactional id t")
    assert named in str(complaints.translate(KafkaException(Codes(code, "no")), "it was tried", acls=acls))


def test_the_same_reason_of_the_same_address_is_said_once(complaints: Complaints) -> None:
    """Whatever name librdkafka has for the broker, however often it failed and whatever was left out of its log."""
    for name in ("bootstrap", "1"):
        for tail in ("", ", 1 identical error(s) suppressed"):
            text = f"10.0.0.1:9092/{name}: Connect to ipv4#10.0.0.1:9092 failed: Connection refused"
            complaints.add(Codes(Codes._TRANSPORT, f"{text} (after 0ms in state CONNECT{tail})"))
    complaints.add(DOWN)
    assert complaints.said() == (
        "10.0.0.1:9092/bootstrap: Connection refused; "
        "b:9092/1: Connect to ipv4#10.0.0.1:9092 failed: Connection refused"
    )
