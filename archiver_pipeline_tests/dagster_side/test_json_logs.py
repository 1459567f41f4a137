"""Rules of logs as JSON, in a command and in a real run of Dagster."""

from __future__ import annotations

import json
import logging
import re
import shutil
from datetime import datetime
from typing import Any

import pytest

from archiver_pipeline.errors import KafkaError
from archiver_pipeline.logs import JsonFormatter
from archiver_pipeline_tests.dagster_side.conftest import MakeDeployment
from archiver_pipeline_tests.dagster_side.deployment import wanted
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.processes import CHECKOUT, HOST, Processes, environment, free_port
from archiver_pipeline_tests.samples import numbered

_SECRET = 'p"w-ü-4711'


def _records(text: str) -> list[dict[str, Any]]:
    """What was logged; a line that is no JSON fails the test. What `dagster` says before and after a run is no log."""
    lines = text.splitlines()
    logged = [number for number, line in enumerate(lines) if line.startswith("{")]
    return [json.loads(line) for line in lines[logged[0] : logged[-1] + 1]]


def test_a_record_is_one_line_with_what_is_known() -> None:
    """Time, level, logger and message are there, what is unknown is not, and an error tells where it happened."""
    formatter = JsonFormatter(lambda text: text.replace(_SECRET, "***"))
    error = KafkaError(f"refused {_SECRET}", topic="orders", partition=0, start=5, end=9)
    record = logging.LogRecord(
        "a.b", logging.WARNING, __file__, 1, "two\nlines %s", (_SECRET,), (KafkaError, error, None)
    )
    record.ranges, record.lane = [f"orders/0 [5, 9) {_SECRET}"], 0
    record.created = 1_564_628_400.5
    line = formatter.format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2019-08-01T03:00:00.500Z",
        "level": "WARNING",
        "logger": "a.b",
        "message": "two\nlines ***",
        "topic": "orders",
        "partition": 0,
        "start": 5,
        "end": 9,
        "ranges": ["orders/0 [5, 9) ***"],
        "lane": 0,
        "error": "refused *** (topic orders, partition 0, offsets [5, 9))",
    }


def test_a_command_logs_and_fails_in_json(processes: Processes) -> None:
    """Standard error of a command has nothing but JSON, its error too, and no secret."""
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{free_port()}",
        "KAFKA_SASL_PASSWORD": _SECRET,
        "ARCHIVER_TOPICS": "orders",
        "ARCHIVER_TOPISC": "orders",
        "ARCHIVER_LOG_FORMAT": "json",
    }
    done = processes.run(["-m", "archiver_pipeline.cli", "status"], environment(given))
    records = _records(done.err)
    assert done.code == 1
    assert {record["level"] for record in records} == {"WARNING", "ERROR"}
    assert [record["message"] for record in records if "ARCHIVER_TOPISC" in record["message"]] == [
        "ARCHIVER_TOPISC is not a setting and is passed over; is it ARCHIVER_TOPICS?"
    ]
    assert "did not answer when the broker was asked" in records[-1]["message"]
    assert _SECRET not in done.said


@pytest.mark.slow
def test_a_run_logs_in_json(deploy: MakeDeployment, bootstrap_servers: str, topic_name: str) -> None:
    """Each line of a run's log is JSON with the run and the job; that of a batch has its ranges, and one that fails
    has the error's sentence. What is set is the variable alone."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    deployment = deploy(topic_name, ARCHIVER_LOG_FORMAT="json")
    shutil.copy(CHECKOUT / "deploy" / "dagster.yaml", deployment.home)
    done = deployment.execute()
    assert done.code == 0, done.said
    records = _records(done.err)
    runs = {record.get("run_id") for record in records if record["logger"] == "dagster"} - {None}
    assert len(runs) == 1
    assert {record["job"] for record in records if "run_id" in record} == {"archive"}
    read = [record for record in records if record["message"].startswith("reading ")]
    assert [record["ranges"] for record in read] == [[f"{topic_name}/0 [0, 10)"]]
    assert (read[0]["lane"], read[0]["run_id"]) == (0, *runs)
    told = [record for record in records if record.get("messages") == 10]
    assert len(told) == 1
    assert all(re.fullmatch(r"[\d-]{10}T[\d:.]{12}Z", record["time"]) for record in records)
    assert all(datetime.fromisoformat(record["time"]).tzinfo for record in records)
    refused = deployment.execute(ranges=[wanted(topic_name, 0, 50, 60)])
    assert refused.code != 0
    (error,) = [each["error"] for each in _records(refused.err) if each.get("event") == "STEP_FAILURE"]
    assert "the range begins past the next offset to archive, which is 10" in error
