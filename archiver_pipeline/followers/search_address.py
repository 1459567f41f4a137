"""Where Elasticsearch or OpenSearch is, read from `ARCHIVER_SEARCH_URL`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from archiver_pipeline.errors import SettingsError

ALLOWED = "http(s)://user:password@host:9200/path?ca=FILE&verify=false&prefix=archive&gzip=true, only the host required"
POSITIONS = "archiver-positions"
"""The index that keeps positions."""

_PREFIX = re.compile(r"[a-z][a-z0-9_.]{0,39}")


@dataclass(frozen=True)
class SearchAddress:
    """How a cluster is reached, and how the names of its indices begin.

    Attributes:
        url: scheme, host, port and path, without user and password.
        auth: user and password.
        verify: whether its certificate is checked, or the file with the authority that it is checked against.
        prefix: what the indices begin with, and the alias over all of them.
        gzip: whether bodies are sent compressed.
    """

    url: str
    auth: tuple[str, str] | None = field(default=None, repr=False)
    verify: bool | str = True
    prefix: str = "archive"
    gzip: bool = False


def parse_address(text: str) -> SearchAddress:
    """Read the setting.

    Raises:
        SettingsError: it is no such address; the text shows neither user nor password.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _wrong("it cannot be read as a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise _wrong("it is no HTTP address")
    if unknown := options.keys() - {"ca", "verify", "prefix", "gzip"}:
        raise _wrong(f"{min(unknown)!r} is none of its options")
    prefix = options.get("prefix", "archive")
    # With a hyphen in it, or as the beginning of the positions' name, one prefix would be within another's pattern.
    if not _PREFIX.fullmatch(prefix) or POSITIONS.startswith(f"{prefix}-"):
        raise _wrong(f"prefix {prefix!r} is no small letter with up to 39 of a-z, 0-9, '_', '.', or it is taken")
    verify: bool | str = _flag("verify", options.get("verify", "true"))
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    address = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{address}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
    return SearchAddress(
        url, auth, (verify and options.get("ca")) or verify, prefix, _flag("gzip", options.get("gzip", "false"))
    )


def _flag(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise _wrong(f"{name} is {text!r}, not true or false")
    return text == "true"


def _wrong(what: str) -> SettingsError:
    return SettingsError(f"ARCHIVER_SEARCH_URL is ***: allowed is {ALLOWED}, but {what}")
