"""What an export is to become, as it was asked for: format, place, compression. What does not fit is refused."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from archiver_pipeline.errors import WrongUsage
from archiver_pipeline.export.compression import ENDINGS, ending_of
from archiver_pipeline.export.formats import FORMATS, TEXT, Format
from archiver_pipeline.export.out import refusal

STANDARD_OUTPUT = "-"

_FOLDER_COMPRESSION = {"gz": ".gz", "zst": ".zst", "none": ""}
_NAMED = 10


@dataclass(frozen=True)
class Target:
    """What an export becomes.

    Attributes:
        format: of each file.
        out: the file or folder; None is standard output.
        folder: a file for each type and hour below it.
        ending: what the names of files in a folder end in, `.jsonl.gz`.
        packed: as what text is compressed, one of `compression.ENDINGS` or nothing.
        payloads: payloads alone, a line each.
        leave_out: leave out what cannot be a line.
        overwrite: take the place of what is there.
    """

    format: Format
    out: Path | None
    folder: bool = False
    ending: str = ""
    packed: str = ""
    payloads: bool = False
    leave_out: bool = False
    overwrite: bool = False


def target(
    kind: str,
    out: str,
    *,
    compression: str | None = None,
    payloads: bool = False,
    leave_out: bool = False,
    overwrite: bool = False,
) -> Target:
    """Read the options of an export. Raises WrongUsage, one line with the option, its value and what is allowed."""
    found = next((name for name in FORMATS if name == kind), None)
    if found is None:
        raise _wrong("--format", kind, f"allowed is {', '.join(FORMATS)}")
    if payloads and found != "jsonl":
        raise _wrong("--format", kind, "--payloads takes jsonl alone")
    if leave_out and not payloads:
        raise WrongUsage("--leave-out is given without --payloads: in any other form nothing has to be left out")
    if not out:
        raise _wrong("--out", out, "allowed is a file, a folder with / at its end, or -")
    path = None if out == STANDARD_OUTPUT else Path(out).resolve()
    folder = path is not None and (out.endswith("/") or path.is_dir())
    if path is None and found not in TEXT:
        raise _wrong("--out", out, f"{kind} cannot go to standard output; name a file, or take {' or '.join(TEXT)}")
    if path is not None and (why := refusal(path, folder=folder, overwrite=overwrite)):
        raise _wrong("--out", out, why)
    if compression is not None and not folder:
        raise _wrong("--compression", compression, f"it is for folders; a file ends in {', '.join(ENDINGS)} or none")
    if path is not None and not folder:
        _check_name(found, out, path)
    ending = _ending(found, compression) if folder else ""
    packed = ending_of(ending or (path.name if path else ""))
    return Target(found, path, folder, ending, packed, payloads, leave_out, overwrite)


def _ending(kind: Format, compression: str | None) -> str:
    if kind not in TEXT:
        if compression is not None:
            raise _wrong("--compression", compression, f"it is for {' and '.join(TEXT)}; {kind} has its own")
        return f".{kind}"
    if compression is not None and compression not in _FOLDER_COMPRESSION:
        raise _wrong("--compression", compression, f"allowed is {', '.join(_FOLDER_COMPRESSION)}")
    return f".{kind}{_FOLDER_COMPRESSION[compression or 'gz']}"


def _check_name(kind: Format, out: str, path: Path) -> None:
    """Refuse a name that says another format than is meant."""
    packed = ending_of(path.name)
    if packed and kind not in TEXT:
        raise _wrong("--out", out, f"{kind} is compressed within, with zstd; leave out {path.suffix}")
    says = (Path(path.stem) if packed else path).suffix.removeprefix(".").lower()
    if says in FORMATS and says != kind:
        raise _wrong("--out", out, f"its name says {says}, --format says {kind}")


def names(option: str, text: str | None, known: Collection[str], what: str) -> tuple[str, ...]:
    """Read names separated by commas, one with a comma in double quotes, and check that there are such.

    Args:
        option: `--topics`, for the error.
        text: the names; None for all.
        known: the names there are.
        what: what they name, for the error: "topic".

    Raises:
        WrongUsage: there is none of that name; it names those that are like it.
    """
    if text is None:
        return ()
    wanted = tuple(name for name in next(csv.reader([text], skipinitialspace=True), []) if name)
    if not wanted:
        raise _wrong(option, text, f"allowed are names of {what}s, separated by commas")
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, _NAMED)
            listed = close or sorted(known)[:_NAMED]
            more = f" and {len(known) - len(listed):,} more" if len(known) > len(listed) else ""
            has = f"it has {', '.join(listed)}{more}" if known else "it has none"
            raise _wrong(option, name, f"the archive has no such {what}; {has}")
    return wanted


def _wrong(option: str, value: str, why: str) -> WrongUsage:
    return WrongUsage(f"{option} is {value!r}: {why}")
