"""Rules of a change of `ARCHIVER_LANES` while runs are at work: old lanes and new ones lose and double nothing."""

from __future__ import annotations

from pathlib import Path

from archiver_pipeline.plan import lane_of
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.crash.conftest import runs as runs
from archiver_pipeline_tests.crash.run import Run, Trap
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce

PARTITIONS, MESSAGES = 10, 500


def test_two_lanes_become_five_while_runs_are_at_work(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, runs: list[Run]
) -> None:
    """Runs of two lanes have frozen; those of five lanes take the same offsets, and one is killed as it commits. Then
    the first two wake up: what others have is refused to them, and they begin anew from there or find nothing to do."""
    create_topic(bootstrap_servers, topic_name, partitions=PARTITIONS)

    def fill() -> None:
        sent = [Sent(b'{"type": "a", "seq": %d}' % n, partition=n % PARTITIONS) for n in range(MESSAGES)]
        produce(bootstrap_servers, topic_name, sent)

    two = Archived(tmp_path, bootstrap_servers, topic_name, lanes=2, batch_messages=150)
    five = Archived(tmp_path, bootstrap_servers, topic_name, lanes=5, batch_messages=150)
    moved = [n for n in range(PARTITIONS) if lane_of(topic_name, n, 2) != lane_of(topic_name, n, 5)]
    assert moved, "a change of their number gives partitions to other lanes"
    fill()
    two.run(lane=0)
    runs += [Run(two.environment(), lane, Trap("STOP", step)) for lane, step in ((1, "commit"), (0, "read"))]
    fill()
    runs[0].wait_until_stopped()
    if runs[1].alive():
        runs[1].wait_until_stopped()
    newer = [Run(five.environment(), lane, Trap("KILL", "commit") if lane == 2 else None) for lane in range(5)]
    runs += newer
    codes = [run.wait() for run in newer]
    assert codes[2] == -9
    assert [codes[lane] for lane in (0, 1, 3, 4)] == [0] * 4, [run.errors for run in newer]
    for run in runs[:2]:
        run.resume()
    assert [run.wait() for run in runs[:2]] == [0, 0], [run.errors for run in runs[:2]]
    for lane in range(5):
        five.run(lane=lane)
    five.assert_equal(topic_name)
