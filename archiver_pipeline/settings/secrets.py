"""Which librdkafka properties are secret, and texts without any secret, in whatever form it stands there."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus, urlsplit, urlunsplit

_SECRET = re.compile(
    r"password|passphrase|secret|\.pem$|^ssl_|jaas|oauthbearer\.config|oauthbearer\.extensions|kinit\.cmd|credential"
)
_SHOWN = {
    "sasl.oauthbearer.client.credentials.client.id": "the name of a client, as sasl.username is that of a user",
}
_PARTS = re.compile(r"[\s,;]+")
_NAMED = re.compile(r"[\w.-]+=(.{4,})")
_LEAST_PART = 4
"""A shorter part of a secret says nothing, and without it texts could not be read."""

HIDDEN = "***"
"""What stands in the place of a secret."""


def is_secret(name: str) -> bool:
    """Tell whether the value of a librdkafka property must never be shown."""
    return name not in _SHOWN and bool(_SECRET.search(name))


def mask(text: str, properties: Mapping[str, str]) -> str:
    """Return `text` with the secrets of some properties replaced by `***`."""
    return hide(text, (secret for name, value in properties.items() for secret in secrets_of(name, value)))


def secrets_of(name: str, value: str) -> Iterator[str]:
    """Yield what must not be shown of a property: all of it, each part that an error may name, or what a URL holds."""
    if is_secret(name):
        yield value
        if not name.endswith(("password", "passphrase", "secret")):
            for part in _PARTS.split(value):
                named = _NAMED.fullmatch(part)
                if named or len(part) >= _LEAST_PART:
                    yield named.group(1) if named else part
    elif name.endswith(".url"):
        try:
            address = urlsplit(value)
            user, _, _ = address.netloc.rpartition("@")
            yield from (user, address.password or "", address.query)
        except ValueError:
            yield value


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without secrets, as they are, escaped, quoted for a URL or in base64."""
    forms = {form for secret in secrets if secret for form in forms_of(secret)}
    for form in sorted(forms, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(form, HIDDEN)
    return text


def forms_of(secret: str) -> set[str]:
    """How a text may hold a secret."""
    content = secret.encode(errors="surrogateescape")
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        quote(content, safe=""),
        quote(content),
        quote_plus(content),
        base64.b64encode(content).decode(),
        base64.urlsafe_b64encode(content).decode().rstrip("="),
    }


def without_user(url: str) -> str:
    """A URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
