"""The shape of the package: arrows that point one way, one home for each name, budgets of lines.

`make structure` runs this file alone. The arrows are in pyproject.toml, for import-linter.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from course_utils import REPO

PACKAGE = REPO / "course_utils"
FILES = sorted(PACKAGE.rglob("*.py"))
TOP = [path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
PYTHON = [*FILES, *(REPO / "tools").rglob("*.py"), *(REPO / "notebooks" / "src").glob("*.py")]


def lines(paths) -> int:
    return sum(path.read_text(encoding="utf-8").count("\n") for path in paths)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def home(module: str) -> Path | None:
    """The file of one of our modules, None for any other."""
    path = REPO.joinpath(*module.split("."))
    found = [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return found[0] if found and path.is_relative_to(PACKAGE) else None


def defined(path: Path) -> set[str]:
    """The names that a file gives a meaning to by itself, not by importing them."""
    names = set()
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets += [node.target] if isinstance(node, ast.AnnAssign) else []
        names |= {name.id for t in targets for name in ast.walk(t) if isinstance(name, ast.Name)}
    if path.name == "__init__.py":
        names |= {p.stem for p in path.parent.iterdir() if p.suffix == ".py" or p.is_dir()}
    return names


def test_arrows_point_one_way():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=REPO, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_no_two_files_import_each_other_however_far_around():
    imported = defaultdict(set)
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and (file := home(node.module or "")):
                inner = (home(f"{node.module}.{alias.name}") for alias in node.names)
                imported[path] |= {other or file for other in inner}
    TopologicalSorter(imported).prepare()  # raises CycleError, which names the circle


def test_the_sixteen_are_on_top_and_everything_is_short():
    assert len(TOP) == 16
    longest = {path.name: n for path in TOP if (n := lines([path])) > 420}
    assert longest == {}
    assert lines(TOP) <= 4700
    assert lines(FILES) <= 10_900
    assert lines((REPO / "tools").rglob("*.py")) <= 2600


def test_the_tests_are_no_more_than_a_third_longer_than_the_code():
    code = [*FILES, *(REPO / "tools").rglob("*.py")]
    tests = [p for p in (REPO / "tests").rglob("*.py") if "benchmarks" not in p.parts]
    assert lines(tests) <= 1.3 * lines(code)


def test_a_name_is_imported_from_the_file_that_defines_it():
    for path in PYTHON:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and (file := home(node.module or "")):
                strangers = {alias.name for alias in node.names} - defined(file)
                assert not strangers, f"{path}: {node.module} does not define {strangers}"


def private(path: Path) -> set[str]:
    """The underscore names that a file defines, attributes of its own objects too."""
    names = {name for name in defined(path) if name.startswith("_")}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names |= {node.attr} if node.value.id in ("self", "cls") else set()
    return {name for name in names if re.match("_[^_]", name)}


def test_no_file_reaches_into_another_ones_underscore():
    owners = defaultdict(set)
    for path in FILES:
        for name in private(path):
            owners[name].add(path)
    for path in PYTHON:
        for node in ast.walk(tree(path)):
            names = []
            if isinstance(node, ast.ImportFrom) and home(node.module or ""):
                names = [a.name for a in node.names if re.match("_[^_]", a.name)]
            elif isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
                own = path in owners[node.attr] or ast.unparse(node.value) in ("self", "cls")
                names = [] if own or not owners[node.attr] else [node.attr]
            assert not names, f"{path.relative_to(REPO)}:{node.lineno} reaches for {names[0]}"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CONTRIBUTING.ko.md"])
def test_contributing_shows_every_file(name):
    text = (REPO / name).read_text(encoding="utf-8")
    shown = re.search(r"```text\n(course_utils/.*?)```", text, re.DOTALL)
    named = re.findall(r"^ +(\w+) ", shown[1], re.MULTILINE)
    assert {path.stem for path in FILES} - {"__init__"} == set(named)
