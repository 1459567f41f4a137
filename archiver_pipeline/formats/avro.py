"""Avro: what was written with a schema, as JSON. Column by column where the schema allows, else message by message."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from archiver_pipeline.formats.avro_columns import Columns, columns_of
from archiver_pipeline.formats.avro_schema import has_empty_items, is_recursive, prepared, register, wrapped
from archiver_pipeline.formats.registry import WriterSchema

if TYPE_CHECKING:
    import polars as pl


_LONGEST_BREAK = 255
"""After messages that were not of the schema, so many blocks at most are decoded message by message."""


class AvroCodec:
    """Decodes messages of one schema, its own writer's: what is not in a message has no place in its JSON.

    Attributes:
        columns: the faster way, None where the schema has something that it does not know.
    """

    columns: Columns | None

    def __init__(self, schema: WriterSchema) -> None:
        """Make ready for a schema.

        Raises:
            Exception: it is no schema, whatever fastavro raises then.
        """
        import fastavro
        import fastavro._read_py

        register()
        named: dict[str, Any] = {}
        ready = [prepared(text) for _, text in schema.references]
        for each in ready:
            fastavro.parse_schema(each, named_schemas=named)
        own = prepared(schema.text)
        self._wrapped = not (isinstance(own, dict) and own["type"] == "record")
        self._schema = fastavro.parse_schema(wrapped(own) if self._wrapped else own, named_schemas=named)
        # Nested deeply enough, a message would overflow the stack of the compiled reader and end the process.
        compiled = not any(map(is_recursive, (*ready, own)))
        self._read: Callable[..., Any] = (fastavro if compiled else fastavro._read_py).schemaless_reader
        self._endless = has_empty_items((*ready, own))
        self.columns = columns_of(own) if compiled else None
        self._break = self._next_break = 0

    def decode(self, bodies: pl.Series) -> pl.Series:
        """Turn messages (Binary, without their frame) into JSON (String), null for what is not of the schema."""
        import polars as pl

        if self._break:
            self._break -= 1
        elif self.columns is not None:
            found = self.columns.decode(bodies)
            if found is not None:
                self._next_break = 0
                return found
            # Each failure costs time, and Polars may put a page of its own into the log.
            self._next_break = min(2 * self._next_break + 1, _LONGEST_BREAK)
            self._break = self._next_break
        texts = [self._one(body) for body in bodies.to_list()]
        return pl.Series(texts, dtype=pl.Binary).cast(pl.String)

    def _one(self, body: bytes) -> bytes | None:
        """One message as JSON; None where its bytes are not of the schema, or are nested too deeply for JSON."""
        import orjson

        if self._endless:
            return None
        stream = BytesIO(body)
        try:
            datum = self._read(stream, self._schema, None)
            text = orjson.dumps(datum["value"] if self._wrapped else datum)
        except MemoryError:
            raise
        except Exception:  # There is no telling what bytes that are none of Avro's make the reader raise.
            return None
        return text if stream.tell() == len(body) else None
