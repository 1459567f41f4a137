"""Rules of the status page, on a real archive, a real broker, and in a real browser."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from archiver_pipeline.hours import parse_hour
from archiver_pipeline.page.document import HEADER_POLICY
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline_tests.browser import DESKTOP, PHONE, complaints, resize
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.processes import CHECKOUT, environment
from archiver_pipeline_tests.prometheus.exporting import Exporter
from archiver_pipeline_tests.prometheus.world import World
from archiver_pipeline_tests.server import running
from archiver_pipeline_tests.waiting import wait_for

STATUS = [sys.executable, "-m", "archiver_pipeline.cli", "status"]

CONTRASTS = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const shade = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
const ground = (item) => {
  for (let at = item; at; at = at.parentElement) {
    const found = parse(getComputedStyle(at).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
const found = [];
for (const item of document.querySelectorAll("body *")) {
  const own = [...item.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || item.closest("svg, script, noscript") || !item.getClientRects().length) continue;
  const [light, dark] = [shade(parse(getComputedStyle(item).color)), shade(ground(item))].sort((a, b) => b - a);
  found.push([(light + 0.05) / (dark + 0.05), item.outerHTML.slice(0, 80)]);
}
return found;
"""
"""The contrast of each text with what is behind it (WCAG 2.2, "Contrast (Minimum)"), and the element."""


# In one step: the page is renewed while the test looks at it.
SHOWN = """
const row = [...document.querySelectorAll("section tr")].find((row) => row.cells[0].textContent === arguments[0]);
return [document.querySelector("main").innerText, document.querySelector("main > .verdict.fault p").textContent,
  [...row.cells].map((cell) => cell.textContent), document.querySelector("td.trouble").title];
"""
TIME = "return document.querySelector('time').textContent"
REQUESTS = "return performance.getEntriesByType('resource').map((item) => item.name)"


@pytest.fixture(scope="module")
def world(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> World:
    """An archive with a gap, bad messages, a follower, a failed run, four messages that wait, and a sealed hour."""
    world = World(tmp_path_factory.mktemp("world"), kafka.bootstrap_servers, f"shown-{uuid.uuid4().hex[:8]}")
    world.begin()
    world.happen()
    Sealer(world.archived.settings).seal(parse_hour("2019-08-01T03"))
    return world


@pytest.fixture(scope="module")
def exporter(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """Its exporter, which has looked at everything."""
    variables = {**world.variables(), "KAFKA_SASL_PASSWORD": "s3cret-of-kafka"}
    with running(Exporter(tmp_path_factory.mktemp("exporter"), variables), "none") as server:
        wait_for("a look at everything", lambda: b"first look" not in server.get("/")[2])
        yield server


def _shade(driver: Chrome, name: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": name}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _overflow(driver: Chrome) -> int:
    told: int = driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    return told


def test_what_somebody_sees(world: World, exporter: Exporter, chromium: Chrome) -> None:
    """On a desk and on a phone, by day and by night: what is wrong comes first and says what to do, each section has
    what the archive, the broker and Dagster have, every text is legible, nothing is cut off, nothing else is asked
    for, and the page goes on by itself."""
    chromium.get(f"http://{exporter.target}/")
    text, verdict, row, trouble = chromium.execute_script(SHOWN, world.topic)
    assert verdict.startswith(f"Kafka deleted 2 offsets of {world.topic}")
    assert "retention.ms" in text
    assert (row[1], row[-1]) == ("4", "1 of 2 behind")
    for words in ("as it was told", "events_per_minute", "page_views", "retention", "10 to 11", "Messages per second"):
        assert words in text
    assert "s3cret" not in chromium.page_source
    assert "Before these days: 1 hour with 10 messages, all sealed." in text
    assert f"a gap in {world.topic}/0 was found then: 2 offsets lost" in trouble
    for size in (DESKTOP, PHONE):
        resize(chromium, size)
        assert _overflow(chromium) <= 0
        for shade in ("light", "dark"):
            _shade(chromium, shade)
            contrasts: list[tuple[float, str]] = chromium.execute_script(CONTRASTS)
            assert len(contrasts) > 100
            assert [found for found in contrasts if found[0] < 4.5] == []
    before = chromium.execute_script(TIME)
    wait_for("a newer page", lambda: chromium.execute_script(TIME) != before)
    asked: list[str] = chromium.execute_script(REQUESTS)
    assert {name for name in asked if not name.startswith("data:")} == {f"http://{exporter.target}/"}
    assert complaints(chromium) == []


def test_the_answer_has_a_policy_and_is_small(exporter: Exporter) -> None:
    """No script or style but the page's own counts, nobody may frame it, and by gzip it is a few kilobytes."""
    import gzip
    import http.client

    connection = http.client.HTTPConnection(exporter.target, timeout=10)
    connection.request("GET", "/", headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.getheader("Content-Security-Policy") == HEADER_POLICY
    assert "default-src 'none'" in HEADER_POLICY
    assert "unsafe" not in HEADER_POLICY
    assert len(body) < 20_000
    assert gzip.decompress(body).startswith(b"<!doctype html>")


def _status(variables: dict[str, str], *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*STATUS, *options], cwd=CHECKOUT, env=environment(variables), capture_output=True, timeout=90, check=False
    )


def test_one_look_writes_the_same_page(world: World, tmp_path: Path) -> None:
    """`archiver status --html` writes it as one file, whole or not at all, and its exit code is that of the status."""
    path = tmp_path / "status.html"
    done = _status(world.archived.environment(), "--html", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    page = path.read_text("utf-8")
    assert f"Kafka deleted 2 offsets of {world.topic}" in page
    assert 'http-equiv="refresh"' not in page
    assert [name.name for name in tmp_path.iterdir()] == ["status.html"]


def test_before_anything_is_set(tmp_path: Path) -> None:
    """Without an archive, topics or a Dagster the page says what to do first; two forms at once are wrong usage."""
    done = _status({"BASE_DIR": str(tmp_path / "data")}, "--html", "-")
    assert done.returncode == 0, done.stderr
    page = done.stdout.decode()
    for words in ("Nothing is archived yet.", "<code>make dev</code>", "<code>ARCHIVER_TOPICS</code>"):
        assert words in page
    assert not (tmp_path / "data").exists()
