"""A replay from end to end: selected, checked against the topics it goes to, sent, and taken up again after a kill."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pydantic import SecretStr

from archiver_pipeline.batch.ahead import Ahead
from archiver_pipeline.errors import RangeRefused, TopicChanged
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.replay import position as positions
from archiver_pipeline.replay.outgoing import Outgoing, outgoing
from archiver_pipeline.replay.pace import Pace
from archiver_pipeline.replay.position import Place, Position
from archiver_pipeline.replay.recorder import Recorder
from archiver_pipeline.replay.sender import Sender, Stale
from archiver_pipeline.replay.target import Target
from archiver_pipeline.replay.wanted import Wanted
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import OnStep
from archiver_pipeline.stored.files import OnProgress, quietly
from archiver_pipeline.stored.selected import Selected, Stretch
from archiver_pipeline.stored.survey import Survey
from archiver_pipeline.table.archive import archive_of

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

_PACED_SECONDS = 1.0
"""At a pace, messages are committed so often."""

_AHEAD_BYTES = 1
"""While one stretch is sent, one more is read."""


@dataclass(frozen=True)
class Summary:
    """What a replay did.

    Attributes:
        id: its name, in the topic that keeps its position.
        messages: how many it has in all.
        before: how many earlier runs of it had sent.
        sent: how many this run sent.
        seconds: how long that took, from the first to the last.
        topics: the topics that it sent to.
        recorded: those of them that are archived, and do not archive it a second time.
        newer: whether more has been archived since the replay began; `again` sends that, too.
        position: where it is.
    """

    id: str
    messages: int
    before: int
    sent: int
    seconds: float
    topics: tuple[str, ...]
    recorded: tuple[str, ...]
    newer: bool
    position: Position


class Replayer:
    """Sends the messages of a selection to Kafka, once, however often it is killed and begun again.

    Attributes:
        wanted: what it does.
        archive, selected: where from.
        cluster: where to.
        id: its name, in the topic that keeps its position.
        sent: how many messages were sent so far, by earlier runs, too.
    """

    def __init__(
        self,
        settings: Settings,
        wanted: Wanted,
        bootstrap_servers: str = "",
        on_progress: OnProgress = quietly,
        on_step: OnStep = lambda _: None,
    ) -> None:
        """Take a snapshot of the archive.

        Args:
            settings: where the archive is, and the cluster.
            wanted: what to do.
            bootstrap_servers: another cluster, with the other properties of the first.
            on_progress: told the step (`survey`, `messages`), how much is done, and of how much.
            on_step: told of each step.

        Raises:
            ArchiveError: there is no archive, or it cannot be read.
            RangeRefused: the archive has no such topic.
        """
        self.wanted = wanted
        self.archive = archive_of(settings)
        self.selected = Selected(self.archive, wanted.selection)
        self.id = wanted.id(str(self.archive.standing()[0].metadata["id"]))
        known = {at.topic for at in self.selected.ledger.committed}
        if absent := sorted(set(wanted.selection.topics) - known):
            raise RangeRefused(
                f"the archive has no topic {', '.join(absent)}", hint=f"It has {', '.join(sorted(known)) or 'none'}"
            )
        self._settings = settings
        topics = tuple(sorted({wanted.target(at.topic) for at in self.selected.places}))
        kafka = dict(settings.kafka)
        if bootstrap_servers:
            kafka["bootstrap.servers"] = SecretStr(bootstrap_servers)
        self.cluster = Cluster(settings.model_copy(update={"topics": topics, "kafka": kafka}))
        self._target = Target(self.cluster, wanted, self.selected.places)
        self._on_progress = on_progress
        self._on_step = on_step
        self._begun = 0.0
        self.sent = 0

    def run(self) -> Summary:
        """Send what was not sent yet.

        Raises:
            RangeRefused: a topic would not take or keep the messages; none was sent.
            Superseded: another run of the same replay has taken over.
            KafkaError: the broker failed; the next run goes on.
            ArchiveError: the archive cannot be read, or what is sent cannot be recorded; the next run goes on.
        """
        self._on_step("plan")
        sender = Sender(self.cluster.settings, self.id, by_key=self.wanted.by_key, on_step=self._on_step)
        sender.begin(self._target.limit())
        # Only now is nobody else at it.
        before = positions.read(self.cluster, self.id)
        kept = self._kept(before)
        if kept.done and not self.wanted.again:
            return self._summary(kept, kept, 0.0, ())
        anew = kept.done or not kept.run
        ranges = self.selected.ranges if anew else kept.ranges
        survey = self.selected.survey({at: item for at, item in ranges.items() if item[0] < item[1]}, self._on_progress)
        states = self._target.checked(survey)
        topics = {state.topic: state.topic_id for state in states}
        if anew:
            start = Position(before.run + 1, survey.messages, ranges=self.selected.ranges, topics=topics)
        else:
            start = replace(kept, messages=kept.total + survey.messages, topics={**kept.topics, **topics})
        sender.note(before, start)
        recorder = Recorder(self.archive, self.id, self._settings, states if self._is_told_apart() else ())
        self._begun = time.monotonic()
        self._tell(start)
        end = self._send(sender, recorder, survey, start)
        seconds = time.monotonic() - self._begun
        done = replace(end, done=True, messages=end.total)
        sender.note(end, done)
        return self._summary(done, start, seconds, sorted(recorder.topics))

    def look(self) -> Survey:
        """Look at what would be sent if nothing was before, and at the topics; nothing is sent, and none is made.

        Raises:
            RangeRefused: a topic would not take or keep the messages.
        """
        survey = self.selected.survey(self.selected.ranges, self._on_progress)
        self._target.checked(survey, make=False)
        return survey

    def _kept(self, before: Position) -> Position:
        """The position, but for topics that have lost what was sent to them."""
        present = self.cluster.topic_ids(before.topics) if before.topics else {}
        lost = [topic for topic, topic_id in before.topics.items() if present.get(topic) != topic_id]
        if lost:
            log.warning("sent once more, because it was deleted or made again since: %s", ", ".join(lost))
        return before.without(lost, self.wanted.target, self.selected.ranges)

    def _is_told_apart(self) -> bool:
        """Whether the topics that are sent to cannot be mistaken for those of another cluster."""
        here, there = (each.kafka.get("bootstrap.servers") for each in (self._settings, self.cluster.settings))
        return self._settings.topic_ids != "none" or here == there

    def _summary(self, now: Position, before: Position, seconds: float, recorded: Iterable[str]) -> Summary:
        topics = tuple(sorted({self.wanted.target(at.topic) for at in now.ranges}))
        sent = now.total - before.total
        committed = self.selected.ledger.committed
        ends = {at: end for at, (_, end) in self.selected.ranges.items() if committed[at].total}
        newer = any(now.ranges.get(at, (0, 0))[1] < end for at, end in ends.items())
        return Summary(self.id, now.messages, before.total, sent, seconds, topics, tuple(recorded), newer, now)

    def _send(self, sender: Sender, recorder: Recorder, survey: Survey, start: Position) -> Position:
        """Send stretch after stretch, while a thread reads the next one."""
        now = start
        pace = Pace(self.wanted.rate, self.wanted.original_pace)
        ahead = Ahead(self.selected.stretches(survey), _AHEAD_BYTES, "read", lambda stretch: stretch.frame.height + 1)
        try:
            for stretch in ahead:
                now = self._stretch(sender, recorder, self._outgoing(stretch, now), pace, now)
        finally:
            ahead.stop()
        return now

    def _stretch(self, sender: Sender, recorder: Recorder, left: Outgoing, pace: Pace, now: Position) -> Position:
        while left.rows:
            count = self._wait(pace, left.frame)
            part = left.first(count)
            behind, check = partial(self._behind, part.frame, now), partial(self._check, left.stretch, now)
            try:
                now = sender.send(part, now, behind, recorder, check)
            except Stale:
                log.info("messages were erased meanwhile: the rest is read again")
                left = self._outgoing(self.selected.again(left.stretch), now)
                continue
            pace.sent(count)
            left = left.after(count)
            self._tell(now)
        return now

    def _check(self, stretch: Stretch, now: Position) -> None:
        """Raise Stale where messages were erased since they were read, TopicChanged where a topic was made again."""
        if not self.selected.is_current(stretch):
            raise Stale
        if self.cluster.settings.topic_ids == "none":
            return
        present = self.cluster.topic_ids(now.topics)
        for topic, topic_id in now.topics.items():
            if present.get(topic) != topic_id:
                hint = "Run the same command again: what this topic had is sent once more"
                raise TopicChanged("the topic was deleted or made again meanwhile", topic=topic, hint=hint)

    def _wait(self, pace: Pace, left: pl.DataFrame) -> int:
        """Wait until messages are due, and return how many."""
        if pace.is_free:
            return left.height
        times, began = left["time"].to_list(), time.monotonic()
        while True:
            elapsed = time.monotonic() - self._begun
            count = pace.due(times, elapsed)
            if count == left.height or (count and time.monotonic() - began >= _PACED_SECONDS):
                return count
            self._on_step("wait")
            time.sleep(0.05)

    def _outgoing(self, stretch: Stretch, now: Position) -> Outgoing:
        """The messages of a stretch that are still to be sent."""
        ranges = [now.ranges.get(at, (0, 0)) for at in self.selected.places]
        return outgoing(stretch, ranges, self.wanted.to_topic, by_key=self.wanted.by_key)

    def _behind(self, part: pl.DataFrame, now: Position, reached: Mapping[Place, tuple[int, int]]) -> Position:
        import polars as pl

        rows = part.group_by("n").agg(pl.col("offset").max() + 1, pl.len()).iter_rows()
        following: dict[TopicPartition, tuple[int, int]] = {
            self.selected.places[n]: (offset, count) for n, offset, count in rows
        }
        return now.moved(following, reached)

    def _tell(self, now: Position) -> None:
        self.sent = now.total
        self._on_progress("messages", now.total, max(now.messages, now.total))
