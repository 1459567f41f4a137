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
SENSOR = "/locations/archiver_pipeline.definitions/sensors/archive_sensor"
GROUPS = "%2C".join(f"global%40global%3A{name}" for name in ("1_topics", "2_archive", "3_followers", "4_results"))
_COUNTS = (5000, 400, 900, 1500, 300, 2500, 700, 1200, 100, 800)
_COLORS = 48
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

    def take(self, name: str, height: int, width: int = 1200) -> None:
        """Take a picture of the page that is open, so many CSS pixels high and wide, with few colors."""
        resize(self._driver, (width, height))
        time.sleep(_SETTLED_SECONDS)
        path = self._folder / f"ui-{name}.png"
        self.pages.picture(path)
        Image.open(path).convert("RGB").quantize(_COLORS).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)

    def scroll_to(self, words: str) -> None:
        """Scroll so that the last thing that says exactly this is at the top."""
        script = """const every = [...document.querySelectorAll('*')];
            every.filter(each => each.textContent.trim() === arguments[0]).at(-1).scrollIntoView();"""
        self._driver.execute_script(script, words)  # type: ignore[no-untyped-call]


def graph(camera: Camera, _: str) -> None:
    """The asset graph."""
    camera.pages.open(f"/asset-groups?expanded={GROUPS}", "messages", "sealed_hours")
    camera.take("graph", 620, 1500)


def batch(camera: Camera, _: str) -> None:
    """The materialization of a batch."""
    camera.pages.open("/assets/messages?view=events", "lag seconds")
    camera.take("batch", 1000)


def plots(camera: Camera, _: str) -> None:
    """Lag and throughput over time."""
    camera.pages.open("/assets/messages", "lag seconds")
    camera.pages.press("Plots")
    camera.pages.wait("messages per second")
    time.sleep(_SETTLED_SECONDS)
    camera.scroll_to("lag")
    camera.take("plots", 900)


def checks(camera: Camera, _: str) -> None:
    """The checks, with a gap."""
    camera.pages.open("/assets/messages?view=checks&checkDetail=nothing_was_lost", "offsets were gone")
    camera.take("checks", 600)


def backfill(camera: Camera, backfill_id: str) -> None:
    """A backfill of hours of which one failed, and that hour's page."""
    camera.pages.open(f"/runs/b/{backfill_id}", "sealed_hours")
    camera.take("backfill", 280)


def hours(camera: Camera, _: str) -> None:
    """The hours as partitions, with the failed one."""
    camera.pages.open(f"/assets/sealed_hours?view=partitions&partition={key(0)}", key(0), "messages")
    camera.take("hours", 900)


def ticks(camera: Camera, _: str) -> None:
    """The sensor's ticks, and why one of them started nothing."""
    camera.pages.open(SENSOR, "0 runs requested")
    camera.pages.press("0 runs requested")
    camera.pages.wait("lag")
    camera.take("ticks", 700)


PICTURES: Mapping[str, Callable[[Camera, str], None]] = {
    each.__name__: each for each in (graph, batch, plots, checks, backfill, hours, ticks)
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
                    resize(driver, (1200, 1000))
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
