"""The columns of the table as Delta types them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archiver_pipeline import envelope

if TYPE_CHECKING:
    import deltalake


def delta_schema() -> deltalake.Schema:
    """The schema of the table: the contract's columns, in its order."""
    from deltalake import Field, Schema
    from deltalake.schema import ArrayType, PrimitiveType, StructType

    header = StructType([Field("key", PrimitiveType("string")), Field("value", PrimitiveType("binary"))])
    columns: dict[str, PrimitiveType | ArrayType] = {
        "topic": PrimitiveType("string"),
        "topic_id": PrimitiveType("string"),
        "partition": PrimitiveType("integer"),
        "offset": PrimitiveType("long"),
        "timestamp": PrimitiveType("timestamp"),
        "timestamp_type": PrimitiveType("string"),
        "key": PrimitiveType("binary"),
        "value": PrimitiveType("string"),
        "value_bytes": PrimitiveType("binary"),
        "headers": ArrayType(header, contains_null=True),
        **dict.fromkeys(envelope.PARTITION_COLUMNS, PrimitiveType("string")),
    }
    return Schema([Field(name, kind) for name, kind in columns.items()])
