"""Take the pictures of Dagster's UI that the docs have anew: `python -m bench.pictures`.

It needs what the tests need: Java, Maven, and apt as root for Chromium. It makes a broker, topics, a gap and an hour
that cannot be mended, runs `make dev` against them, and writes `docs/ui-*.png`. Look at each before you commit it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image
from selenium.webdriver import Chrome

from archiver_pipeline_tests.browser import browser, resize
from archiver_pipeline_tests.dagster_side import running, story
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.filled import key
from archiver_pipeline_tests.dagster_side.pages import Pages
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import produce
from archiver_pipeline_tests.processes import Processes
from archiver_pipeline_tests.server import running as serving

DOCS = Path(__file__).parents[1] / "docs"
TOPICS = story.Topics()
GROUPS = "%2C".join(f"global%40global%3A{name}" for name in ("1_topics", "2_archive", "3_followers", "4_results"))
_COUNTS = (5000, 400, 900, 1500, 300, 2500, 700, 1200, 100, 800)
_COLORS = 256
_NAVIGATION, _ASIDE = 240, 290
"""CSS pixels of what the UI has at the left of each page, and at the right of an asset's."""

_SETTLED_SECONDS = 3.0
"""So long a page is left alone before its picture is taken: charts and graphs move into place."""


class Camera:
    """Takes pictures of pages.

    Attributes:
        pages: the UI.
    """

    def __init__(self, driver: Chrome, url: str, folder: Path) -> None:
        self.pages = Pages(driver, url)
        self._driver = driver
        self._folder = folder

    def open(self, path: str, *words: str, height: int = 900, width: int = 1200) -> None:
        """Open a page in a window of so many CSS pixels: some pages are laid out once, by the window that they find."""
        resize(self._driver, (width, height))
        self.pages.open(path, *words)

    def take(self, name: str, *, whole: bool = False) -> None:
        """Take a picture of the page that is open, in 256 colors and without the navigation at its left.

        Args:
            name: of the picture.
            whole: leave nothing else out; without it, what is at the right goes, too, such as where the archive lies.
        """
        time.sleep(_SETTLED_SECONDS)
        path = self._folder / f"ui-{name}.png"
        self.pages.picture(path)
        with Image.open(path) as taken:
            picture = taken.convert("RGB")
        box = (_NAVIGATION, 0, picture.width if whole else picture.width - _ASIDE, picture.height)
        picture.crop(box).quantize(_COLORS).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)

    def scroll_to(self, words: str) -> None:
        """Scroll so that the last thing that says exactly this is at the top."""
        script = """const every = [...document.querySelectorAll('*')];
            every.filter(each => each.textContent.trim() === arguments[0]).at(-1).scrollIntoView();"""
        self._driver.execute_script(script, words)  # type: ignore[no-untyped-call]


def graph(camera: Camera, _: str) -> None:
    """The asset graph."""
    camera.open(f"/asset-groups?expanded={GROUPS}", "messages", "sealed_hours", height=1000, width=1700)
    camera.take("graph", whole=True)


def batch(camera: Camera, _: str) -> None:
    """The materialization of a batch."""
    camera.open("/assets/messages?view=events", "lag seconds", height=1000)
    camera.take("batch", whole=True)


def plots(camera: Camera, _: str) -> None:
    """Lag and throughput over time."""
    camera.open("/assets/messages", "lag seconds")
    camera.pages.press("Plots")
    camera.pages.wait("messages per second")
    time.sleep(_SETTLED_SECONDS)
    camera.scroll_to("lag")
    camera.take("plots")


def checks(camera: Camera, _: str) -> None:
    """The checks, with a gap."""
    camera.open("/assets/messages?view=checks&checkDetail=nothing_was_lost", "offsets were gone", height=720)
    camera.take("checks", whole=True)


def backfill(camera: Camera, backfill_id: str) -> None:
    """A backfill of hours of which one failed."""
    camera.open(f"/runs/b/{backfill_id}", "sealed_hours", height=300)
    camera.take("backfill", whole=True)


def hours(camera: Camera, _: str) -> None:
    """The hours as partitions, with the failed one."""
    camera.open(f"/assets/sealed_hours?view=partitions&partition={key(0)}", key(0), "messages")
    camera.take("hours", whole=True)


PICTURES: Mapping[str, Callable[[Camera, str], None]] = {
    each.__name__: each for each in (graph, batch, plots, checks, backfill, hours)
}


def main() -> None:
    """Make what is to be seen, then take the pictures that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench.pictures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}; none for all of them")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder (default docs/)")
    given = parser.parse_args()
    if unknown := set(given.names) - set(PICTURES):
        parser.error(f"there is no picture {sorted(unknown)[0]!r}: there are {', '.join(PICTURES)}")
    # The archive's place is to be read in the pictures, so it is as short as a user's.
    with tempfile.TemporaryDirectory(prefix="archiver-") as folder, Processes() as processes:
        _take(Path(folder), processes, given.names or list(PICTURES), given.out)


def _take(folder: Path, processes: Processes, names: list[str], out: Path) -> None:
    running.START_LIMIT_SECONDS = 600.0
    with serving(KafkaBroker(folder / "kafka"), "logs") as broker:
        deployment = Deployment(
            folder / "data", processes, broker.bootstrap_servers, TOPICS.orders, TOPICS.clicks,
            ARCHIVER_INTERVAL_SECONDS=2, ARCHIVER_FOLLOW_SECONDS=5, ARCHIVER_BATCH_MESSAGES=1000,
        )  # fmt: skip
        dagster = running.RunningDagster(deployment, processes)
        story.prepare(deployment, TOPICS)
        try:
            dagster.start()
            _live(dagster)
            story.damage(deployment)
            backfill_id = story.backfill(dagster)
            story.wait_until_done(dagster, backfill_id, 600)
            with browser(folder / "chromium") as driver:
                camera = Camera(driver, dagster.url, out)
                for name in names:
                    PICTURES[name](camera, backfill_id)
        finally:
            dagster.kill()


def _live(dagster: running.RunningDagster) -> None:
    """Some minutes of messages, in portions of different sizes."""
    count = 0
    for more in _COUNTS:
        numbers = range(count, count + more)
        produce(dagster.deployment.bootstrap_servers, TOPICS.orders, story.orders(numbers))
        count += more
        dagster.wait_until_archived(TOPICS.orders, count, 600)


if __name__ == "__main__":
    main()
