"""Any section can be rerun alone: it needs the first cells, section 1, and nothing of the others.

Found without running anything: for each section, the names that its code uses before it binds them,
and that neither the first cells nor section 1 nor Python itself have bound.
"""

import ast
import json
import re
import subprocess
import symtable
import sys

import pytest

from tools.notebooks import kernel

# How many cells of section 1 have to be run first; None is all of them.
NOTEBOOKS = {
    "01_preprocess": None,
    "02_train": None,
    "03_evaluate": None,
    "04_scale_up": 1,
    "05_demo": None,
}


def sections(name: str) -> dict[str, list[str]]:
    """The code cells of a notebook by the English heading they stand under; "" is the start."""
    found, title = {"": []}, ""
    for cell in kernel.read_source(kernel.SOURCES / f"{name}.py").cells:
        if cell.cell_type == "markdown":
            if cell.metadata.get("lang") == "en" and (
                heading := re.search(r"^## (.+)$", cell.source, re.MULTILINE)
            ):
                title = heading[1]
                found[title] = []
        else:
            found[title].append(cell.source)
    return {title: cells for title, cells in found.items() if cells}


def missing(cells: list[str], known: list[str] = ()) -> list[str]:
    """The names that cells use before they, or the known cells above them, have bound them."""
    code = "\n".join([*known, *cells])
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select=F821",
               "--output-format=json",
               "--config", "builtins=['get_ipython', 'display']", "-"]
    found = subprocess.run(command, input=code, capture_output=True, text=True).stdout
    names = [re.search("`(.+)`", one["message"])[1] for one in json.loads(found)]
    return list(dict.fromkeys(names))


def bound(code: str) -> set[str]:
    """The names that code binds at its top level."""
    symbols = symtable.symtable(code, "cell", "exec").get_symbols()
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}


@pytest.mark.parametrize(
    "cells, lacking",
    [
        (["x = y"], ["y"]),
        (["print(x)", "x = 1"], ["x"]),
        (["def f():\n    return g()", "g = 1"], []),
        (["[x for x in range(3)]", "x"], ["x"]),
        (["print([y := 1 for _ in range(3)])", "y"], []),
        (["with open('x') as file:\n    file"], []),
    ],
)
def test_the_finder_finds_what_is_not_bound_yet(cells, lacking):
    assert missing(cells) == lacking


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_section_runs_after_the_first_cells_and_section_1(name):
    first, others = split(name)
    problems = [
        f"{name}, '{title}': uses {', '.join(lacking)}, which only another section binds"
        for title, cells in others.items()
        if (lacking := missing(cells, first))
    ]
    assert missing(first) == []
    assert problems == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_section_takes_away_what_another_takes_from_the_first_cells(name):
    first, others = split(name)
    assert taken_away(first, others) == []


def test_a_name_that_is_taken_away_is_found():
    first = ["from a import f\nx = f()\ny = 1"]
    others = {"2": ["print(x, y)"], "3": ["x = f()\nfrom a import f"], "4": ["x = 2", "y = 1"]}
    assert taken_away(first, others) == ["'2' takes x from the start, '4' binds it to another"]


def taken_away(first: list[str], others: dict[str, list[str]]) -> list[str]:
    """What one section needs from the first cells and another binds to something else."""
    ours, theirs = bindings(first), {title: bindings(cells) for title, cells in others.items()}
    return [
        f"'{user}' takes {name} from the start, '{title}' binds it to another"
        for user, cells in others.items()
        for name in missing(cells)
        for title, found in theirs.items()
        if title != user and name in ours and not found.get(name, set()) <= ours[name]
    ]


def split(name: str) -> tuple[list[str], dict[str, list[str]]]:
    """The cells that are run first, and the sections that must need no others."""
    parts = sections(name)
    start, one, *rest = parts
    return parts[start] + parts[one][: NOTEBOOKS[name]], {title: parts[title] for title in rest}


def bindings(cells: list[str]) -> dict[str, set[str]]:
    """For each name bound at the top level, the statements that do it; an import is its target."""
    found: dict[str, set[str]] = {}
    for node in (node for cell in cells for node in ast.parse(cell).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                name = (alias.asname or alias.name).split(".")[0]
                found.setdefault(name, set()).add(f"{getattr(node, 'module', '')}.{alias.name}")
        else:
            for name in bound(ast.unparse(node)):
                found.setdefault(name, set()).add(ast.unparse(node))
    return found
