"""The pages in Markdown: their blocks of code, their headings, links and pictures."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from archiver_pipeline_tests.processes import CHECKOUT

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)$")
_HEADING = re.compile(r"^#{1,6} (.+)$")
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")
_INDENTED = re.compile(r"^ {4,}\S")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: its file, relative to the checkout.
        heading: the heading that it stands under.
        line: the line of the page that it begins at, from 1 on.
        language: that of its fence, `text` for drawings and what a program says, empty where it has none.
        text: what is in it, ending in a line break.
    """

    page: str
    heading: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Where it is, for errors."""
        return f"{self.page}:{self.line} ({self.heading})"


@dataclass(frozen=True)
class Link:
    """A link of a page, or a picture in it: where it stands, what it shows, and where it leads."""

    page: str
    line: int
    text: str
    target: str
    is_picture: bool


def pages() -> list[str]:
    """All pages, relative to the checkout."""
    found = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("deploy/*/*.md")]
    return sorted(str(path.relative_to(CHECKOUT)) for path in [*found, CHECKOUT / "data" / "README.md"])


def lines(page: str) -> list[str]:
    """The lines of a page."""
    return (CHECKOUT / page).read_text("utf-8").splitlines()


def prose(page: str) -> Iterator[tuple[int, str]]:
    """The lines of a page that are in no fence, with their numbers from 1 on."""
    inside = False
    for number, line in enumerate(lines(page), 1):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            yield number, line


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    heading, begun, fence = "", 0, None
    content: list[str] = []
    for number, line in enumerate(lines(page), 1):
        found = _FENCE.match(line)
        if found and fence is None:
            fence, begun, content = found, number, []
        elif found and fence is not None:
            text = textwrap.dedent("\n".join(content)) + "\n"
            yield Block(page, heading, begun, fence["language"], text)
            fence = None
        elif fence is not None:
            content.append(line)
        elif title := _HEADING.match(line):
            heading = title[1]


def indented(page: str) -> list[str]:
    """Lines that Markdown takes for code because they are indented: which language they are nobody can tell."""
    found, before = [], ""
    for number, line in prose(page):
        if _INDENTED.match(line) and not before.strip():
            found.append(f"{page}:{number}: {line.strip()}")
        before = line
    return found


def links(page: str) -> Iterator[Link]:
    """The links and pictures of a page."""
    for number, line in prose(page):
        for found in _LINK.finditer(re.sub(r"`[^`]*`", "``", line)):
            yield Link(page, number, found["text"], found["target"], bool(found["picture"]))


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for _, line in prose(page):
        if title := _HEADING.match(line):
            plain = re.sub(r"[^\w\- ]", "", title[1].lower()).replace(" ", "-")
            found.add(f"{plain}-{seen[plain]}" if seen[plain] else plain)
            seen[plain] += 1
    return found


def target_of(link: Link) -> tuple[Path, str]:
    """The file that a link leads to, and the anchor in it."""
    name, _, anchor = link.target.partition("#")
    here = CHECKOUT / link.page
    return (here.parent / name).resolve() if name else here.resolve(), anchor
