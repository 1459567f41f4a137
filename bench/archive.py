"""One pass of the archiver as the environment sets it, from plan to committed and visible in DuckDB."""

from __future__ import annotations

import json
import os
import time

from archiver_pipeline.batch.batch import Archiver
from archiver_pipeline.batch.follow import drain
from archiver_pipeline.settings.settings import load
from archiver_pipeline.view.run_view import RunView


def main() -> None:
    """Archive all there is and print messages, seconds and what each step took."""
    import duckdb
    import polars

    del duckdb, polars  # loaded before the clock starts, as in a run that stays
    settings = load()
    archiver = Archiver(settings, int(os.environ.get("BENCH_LANE", "0")))
    began = time.monotonic()
    messages, files, steps = 0, 0, dict[str, float]()
    shown = RunView(settings.view_path, archiver.archive)
    for batch in drain(archiver):
        messages += batch.messages
        files += batch.files
        before = time.monotonic()
        shown.show(batch)
        for name, seconds in (*batch.steps.items(), ("view", time.monotonic() - before)):
            steps[name] = steps.get(name, 0.0) + seconds
    shown.finish()
    seconds = time.monotonic() - began
    print(json.dumps({"messages": messages, "files": files, "seconds": seconds, "steps": steps}))


if __name__ == "__main__":
    main()
