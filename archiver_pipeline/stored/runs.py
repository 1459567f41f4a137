"""Runs: messages in any order and number go in, and come out in order, with bounded memory.

An external merge sort (Knuth, The Art of Computer Programming, volume 3, section 5.4): full buffers are sorted and
written as Arrow IPC files, piece by piece of one partition, and pieces are read again in the order of their offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from archiver_pipeline.frames import packed
from archiver_pipeline.plan import TopicPartition

if TYPE_CHECKING:
    import polars as pl

PLACE = ("topic", "topic_id", "partition")
ORDER = (*PLACE, "offset")
"""The order of messages: by topic, its life, partition, and offset."""

BUFFER_BYTES = 64 * 1024**2
_PIECE_BYTES, _FRAME_BYTES = 1024**2, 16 * 1024**2


@dataclass(frozen=True)
class Piece:
    """Sorted messages of one topic partition: their first and last offset, and how to get them."""

    at: TopicPartition
    low: int
    high: int
    load: Callable[[], pl.DataFrame]


class Runs:
    """Messages that wait to be handed back in order.

    Attributes:
        rows: how many there are.
        bytes: about how large they are in memory.
        pieces: what they were cut into, known once `close` was called.
    """

    def __init__(self, folder: Path, buffer_bytes: int = BUFFER_BYTES) -> None:
        """Keep what does not fit into `buffer_bytes` as files in `folder`, which is made when it is needed."""
        self.rows = self.bytes = 0
        self.pieces: list[Piece] = []
        self._folder = folder
        self._buffer_bytes = buffer_bytes
        self._waiting: list[pl.DataFrame] = []
        self._waiting_bytes = self._files = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Take messages: the columns of `ORDER` and any others, the same each time."""
        if frame.is_empty():
            return
        size = int(frame.estimated_size())
        self._waiting.append(frame)
        self._waiting_bytes += size
        self.rows, self.bytes = self.rows + frame.height, self.bytes + size
        if self._waiting_bytes >= self._buffer_bytes:
            self._spill(self._cut())

    def close(self) -> None:
        """Take no more; what never filled the buffer stays in memory."""
        if self._waiting and self._files:
            self._spill(self._cut())
        elif self._waiting:
            self.pieces += [_piece(part, partial(_same, part)) for part in self._cut()]

    def _cut(self) -> list[pl.DataFrame]:
        """Sort what waits, and cut it into pieces of one partition each."""
        import polars as pl

        frame = pl.concat(self._waiting).sort(ORDER)
        rows = max(1, int(frame.height * _PIECE_BYTES / max(1, self._waiting_bytes)))
        self._waiting, self._waiting_bytes = [], 0
        parts = frame.partition_by(PLACE, maintain_order=True)
        return [part[start : start + rows] for part in parts for start in range(0, part.height, rows)]

    def _spill(self, parts: list[pl.DataFrame]) -> None:
        import polars as pl
        import pyarrow as pa

        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._files}.arrow"
        self._files += 1
        writer = None
        with pa.OSFile(str(path), "wb") as sink:
            for number, part in enumerate(parts):
                table = part.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
                if writer is None:
                    options = pa.ipc.IpcWriteOptions(compression="lz4")
                    writer = pa.ipc.new_file(sink, table.schema, options=options)
                writer.write_batch(table.to_batches()[0])
                self.pieces.append(_piece(part, partial(_load, path, number)))
            if writer is not None:
                writer.close()


def merged(*every: Runs) -> Iterator[pl.DataFrame]:
    """Yield the messages of all runs in order, those with one and the same identity in the order of the runs.

    Frames are of a few megabytes, and no two of them hold the same topic, partition and offset.
    """
    import polars as pl

    waiting: list[pl.DataFrame] = []
    size = 0
    for frame in _in_order([(rank, piece) for rank, runs in enumerate(every) for piece in runs.pieces]):
        waiting.append(frame)
        size += int(frame.estimated_size())
        if size >= _FRAME_BYTES:
            yield pl.concat(waiting)
            waiting, size = [], 0
    if waiting:
        yield pl.concat(waiting)


def _in_order(pieces: Iterable[tuple[int, Piece]]) -> Iterator[pl.DataFrame]:
    """Read piece after piece by its first offset: whatever lies below the next piece's first offset is complete."""
    import polars as pl

    todo = sorted(pieces, key=lambda item: (item[1].at, item[1].low, item[0]))
    held: list[tuple[pl.DataFrame, float]] = []
    ready: list[pl.DataFrame] = []
    size = 0.0
    for number, (rank, piece) in enumerate(todo):
        frame = piece.load()
        # A slice counts as large as what it was cut from: so the size of a message is taken while the piece is whole.
        held.append((frame.with_columns(_rank=pl.lit(rank, pl.Int32)), frame.estimated_size() / frame.height))
        following = todo[number + 1][1] if number + 1 < len(todo) else None
        last = following is None or following.at != piece.at
        rest = []
        for frame, each in held:
            cut = (
                frame.height
                if following is None or last
                else int(frame["offset"].search_sorted(following.low, side="left"))
            )
            ready.append(frame[:cut])
            size += cut * each
            if cut < frame.height:
                rest.append((frame[cut:], each))
        held = rest
        if last or size >= _FRAME_BYTES:
            yield _one_frame([part for part in ready if part.height])
            ready, size = [], 0.0


def _one_frame(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Put parts in order that are sorted each by itself."""
    import polars as pl

    frame = pl.concat(parts)
    # As a rule no part overlaps with another one.
    if not (frame["offset"].diff().drop_nulls() > 0).all():
        frame = frame.sort("offset", "_rank", maintain_order=True)
    return packed(frame.drop("_rank"))


def _piece(part: pl.DataFrame, load: Callable[[], pl.DataFrame]) -> Piece:
    at = TopicPartition(*part.select(PLACE).row(0))
    return Piece(at, part["offset"][0], part["offset"][-1], load)


def _same(part: pl.DataFrame) -> pl.DataFrame:
    return part


def _load(path: Path, number: int) -> pl.DataFrame:
    import polars as pl
    import pyarrow as pa

    with pa.OSFile(str(path)) as source:
        return cast("pl.DataFrame", pl.from_arrow(pa.ipc.open_file(source).get_batch(number)))
