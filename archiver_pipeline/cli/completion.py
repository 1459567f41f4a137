"""What may come next in a statement: pure, from the text around the cursor and the names that there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from archiver_pipeline.cli.catalog import Catalog
from archiver_pipeline.cli.results import FORMS

COMMANDS = {
    ".tables": "the views",
    ".schema": "the columns of a view and their types: .schema NAME; of all views without a name",
    ".macros": "the macros of the archive, and what each does",
    ".examples": "queries of this archive's own types, numbered",
    ".example": "run one of them: .example 3",
    ".mode": f"how results are printed: .mode {'|'.join(FORMS)}",
    ".timer": "rows and seconds after each result: .timer on|off",
    ".help": "this list",
    ".quit": "leave, as does Ctrl-D",
}
"""What a line that begins with a dot may ask for, and a sentence on each."""

_HIDDEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\$\$.*?\$\$", re.DOTALL)
"""Texts, quoted names and comments, whole."""

_OPEN_TEXT = re.compile(r"'((?:[^']|'')*)$")
_WORD = re.compile(r"[\w.\"]*$")
_SOURCES = re.compile(
    r"\b(?:FROM|JOIN|DESCRIBE|SUMMARIZE|TABLE)\s+(?:\"((?:[^\"]|\"\")+)\"|(\w+))(?:\s+(?:AS\s+)?(?!ON\b|USING\b)(\w+))?",
    re.IGNORECASE,
)
_AFTER_FROM = re.compile(r"\b(?:FROM|JOIN|DESCRIBE|SUMMARIZE|TABLE)\s+$|\bFROM\s+[\w\s\".]+,\s*$", re.IGNORECASE)
_PATH = re.compile(r"(?:->>?|\bfield\s*\([^()']*,|\bjson\s*\()\s*'[^']*$", re.IGNORECASE)
_TYPE = re.compile(r"(?:\btype\s*(?:=|<>|!=|(?:NOT\s+)?IN\s*\([^)]*)|\blatest\s*\()\s*'[^']*$", re.IGNORECASE)
_OF = re.compile(r"\b(?:of\s*:=|messages_between\s*\([^()]*,[^()]*,)\s*'[^']*$", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """What may be put in.

    Attributes:
        text: it.
        length: how many characters before the cursor it takes the place of.
        what: view, column, macro and so on, for people.
    """

    text: str
    length: int
    what: str


def is_complete(text: str) -> bool:
    """Tell whether a text may be run: an empty line, a line that begins with a dot, or SQL up to its `;`."""
    if not text.strip() or text.lstrip().startswith(".") or text.strip().lower() in ("quit", "exit"):
        return True
    left = _HIDDEN.sub(" ", text)
    return left.rstrip().endswith(";") and not re.search(r"['\"]|/\*|\$\$", left)


def complete(before: str, after: str, catalog: Catalog) -> list[Candidate]:
    """Find what may come next, best first.

    Args:
        before: the text before the cursor.
        after: the text behind it: a statement may name its views there.
        catalog: the names that there are.
    """
    if before.lstrip().startswith("."):
        return list(_commands(before.lstrip(), catalog))
    if any(match[0].startswith("--") and match.end() == len(before) for match in _HIDDEN.finditer(before)):
        return []
    start = max((match.end() for match in re.finditer(";", _blanked(before))), default=0)
    statement = before[start:]
    views = _views(statement + after.partition(";")[0], catalog)
    if (text := _OPEN_TEXT.search(_blanked(statement))) is not None:
        return list(_texts(statement, text[1], views, catalog))
    word = _WORD.search(statement)
    typed = word[0] if word else ""
    if "." in typed:
        alias, _, typed = typed.rpartition(".")
        columns = _columns([views.get(alias.strip('"').lower(), "")], catalog)
        return list(_of(columns, typed.lstrip('"'), len(typed), "column", catalog))
    if _AFTER_FROM.search(_blanked(statement[: len(statement) - len(typed)])):
        return [
            *_of(catalog.columns, typed.lstrip('"'), len(typed), "view", catalog),
            *(Candidate(f"{name}(", len(typed), "macro") for name in catalog.tables if _begins(name, typed)),
        ]
    return list(_names(typed, views, catalog))


def _commands(line: str, catalog: Catalog) -> Iterator[Candidate]:
    command, space, rest = line.partition(" ")
    if not space:
        found: Iterable[str] = COMMANDS
    elif command in (".schema", ".tables", ".columns"):
        found = catalog.columns
    else:
        found = {".mode": FORMS, ".timer": ("on", "off")}.get(command, ())
    typed = rest if space else command
    what = "view" if found is catalog.columns else "command"
    yield from (Candidate(name, len(typed), what) for name in found if _begins(name, typed))


def _texts(statement: str, typed: str, views: dict[str, str], catalog: Catalog) -> Iterator[Candidate]:
    """What may stand between single quotes: a JSON path, a type, the name of a view."""
    if _PATH.search(statement):
        sources = set(views.values()) & catalog.fields.keys() or catalog.fields
        names = dict.fromkeys(name for view in sources for name in catalog.fields[view])
        paths = (f"$.{name}" if name.isidentifier() else f'$."{name}"' for name in names)
        found, what = [path for path in paths if _begins(path, typed) or _begins(path[2:], typed)], "JSON field"
    elif _OF.search(statement):
        found, what = [name for name in catalog.fields if _begins(name, typed)], "view"
    elif _TYPE.search(statement):
        found, what = [name for name in catalog.types if _begins(name, typed)], "type"
    else:
        return
    yield from (Candidate(name.replace("'", "''") + "'", len(typed), what) for name in found)


def _names(typed: str, views: dict[str, str], catalog: Catalog) -> Iterator[Candidate]:
    """Columns of the views that the statement names, or of all while it names none; macros, keywords and functions."""
    columns = _columns(views.values() or catalog.columns, catalog)
    if not views:  # Those of every message first.
        columns = list(dict.fromkeys((*catalog.columns.get("messages", ()), *columns)))
    yield from _of(columns, typed.lstrip('"'), len(typed), "column", catalog)
    if not typed or typed.startswith('"'):
        return
    yield from (Candidate(f"{name}(", len(typed), "macro") for name in catalog.macros if _begins(name, typed))
    yield from (Candidate(name, len(typed), "keyword") for name in catalog.keywords if _begins(name, typed))
    yield from (Candidate(f"{name}(", len(typed), "function") for name in catalog.functions if _begins(name, typed))


def _of(names: Iterable[str], typed: str, length: int, what: str, catalog: Catalog) -> Iterator[Candidate]:
    yield from (Candidate(catalog.quoted(name), length, what) for name in names if _begins(name, typed))


def _columns(views: Iterable[str], catalog: Catalog) -> list[str]:
    """The columns of views: those that not every message has first, for they are what a view is asked for."""
    every = dict.fromkeys(column for view in views for column in catalog.columns.get(view, ()))
    return sorted(every, key=lambda column: column in catalog.columns.get("messages", ()))


def _views(statement: str, catalog: Catalog) -> dict[str, str]:
    """The views that a statement names, by alias and by name, in small letters."""
    by_name = {name.lower(): name for name in catalog.columns}
    found: dict[str, str] = {}
    for quoted, plain, alias in _SOURCES.findall(statement):
        name = (quoted.replace('""', '"') or plain).lower()
        view = by_name.get(name) or ("messages" if name in catalog.tables else None)
        if view is not None:
            found[name] = view
            if alias:
                found[alias.lower()] = view
    return found


def _begins(name: str, typed: str) -> bool:
    return name.lower().startswith(typed.lower())


def _blanked(text: str) -> str:
    """The text with texts and comments, which may have anything in them, made blank; quoted names stay."""
    return _HIDDEN.sub(lambda match: match[0] if match[0][0] == '"' else " " * len(match[0]), text)
