"""Protobuf: messages of a schema from the registry, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from archiver_pipeline.formats.protoc import compiled
from archiver_pipeline.formats.registry import WriterSchema
from archiver_pipeline.formats.values import base64_text, shortest, timestamp_text
from archiver_pipeline.formats.wire import message_indexes

if TYPE_CHECKING:
    import polars as pl
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool

Convert = Callable[[Any], Any]

_SECOND = 1_000_000_000
_CANONICAL = frozenset({"FieldMask", "Struct", "Value", "ListValue"})
"""Types of `google.protobuf` that are written as Protobuf's own JSON has them (ProtoJSON format)."""


class ProtobufCodec:
    """Decodes messages of one schema, of any of its message types."""

    def __init__(self, schema: WriterSchema) -> None:
        """Make ready for a schema.

        Raises:
            ValueError: protoc refuses it.
        """
        self._file, pool = compiled(schema)
        self._json = _Json(pool)
        self._types: dict[tuple[int, ...], tuple[Convert, Convert] | None] = {}

    def decode(self, bodies: pl.Series) -> pl.Series:
        """Turn messages (Binary, with the indexes of their type in front) into JSON (String), null for what is not of
        the schema."""
        import polars as pl

        texts = [self._one(body) for body in bodies.to_list()]
        return pl.Series(texts, dtype=pl.Binary).cast(pl.String)

    def _one(self, body: bytes) -> bytes | None:
        """One message as JSON; None where its bytes are not of the schema, or JSON has no form for it."""
        import orjson

        try:
            indexes, begin = ((0,), 1) if body[:1] == b"\0" else message_indexes(body)
            found = self._types.get(indexes) or self._type(indexes)
            if found is None:
                return None
            parse, convert = found
            return orjson.dumps(convert(parse(body[begin:])))
        except MemoryError:
            raise
        except Exception:  # There is no telling what bytes that are none of this type make the library raise.
            return None

    def _type(self, indexes: tuple[int, ...]) -> tuple[Convert, Convert] | None:
        """How messages of a type are parsed and written, by the way to it; None where the schema has no such type."""
        from google.protobuf.message_factory import GetMessageClass

        if indexes not in self._types:
            types = list(self._file.message_types_by_name.values())
            descriptor = None
            for index in indexes:
                if not 0 <= index < len(types):
                    return None
                descriptor = types[index]
                # As Confluent's Java client counts: what protoc makes of maps is no message of the schema.
                types = [each for each in descriptor.nested_types if not each.GetOptions().map_entry]
            assert descriptor is not None
            self._types[indexes] = (GetMessageClass(descriptor).FromString, self._json.of(descriptor))
        return self._types[indexes]


class _Json:
    """How messages are written as JSON, worked out once for each of their types."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._known: dict[str, Convert] = {}

    def of(self, descriptor: Descriptor) -> Convert:
        """Return what makes a dict of a message; where its type has a JSON of its own, that."""
        name = descriptor.full_name
        if name not in self._known:
            package, _, own = name.rpartition(".")
            special = self._special(own, descriptor) if package == "google.protobuf" else None
            if special is not None or descriptor.is_extendable:
                self._known[name] = special or self._canonical
            else:
                fields: list[tuple[str, bool, Convert | None]] = []
                self._known[name] = partial(_write, fields)  # A type may have fields of its own type.
                fields += [(item.name, item.has_presence, self._field(item)) for item in descriptor.fields]
        return self._known[name]

    def _special(self, name: str, descriptor: Descriptor) -> Convert | None:
        """What writes a type of Protobuf's own, None where it is written as any other."""
        if name in ("Timestamp", "Duration"):
            return _timestamp if name == "Timestamp" else _duration
        if name == "Any":
            return self._any
        if name.endswith("Value") and list(descriptor.fields_by_name) == ["value"]:  # Int64Value, StringValue, ...
            convert = self._value(descriptor.fields_by_name["value"]) or (lambda value: value)
            return lambda message: convert(message.value)
        return self._canonical if name in _CANONICAL else None

    def _canonical(self, message: Any) -> Any:
        from google.protobuf.json_format import MessageToDict

        return MessageToDict(
            message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
            descriptor_pool=self._pool,
        )

    def _any(self, message: Any) -> Any:
        try:
            return self._canonical(message)
        except TypeError:  # The schema does not have the type of what is in it.
            return {"@type": message.type_url, "value": base64_text(message.value)}

    def _field(self, field: FieldDescriptor) -> Convert | None:
        """What makes JSON of a field's value; None where it is JSON as it is."""
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            return partial(_write_map, self._value(kind.fields_by_name["value"]))
        value = self._value(field)
        return partial(_write_list, value) if field.is_repeated else value

    def _value(self, field: FieldDescriptor) -> Convert | None:
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            if field.enum_type.full_name == "google.protobuf.NullValue":
                return lambda _: None
            names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
            return lambda number: names.get(number, number)
        if field.type == field.TYPE_BYTES:
            return base64_text
        return shortest if field.type == field.TYPE_FLOAT else None


def _write(fields: list[tuple[str, bool, Convert | None]], message: Any) -> dict[str, Any]:
    """A message: fields that cannot be missing are there with their default, others only where they are set."""
    found = {}
    for name, has_presence, convert in fields:
        if not has_presence or message.HasField(name):
            value = getattr(message, name)
            found[name] = value if convert is None else convert(value)
    return found


def _timestamp(message: Any) -> Any:
    """A moment, with three digits behind the second, or six or nine where it has them; else as it is."""
    nanos = message.seconds * _SECOND + message.nanos
    unit = next(unit for unit in (1_000, 1_000_000, _SECOND) if nanos % (_SECOND // unit) == 0)
    text = timestamp_text(nanos // (_SECOND // unit), unit, "Z")
    return text if isinstance(text, str) else {"seconds": message.seconds, "nanos": message.nanos}


def _duration(message: Any) -> Any:
    """A duration as Protobuf's own JSON has it; one of more than 10,000 years, which that refuses, as it is."""
    try:
        return message.ToJsonString()
    except ValueError:
        return {"seconds": message.seconds, "nanos": message.nanos}


def _write_list(convert: Convert | None, values: Any) -> list[Any]:
    return list(values) if convert is None else [convert(value) for value in values]


def _write_map(convert: Convert | None, entries: Any) -> dict[str, Any]:
    """A map, sorted by its keys: Protobuf's own order is another one each time."""
    keys = sorted(entries)
    return {_key(key): entries[key] if convert is None else convert(entries[key]) for key in keys}


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
