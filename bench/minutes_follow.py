"""One pass of a follower as the environment sets it; prints what it did."""

from __future__ import annotations

import json
import sys
from contextlib import closing

from archiver_pipeline.followers.catch_up import catch_up
from archiver_pipeline.followers.registry import followers
from archiver_pipeline.settings.settings import load


def main() -> None:
    """Let the follower catch up."""
    settings = load()
    with closing(followers(settings)[sys.argv[1]]()) as follower:
        done = catch_up(follower, settings)
    print(json.dumps({"messages": done.messages, "seconds": done.seconds, "lag": done.lag}))


if __name__ == "__main__":
    main()
