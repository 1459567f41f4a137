"""Every hour of the archive sealed as the product does it, whether it is closed or not: how large its files become."""

from __future__ import annotations

import json
import time

from archiver_pipeline.hours import Hour
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.settings.settings import load


def main() -> None:
    """Seal the archive that the environment sets, and print messages and seconds."""
    began = time.monotonic()
    sealer = Sealer(load())
    hours = sealer.archive.files().select("dt", "hr").unique().sort("dt", "hr").iter_rows()
    sealed = [sealer.seal(Hour(*hour)) for hour in hours]
    messages = sum(done.messages for done in sealed if done)
    print(json.dumps({"messages": messages, "hours": len(sealed), "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
