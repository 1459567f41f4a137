"""The Schema Registry: schemas by id, with all that they refer to; its client's errors translated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archiver_pipeline.errors import RegistryError, RegistryUnavailable, SchemaUnknown, SchemaUnusable
from archiver_pipeline.formats.bounded import bound
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.visible import without_number

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

_TIMEOUT_SECONDS = 10
_UNKNOWN = (40401, 40402, 40403)
"""The registry's own codes for a subject, version or schema that is not there; any other 404 is somebody else's."""

_ACCESS = "Check user and password in ARCHIVER_REGISTRY_URL, or ARCHIVER_REGISTRY_TOKEN, and what they may read"
_ADDRESS = "Check ARCHIVER_REGISTRY_URL and that the registry is up; nothing is lost, the next run tries again"
_UNDECODED = "or archive its messages as they are: list it in ARCHIVER_REGISTRY_UNDECODED"


@dataclass(frozen=True)
class WriterSchema:
    """A schema as the registry has it.

    Attributes:
        kind: `AVRO`, `PROTOBUF` or `JSON`.
        text: the schema itself.
        references: what it refers to, as name and text: each comes after those that it refers to itself.
    """

    kind: str
    text: str
    references: tuple[tuple[str, str], ...] = ()


class SchemaRegistry:
    """A registry, asked through Confluent's client."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def fetch(self, schema: str) -> WriterSchema:
        """Ask for a schema by its id or GUID, and for what it refers to.

        Raises:
            RegistryUnavailable: the registry does not answer, fails, or refuses.
            SchemaUnknown: it does not know the schema, or one that it refers to.
        """
        from confluent_kafka.schema_registry import SchemaRegistryClient

        try:
            # A schema is asked for once: a client that stays would keep a connection open for nothing.
            with SchemaRegistryClient(client_properties(self._settings)) as client:
                bound(client)
                found = client.get_schema(int(schema)) if schema.isdigit() else client.get_schema_by_guid(schema)
                references = _references(client, found)
        except Exception as error:  # The client raises whatever its HTTP client, TLS and JSON do.
            raise self._translated(error, schema) from error
        return WriterSchema(found.schema_type or "AVRO", found.schema_str or "", tuple(references.items()))

    def _translated(self, error: Exception, schema: str) -> RegistryError:
        """Say what kept the schema from being had, with secrets masked."""
        from confluent_kafka.schema_registry import SchemaRegistryError

        where = self._settings.registry_address
        text = self._settings.mask(without_number(" ".join(str(error).split())) or type(error).__name__)[:500]
        if not isinstance(error, SchemaRegistryError):
            return RegistryUnavailable(f"{where} gave no schema {schema}: {text}", hint=_ADDRESS)
        said = f"{where} answered {error.http_status_code} for schema {schema}: {text}"
        if error.http_status_code == 404 and error.error_code in _UNKNOWN:
            hint = f"Register it there under that id, or restore the registry; {_UNDECODED}"
            return SchemaUnknown(said, hint=hint)
        return RegistryUnavailable(said, hint=_ACCESS if error.http_status_code in (401, 403) else _ADDRESS)


def _references(client: SchemaRegistryClient, schema: Schema) -> dict[str, str]:
    """Names and texts of what a schema refers to, each after those that it refers to itself."""
    found: dict[str, str] = {}
    asked: set[tuple[str, int]] = set()

    def visit(schema: Schema) -> None:
        for reference in schema.references or ():
            place = (str(reference.subject), int(reference.version or 0))
            if place not in asked:
                asked.add(place)
                # What a schema refers to may have been deleted since, and is still there for that.
                referred = client.get_version(*place, deleted=True).schema
                visit(referred)
                found[str(reference.name)] = referred.schema_str or ""

    visit(schema)
    return found


def unusable(schema: str, why: object, settings: Settings) -> SchemaUnusable:
    """The error for a schema that cannot be read."""
    text = " ".join(str(why).split())[:500]
    return SchemaUnusable(
        f"schema {schema} of {settings.registry_address} cannot be used: {text}",
        hint=f"Put it right in the registry, {_UNDECODED}",
    )


def client_properties(settings: Settings) -> dict[str, Any]:
    """The configuration of Confluent's client. The decoder waits by itself, so the client tries once."""
    found: dict[str, Any] = {"url": settings.registry_address, "timeout": _TIMEOUT_SECONDS, "max.retries": 0}
    files = {
        "ssl.ca.location": settings.registry_ca,
        "ssl.certificate.location": settings.registry_certificate,
        "ssl.key.location": settings.registry_key,
        "ssl.key.password": settings.registry_key_password.get_secret_value(),
        "basic.auth.user.info": settings.registry_user,
    }
    found |= {name: value for name, value in files.items() if value}
    if token := settings.registry_token.get_secret_value():
        # Only Confluent Cloud has logical clusters, and the client wants one named.
        found |= {"bearer.auth.credentials.source": "STATIC_TOKEN", "bearer.auth.token": token}
        found |= {"bearer.auth.logical.cluster": ""}
    return found
