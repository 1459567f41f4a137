"""`archiver export`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archiver_pipeline.amounts import counted
from archiver_pipeline.cli.output import say

if TYPE_CHECKING:
    from archiver_pipeline.export.exporter import Exported
    from archiver_pipeline.export.target import Target

_STEPS = {"survey": "messages counted", "export": "messages written"}


def command(
    kind: Annotated[str, typer.Option("--format", metavar="jsonl|csv|orc|parquet", help="Format of the files.")],
    out: Annotated[
        str, typer.Option("--out", metavar="FILE|FOLDER/", help="Where to; - is standard output (jsonl, csv).")
    ],
    start: Annotated[
        str, typer.Option("--from", metavar="TIME", help="From this message time on, ISO time; UTC.")
    ] = "",
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="To this time, not included.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="In place of times: all, the messages without a usable time, too.")
    ] = False,
    topics: Annotated[
        str | None, typer.Option("--topics", metavar="NAMES", help="Of these topics, comma-separated; all by default.")
    ] = None,
    types: Annotated[
        str | None, typer.Option("--types", metavar="NAMES", help='Of these types; one with a comma in "quotes".')
    ] = None,
    payloads: Annotated[
        bool, typer.Option("--payloads", help="Only the original payloads, one a line, byte for byte (jsonl).")
    ] = False,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave out payloads that cannot be a line, and say how many.")
    ] = False,
    compression: Annotated[
        str | None, typer.Option("--compression", metavar="gz|zst|none", help="Of text in a folder; gz by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write messages out of the archive, as JSON lines, CSV, ORC or Parquet: whole or not at all.

    They are those that the archive has at the start, partition by partition in the order of offsets; erased messages
    are never among them. Until all is written and on the disk, nothing is at --out. Where nothing is selected, the
    file is there without a message (a folder is empty), and the exit code is 0.

    **A file** that ends in .gz, .zst, .bz2 or .xz is compressed (jsonl, csv). **A folder** (with / at its end) gets a
    file per type and hour, type=…/dt=…/hr=…/messages.jsonl.gz; what is in the path is then not in the file.

    **jsonl, csv**: topic, topic_id, partition, offset, timestamp, timestamp_us, timestamp_type, type, key, key_bytes,
    value, value_bytes, headers (a list of key, value, value_bytes; in CSV as JSON text). Where text cannot say it
    (bytes that are no UTF-8), the name is null and base64 is under name_bytes; null in both is none. A time outside
    the years 1 to 9999 is in timestamp_us, microseconds since 1970. In CSV nothing between commas is null, "" is empty
    text. **parquet, orc**: the archive's columns, and type, dt, hr; zstd. In ORC, timestamp_us has the times before
    1970 and after 2262.

    **--payloads**: JSON with line breaks is put on one line. Tombstones, bytes that are not UTF-8 and other text with
    line breaks cannot be a line: they are counted and nothing is written, unless --leave-out is given.

    **JSON**: good, messages, files, bytes, seconds, left_out, out.

    **Examples**

        archiver export --from 2019-08-01T03:00 --to 2019-08-01T04:00 --format jsonl --out orders.jsonl.gz
        archiver export --all --topics orders --types object.one --format parquet --out orders.parquet
        archiver export --from 2019-08-01 --format csv --compression zst --out august/
        archiver export --from 2019-08-01 --to 2019-08-02 --format jsonl --payloads --out - | jq .uid
    """
    from archiver_pipeline.cli.output import print_json, times
    from archiver_pipeline.cli.progress import progress
    from archiver_pipeline.envelope import ERASED
    from archiver_pipeline.errors import WrongUsage
    from archiver_pipeline.export.exporter import Exporter
    from archiver_pipeline.export.target import names, target
    from archiver_pipeline.settings.settings import load
    from archiver_pipeline.stored.selected import Selected
    from archiver_pipeline.stored.selection import Selection
    from archiver_pipeline.table.archive import archive_of

    wanted = target(kind, out, compression=compression, payloads=payloads, leave_out=leave_out, overwrite=overwrite)
    if as_json and wanted.out is None:
        raise WrongUsage("--json is given, but standard output has the messages: name a file in --out")
    first_and_end = times(start, end, every=everything)
    settings = load()
    archive = archive_of(settings)
    moment = Selected(archive, Selection())
    selection = Selection(
        *first_and_end,
        topics=names("--topics", topics, {at.topic for at in moment.places}, "topic"),
        types=names("--types", types, moment.types - {ERASED}, "type"),
    )
    stopped = "the output ends in the middle" if wanted.out is None else f"nothing was left at {wanted.out}"
    with progress(_STEPS, f"{stopped}: run the same command again for the whole") as on_progress:
        done = Exporter(archive, moment, selection, wanted, on_progress).run()
    if as_json:
        print_json(_report(done))
    else:
        say(_sentence(done, wanted), file=sys.stderr if wanted.out is None else sys.stdout)


def _report(done: Exported) -> dict[str, Any]:
    return {
        "good": True,
        "messages": done.messages,
        "files": done.files,
        "bytes": done.bytes,
        "seconds": round(done.seconds, 3),
        "left_out": done.refused.total(),
        "out": done.out,
    }


def _sentence(done: Exported, target: Target) -> str:
    """The end of it in words."""
    from archiver_pipeline.amounts import size
    from archiver_pipeline.export.exporter import reasons

    if not done.messages and not done.refused:
        what = "the folder is empty" if target.folder else "the file is there without a message"
        return "nothing was selected" + (f": {what}, {done.out}" if target.out else "")
    rate = round(done.messages / max(done.seconds, 0.001))
    files = f"{counted(done.files, 'file')}, " if target.out else ""
    left_out = f"; left out: {reasons(done.refused)}" if done.refused else ""
    return (
        f"{counted(done.messages, 'message')}, {files}{size(done.bytes)} in {done.seconds:.1f} s "
        f"({counted(rate, 'message')}/s): {done.out}{left_out}"
    )
