"""What `archiver doctor` says of set-ups that are broken for real, and how long it takes: `python -m bench.doctor`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from archiver_pipeline_tests.conftest import PLAIN_PASSWORD
from archiver_pipeline_tests.doctor.setups import SETUPS, Servers, made
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.secured import SecuredBroker
from archiver_pipeline_tests.processes import Processes, environment


def main() -> None:
    """Print each set-up with what was said of it; exit code 1 if any exit code is another than it has to be."""
    wrong = []
    with (
        tempfile.TemporaryDirectory(prefix="doctor-") as folder,
        KafkaBroker(Path(folder, "kafka")) as kafka,
        SecuredBroker(Path(folder, "secured"), PLAIN_PASSWORD) as secured,
        Processes() as processes,
    ):
        servers = Servers(kafka, secured, Path(folder))
        try:
            for name in sys.argv[1:] or SETUPS:
                with made(servers, name) as variables:
                    began = time.monotonic()
                    done = processes.run(["-m", "archiver_pipeline.cli", "doctor"], environment(variables), 90)
                    seconds = time.monotonic() - began
                print(f"\n=== {name}: exit code {done.code}, {seconds:.1f} s\n{done.said}", flush=True)
                if done.code != SETUPS[name].code:
                    wrong.append(name)
        finally:
            servers.close()
    if wrong:
        sys.exit(f"another exit code than it has to be: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
