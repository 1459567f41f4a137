"""The `archiver` command. What a command needs is imported when it runs, so that `--help` is there at once."""

from archiver_pipeline.cli.main import main

__all__ = ["main"]
