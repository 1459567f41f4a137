"""Rules of the local folder that an archive in a bucket needs: it goes with its process, and stays small."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from archiver_pipeline.storage.scratch import LocalCopies, Scratch
from archiver_pipeline_tests.processes import CHECKOUT

_PROGRAM = """
import os, signal, sys
from pathlib import Path
from archiver_pipeline.storage.scratch import Scratch
(Scratch(Path(sys.argv[1])).path / "file").write_text("left")
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(folder: Path, how: str) -> None:
    """A process that makes its folder, and ends."""
    subprocess.run([sys.executable, "-c", _PROGRAM, str(folder), how], cwd=CHECKOUT, check=False, timeout=120)


def downloads(size: int) -> Callable[[Path], None]:
    """What makes a copy of so many bytes."""

    def download(path: Path) -> None:
        path.write_bytes(b"x" * size)

    return download


def test_it_goes_with_its_process(tmp_path: Path) -> None:
    """A process that ends in order leaves nothing; what a killed one leaves is removed by the next."""
    run(tmp_path, "end")
    assert list(tmp_path.iterdir()) == []
    run(tmp_path, "kill")
    (left,) = tmp_path.iterdir()
    mine = Scratch(tmp_path).path
    assert not left.exists()
    assert list(tmp_path.iterdir()) == [mine]


def test_a_living_process_keeps_its_own(tmp_path: Path) -> None:
    """Two at once do not take each other for dead."""
    one, other = Scratch(tmp_path).path, Scratch(tmp_path).path
    assert one != other
    assert one.exists()


def test_a_copy_is_made_once(tmp_path: Path) -> None:
    """A file that was not changed meanwhile is not fetched again; one with another mark is."""
    copies, made = LocalCopies(lambda: tmp_path, 100), list[Path]()

    def download(path: Path) -> None:
        made.append(path)
        path.write_bytes(b"x" * 10)

    for mark in ("a", "a", "b"):
        with copies.use("type=x/dt=1/hr=2/file.parquet", mark, download) as path:
            assert path.read_bytes() == b"x" * 10
            assert path.suffix == ".parquet"
    assert len(made) == 2


def test_unused_copies_are_within_the_limit(tmp_path: Path) -> None:
    """The oldest go first; one that is used stays, however large all of them are."""
    copies = LocalCopies(lambda: tmp_path, 100)
    with copies.use("used", "m", downloads(1000)) as used:
        for number in range(10):
            with copies.use(f"file{number}", "m", downloads(40)):
                pass
        assert used.exists()
        left = sorted(path.stat().st_size for path in tmp_path.iterdir())
    assert left == [40, 40, 1000]
    assert not used.exists(), "it is too large to be kept"


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Where a file cannot be fetched whole there is no part of it, and it can be fetched again."""
    copies = LocalCopies(lambda: tmp_path, 100)

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    for download, good in ((fail, False), (downloads(4), True)):
        try:
            with copies.use("file", "m", download) as path:
                assert path.read_bytes() == b"xxxx"
        except OSError:
            assert not good
            assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_many_threads_share_copies(tmp_path: Path) -> None:
    """Whoever uses a copy has all of it as long as that takes."""
    copies = LocalCopies(lambda: tmp_path, 50)

    def use(number: int) -> int:
        name = f"file{number % 7}"
        with copies.use(name, "m", downloads(20 + number % 7)) as path:
            return path.stat().st_size - number % 7

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(use, range(500))) == {20}
