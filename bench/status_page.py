"""`python -m bench.status_page`: the pictures of the status page, of an archive that is made up and in trouble.

It writes docs/status-page.png and docs/status-page-phone.png anew; `--measure` instead prints how long drawing takes,
how large the page is, and what that costs in memory, with few and with many topics, partitions, hours and files.
"""

from __future__ import annotations

import argparse
import gzip
import io
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
from PIL import Image
from rich.console import Console
from rich.table import Table

from archiver_pipeline.hours import hour_at, hour_totals
from archiver_pipeline.page.document import Links, document
from archiver_pipeline_tests.browser import DESKTOP, PHONE, browser, resize
from archiver_pipeline_tests.standings import at_night

DOCS = Path(__file__).parents[1] / "docs"
LINKS = Links((("/metrics", "for Prometheus"), ("/readyz", "ready?"), ("/healthz", "alive?")), 10)
COLOURS = 96
_TURNS = 5


def main() -> None:
    """Draw the pictures, or measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.status_page", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure in place of drawing pictures")
    if parser.parse_args().measure:
        Console().print(_measured())
        return
    with tempfile.TemporaryDirectory(prefix="archiver-page-") as folder:
        page = Path(folder) / "page.html"
        page.write_text(document(at_night(), LINKS), "utf-8")
        for name, size, height, scale in (
            ("status-page", DESKTOP, 2_260, 1.0),
            ("status-page-phone", PHONE, 1_900, 1.5),
        ):
            print(f"drawn: {_picture(page, DOCS / f'{name}.png', size, height, scale)}")


def _picture(page: Path, path: Path, size: tuple[int, int], height: int, scale: float) -> Path:
    """Take a picture of the upper part of a page, in few colours."""
    with browser(page.parent / f"profile-{path.stem}") as driver:
        driver.get(page.as_uri())
        resize(driver, (size[0], height), scale)
        taken = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    taken.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def _measured() -> Table:
    table = Table("what", "seconds", "kB", "kB by gzip", "peak MB")
    for name, topics, partitions, days in (
        ("1 topic, 1 partition, 1 day", 1, 1, 1),
        ("4 topics, 12 partitions, 14 days", 4, 3, 14),
        ("30 topics, 100 partitions each, 14 days", 30, 100, 14),
        ("10 topics, 100 partitions each, ten years", 10, 100, 3_650),
    ):
        state = at_night(topics, partitions, days)
        page = document(state, LINKS).encode()
        took, peak = _timed(partial(document, state, LINKS))
        table.add_row(name, f"{took:.3f}", f"{len(page) / 1000:.0f}", f"{len(gzip.compress(page, 1)) / 1000:.0f}",
                      f"{peak / 1e6:.1f}")  # fmt: skip
    for files in (10, 60_000):
        took, peak = _timed(partial(hour_totals, _files(files)))
        table.add_row(f"hours of {files:,} files", f"{took:.3f}", "–", "–", f"{peak / 1e6:.1f}")
    return table


def _timed(work: Callable[[], object]) -> tuple[float, int]:
    seconds = []
    for _ in range(_TURNS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return statistics.median(seconds), peak


def _files(count: int) -> pl.DataFrame:
    hours = [hour_at(400_000 + number % 600) for number in range(count)]
    return pl.DataFrame(
        {
            "path": [f"type=a/dt={hour.dt}/hr={hour.hr}/lane0-{n}.parquet" for n, hour in enumerate(hours)],
            "dt": [hour.dt for hour in hours],
            "hr": [hour.hr for hour in hours],
            "messages": [50] * count,
            "bytes": [5_000] * count,
            "added": [1_700_000_000_000] * count,
        }
    )


if __name__ == "__main__":
    main()
