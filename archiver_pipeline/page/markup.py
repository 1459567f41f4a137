"""Pieces of HTML: text of others escaped, moments, tables. Whatever is not `Html` is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from archiver_pipeline.amounts import duration, moment
from archiver_pipeline.visible import one_line

_LONGEST = 1_000
"""So many characters of a text of others are shown."""

_CODE = re.compile(r"`([^`]+)`")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def shown(content: object) -> Html:
    """Anything as HTML: what is HTML stays, all else is made visible, cut short and escaped."""
    if isinstance(content, Html):
        return content
    text = one_line(str(content))
    return Html(html.escape(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"))


def joined(*parts: object, by: str = "") -> Html:
    """Several contents one after the other."""
    return Html(by.join(shown(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element; an attribute `class_` is `class`, `aria_label` is `aria-label`, and one that is None is left out."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{shown(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{told}>{joined(*content)}</{name}>")


def with_code(text: str) -> Html:
    """A sentence of our own, with what stands between backticks as code."""
    return Html(_CODE.sub(r"<code>\1</code>", html.escape(text, quote=False)))


def at(seconds: float, now: float) -> Html:
    """A moment, in UTC and as how long ago it is; the latter goes on where scripts run."""
    stamp = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    ago = tag("span", f"{duration(max(0.0, now - seconds))} ago", class_="ago", data_at=f"{seconds:.0f}")
    return tag("span", tag("time", moment(seconds), datetime=stamp), " (", ago, ")")


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()) -> Html:
    """A table whose first column names its rows.

    Args:
        caption: what it has, for those who do not see it.
        heads: the heads of its columns.
        rows: their cells.
        numbers: which columns are numbers.
    """
    kinds = ["num" if number in numbers else None for number in range(len(heads))]
    head = [tag("th", name, scope="col", class_=kind) for name, kind in zip(heads, kinds, strict=True)]
    body = []
    for row in rows:
        cells = [tag("th", row[0], scope="row")]
        cells += [
            tag("td", cell, class_=kind, data_head=name)
            for cell, kind, name in list(zip(row, kinds, heads, strict=True))[1:]
        ]
        body.append(tag("tr", *cells))
    return tag("table", tag("caption", caption), tag("thead", tag("tr", *head)), tag("tbody", *body), class_="rows")


def listed(pairs: Iterable[tuple[object, object]], **attributes: object) -> Html:
    """A list of names and what each has."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", what)) for name, what in pairs), **attributes)
