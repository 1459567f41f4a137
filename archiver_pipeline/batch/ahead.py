"""Frames, or whatever else is large, made in a thread of their own, ahead of whoever takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

Frame = TypeVar("Frame")


def _size_of_frame(frame: Any) -> int:
    return int(frame.estimated_size())


class Ahead(Generic[Frame]):
    """An iterator over frames that another thread takes from `frames` and keeps ready, up to so many bytes.

    What `frames` raises is raised here, after the frames before it. `size` tells the bytes of one.
    """

    def __init__(
        self,
        frames: Generator[Frame],
        limit_bytes: int,
        name: str,
        size: Callable[[Frame], int] = _size_of_frame,
    ) -> None:
        self._frames = frames
        self._size = size
        self._limit_bytes = limit_bytes
        self._ready: deque[Frame] = deque()
        self._bytes = 0
        self._over = self._stopped = False
        self._error: BaseException | None = None
        self._changed = Condition()
        self._thread = Thread(target=self._make, name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._over)
            if self._ready:
                frame = self._ready.popleft()
                self._bytes -= self._size(frame)
                self._changed.notify_all()
                return frame
        if self._error is not None:
            raise self._error
        raise StopIteration

    def wait(self) -> None:
        """Wait until all frames are made, or will never be."""
        with self._changed:
            self._changed.wait_for(lambda: self._over)

    def stop(self) -> None:
        """Make no more frames, drop those that nobody took, and wait until the thread has ended."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()
        self._ready.clear()
        self._error = None  # It holds all that there was in memory where it was raised.

    def _make(self) -> None:
        try:
            with closing(self._frames):
                for frame in self._frames:
                    if self._stopped:
                        return
                    self._put(frame)
        except BaseException as error:  # It is raised where the frames are taken.
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _put(self, frame: Frame) -> None:
        with self._changed:
            self._ready.append(frame)
            self._bytes += self._size(frame)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._bytes < self._limit_bytes or self._stopped)
