"""What an object store says when it refuses: an error with the address, the reason and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

_CODE, _MESSAGE = re.compile(r"<Code>([^<]*)</Code>"), re.compile(r"<Message>([^<]*)</Message>")
_STATUS = re.compile(r"status code: (\d{3}[^:<\n]*)")
_CAUSE = re.compile(r'(?:message|error): "([^"]+)"|(TimedOut)')
_SERVER = re.compile(r"Error performing [A-Z]+ (\S+)")

_ACCESS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and that they allow s3:ListBucket on the bucket "
    "and s3:GetObject, s3:PutObject and s3:DeleteObject on the archive",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, and that they allow storage.objects.get, list, create and delete",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, and that they allow to read, list, write and "
    "delete",
}
_ENDPOINT = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_ENDPOINT"}


class Unreachable(OSError):
    """What an object store has cannot be told: `strerror` says why, `filename` where, and `hint` what to do.

    Whatever is done with it, it must not be taken for something that is missing or damaged.
    """

    def __init__(self, why: str, address: str, hint: str) -> None:
        super().__init__(5, why, address)  # EIO
        self.hint = f"{hint}; what is archived is untouched"


class StoreError(Unreachable):
    """An object store refused or did not answer.

    Attributes:
        refused: it answered that this is not allowed.
    """

    def __init__(self, why: str, address: str, hint: str, *, refused: bool = False) -> None:
        super().__init__(why, address, hint)
        self.refused = refused


class ScratchError(Unreachable):
    """The local disk beside an object store is full, read-only or gone."""

    def __init__(self, error: OSError, path: Path) -> None:
        why = f"the local disk cannot hold what is on its way: {error.strerror or error}"
        super().__init__(why, str(error.filename or path), "Free space, or make the folder writable, and run again")


class NoObject(FileNotFoundError):
    """An object store has no such object."""

    hint = "Run `archiver verify`: it names every file that is missing or changed"

    def __init__(self, address: str) -> None:
        super().__init__(2, "there is no such object", address)


@contextmanager
def told(address: str) -> Iterator[None]:
    """Turn what the client of an object store raises into a StoreError, or NoObject where an object is missing."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (Unreachable, NoObject):
        raise
    except FileNotFoundError as error:
        code = _CODE.search(str(error))
        # A missing bucket, and with some servers an unknown access key, is told as a missing file would be.
        if code and code[1] not in ("NoSuchKey", "BlobNotFound"):
            raise refused(str(error), address) from error
        raise NoObject(address) from error
    except BaseError as error:
        raise refused(str(error), address) from error


def refused(text: str, address: str) -> StoreError:
    """Say what a library that speaks with an object store says, in one line."""
    scheme = urlsplit(address).scheme
    said = text.split("\n\nDebug source:")[0]
    code, message, status = _CODE.search(said), _MESSAGE.search(said), _STATUS.search(said)
    name = code[1] if code else ""
    if code or status:
        why = ": ".join(
            part for part in (name or (status[1].strip() if status else ""), message[1] if message else "") if part
        )
        why = f"the object store refused: {why.rstrip('.')}"
    else:
        causes = [found[0] or "no answer in time" for found in _CAUSE.findall(text)]
        server = _SERVER.search(said)
        place = f" at {urlsplit(server[1]).netloc}" if server else ""
        why = f"the object store{place} does not answer: {causes[-1]}" if causes else " ".join(said.split())
        if not causes and not server:  # It was not asked: the client has no credentials.
            return StoreError(f"the object store cannot be asked: {why}", address, _hint(scheme, "Key", ""))
    number = status[1] if status else ""
    return StoreError(why, address, _hint(scheme, name, number), refused=number.startswith(("401", "403")))


def _hint(scheme: str, code: str, status: str) -> str:
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return "Make the bucket, or check ARCHIVER_URI"
    if status.startswith(("401", "403")) or any(word in code for word in ("Access", "User", "Key", "Token")):
        return f"Check {_ACCESS.get(scheme, 'the credentials')}"
    if status.startswith("3") or code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        return "Check that AWS_REGION is that of the bucket, and AWS_ENDPOINT_URL"
    if status.startswith(("5", "429")):
        return "It is overloaded or has a fault; the next run goes on"
    return f"Check that it is up, and {_ENDPOINT.get(scheme, 'its address')}; the next run goes on"
