"""How the code is cut: layers, imports, sizes, docstrings and text."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from archiver_pipeline_tests.processes import CHECKOUT

PACKAGE = CHECKOUT / "archiver_pipeline"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
CODE = sorted([*MODULES, *(CHECKOUT / "archiver_pipeline_tests").rglob("*.py"), *(CHECKOUT / "bench").rglob("*.py")])

PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "datetime",
    "functools",
    "hashlib",
    "math",
    "re",
    "typing",
    "urllib",
}
PURE |= {"zlib", "archiver_pipeline"}
"""What a module without I/O may import; of urllib only its parser."""

HEAVY = {"polars", "duckdb", "deltalake", "confluent_kafka", "pyarrow", "dagster"}
HEAVY_ALLOWED = {
    "generator.py": {"confluent_kafka"},  # It does nothing without a producer, and nothing imports it early.
    "demo.py": {"confluent_kafka"},  # It starts the generator.
    "definitions.py": {"dagster"},
}
"""Modules that may load heavy libraries when they are imported; `defs/` may load Dagster, the rest may load none."""

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:tmp|work|root|home)/")
PACKAGE_INDEX = re.compile(r"pypi[.]org|pythonhosted[.]org|--(?:extra-)?index-url|repo1?[.]maven[.]|registry[.]npmjs")


def name_of(path: Path) -> str:
    """A module as the table of AGENTS.md has it: `plan.py`, or `cli/` for all in that folder."""
    relative = path.relative_to(PACKAGE)
    return f"{relative.parts[0]}/" if len(relative.parts) > 1 else str(relative)


def layers() -> list[str]:
    """The modules of AGENTS.md's table, from the one that imports nothing to the one that nothing imports."""
    rows = re.findall(r"^\| (`.*?`) \|", (CHECKOUT / "AGENTS.md").read_text("utf-8"), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, at the top or within a function, in full: `archiver_pipeline.plan`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The modules of the package that a module imports, named as in the table."""
    found = set()
    for name in imports(ast.parse(path.read_text("utf-8"))):
        package, *parts = name.split(".")
        if package != "archiver_pipeline" or not parts:
            continue
        target = PACKAGE / f"{parts[0]}.py"
        found.add(f"{parts[0]}.py" if target.exists() else f"{parts[0]}/")
    return found - {name_of(path)}


def public(
    tree: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Public functions, classes and methods, those within functions left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{prefix}{node.name}.")


def test_the_map_names_every_module_and_no_other() -> None:
    """AGENTS.md has each module once."""
    named = layers()
    assert len(named) == len(set(named))
    assert set(named) == {name_of(path) for path in MODULES if path != PACKAGE / "__init__.py"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_up_the_map(path: Path) -> None:
    """A module knows those above it and none below, so there is no circle, and each layer can be tested alone."""
    order = ["__init__.py", *layers()]
    above = set(order[: order.index(name_of(path))])
    assert own_imports(path) - above == set()


def test_no_module_needs_itself() -> None:
    """Within a folder of the map there is no circle either."""
    names = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES
    }
    needs = {}
    for name, path in names.items():
        found = {
            each if each in names else each.rpartition(".")[0] for each in imports(ast.parse(path.read_text("utf-8")))
        }
        needs[name] = found & names.keys() - {name}
    assert set(TopologicalSorter(needs).static_order()) == names.keys()


@pytest.mark.parametrize("name", ["fair_share.py", "plan.py", "envelope.py", "hours.py"])
def test_decisions_are_made_without_io(name: str) -> None:
    """Planning and naming import nothing that could read a file, a clock or a socket."""
    found = list(imports(ast.parse((PACKAGE / name).read_text("utf-8"))))
    frames = {"polars"} if name == "hours.py" else set()
    assert {module.split(".")[0] for module in found} <= PURE | frames
    assert [module for module in found if module.startswith("urllib.") and not module.startswith("urllib.parse")] == []
    assert own_imports(PACKAGE / name) <= {"errors.py", "envelope.py", "fair_share.py"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dagster_is_imported_by_its_own_modules_only(path: Path) -> None:
    """Everything else runs without it, but for what reads its history."""
    uses = {name.split(".")[0] for name in imports(ast.parse(path.read_text("utf-8")))}
    assert "dagster" not in uses or name_of(path) in ("defs/", "definitions.py", "run_history.py", "dagster_home.py")


def test_heavy_libraries_are_loaded_when_they_are_used() -> None:
    """A run's start is mostly imports, so no module loads polars, DuckDB, Delta or Kafka's client by being imported."""
    names = [".".join(path.relative_to(CHECKOUT).with_suffix("").parts) for path in MODULES]
    light = [
        name.removesuffix(".__init__")
        for name, path in zip(names, MODULES, strict=True)
        if name_of(path) not in HEAVY_ALLOWED and name_of(path) != "defs/" and path.name != "__main__.py"
    ]
    program = f"import sys, {', '.join(light)}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert (done.stdout.split(), done.stderr) == ([], "")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_imports_at_the_top_are_those_that_are_listed(path: Path) -> None:
    """A type is imported under TYPE_CHECKING, a library within the function that needs it."""
    tree = ast.parse(path.read_text("utf-8"))
    top = {name.split(".")[0] for node in tree.body if not isinstance(node, ast.If | ast.FunctionDef | ast.ClassDef)
           for name in imports(node)}  # fmt: skip
    allowed = {"dagster"} if name_of(path) == "defs/" else HEAVY_ALLOWED.get(name_of(path), set())
    assert top & HEAVY <= allowed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_at_most_300_lines(path: Path) -> None:
    """A module is one noun."""
    assert len(path.read_text("utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_what_is_public_has_a_docstring(path: Path) -> None:
    """Modules, classes and functions say what they are for, and in the package methods too."""
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree)
    without = [name for name, node in public(tree) if not ast.get_docstring(node)]
    assert [name for name in without if path in MODULES or "." not in name] == []


def test_no_text_names_a_machine_or_a_package_index() -> None:
    """Neither a path of somebody's machine nor the address of a package index stands in any file of the repository."""
    if not (CHECKOUT / ".git").exists():
        pytest.skip("this is no checkout: what belongs to the repository is not known")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = CHECKOUT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode().splitlines(), 1):
            if MACHINE_PATH.search(line) or PACKAGE_INDEX.search(line):
                found.append(f"{name}:{number}: {line[:100]}")
    assert found == []
