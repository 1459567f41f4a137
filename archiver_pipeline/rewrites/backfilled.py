"""What became of an hour that was read again."""

from __future__ import annotations

from dataclasses import dataclass

from archiver_pipeline.hours import Hour


@dataclass(frozen=True)
class Backfilled:
    """An hour that was read again.

    Attributes:
        hour: the hour.
        read: messages that Kafka still has of it.
        added: of these, messages that the archive did not have, or had in a file that is damaged or gone.
        changed: messages that the archive had otherwise, or more than once.
        retyped: messages that another type rule has moved to another type.
        kept: messages that only the archive has.
        lost: messages of damaged or missing files that neither has, and that are given up unless there is a fault.
        mended: the files that were damaged or missing and are replaced.
        messages: how many the hour has in the end.
        files_before, files_after: of the types that were written anew.
        seconds: how long it took, the reading not counted.
        version: the table version that it made, None where nothing differed.
        fault: why the hour was left as it was although something is wrong with it, and what to do.
    """

    hour: Hour
    read: int = 0
    added: int = 0
    changed: int = 0
    retyped: int = 0
    kept: int = 0
    lost: int = 0
    mended: tuple[str, ...] = ()
    messages: int = 0
    files_before: int = 0
    files_after: int = 0
    seconds: float = 0.0
    version: int | None = None
    fault: str | None = None

    @property
    def empty(self) -> bool:
        """Whether neither side has or had any message of the hour."""
        return not self.messages and self.version is None and self.fault is None

    def sentence(self) -> str:
        """Say what was done."""
        read = f"Kafka has {self.read:,} of its messages" if self.read else "nothing of it was read from Kafka"
        told = f"{read}, {self.kept:,} only the archive has"
        if self.fault is not None:
            return f"hour {self.hour} was left as it was: {self.fault}"
        if self.version is None:
            return f"hour {self.hour} is as it should be: {told}"
        done = [f"{self.added:,} added", f"{self.changed:,} changed", f"{self.retyped:,} given another type"]
        files = f"damaged or missing file{'s' * (len(self.mended) != 1)}"
        done += [f"{len(self.mended)} {files} replaced", f"{self.lost:,} lost and given up"]
        return f"hour {self.hour}: {', '.join(item for item in done if not item.startswith('0 '))}; {told}"
