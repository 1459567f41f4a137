"""A real browser without a window: pages opened, looked at, and taken as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from archiver_pipeline_tests.debian import installed

DESKTOP = (1440, 900)
PHONE = (390, 844)
"""Width and height of a window in CSS pixels."""


@contextmanager
def browser(data: Path, size: tuple[int, int] = DESKTOP, scale: float = 1.0) -> Iterator[Chrome]:
    """Chromium with an empty profile in a folder, which ends with the block.

    Args:
        data: where its profile goes.
        size: of the window, in CSS pixels.
        scale: pixels of a picture for each CSS pixel.

    Raises:
        ToolMissing: it is not installed and cannot be.
    """
    options = ChromeOptions()
    options.binary_location = installed("chromium", "chromium", "chromium-driver")
    # As root it has no sandbox, and in a container /dev/shm is often too small.
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars", "lang=en"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={data}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, Service(installed("chromedriver", "chromium-driver")))
    try:
        resize(driver, size, scale)
        yield driver
    finally:
        driver.quit()


def resize(driver: Chrome, size: tuple[int, int], scale: float = 1.0) -> None:
    """Give the page a size in CSS pixels, and pictures so many pixels for each of them."""
    # Not the window, which Chromium makes no narrower than 500 pixels.
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": size == PHONE}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def complaints(driver: Chrome) -> list[str]:
    """What the page's scripts and requests have complained of since this was asked last."""
    entries = driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium gives it no type
    return [str(entry["message"]) for entry in entries if entry["level"] in ("SEVERE", "WARNING")]
