"""Rules of the locked dependencies: exactly these files are installed, and they are what the project asks for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from archiver_pipeline_tests.processes import CHECKOUT


def locked() -> Iterator[tuple[Requirement, list[str]]]:
    """Each requirement of the lock with its hashes."""
    text = (CHECKOUT / "requirements.lock").read_text("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line.strip())
            yield Requirement(requirement), hashes


def test_every_requirement_is_one_version_with_its_hashes() -> None:
    """Whoever takes over an index or a name there cannot slip in another file, and nothing comes from elsewhere."""
    found = list(locked())
    assert len(found) > 50
    for requirement, hashes in found:
        (pin,) = requirement.specifier
        assert (pin.operator, requirement.url) == ("==", None), requirement
        assert "*" not in pin.version
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes), requirement


def test_the_lock_has_what_the_project_asks_for() -> None:
    """Each dependency of pyproject.toml, those of the extras among them, is locked at a version that it allows."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    pins = {canonicalize_name(each.name): next(iter(each.specifier)).version for each, _ in locked()}
    extras = [name for names in project["optional-dependencies"].values() for name in names]
    for wanted in map(Requirement, [*project["dependencies"], *extras]):
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted
