"""An S3 server (versitygw) run as a process of its own; built once from source into `.cache/` of the checkout."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from archiver_pipeline_tests.fetched import once
from archiver_pipeline_tests.kafka.jars import ToolMissing, last_lines
from archiver_pipeline_tests.processes import CHECKOUT, HOST, free_ports
from archiver_pipeline_tests.server import Server

VERSION = "v1.8.0"
MODULE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
CACHE = CHECKOUT / ".cache" / "versitygw"
ACCESS_KEY, SECRET_KEY = "archiver-test", "a secret/with+signs=42"
REGION = "us-east-1"


class GatewayError(RuntimeError):
    """The server could not be built, started or stopped; the text has the last lines of its log."""


def gateway() -> Path:
    """The server's program, built if this checkout has none yet.

    Raises:
        ToolMissing: there is none yet and no Go.
        GatewayError: Go could not fetch or build it; the text has what it said.
    """
    return once(CACHE / VERSION, _build) / "versitygw"


def _build(scratch: Path) -> Path:
    go = shutil.which("go")
    if go is None:
        raise ToolMissing("Go is missing: the tests on object storage need go 1.24 or later on the PATH, once")
    folder = scratch / "bin"
    done = subprocess.run(
        [go, "install", MODULE],
        env={**os.environ, "GOBIN": str(folder), "GOFLAGS": "-trimpath"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise GatewayError(f"Go could not build {MODULE}:\n{last_lines(done.stdout + done.stderr)}")
    return folder


class Gateway(Server):
    """An S3 server over a folder: a bucket is a folder in it, an object a file.

    Attributes:
        endpoint: its address, the same over its whole life.
        buckets: the folder.
        read_only: whether it refuses to write, from its next start on.
    """

    error = GatewayError

    def __init__(self, data: Path | None = None) -> None:
        """Choose a port and a folder; nothing runs until `start`."""
        super().__init__(data, "gateway-", "gateway.log")
        (self._port,) = free_ports(1)
        self.endpoint = f"http://{HOST}:{self._port}"
        self.what = f"the S3 server on {self.endpoint}"
        self.buckets = self.data / "buckets"
        self.read_only = False

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its address."""
        (self.buckets / name).mkdir(parents=True)
        return f"s3://{name}"

    def environment(self) -> dict[str, str]:
        """The variables that let a client reach it."""
        return environment(self.endpoint)

    def _command(self) -> list[str]:
        self.buckets.mkdir(exist_ok=True)
        keys = ["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION, "--quiet"]
        keys += ["--readonly"] * self.read_only
        return [str(gateway()), *keys, "--port", f"{HOST}:{self._port}", "posix", str(self.buckets)]

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, self._port), timeout=1).close()
        except OSError:
            return False
        return True


def environment(endpoint: str) -> dict[str, str]:
    """The variables that let a client reach such a server at an address."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
    }
