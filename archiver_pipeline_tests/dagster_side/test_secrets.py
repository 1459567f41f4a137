"""Rules for secrets under a real Dagster and a real secured broker: it archives, it fails, and none is anywhere."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from archiver_pipeline.kafka.broker import TIMEOUT_SECONDS
from archiver_pipeline_tests import leaks
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.running import RunningDagster
from archiver_pipeline_tests.dagster_side.ticks import MakeTicks
from archiver_pipeline_tests.kafka.keys import encrypted
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.kafka.secured import SecuredBroker
from archiver_pipeline_tests.processes import Processes
from archiver_pipeline_tests.samples import numbered
from archiver_pipeline_tests.waiting import wait_for

FAILURES = """{ runsOrError(filter: {pipelineName: "archive", statuses: [FAILURE]})
    { ... on Runs { results { eventConnection { events { ... on ExecutionStepFailureEvent
        { error { message } } } } } } } }"""


@pytest.mark.slow
def test_no_secret_leaves_the_environment(
    secured: SecuredBroker, processes: Processes, topic_name: str, tmp_path: Path
) -> None:
    """The daemon archives, and a run finds the password changed: the run says so in a sentence, and neither password
    is in any file, database, log, command line or answer of the UI, in any form."""
    password, key_password = f'p"w %4/é@{uuid.uuid4().hex}', f"key-{uuid.uuid4().hex}"
    secured.add_user(topic_name, password)
    create_topic(secured.bootstrap_servers, topic_name)
    secured.allow(topic_name, f"Read on Topic {topic_name}")
    produce(secured.bootstrap_servers, topic_name, numbered(range(100)))
    certificate, key = secured.authority.sign(topic_name)
    given = {
        **secured.scram(topic_name, password),
        "ssl.certificate.location": str(certificate),
        "ssl.key.location": str(encrypted(key, key_password)),
        "ssl.key.password": key_password,
        "sasl.oauthbearer.client.secret": "unused-but-secret",
    }
    settings = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in given.items()}
    deployment = Deployment(
        tmp_path / "base", processes, secured.bootstrap_servers, topic_name, ARCHIVER_INTERVAL_SECONDS=2, **settings
    )
    dagster = RunningDagster(deployment, processes)
    dagster.start()
    dagster.wait_until_archived(topic_name, 100)
    secured.add_user(topic_name, "another-password")
    produce(secured.bootstrap_servers, topic_name, numbered(range(100, 200)))
    wait_for("a run that is refused", lambda: "refused access" in str(dagster.graphql(FAILURES)))
    assert "Check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD" in str(dagster.graphql(FAILURES))
    hidden = (password, key_password, "unused-but-secret", "another-password")
    assert leaks.in_answers(dagster, (topic_name,)), "what is no secret ought to be found in this way"
    assert leaks.in_answers(dagster, hidden) == []
    assert leaks.in_command_lines(hidden) == []
    dagster.kill()
    assert any(".db: " in place for place in leaks.in_files(deployment.base, (topic_name,)))
    assert list(leaks.in_files(deployment.base, hidden)) == []
    ended = deployment.execute()
    assert ended.code != 0
    assert "refused access when the broker was asked for its topics" in ended.said
    assert not [secret for secret in hidden if secret in ended.said]
    assert list(leaks.in_files(deployment.base, hidden)) == []


def test_a_tick_that_is_not_let_in_skips_and_says_why(
    secured: SecuredBroker, processes: Processes, topic_name: str, tmp_path: Path, ticks: MakeTicks
) -> None:
    """Its reason is the sentence of the error, within seconds, tick by tick; once the user is known, it goes on."""
    create_topic(secured.bootstrap_servers, topic_name)
    produce(secured.bootstrap_servers, topic_name, numbered(range(10)))
    secured.allow(topic_name, f"Read on Topic {topic_name}")
    given = secured.scram(topic_name, "late-password")
    settings = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in given.items()}
    sensor = ticks(Deployment(tmp_path / "base", processes, secured.bootstrap_servers, topic_name, **settings))
    for _ in range(2):
        reason = sensor.skips()
        assert " refused access when the broker was asked for its topics: " in reason
        assert "Check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM" in reason
        assert "late-password" not in reason
        assert sensor.seconds < TIMEOUT_SECONDS
    secured.add_user(topic_name, "late-password")
    assert len(sensor.requests()) == 1
