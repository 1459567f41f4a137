"""`archiver sql`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from archiver_pipeline.cli.results import Form
from archiver_pipeline.errors import WrongUsage


def command(
    query: Annotated[str | None, typer.Argument(help="SQL to run; without it, standard input or a shell.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", exists=True, dir_okay=False, help="Run the SQL of a file.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print results as CSV with a header.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON, an array of objects.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="First bring this machine's DuckDB file up to the archive.")
    ] = False,
) -> None:
    """Query the archive with DuckDB: messages and a view for each type (types names them), offsets, batches, gaps,
    losses, erasures, hours and fields.

    With SQL as the argument, in a file or on standard input its results are printed. On a terminal a shell opens:
    statements end with ;, Tab completes names, .examples has queries to begin with, .help the rest. The file is opened
    read-only, and new batches are there from one statement to the next. That is so on the machine where the archiver
    runs; elsewhere --refresh brings them.

    In CSV and JSON times are in ISO form, lists, structs and maps JSON; of two columns of one name, JSON has the second
    as name_1, and nan, inf and infinity are text in it.

    Times are UTC. WHERE dt = … AND hr = …, or messages_between(…), reads the files of these hours alone.

    **Examples**

        archiver sql
        archiver sql "SELECT type, count(*) FROM messages GROUP BY 1"
        archiver sql "FROM latest('order.created', n := 5)"
        archiver sql --csv "FROM messages_between('2026-11-20 10:00', '2026-11-20 11:00')" > hour.csv
        archiver sql --json -f report.sql
        echo "SELECT * FROM gaps" | archiver sql --json
        archiver sql --refresh "SELECT count(*) FROM messages"
    """
    if as_csv and as_json:
        raise WrongUsage("--csv is given with --json: a result is one or the other")
    if file is not None and query is not None:
        raise WrongUsage("--file is given with a query: SQL comes from one or the other")
    from archiver_pipeline.cli.output import check_format
    from archiver_pipeline.cli.shell import View
    from archiver_pipeline.settings.settings import load
    from archiver_pipeline.table.archive import archive_of

    settings = load()
    archive = archive_of(settings)
    check_format(archive)
    if refresh and archive.exists():
        from archiver_pipeline.view.view import refresh as bring_up

        bring_up(settings.view_path, archive)
    view = View(settings.view_path, archive.storage.attach, archived=archive.exists)
    form: Form = "csv" if as_csv else "json" if as_json else "table"
    if query is None and file is None and sys.stdin.isatty():
        from archiver_pipeline.cli.prompt import Shell

        Shell(view, form).run()
        return
    text = query if query is not None else sys.stdin.read() if file is None else file.read_text()
    view.run(text, form)
