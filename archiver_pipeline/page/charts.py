"""Charts as inline SVG: throughput over time, and the lag of a topic as a small line. Labels are HTML around them, so
that they keep their size on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from archiver_pipeline.amounts import counted, duration, short, size
from archiver_pipeline.page.markup import Html, shown, tag
from archiver_pipeline.status import BatchStatus

BARS = 60
_SPANS = tuple(60 * minutes for minutes in (10, 30, 60, 120, 180, 360, 720, 1_440, 2_880, 10_080, 43_200))
"""How many seconds a chart may span: the least of them that has all batches which are known."""

_WIDTH, _HEIGHT = 600, 120
_SPARK_WIDTH, _SPARK_HEIGHT = 120, 24


@dataclass(frozen=True)
class Bars:
    """Throughput over time.

    Attributes:
        start, step: when the first bar begins, in seconds since 1970, and how many seconds each is wide.
        messages, bytes, batches: for each bar.
    """

    start: float
    step: float
    messages: tuple[int, ...]
    bytes: tuple[int, ...]
    batches: tuple[int, ...]

    @property
    def top(self) -> float:
        """The upper end of the axis, in messages per second: a round number."""
        return round_up(max(self.messages, default=0) / self.step)


def bars_of(batches: Sequence[BatchStatus], now: float, count: int = BARS) -> Bars:
    """Put batches into bars that end now. A batch counts where it was committed."""
    ages = [max(0.0, now - batch.time.timestamp()) for batch in batches]
    wanted = max(ages, default=0.0)
    span = next((seconds for seconds in _SPANS if seconds >= wanted), _SPANS[-1])
    step = span / count
    messages, sizes, counts = [0] * count, [0] * count, [0] * count
    for batch, age in zip(batches, ages, strict=True):
        if age <= span:
            place = min(count - 1, int((span - age) / step))
            messages[place] += batch.messages
            sizes[place] += batch.bytes
            counts[place] += 1
    return Bars(now - span, step, tuple(messages), tuple(sizes), tuple(counts))


def _span(seconds: float) -> str:
    """A whole span of time without its zeros: `6 h` in place of `6 h 0 min`."""
    return duration(seconds).removesuffix(" 0 s").removesuffix(" 0 min")


def round_up(value: float) -> float:
    """The next number of 1, 2 or 5 with zeros, at least as large; 1 for none."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def throughput(batches: Sequence[BatchStatus], now: float) -> Html:
    """The chart of throughput, with its axes."""
    found = bars_of(batches, now)
    width = _WIDTH / len(found.messages)
    drawn = [
        tag(
            "rect",
            tag("title", _bar_title(found, number)),
            x=f"{number * width + 0.5:.1f}",
            y=f"{_HEIGHT * (1 - messages / found.step / found.top):.1f}",
            width=f"{width - 1:.1f}",
            height=f"{_HEIGHT * messages / found.step / found.top:.1f}",
        )
        for number, messages in enumerate(found.messages)
        if messages
    ]
    grid = [tag("line", x1=0, x2=_WIDTH, y1=y, y2=y) for y in (0.5, _HEIGHT / 2, _HEIGHT - 0.5)]
    span = _span(found.step * len(found.messages))
    told = f"{counted(sum(found.messages), 'message')} in {counted(sum(found.batches), 'batch', 'batches')}"
    svg = tag(
        "svg",
        tag("title", f"Messages per second over the last {span}"),
        tag("desc", f"{told}; the highest bar is {max(found.messages) / found.step:,.1f} messages/s"),
        tag("g", *grid, class_="grid"),
        tag("g", *drawn, class_="bars"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
    )
    scale = [tag("span", short(found.top)), tag("span", short(found.top / 2)), tag("span", "0")]
    labels = [tag("span", label) for label in _times(found)]
    return tag(
        "figure",
        tag(
            "figcaption",
            f"Messages per second, a bar for each {_span(found.step)}; {told} over the last {span}, times in UTC",
        ),
        tag("div", tag("div", *scale, class_="scale", aria_hidden="true"), svg, class_="plot"),
        tag("div", *labels, class_="times", aria_hidden="true"),
        class_="chart",
    )


def _times(found: Bars) -> list[str]:
    span = found.step * len(found.messages)
    form = "%H:%M" if span <= 86_400 else "%m-%d %H:%M"
    moments = (found.start + span * part / 4 for part in range(5))
    return [datetime.fromtimestamp(moment, UTC).strftime(form) for moment in moments]


def _bar_title(found: Bars, number: int) -> str:
    begin = datetime.fromtimestamp(found.start + number * found.step, UTC)
    messages, batches = found.messages[number], found.batches[number]
    rate = f"{messages / found.step:,.1f} messages/s, {size(found.bytes[number] / found.step)}/s"
    told = f"{counted(messages, 'message')}, {counted(batches, 'batch', 'batches')}"
    return f"{begin:%Y-%m-%d %H:%M:%S} UTC: {told}, {rate}"


def sparkline(samples: Sequence[tuple[float, int]], now: float) -> Html:
    """How a lag was, as a small line from its first sample until now; nothing where fewer than two are known."""
    if len(samples) < 2:
        return shown("–")
    start, highest = samples[0][0], max(lag for _, lag in samples)
    span = max(1.0, samples[-1][0] - start)
    points = " ".join(
        f"{_SPARK_WIDTH * (time - start) / span:.1f},{_spark_y(lag, highest):.1f}" for time, lag in samples
    )
    # What is HTML already is never cut short, however many points it has.
    area, line = Html(f"0,{_SPARK_HEIGHT} {points} {_SPARK_WIDTH},{_SPARK_HEIGHT}"), Html(points)
    told = f"Lag over the last {duration(now - start)}: at most {highest:,}, now {samples[-1][1]:,}"
    return tag(
        "svg",
        tag("title", told),
        tag("polygon", points=area),
        tag("polyline", points=line),
        class_="spark",
        viewBox=f"0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
    )


def _spark_y(lag: int, highest: int) -> float:
    return _SPARK_HEIGHT - 1.5 - (_SPARK_HEIGHT - 3) * (lag / highest if highest else 0)
