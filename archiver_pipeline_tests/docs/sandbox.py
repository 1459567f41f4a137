"""A checkout as the pages take it for given, with programs, samples and an archive: their commands are run in it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.docs.forking import launcher
from archiver_pipeline_tests.docs.pages import blocks
from archiver_pipeline_tests.docs.reasons import COMMANDS
from archiver_pipeline_tests.docs.shell import Line, commands, lines_of, reason_of, words_of
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.kafka.topics import FAR_TIMESTAMPS
from archiver_pipeline_tests.processes import CHECKOUT, DIE_WITH_PARENT, environment
from archiver_pipeline_tests.waiting import wait_for

LIMIT_SECONDS = 400
HOUR_MS = 3_600_000
THREE = 1_564_628_400_000
"""2019-08-01T03:00:00Z, the hour that the pages speak of."""

_TOPICS = re.compile(r"\b(?:orders|clicks|drill|tries|frames)\b(?!\.\w)")
_FILE = re.compile(r"# (\w+\.(?:yaml|toml))\n")
_HOSTS = re.compile(r"\b(?:broker|staging):9092\b")


@dataclass(frozen=True)
class Ran:
    """A page that was run: its exit code, and what its commands said."""

    code: int
    said: str


class Sandbox:
    """A folder like a checkout, with programs that start at once, and an archive that each page gets a copy of."""

    def __init__(self, folder: Path, bootstrap_servers: str) -> None:
        """Make the folder, start the server of programs, and archive two topics."""
        self.folder = folder
        self.bootstrap_servers = bootstrap_servers
        self._mark = uuid.uuid4().hex[:6]
        self._sockets = tempfile.TemporaryDirectory(prefix="pages-")
        self._server = self._serve()
        self.archived = self._fill()

    def close(self) -> None:
        """End the server, and whatever it has started that still runs."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        self._sockets.cleanup()

    def translated(self, text: str) -> str:
        """Text of a page with the broker and the topics of the test."""
        return _TOPICS.sub(lambda found: f"{found[0]}-{self._mark}", _HOSTS.sub(self.bootstrap_servers, text))

    def checkout(self, page: str) -> Path:
        """A new folder for a page, with the archive in `data` and the files that its blocks name at their top."""
        root = self.folder / page.replace("/", "-").removesuffix(".md")
        shutil.copytree(self.folder / "bin", root / ".venv" / "bin")
        shutil.copytree(CHECKOUT / "data" / "samples", root / "data" / "samples")
        shutil.copytree(self.folder / "data", root / "data", dirs_exist_ok=True)
        for name in ("deploy", "Makefile"):
            (root / name).symlink_to(CHECKOUT / name)
        for block in blocks(page):
            if named := _FILE.match(block.text):
                (root / named[1]).write_text(self.translated(block.text))
        return root

    def run(self, page: str) -> Ran:
        """Run what can be run of a page from top to bottom, in one shell, as a reader would."""
        root = self.checkout(page)
        lines = (line for block in blocks(page) if block.language == "sh" for line in lines_of(block))
        variables = environment({
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "ARCHIVER_TOPICS": self.translated("orders,^clicks-.*"),
            "ARCHIVER_RESULTS_TOPIC": "",
            "PATH": f"{root}/.venv/bin{os.pathsep}{os.environ['PATH']}",
            "DAGSTER_HOME": str(self._dagster_home(root)),
        })  # fmt: skip
        del variables["ARCHIVER_CONFIG"]
        done = subprocess.run(
            ["bash", "-c", self._script(lines)],
            cwd=root,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        return Ran(done.returncode, done.stdout)

    def _script(self, lines: Iterable[Line]) -> str:
        """The program of a page: each line with where it stands, and the exit code that it names."""
        script = ["set -Eeuo pipefail", """trap 'echo "exit code $? of $AT" >&2' ERR"""]
        for line in lines:
            if any(reason_of(words_of(command), COMMANDS) for command in commands(line)):
                continue
            script.append(f'AT={shlex.quote(line.name)}; echo "==> $AT"')
            text = self.translated(line.text)
            script.append(f"code=0; {text.split('  #')[0]} || code=$?; [ $code = {line.exit_code} ]"
                          if line.exit_code else text)  # fmt: skip
        return "\n".join(script)

    def _dagster_home(self, root: Path) -> Path:
        home = root / "dagster_home"
        home.mkdir()
        shutil.copy(CHECKOUT / "deploy" / "dagster.yaml", home)
        return home

    def _serve(self) -> subprocess.Popen[bytes]:
        # Not in a folder of pytest's, whose path may be longer than that of a socket can be.
        path = Path(self._sockets.name) / "s"
        programs = self.folder / "bin"
        programs.mkdir()
        for name in ("archiver", "dagster"):
            (programs / name).write_text(launcher(name, path))
            (programs / name).chmod(0o755)
        (programs / "python").symlink_to(sys.executable)
        # A stand-in for Kafka's own tool, which does what the pages ask it for.
        tool = "from archiver_pipeline_tests.kafka.topics import delete_topic; import sys; "
        tool += "delete_topic(sys.argv[sys.argv.index('--bootstrap-server') + 1], sys.argv[-1])"
        (programs / "kafka-topics.sh").write_text(
            f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -c {shlex.quote(tool)} "$@"\n'
        )
        (programs / "kafka-topics.sh").chmod(0o755)
        log = self.folder / "server.log"
        with log.open("ab") as output:
            server = subprocess.Popen(
                [sys.executable, "-IS", "-c", DIE_WITH_PARENT, str(os.getpid()), sys.executable,
                 "-m", "archiver_pipeline_tests.docs.forking", str(path)],
                cwd=CHECKOUT, env=environment({}), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        wait_for(
            f"the server of programs, see {log}", lambda: path.exists() or server.poll() is not None, LIMIT_SECONDS
        )
        assert server.poll() is None, log.read_text()
        return server

    def _fill(self) -> Archived:
        """Archive messages of three hours, those that the pages name among them."""
        topics = [self.translated(name) for name in ("orders", "clicks-web")]
        for topic in topics:
            create_topic(self.bootstrap_servers, topic, 2, {**FAR_TIMESTAMPS, "retention.ms": -1})
        archived = Archived(self.folder / "data", self.bootstrap_servers, *topics)
        for half in range(2):
            for topic in topics:
                produce(self.bootstrap_servers, topic, [_message(number) for number in range(half, 60, 2)])
            archived.run()
        return archived


def _message(number: int) -> Sent:
    event = {"type": ("object.one", "object.two")[number % 2], "uid": f"u{4700 + number}", "seq": number,
             "url": f"/page/{number % 3}", "amount": number / 10}  # fmt: skip
    at = THREE + number % 3 * HOUR_MS + number * 1000
    return Sent(json.dumps(event).encode(), f"u{4700 + number}".encode(), timestamp_ms=at, partition=number % 2)
