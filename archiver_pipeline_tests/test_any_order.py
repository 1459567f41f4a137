"""Whatever happens to an archive, and in which order: it is good in the end, and no good message is ever lost."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest

from archiver_pipeline.errors import ArchiveDamaged
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.storage.folder import Folder
from archiver_pipeline.stored.verify import verify
from archiver_pipeline.table.ledger import read
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.damaged_hours import FIRST_HOUR, HOUR_MS, HOURS, flip
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, delete_records, produce
from archiver_pipeline_tests.kafka.topics import end_offsets, start_offsets

RULES = ("$.type", "$.kind", "constant:all", "header:h")


class Life:
    """An archive to which one thing after the other happens, by chance."""

    def __init__(self, folder: Path, bootstrap_servers: str, topic: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.steps: list[str] = []
        self._folder, self._servers, self._topic = folder, bootstrap_servers, topic
        self._start, self._rule = self.chance.choice(["earliest", "latest"]), RULES[0]
        create_topic(bootstrap_servers, topic, partitions=2)
        self.send()
        self.archived.run()

    @property
    def archived(self) -> Archived:
        """The archive with the present settings, as each run opens it."""
        rule, start = self._rule, self._start
        return Archived(self._folder, self._servers, self._topic, start=start, type_path=rule, keep_replaced_hours=0)

    def step(self) -> None:
        """Let something happen."""
        names = ["send", "archive", "archive", "fill", "fill", "give_up", "retype", "damage", "seal", "clean", "retain"]
        name = self.chance.choice(names)
        self.steps.append(name)
        getattr(self, name)()

    def send(self) -> None:
        """Messages of three hours come, late ones and ugly ones among them."""
        some = [None, b"\xff\x00", b"{}", *(b'{"type": "t%d", "kind": "k%d"}' % (n % 3, n % 2) for n in range(6))]
        stamps = [
            FIRST_HOUR * HOUR_MS + self.chance.randrange(3 * HOUR_MS) for _ in range(self.chance.randrange(1, 30))
        ]
        headers = ((), (("h", b"x"),), (("h", None), ("h", b"y")))
        sent = [
            Sent(self.chance.choice(some), b"k", self.chance.choice(headers), stamp, self.chance.randrange(2))
            for stamp in stamps
        ]
        produce(self._servers, self._topic, sent)

    def archive(self) -> None:
        """Messages come and are archived."""
        self.send()
        self.archived.run()

    def fill(self) -> None:
        """Some hours are read again."""
        list(Backfiller(self.archived.settings).run(self.chance.sample(HOURS, 2)))

    def give_up(self) -> None:
        """Some hours are read again, and what is lost is given up."""
        list(Backfiller(self.archived.settings, accept_loss=True).run(self.chance.sample(HOURS, 2)))

    def retype(self) -> None:
        """Another type rule is set, and perhaps applied."""
        self._rule = self.chance.choice(RULES)
        if self.chance.random() < 0.5:
            list(Backfiller(self.archived.settings, from_kafka=False).run(HOURS))

    def damage(self) -> None:
        """A file is lost or changed."""
        archived = self.archived
        path = archived.path / self.chance.choice(sorted(archived.listed_files()) or ["none"])
        if path.exists():
            flip(path) if self.chance.random() < 0.5 else path.unlink()

    def seal(self) -> None:
        """Hours are sealed; one with a damaged file is left alone."""
        for hour in HOURS:
            with suppress(ArchiveDamaged):
                Sealer(self.archived.settings).seal(hour)

    def clean(self) -> None:
        """Replaced files are removed."""
        self.archived.run()
        Sealer(self.archived.settings).clean()

    def retain(self) -> None:
        """Kafka loses a part of what is archived."""
        self.archived.run()
        number = self.chance.randrange(2)
        low, high = (offsets(self._servers, self._topic)[number] for offsets in (start_offsets, end_offsets))
        if high > low:
            delete_records(self._servers, self._topic, {number: self.chance.randrange(low, high) + 1})


@pytest.mark.parametrize("seed", range(5))
def test_all_is_well_in_the_end(bootstrap_servers: str, topic_name: str, tmp_path: Path, seed: int) -> None:
    """After any steps a backfill of all hours makes the archive good: each message once, types by the rule, and what is
    missing is what was given up."""
    life = Life(tmp_path, bootstrap_servers, topic_name, seed)
    for _ in range(12):
        life.step()
    life.archived.run()
    done = list(Backfiller(life.archived.settings).run(HOURS))
    if any(item.fault for item in done):
        life.give_up()
        list(Backfiller(life.archived.settings, accept_loss=True).run(HOURS))
    archived = life.archived
    archived.run()
    report = verify(archived.settings, against_kafka=True)
    assert report.good, (life.steps, report.faults)
    again = [item.sentence() for item in Backfiller(archived.settings).run(HOURS) if item.version is not None]
    assert again == [], (life.steps, "a second time there is nothing to do")
    archived.run()
    Sealer(archived.settings).clean()
    ((rows, distinct),) = archived.sql('SELECT count(*), count(DISTINCT ("partition", "offset")) FROM messages')
    assert rows == distinct == report.messages == read(Folder(archived.path)).messages, life.steps
    assert archived.stray_files() == set(), life.steps
