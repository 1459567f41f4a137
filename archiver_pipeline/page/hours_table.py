"""The calendar of hours as a table: a row for each day, a cell for each hour."""

from __future__ import annotations

from archiver_pipeline.amounts import counted, short, size
from archiver_pipeline.page.calendar import LEVELS, Calendar, Cell, Span
from archiver_pipeline.page.markup import Html, joined, shown, tag

_STATES = {
    "sealed": "sealed",
    "open": "not sealed yet",
    "due": "closed, waits for sealing",
    "empty": "no messages",
    "ahead": "not begun",
}
_MOST_TROUBLES = 20


def hours_table(found: Calendar) -> Html:
    """Draw a calendar, what its shades and marks mean, and what lies outside of it."""
    heads = [tag("th", "day, UTC", scope="col"), *(tag("th", f"{hour:02}", scope="col") for hour in range(24))]
    rows = [tag("tr", _day(day), *map(_cell, cells)) for day, cells in found.days]
    caption = "Messages of each hour by their own time, in UTC"
    drawn = tag("table", tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="heat")
    return joined(
        # It may be wider than a phone: then it is moved within this frame, which keys can do, too.
        tag("div", drawn, class_="wide", tabindex=0, role="region", aria_label="Hours"),
        _legend(found.busiest),
        *_outside(found),
        _troubles(found),
    )


def _day(name: str) -> Html:
    """The head of a row, whose year a phone leaves out."""
    return tag("th", tag("span", name[:-5], class_="year"), name[-5:], scope="row")


def _cell(cell: Cell) -> Html:
    kinds = [f"l{cell.level}", cell.state, *(["trouble"] if cell.troubles else [])]
    number = short(cell.total.messages) if cell.total else "" if cell.state == "ahead" else "·"
    mark = tag("b", "!") if cell.troubles else ""
    return tag("td", mark, number, class_=" ".join(kinds), title=title_of(cell))


def title_of(cell: Cell) -> str:
    """What an hour is, in words: `2026-11-20 03:00–04:00 UTC: 1,200 messages in 3 files, 1.2 MB, sealed`."""
    when = f"{cell.hour.dt} {cell.hour.hr}:00–{int(cell.hour.hr) + 1:02}:00 UTC"
    what = _STATES[cell.state]
    if cell.total is not None:
        total = cell.total
        what = f"{counted(total.messages, 'message')} in {counted(total.files, 'file')}, {size(total.bytes)}, {what}"
    return "; ".join([f"{when}: {what}", *cell.troubles])


def _legend(busiest: int) -> Html:
    step = busiest / LEVELS
    entries = [
        (f"l{level}", f"up to {short(step * level)}" if level < LEVELS else f"up to {short(busiest)} messages")
        for level in range(1, LEVELS + 1)
        if busiest >= LEVELS or level == LEVELS
    ]
    entries += [
        ("l1 sealed", "sealed"),
        ("l1 open", "not sealed yet"),
        ("l1 due", "waits for sealing"),
        ("l0 empty", "no messages"),
        ("l1 trouble", "lost, a gap, or a failed run"),
    ]
    items = (
        tag("li", tag("span", _sample(kind), class_=f"swatch {kind}", aria_hidden="true"), " ", words)
        for kind, words in entries
    )
    return tag("ul", *items, class_="legend", aria_label="What the shades and marks mean")


def _sample(kind: str) -> Html:
    return tag("b", "!") if kind.endswith("trouble") else shown("·" if kind.endswith("empty") else "")


def _outside(found: Calendar) -> list[Html]:
    every = (
        ("Before these days", found.older),
        ("After today, by stamps from the future", found.future),
    )
    told = [tag("p", f"{where}: {_span(span)}.") for where, span in every if span.hours]
    if found.unknown.messages:
        count = counted(found.unknown.messages, "message")
        told.append(tag("p", f"{count} with no time that a calendar holds, under dt=_unknown."))
    return told


def _span(span: Span) -> str:
    sealed = "all sealed" if not span.unsealed else f"{span.unsealed:,} of them not sealed"
    return f"{counted(span.hours, 'hour')} with {counted(span.messages, 'message')}, {sealed}"


def _troubles(found: Calendar) -> Html:
    """Each hour that stands out, in words: a colour alone tells nothing to who cannot see it, or prints the page."""
    inside = [title_of(cell) for _, cells in found.days for cell in reversed(cells) if cell.troubles]
    every = [*inside, *found.troubles]
    if not every:
        return Html("")
    more = [f"… and {len(every) - _MOST_TROUBLES:,} more"] if len(every) > _MOST_TROUBLES else []
    items = (tag("li", text) for text in [*every[:_MOST_TROUBLES], *more])
    return joined(tag("h3", "Hours that stand out"), tag("ul", *items))
