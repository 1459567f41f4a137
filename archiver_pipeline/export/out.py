"""Where an export goes: whole or not at all. It is made beside its place and put there when it is complete.

.NAME.partial-<id>    being made, in the same folder; held by flock(2) as long as the process lives
.NAME.replaced-<id>   the folder that an export takes the place of, between two renames
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from archiver_pipeline.durable import force
from archiver_pipeline.errors import ExportError

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """Turn an operating system error into an ExportError that names the path and the remedy; a closed pipe stays."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExportError(
            f"the export cannot be written: {error.strerror or ' '.join(str(error).split())}",
            path=str(path),
            hint="Free space, or make the folder writable, and run again: nothing was left there",
        ) from error


def refusal(out: Path, *, folder: bool, overwrite: bool) -> str | None:
    """Say why nothing can be put at a place; None if it can. `overwrite` allows what an export may take the place of.

    Args:
        out: the place.
        folder: a folder is to be there, else a file.
        overwrite: take the place of a file, or of a folder that holds nothing but `type=` folders.
    """
    if not out.parent.is_dir():
        return f"there is no folder {out.parent}"
    if not os.path.lexists(out):
        return None
    if folder:
        return _folder_refusal(out, overwrite)
    if not out.is_file():
        return "it is no regular file"
    return None if overwrite else "it exists; --overwrite replaces it"


def _folder_refusal(out: Path, overwrite: bool) -> str | None:
    if not out.is_dir():
        return "it is a file; without / at its end it can be replaced"
    if os.path.ismount(out):
        return "a disk is mounted there, and it cannot be replaced; name a folder in it"
    names = os.listdir(out)
    if not names:
        return None
    if any(not name.startswith("type=") for name in names):
        return "it is not empty, and holds other things than an export"
    return None if overwrite else "it is not empty; --overwrite replaces it"


@contextmanager
def whole(out: Path, *, folder: bool, overwrite: bool) -> Iterator[Path]:
    """Give a file or folder to write to, and put it at its place when all went well; else nothing is left of it.

    What a dead process left beside it is removed first.

    Raises:
        ExportError: the disk refused, or something else has come to be there meanwhile.
    """
    with translated(out):
        _clean(out)
        if why := refusal(out, folder=folder, overwrite=overwrite):
            raise ExportError(
                f"the export has no place: {why}",
                path=str(out),
                hint="Name another place in --out, or remove what is there",
            )
        partial, lock = _begun(out, folder)
    try:
        yield partial
        with translated(out):
            force([*(partial.rglob("*") if folder else ()), partial])
            _place(partial, out, folder=folder, overwrite=overwrite)
            force([out.parent])
    except BaseException:
        _remove(partial)
        raise
    finally:
        os.close(lock)


def _begun(out: Path, folder: bool) -> tuple[Path, int]:
    """Make the file or folder and hold its lock."""
    while True:
        partial = out.with_name(f".{out.name}.partial-{uuid.uuid4().hex[:12]}")
        if folder:
            partial.mkdir()
        else:
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        with suppress(FileNotFoundError):
            handle = os.open(partial, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(partial)):
                    return partial, handle
            os.close(handle)
        # Another run took it for one that a dead process left, before it was locked.


def _clean(out: Path) -> None:
    """Remove what dead processes left; a folder that one of them had taken away goes back."""
    for kind in ("partial", "replaced"):
        pattern = re.compile(re.escape(f".{out.name}.{kind}-") + r"([0-9a-f]{12})")
        for name in sorted(os.listdir(out.parent)):
            match = pattern.fullmatch(name)
            if match is None:
                continue
            path = out.with_name(name)
            if kind == "partial":
                _remove_if_dead(path)
            elif not out.with_name(f".{out.name}.partial-{match.group(1)}").exists():
                if os.path.lexists(out):
                    _remove(path)
                else:
                    os.rename(path, out)


def _remove_if_dead(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


def _place(partial: Path, out: Path, *, folder: bool, overwrite: bool) -> None:
    if folder:
        _place_folder(partial, out, overwrite)
    elif overwrite:
        os.replace(partial, out)
    else:
        _place_new_file(partial, out)


def _place_new_file(partial: Path, out: Path) -> None:
    """Put a file where there is none: never over one that has come to be there."""
    try:
        os.link(partial, out)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(out):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(out)) from error
        os.rename(partial, out)
        return
    os.unlink(partial)


def _place_folder(partial: Path, out: Path, overwrite: bool) -> None:
    old = None
    if overwrite and out.is_dir() and any(out.iterdir()):
        old = out.with_name(partial.name.replace(".partial-", ".replaced-"))
        os.rename(out, old)
    try:
        os.rename(partial, out)
    except BaseException:
        if old is not None:
            os.rename(old, out)
        raise
    if old is not None:
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
