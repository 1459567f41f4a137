"""A sensor asked tick by tick, without a daemon."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import dagster as dg
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin


class Ticks:
    """The sensor of a deployment, asked tick by tick, and the runs that it finds in flight.

    Attributes:
        instance: Dagster's own record.
        cursor: what the last tick left for the next one.
        seconds: how long the last tick took.
        cpu_seconds: how much processor time of this process it took.
    """

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance, job: str) -> None:
        self._definitions = definitions
        self.instance = instance
        self._job = job
        self.cursor: str | None = None
        self.events: list[dg.AssetMaterialization] = []
        self.seconds = self.cpu_seconds = 0.0

    def tick(self) -> tuple[list[dg.RunRequest], str]:
        """The run requests and the reason for none of one tick."""
        sensor = self._definitions.resolve_sensor_def(f"{self._job}_sensor")
        began, used = time.monotonic(), time.process_time()
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            result = sensor(context)
        self.seconds, self.cpu_seconds = time.monotonic() - began, time.process_time() - used
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        self.events += [each for each in result.asset_events if isinstance(each, dg.AssetMaterialization)]
        reason = result.skip_reason
        return list(result.run_requests or []), str(
            reason.skip_message if isinstance(reason, dg.SkipReason) else reason
        )

    def skips(self) -> str:
        """The reason of a tick that asks for no run."""
        requests, reason = self.tick()
        assert requests == []
        assert reason
        return reason

    def requests(self) -> list[dg.RunRequest]:
        """The requests of a tick that asks for runs."""
        requests, reason = self.tick()
        assert requests, reason
        return requests

    def begin_run(self, status: str, tags: Mapping[str, str], silent_seconds: float = 0, job: str = "") -> str:
        """Put a run of the sensor's job, or another, on record that last spoke so long ago, and return its id."""
        name = job or self._job
        place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("archiver"), "__repository__")
        run = self.instance.create_run_for_job(
            self._definitions.resolve_job_def(name),
            tags=tags,
            status=dg.DagsterRunStatus[status],
            # A run that is queued has to say from where it can be started.
            remote_job_origin=RemoteJobOrigin(place, name),
        )
        said = time.time() - silent_seconds
        # The run's latest event, of whatever kind, is the last sign of life that the sensor goes by.
        entry = dg.EventLogEntry(  # type: ignore[no-untyped-call]
            error_info=None, level=20, user_message="at work", run_id=run.run_id, timestamp=said, job_name=name
        )
        self.instance.handle_new_event(entry)
        return run.run_id

    def status(self, run_id: str) -> str:
        """The status of a run."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status.value

    def run(self, request: dg.RunRequest) -> None:
        """Do what a request asks for, in this process."""
        job = self._definitions.resolve_job_def(self._job)
        assert job.execute_in_process(run_config=request.run_config, instance=self.instance).success


MakeTicks = Callable[..., Ticks]
"""Makes the ticks of a deployment; the job is `archive` unless another one is named."""
