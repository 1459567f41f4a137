"""The page as one HTML document: it asks for nothing more, and its policy lets nothing of others run."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from archiver_pipeline.page.markup import Html, at, joined, shown, tag, with_code
from archiver_pipeline.page.script import SCRIPT
from archiver_pipeline.page.sections import sections
from archiver_pipeline.page.standing import Standing
from archiver_pipeline.page.style import STYLE
from archiver_pipeline.page.verdict import Concern, Verdict, verdict

_MARKS = {"ok": "✓", "fault": "✕", "warning": "!", "pending": "…"}
_KINDS = {"fault": "Fault: ", "warning": "Warning: ", "quiet": ""}
_COLOURS = {"ok": "00694d", "fault": "b3400a", "warning": "a87400", "pending": "4d5965"}
_UNSCRIPTED_SECONDS = 30


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
"""The content security policy (W3C, "Content Security Policy Level 3"): this style and script, and nothing else."""

HEADER_POLICY = f"{POLICY}; frame-ancestors 'none'"
"""The same as a header has it, where frames of others can be refused, too."""


@dataclass(frozen=True)
class Links:
    """Where the page leads to, by path what is there, and how often it looks for a newer one, in seconds (0: never)."""

    paths: tuple[tuple[str, str], ...] = ()
    refresh_seconds: float = 0.0


def document(standing: Standing, links: Links | None = None) -> str:
    """Draw the page.

    Args:
        standing: what it shows.
        links: where it leads to; a file leads nowhere, and stays as it is.
    """
    links = links or Links()
    found = verdict(standing)
    # What does not end in a file of its own has an end of its line.
    return f'<!doctype html>\n<html lang="en">\n{_head(found, links)}\n{_body(standing, found, links)}\n</html>\n'


def _head(found: Verdict, links: Links) -> Html:
    again = f'<noscript><meta http-equiv="refresh" content="{_UNSCRIPTED_SECONDS}"></noscript>'
    icon = (
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
        f"%3Ccircle cx='8' cy='8' r='7' fill='%23{_COLOURS[found.level]}'/%3E%3C/svg%3E"
    )
    parts = (
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f'<link rel="icon" href="{icon}">',
        again if links.refresh_seconds else "",
        tag("title", f"{_MARKS[found.level]} {found.sentence} – archiver"),
        f"<style>{STYLE}</style>",
    )
    return Html("<head>" + "\n".join(filter(None, parts)) + "</head>")


def _body(standing: Standing, found: Verdict, links: Links) -> Html:
    lost = tag(
        "div",
        tag("span", "✕", class_="mark", aria_hidden="true"),
        tag("p", "This page gets no answer any more, and what is shown is old: does archiver metrics still run?"),
        class_="verdict fault", id="lost", role="alert",
    )  # fmt: skip
    main = tag("main", _verdict(found), _concerns(found, standing.now), sections(standing))
    note = "Times are in UTC, and an hour is that of the messages' own time. Nothing here decides what is archived."
    script = Html(f"<script>{SCRIPT}</script>")
    parts = (_header(standing, links), lost if links.refresh_seconds else "", main, tag("footer", note), script)
    refresh = f"{links.refresh_seconds:g}" if links.refresh_seconds else None
    return tag("body", joined(*parts), data_refresh=refresh, data_now=f"{standing.now:.3f}")


def _header(standing: Standing, links: Links) -> Html:
    leads = [tag("a", path, href=path, title=what) for path, what in links.paths]
    return tag(
        "header",
        tag("h1", "archiver"),
        tag("span", "as of ", at(standing.now, standing.now)),
        tag("nav", *leads, aria_label="Other answers") if leads else "",
    )


def _verdict(found: Verdict) -> Html:
    mark = tag("span", _MARKS[found.level], class_="mark", aria_hidden="true")
    return tag("div", mark, tag("p", found.sentence), class_=f"verdict {found.level}", role="status")


def _concerns(found: Verdict, now: float) -> Html:
    items = [tag("li", _concern(item, now), class_=item.level) for item in found.concerns]
    return tag("ul", *items, class_="concerns", aria_label="What to do") if items else Html("")


def _concern(item: Concern, now: float) -> Html:
    since = tag("p", "Since ", at(item.since, now), class_="soft") if item.since is not None else ""
    return joined(
        tag("h3", tag("span", _KINDS[item.level], class_="kind"), item.what),
        since,
        tag("p", shown(item.why)) if item.why else "",
        tag("p", with_code(item.do), class_="do") if item.do else "",
    )
