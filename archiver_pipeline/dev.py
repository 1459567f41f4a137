"""`make dev`: Dagster's UI, daemon and sensor against the configured broker."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

from archiver_pipeline.errors import SettingsError
from archiver_pipeline.settings import Settings, load

_CHECKOUT = Path(__file__).resolve().parents[1]


def dagster_home(settings: Settings) -> Path:
    """Make Dagster's folder, `DAGSTER_HOME` or `$BASE_DIR/dagster_home`, with our `dagster.yaml` unless it has one."""
    home = Path(os.environ.get("DAGSTER_HOME") or settings.base_dir.absolute() / "dagster_home")
    home.mkdir(parents=True, exist_ok=True)
    ours = _CHECKOUT / "deploy" / "dagster.yaml"
    if ours.exists() and not (home / "dagster.yaml").exists():
        shutil.copyfile(ours, home / "dagster.yaml")
    return home


def command(host: str, port: int) -> list[str]:
    """The command line of `dagster dev` with our definitions."""
    code = ["-m", "archiver_pipeline.definitions"]
    return [sys.executable, "-m", "dagster", "dev", *code, "--host", host, "--port", str(port)]


def main() -> None:
    """Check the settings, then become `dagster dev`."""
    parser = argparse.ArgumentParser(prog="python -m archiver_pipeline.dev", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address of the UI (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=3000, help="port of the UI (default 3000)")
    given = parser.parse_args()
    try:
        settings = load()
        settings.require_kafka()
    except SettingsError as error:
        sys.exit(_complain(error))
    os.environ["DAGSTER_HOME"] = str(dagster_home(settings))
    # A shell that starts us in the background has SIGINT ignored, and Dagster could then not be stopped by it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    line = command(given.host, given.port)
    os.execv(line[0], line)


def _complain(error: SettingsError) -> int:
    print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
