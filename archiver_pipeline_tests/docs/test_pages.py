"""Rules of the pages: every link leads somewhere, every picture is there, every page is found, lines fit a screen."""

from __future__ import annotations

import re

import pytest

from archiver_pipeline_tests.docs import settings_page
from archiver_pipeline_tests.docs.pages import anchors, indented, lines, links, pages, prose, target_of
from archiver_pipeline_tests.processes import CHECKOUT

PAGES = pages()
LINE_LENGTH = 126
README_LINES = 200
PICTURE_BYTES = 150_000
_OUTSIDE = re.compile(r"https?://|mailto:")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """A link leads to a file of the repository, and to a heading that is in it."""
    broken = []
    for link in links(page):
        if _OUTSIDE.match(link.target):
            continue
        path, anchor = target_of(link)
        is_there = path.exists() and path.is_relative_to(CHECKOUT)
        if not is_there or (anchor and anchor not in anchors(str(path.relative_to(CHECKOUT)))):
            broken.append(f"{page}:{link.line}: {link.target}")
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_pictures_say_what_they_show_and_are_small(page: str) -> None:
    """A picture has a text for those who do not see it, and is loaded at once."""
    pictures = [link for link in links(page) if link.is_picture]
    assert [link.target for link in pictures if len(link.text) < 15] == []
    assert [link.target for link in pictures if target_of(link)[0].stat().st_size > PICTURE_BYTES] == []


def test_no_picture_is_left_over() -> None:
    """Every picture in docs/ is shown by a page."""
    shown = {target_of(link)[0] for page in PAGES for link in links(page)}
    there = {path for path in (CHECKOUT / "docs").iterdir() if path.suffix in (".png", ".svg")}
    assert sorted(path.name for path in there - shown) == []


def test_every_page_is_found_from_the_readme() -> None:
    """From the README links lead to every page, and its index has each page in docs/."""
    found, new = set(), {"README.md"}
    while new:
        page = new.pop()
        found.add(page)
        names = {target_of(link)[0] for link in links(page) if not _OUTSIDE.match(link.target)}
        inside = {str(path.relative_to(CHECKOUT)) for path in names if path.suffix == ".md" and path.exists()}
        new |= inside - found
    outside = {"data/README.md", "deploy/kubernetes/README.md"}
    assert set(PAGES) - outside <= found
    index = {target_of(link)[0].name for link in links("docs/README.md")}
    assert {path.name for path in (CHECKOUT / "docs").glob("*.md")} - {"README.md"} <= index


@pytest.mark.parametrize("page", PAGES)
def test_lines_fit_a_screen(page: str) -> None:
    """Prose is wrapped; a table's row, a picture and what a program says are as long as they are."""
    long = [
        f"{page}:{number}: {len(line)}"
        for number, line in prose(page)
        if len(line) > LINE_LENGTH and not line.lstrip().startswith(("|", "!["))
    ]
    assert long == []


@pytest.mark.parametrize("page", PAGES)
def test_headings_have_room(page: str) -> None:
    """Before and behind a heading there is an empty line."""
    text = ["", *lines(page), ""]
    headings = [number for number, line in prose(page) if re.match(r"#{1,6} ", line)]
    assert [number for number in headings if text[number - 1].strip() or text[number + 1].strip()] == []


@pytest.mark.parametrize("page", PAGES)
def test_code_is_fenced(page: str) -> None:
    """What stands in a page as code says in which language it is, so that it can be checked."""
    assert indented(page) == []


def test_the_readme_takes_ten_minutes() -> None:
    """What is longer than that has a page of its own."""
    assert len(lines("README.md")) <= README_LINES


def test_the_page_of_settings_is_that_of_the_code() -> None:
    """docs/settings.md has every setting with the default and the range that the code has."""
    from archiver_pipeline.settings.settings import Settings

    named = [name for fields in settings_page.GROUPS.values() for name in fields]
    assert sorted(named) == sorted(Settings.model_fields.keys() - {"kafka"})
    is_new = settings_page.PAGE.read_text("utf-8") == settings_page.page()
    assert is_new, f"docs/settings.md is not what the code says: run {settings_page.COMMAND} to write it anew"
