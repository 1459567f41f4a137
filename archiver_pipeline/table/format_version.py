"""The version of an archive's format: a property of its table, and what an archiver does not write or read past.

    1  everything up to now. An archive that was made before there was the property is of this version, too.

A version is one more where an archiver of the version before would read an archive wrongly or spoil it. What is only
added, such as a name of the ledger that older archivers pass over, takes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archiver_pipeline.errors import ArchiveDamaged, FormatTooNew

PROPERTY = "archiver.formatVersion"
"""The property of the table (Delta protocol, "Table Properties"); other programs pass over what they do not know."""

OLDEST = 1
KNOWN = 1
"""The newest version that this archiver knows: that of the archives it makes."""


def version_of(metadata: Mapping[str, Any], uri: str) -> int:
    """The version of the archive at `uri` whose table has this metadata.

    Raises:
        ArchiveDamaged: the property is no version.
    """
    given = (metadata.get("configuration") or {}).get(PROPERTY)
    if given is None:
        return OLDEST
    text = str(given)
    if not (text.isascii() and text.isdecimal() and int(text) >= OLDEST):
        raise ArchiveDamaged(
            f"the table's property {PROPERTY} is {text!r:.50}, which is no version",
            path=uri,
            hint=f"Set it to the format that the archive has; nothing was changed. This archiver knows up to {KNOWN}",
        )
    return int(text)


def check_known(metadata: Mapping[str, Any], uri: str, known: int = KNOWN) -> int:
    """Return the version of an archive that this archiver may read and write.

    Raises:
        FormatTooNew: a newer archiver made it, or upgraded it.
        ArchiveDamaged: the property is no version.
    """
    version = version_of(metadata, uri)
    if version > known:
        raise FormatTooNew(
            f"archive {uri} has format {version}, this archiver knows up to {known}",
            hint="Upgrade the archiver; nothing was read or written",
        )
    return version
