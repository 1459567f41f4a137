"""A round of checks, side by side: each has its time, and one that cannot be made says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from archiver_pipeline.doctor.finding import Finding, fault, of_error, skipped, warning
from archiver_pipeline.errors import ArchiverError

CHECK_SECONDS = 10.0
"""How long one check may take."""

ROUND_SECONDS = 14.0
"""How long all of them may take: those that wait for others have what these leave."""

LOCAL_SECONDS = 40.0
"""How long those may take whose time is this machine's own: a busy one takes that long to load Dagster."""

_SLICE_SECONDS = 0.2


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what it looks at.
        look: looks, and returns what it found. What it raises is its fault, and nobody who needs it is asked then.
        needs: the checks that have to come to an end without an error first.
        after: those that have to come to an end first, however.
        local: whether most of its time is this machine's own: that it is busy is no fault then.
    """

    name: str
    look: Callable[[], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    local: bool = False


@dataclass
class _Course:
    """How a check comes along."""

    findings: list[Finding] = field(default_factory=list)
    passed: bool = False
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Report:
    """What a round found.

    Attributes:
        findings: in the order of the checks.
        seconds: how long it took.
        hangs: whether a check is still at work, so that its thread will not end with the process by itself.
    """

    findings: tuple[Finding, ...]
    seconds: float
    hangs: bool = False

    @property
    def good(self) -> bool:
        """Whether there is no fault; warnings are none."""
        return not any(found.mark == "fault" for found in self.findings)


def make_round(
    checks: Sequence[Check],
    mask: Callable[[str], str] = lambda text: text,
    check_seconds: float = CHECK_SECONDS,
    round_seconds: float = ROUND_SECONDS,
    local_seconds: float = LOCAL_SECONDS,
) -> Report:
    """Make all checks; those that need others come after them, and all else at once.

    Args:
        checks: each after those that it needs.
        mask: hides secrets in what libraries say.
        check_seconds, round_seconds: how long one and all may take.
        local_seconds: how long those may take whose time is this machine's own.
    """
    began = time.monotonic()
    courses = {check.name: _Course() for check in checks}
    for check in checks:
        arguments = (check, courses, mask)
        threading.Thread(target=_follow, args=arguments, name=f"doctor {check.name}", daemon=True).start()
    ends: dict[str, float] = {}
    findings: list[Finding] = []
    for check in checks:
        course = courses[check.name]
        # One that waits for others has its own time once these are done, as far as the round has any left.
        late = max((ends[name] for name in (*check.needs, *check.after)), default=began)
        ends[check.name] = min(began + round_seconds, late + check_seconds)
        if check.local:
            ends[check.name] = began + local_seconds
        if _ended(course.done, ends[check.name]):
            findings += course.findings
        elif waits := [name for name in (*check.needs, *check.after) if not courses[name].done.is_set()]:
            findings.append(skipped(check.name, f"not looked at, for {waits[0]} has not come to an end"))
        else:
            told = f"it has not come to an end within {time.monotonic() - began:.0f} s"
            if check.local:
                findings.append(warning(check.name, told, "This machine is busy, or what it reads does not answer"))
            else:
                findings.append(
                    fault(check.name, told, "Look at what it asks: it does not answer, and does not refuse")
                )
    hangs = not all(course.done.is_set() for course in courses.values())
    return Report(tuple(findings), time.monotonic() - began, hangs)


def _ended(done: threading.Event, until: float) -> bool:
    """Wait until it is set, or that moment of the monotonic clock; return whether it is set.

    In slices: once polars is loaded, which has a handler of its own, no signal ends a wait for a lock.
    """
    while not done.wait(min(_SLICE_SECONDS, max(0.0, until - time.monotonic()))):
        if time.monotonic() >= until:
            return False
    return True


def _follow(check: Check, courses: Mapping[str, _Course], mask: Callable[[str], str]) -> None:
    """Make one check once those that it waits for are over."""
    course = courses[check.name]
    try:
        for name in (*check.needs, *check.after):
            courses[name].done.wait()
        if failed := [name for name in check.needs if not courses[name].passed]:
            course.findings = [skipped(check.name, f"not looked at, for {failed[0]} is not well")]
            return
        course.findings = [_masked(found, mask) for found in check.look()]
        course.passed = True
    except ArchiverError as error:
        course.findings = [_masked(of_error(check.name, error), mask)]
    except OSError as error:
        course.findings = [_masked(_of_os(check.name, error), mask)]
    except Exception as error:  # A doctor that falls ill says so, and looks at all else.
        text = " ".join(str(error).split())[:300] or type(error).__name__
        told = fault(check.name, f"{type(error).__name__}: {text}", "Look at what it says; this is not foreseen")
        course.findings = [_masked(told, mask)]
    finally:
        course.done.set()


def _of_os(check: str, error: OSError) -> Finding:
    """The fault of a file or folder that may not be looked at."""
    told = f"{error.filename or 'a file'} cannot be looked at: {error.strerror or error}"
    return fault(
        check, told, "Let this user read and enter it and the folders above, or check BASE_DIR and ARCHIVER_URI"
    )


def _masked(found: Finding, mask: Callable[[str], str]) -> Finding:
    return Finding(found.mark, found.check, mask(found.what), mask(found.remedy))
