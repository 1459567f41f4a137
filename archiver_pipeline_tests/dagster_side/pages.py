"""The pages of Dagster's UI as a user opens them, in a real browser: what is written on each, and a picture of it."""

from __future__ import annotations

from pathlib import Path

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from archiver_pipeline_tests.browser import complaints
from archiver_pipeline_tests.waiting import wait_for

LIMIT_SECONDS = 60.0
_TROUBLE = ("Sorry, ", "Something went wrong", "Unexpected GraphQL error", "PythonError", "An error occurred")
"""What the UI writes where one of its own pages has failed."""

_OF_THE_UI_ITSELF = "https://go.apollo.dev/c/err"
"""In what a library warns the UI's own authors of on every page: options of it that its next version has no more."""


class Pages:
    """A browser on the UI of a running Dagster."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self._driver = driver
        self._url = url

    def open(self, path: str, *words: str) -> str:
        """Open a page, wait for each of these words on it, and return all that is written there.

        Raises:
            TimeoutError: a word does not come.
        """
        self._driver.get(self._url + path)
        return self.wait(*words)

    def wait(self, *words: str) -> str:
        """Wait for words on the page that is open. Raises TimeoutError."""
        text = ""

        def is_there() -> bool:
            nonlocal text
            text = self.text()
            return all(word in text for word in words)

        try:
            wait_for(f"{words} on {self._driver.current_url}", is_there, LIMIT_SECONDS)
        except TimeoutError as error:
            missing = [word for word in words if word not in text]
            raise TimeoutError(f"{self._driver.current_url} lacks {missing}; it has:\n{text}") from error
        return text

    def text(self) -> str:
        """What is written on the page that is open."""
        try:
            return str(self._driver.find_element(By.TAG_NAME, "body").text)
        except StaleElementReferenceException:
            return ""

    def press(self, words: str) -> None:
        """Press the last thing on the page that says exactly this."""
        place = f"//*[normalize-space(text())={words!r}]"
        wait_for(f"{words} on {self._driver.current_url}", lambda: self._pressed(place), LIMIT_SECONDS)

    def _pressed(self, place: str) -> bool:
        found = self._driver.find_elements(By.XPATH, place)
        if not found:
            return False
        self._driver.execute_script("arguments[0].click()", found[-1])
        return True

    def troubles(self) -> list[str]:
        """What is wrong with the page that is open: an error that it shows, or that its scripts complained of."""
        text = self.text()
        said = [each for each in complaints(self._driver) if _OF_THE_UI_ITSELF not in each]
        return [*said, *(word for word in _TROUBLE if word in text)]

    def picture(self, path: Path) -> None:
        """Take a picture of what is to be seen of the page."""
        self._driver.save_screenshot(str(path))
