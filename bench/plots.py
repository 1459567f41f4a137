"""Draw what was recorded: throughput by size of messages and by lanes, a batch by size of the archive, the soak.

It reads `bench/results/` and writes `docs/speed-*.svg`; run `bench.sizes`, `bench.growth batches` or `bench.soak`
before.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.results import recorded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOCS = Path(__file__).parents[1] / "docs"
_ARCHIVER, _BARE = "#1f6feb", "#8c959f"


def main() -> None:
    """Draw all plots that there are figures for."""
    argparse.ArgumentParser(prog="python -m bench.plots", description=__doc__).parse_args()
    for name, result, draw in (
        ("sizes", "sizes", _sizes),
        ("lanes", "sizes", _lanes),
        ("growth", "growth_batches", _growth),
        ("soak", "soak", _soak),
    ):
        found = recorded(result)
        if found is None:
            print(f"nothing recorded for {name}: run bench.{result.split('_')[0]} before")
        else:
            print(f"drawn: {_drawn(name, draw, found)}")


def _drawn(name: str, draw: Any, found: Any) -> Path:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = name  # The same figures make the same file.
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    draw(axes, found)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    path = DOCS / f"speed-{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def _sizes(axes: Axes, found: Any) -> None:
    sizes = [item["bytes_of_a_message"] for item in found["sizes"]]
    for name, label, color in (("bare", "bare consume()", _BARE), ("archiver", "archiver", _ARCHIVER)):
        rates = [item[name]["messages_per_second"] for item in found["sizes"]]
        median = [rate["median"] for rate in rates]
        axes.plot(sizes, median, "o-", label=label, color=color)
        axes.fill_between(
            sizes, [rate["min"] for rate in rates], [rate["max"] for rate in rates], color=color, alpha=0.2
        )
    axes.set(xscale="log", yscale="log", xlabel="bytes of a message", ylabel="messages per second")
    axes.set_title("Throughput by size of messages: median, least, most")
    axes.legend(frameon=False)


def _lanes(axes: Axes, found: Any) -> None:
    lanes = found["lanes"]
    bars = axes.bar([str(item["lanes"]) for item in lanes], [item["messages_per_second"] for item in lanes],
                    color=_ARCHIVER, width=0.5)  # fmt: skip
    axes.bar_label(bars, fmt="{:,.0f}", padding=2)
    axes.set(xlabel="lanes, a process each", ylabel="messages per second")
    axes.set_title("Throughput by lanes, start of the processes with it")


def _growth(axes: Axes, found: Any) -> None:
    files = [item["files"] for item in found]
    each = [item["batch_seconds_each"] for item in found]
    axes.plot(files, [item["batch_seconds"] for item in found], "o-", color=_ARCHIVER)
    axes.fill_between(files, list(map(min, each)), list(map(max, each)), color=_ARCHIVER, alpha=0.2)
    axes.set(xscale="log", ylim=(0, None), xlabel="files in the archive", ylabel="seconds")
    axes.set_title("A batch of 100,000 messages, from plan to visible: median, least, most")


def _soak(axes: Axes, found: Any) -> None:
    """Memory of the archiver's processes, and behind it for how long messages waited to be visible."""
    for name, label in (
        ("largest_run", "largest run"),
        ("code", "code location"),
        ("webserver", "webserver"),
        ("daemon", "daemon"),
        ("metrics", "metrics"),
    ):
        minutes, mib = zip(*found["memory_over_time"][name], strict=True)
        axes.plot(minutes, mib, label=label, linewidth=1.2)
    axes.set(xlabel="minutes", ylabel="MiB in memory", ylim=(0, None))
    waited = axes.twinx()
    minutes, seconds = zip(*found["freshness_over_time"], strict=True)
    waited.fill_between(minutes, seconds, color=_BARE, alpha=0.35, linewidth=0)
    waited.set(ylabel="seconds until visible (grey)", ylim=(0, None))
    for fault in found["faults"]:
        axes.axvline(fault["minute"], color=_BARE, linestyle=":", linewidth=0.8)
        axes.text(fault["minute"], axes.get_ylim()[1], fault["server"], fontsize=7, rotation=90, va="top", ha="right")
    axes.set_title("Half an hour of everything, with servers that go")
    axes.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=5)


if __name__ == "__main__":
    main()
