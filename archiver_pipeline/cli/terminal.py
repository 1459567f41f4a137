"""Where statements are typed: lines edited, highlighted, completed and remembered, or plain where the terminal is."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline.cli.catalog import Catalog
from archiver_pipeline.cli.completion import complete, is_complete
from archiver_pipeline.errors import ArchiveError

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

HISTORY = Path("~/.archiver_sql_history").expanduser()
_HISTORY_LINES = 1_000
_BREAK = "\x01"
"""Stands for a line break within a statement of the history, as in that of psql."""

_PROMPT, _MORE = "archive> ", "     ...> "

ReadStatement = Callable[[], str]
"""Returns what a user has typed, up to its end. Raises EOFError on Ctrl-D, KeyboardInterrupt on Ctrl-C."""


def reader(catalog: Callable[[], Catalog], history: Path = HISTORY) -> ReadStatement:
    """What reads statements here: with all comfort on a terminal that can move its cursor, else line by line.

    Args:
        catalog: gives the names for completion as of now; it is asked in another thread.
        history: the file with what was typed before, a statement a line.
    """
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown", "") or not sys.stdout.isatty():
        return _read_plainly
    session = _session(catalog, history)
    return lambda: str(session.prompt())


def _read_plainly() -> str:
    typed = input(_PROMPT)
    while not is_complete(typed):
        typed += "\n" + input(_MORE)
    return typed


def _session(catalog: Callable[[], Catalog], history: Path) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.lexers import PygmentsLexer
    from pygments.lexers.sql import PostgresLexer

    return PromptSession(
        _PROMPT,
        lexer=PygmentsLexer(PostgresLexer),
        completer=_completer(catalog),
        complete_in_thread=True,
        history=_history(history),
        auto_suggest=AutoSuggestFromHistory(),
        multiline=True,
        prompt_continuation=_MORE,
        key_bindings=_keys(),
        reserve_space_for_menu=6,
    )


def _completer(catalog: Callable[[], Catalog]) -> Any:
    import duckdb
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

    class Names(Completer):
        """Completes names as `completion.complete` finds them; without a letter typed only where Tab asks for it."""

        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            """The candidates at the cursor."""
            try:
                found = complete(document.text_before_cursor, document.text_after_cursor, catalog())
            except (ArchiveError, duckdb.Error):
                return  # The file is gone or broken: the statement says so, and typing goes on.
            for each in found:
                if each.length or complete_event.completion_requested:
                    yield Completion(each.text, -each.length, display_meta=each.what)

    return Names()


def _keys() -> Any:
    from prompt_toolkit.filters import completion_is_selected
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter", filter=completion_is_selected)
    def take(event: KeyPressEvent) -> None:
        """Enter on a candidate takes it."""
        event.current_buffer.complete_state = None

    @keys.add("enter", filter=~completion_is_selected)
    def run(event: KeyPressEvent) -> None:
        """Enter runs what is complete, and else begins the next line."""
        if is_complete(event.current_buffer.text):
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.insert_text("\n")

    return keys


def _history(path: Path) -> Any:
    from prompt_toolkit.history import History

    class Lines(History):
        """A file with a statement a line, the newest last; who cannot write it still has the history of the session."""

        def load_history_strings(self) -> Iterable[str]:
            """What was typed before, newest first."""
            return reversed(read_history(path))

        def store_string(self, string: str) -> None:
            """Add what was typed."""
            add_to_history(path, string)

    return Lines()


def read_history(path: Path) -> list[str]:
    """The statements that a file of history has, newest last; the file is cut where it has become long."""
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return []
    kept = [line for line in lines if line.strip()][-_HISTORY_LINES:]
    if len(lines) > 2 * _HISTORY_LINES:
        with contextlib.suppress(OSError):
            new = path.with_name(f"{path.name}.{os.getpid()}")
            new.touch(0o600)
            new.write_text("\n".join(kept) + "\n")
            new.replace(path)
    return [line.replace(_BREAK, "\n") for line in kept]


def add_to_history(path: Path, statement: str) -> None:
    """Add a statement to a file of history, which only its owner can read."""
    if statement.strip():
        with contextlib.suppress(OSError):
            path.touch(0o600)
            with path.open("a", errors="replace") as file:
                file.write(statement.strip().replace("\n", _BREAK) + "\n")
