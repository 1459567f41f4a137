"""Schemas of Protobuf, which the registry has as text, compiled by protoc."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool

    from archiver_pipeline.formats.registry import WriterSchema

_MAIN = "archiver-value.proto"
_LIMIT_SECONDS = 60
_SERIALIZED = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
"""A file in base64, as some clients register it and some registries hand it out: text of Protobuf has other letters."""


def compiled(schema: WriterSchema) -> tuple[FileDescriptor, DescriptorPool]:
    """Compile a schema and what it imports, and return its file with the pool that has all of them.

    Raises:
        ValueError: protoc refuses it; the text has what it said.
    """
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool

    found = FileDescriptorSet.FromString(_run(schema))
    pool = DescriptorPool()
    for file in found.file:  # Each comes after those that it imports.
        pool.Add(file)
    return pool.FindFileByName(_MAIN), pool


def _run(schema: WriterSchema) -> bytes:
    """Run protoc in a process of its own: its own errors go to standard error, and a crash ends nothing else."""
    import grpc_tools

    with tempfile.TemporaryDirectory(prefix="archiver-protoc-") as folder:
        sources = Path(folder) / "sources"
        sources.mkdir()
        ready = []
        for name, text in (*schema.references, (_MAIN, schema.text)):
            if _SERIALIZED.fullmatch(text):
                ready.append((name, base64.b64decode(text)))
                continue
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"it imports {name!r}, which is no place below others")
            path = sources / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        known, target = Path(folder) / "known.pb", Path(folder) / "compiled.pb"
        known.write_bytes(_known(ready))
        own = Path(grpc_tools.__path__[0]) / "_proto"
        command = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{sources}",
            f"-I{own}",
            f"--descriptor_set_in={known}",
        ]
        command += ["--include_imports", f"--descriptor_set_out={target}", _MAIN]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise ValueError(f"protoc did not end in {_LIMIT_SECONDS} s") from None
        if done.returncode:
            raise ValueError(done.stderr.replace(f"{sources}/", "") or f"protoc ended with code {done.returncode}")
        return target.read_bytes()


def _known(files: Sequence[tuple[str, bytes]]) -> bytes:
    """Files that need no compiling, as a set: those given, and those that Confluent's registry never names as
    references, beside Protobuf's own, which protoc knows."""
    from confluent_kafka.schema_registry.confluent import meta_pb2
    from confluent_kafka.schema_registry.confluent.type import decimal_pb2
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.type import (
        calendar_period_pb2,
        color_pb2,
        date_pb2,
        datetime_pb2,
        dayofweek_pb2,
        expr_pb2,
        fraction_pb2,
        latlng_pb2,
        money_pb2,
        month_pb2,
        postal_address_pb2,
        quaternion_pb2,
        timeofday_pb2,
    )

    modules = [meta_pb2, decimal_pb2, calendar_period_pb2, color_pb2, date_pb2, datetime_pb2, dayofweek_pb2, expr_pb2]
    modules += [fraction_pb2, latlng_pb2, money_pb2, month_pb2, postal_address_pb2, quaternion_pb2, timeofday_pb2]
    found, seen = FileDescriptorSet(), set[str]()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for other in file.dependencies:
            add(other)
        file.CopyToProto(found.file.add())

    for module in modules:
        add(module.DESCRIPTOR)
    for name, content in files:
        found.file.add().MergeFromString(content)
        found.file[-1].name = name
    return bytes(found.SerializeToString())
