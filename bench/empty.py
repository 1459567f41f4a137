"""The emptiest Dagster job that says something: what a run costs before any of the archiver's own code."""

import dagster as dg


@dg.op
def nothing(context: dg.OpExecutionContext) -> None:
    """Say one line."""
    context.log.info("first line")


@dg.job(executor_def=dg.in_process_executor)
def empty() -> None:
    """One op, in the run's own process, as the archiver's jobs have theirs."""
    nothing()


defs = dg.Definitions(jobs=[empty])
