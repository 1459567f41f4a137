"""The command line as a whole: the commands, the options before them, and what becomes of errors."""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from archiver_pipeline.cli import backfill, doctor, erase, export, generate, metrics, replay, sql, status, tail, verify
from archiver_pipeline.cli.shell import SqlError
from archiver_pipeline.errors import ArchiverError, PredicateRefused, SettingsError, WrongUsage
from archiver_pipeline.logs import JSON, handler, wanted_format
from archiver_pipeline.visible import one_line, visible

log = logging.getLogger(__name__)

GOOD, FAULT, WRONG_USAGE = 0, 1, 2
INTERRUPTED, PIPE_CLOSED = 130, 141
"""Exit codes: as promised, and for a signal 128 and its number, as a shell has them."""

_LIBRDKAFKA = "%s [%s] %s"
"""The format in which confluent-kafka hands on what librdkafka logs."""


PROGRAM = "archiver"
_INVALID = re.compile("Invalid value for '([^']*)': ")
_UsageError: Any = typer.BadParameter.__base__
"""What Typer raises where a command line is wrong: it has no public name there."""


class Commands(TyperGroup):
    """Runs a command and turns its errors into one line on standard error and an exit code."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read what stands before the command's name."""
        try:
            return super().make_context(*args, **kwargs)
        except _UsageError as error:
            raise typer.Exit(_say_usage(error, PROGRAM)) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except _UsageError as error:
            code = _say_usage(error, f"{PROGRAM} {ctx.invoked_subcommand}" if ctx.invoked_subcommand else PROGRAM)
        except WrongUsage as error:
            code = _say(WrongUsage(str(error), hint=_try_help(f"{PROGRAM} {ctx.invoked_subcommand}")), WRONG_USAGE)
        except (PredicateRefused, SettingsError) as error:
            code = _say(error, WRONG_USAGE)
        except ArchiverError as error:
            code = _say(error, FAULT)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except RuntimeError as error:
            # What DuckDB makes of Ctrl-C.
            if str(error) != "Query interrupted":
                raise
            code = INTERRUPTED
        except BrokenPipeError:
            _drop_output()
            code = PIPE_CLOSED
        except OSError as error:
            if not _is_of_output(error):
                raise
            _drop_output()
            hint = "Free space, or let it go elsewhere, and run again"
            code = _say(ArchiverError(f"standard output cannot be written: {error.strerror}", hint=hint), FAULT)
        raise typer.Exit(code)


def _is_of_output(error: OSError) -> bool:
    """Whether printing has failed: what commands ask others for has a file's name, or fails further down."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = str(trace.tb_frame.f_globals.get("__name__")) if trace is not None else ""
    return error.filename is None and where.startswith("archiver_pipeline.cli.")


def _drop_output() -> None:
    """Let what is still buffered go nowhere: it would fail again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(error: ArchiverError, code: int) -> int:
    """Print an error as one line, but for SQL, where a line shows the place; where logs are JSON, as a record."""
    if wanted_format() == JSON and logging.getLogger().handlers:
        log.error("%s", error, exc_info=error)
        return code
    text = str(error) if isinstance(error, SqlError) else " ".join(str(error).split()).replace("?. ", "? ")
    typer.echo(f"archiver: {visible(text)}", err=True)
    return code


def _say_usage(error: Any, command: str) -> int:
    """Print what is wrong with a command line as one line like any other error; help that was asked for is help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        raise error
    what = " ".join(error.format_message().split()).rstrip(".")
    what = what.replace(". Did you mean", "; did you mean").replace("Input should be", "it has to be")
    what = _INVALID.sub(r"\1 is wrong: ", what).partition(", unable to parse")[0]
    return _say(WrongUsage(what[:1].lower() + what[1:], hint=_try_help(command)), WRONG_USAGE)


def _try_help(command: str) -> str:
    return f"Try '{command} --help'"


class OneLine(logging.Formatter):
    """Writes a message as one line: a name in it cannot make up a second one, nor control a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record, whose traceback, if there is one, comes behind it."""
        record.message = one_line(record.message)
        return super().formatMessage(record)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    # A traceback with local variables could show a password.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"archiver {version('archiver-pipeline')}")
        except PackageNotFoundError:
            typer.echo("archiver (not installed)")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say on standard error what is being done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Archives Kafka topics as Hive-partitioned Parquet, exactly once.

    Settings are taken from the environment, then from archiver.toml. Exit code 0 is good, 1 a fault that was found or
    an error, 2 wrong usage or a wrong setting.

    **Examples**

        KAFKA_BOOTSTRAP_SERVERS=localhost:9092 ARCHIVER_TOPICS=orders,clicks archiver status
        archiver verify --against-kafka
        archiver sql "SELECT type, count(*) FROM messages GROUP BY 1"
    """
    level = logging.INFO if verbose else logging.WARNING
    is_json = wanted_format() == JSON
    shown = handler() if is_json else logging.StreamHandler(sys.stderr)
    if not is_json:
        shown.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s" if verbose else "archiver: %(message)s"))
    logging.basicConfig(handlers=[shown], level=level)
    if not verbose:
        # The errors that are raised say what librdkafka complained of.
        shown.addFilter(lambda record: record.msg != _LIBRDKAFKA)


app.command("status")(status.command)
app.command("doctor")(doctor.command)
app.command("verify")(verify.command)
app.command("backfill")(backfill.command)
app.command("replay")(replay.command)
app.command("export")(export.command)
app.command("erase")(erase.command)
app.command("generate")(generate.command)
app.command("sql")(sql.command)
app.command("tail")(tail.command)
app.command("metrics")(metrics.command)


def _open_closed_streams() -> None:
    """Have standard output and standard error where a shell has closed them: `1>&-` is an error, `2>&-` is no log.

    Their numbers would else go to the next files that are opened, and a library that complains would write into those.
    """
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def main() -> None:
    """Run the `archiver` command; it exits the process."""
    _open_closed_streams()
    app(prog_name=PROGRAM)
