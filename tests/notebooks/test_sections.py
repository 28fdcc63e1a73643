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
import tempfile
from pathlib import Path

import pytest

from tools.notebooks import kernel

# How many cells of section 1 have to be run first; None is all of them.
NOTEBOOKS = {
    "01_preprocess": None,
    "02_train": None,
    "03_evaluate": None,
    "04_scale_up": 1,
    "05_demo": None,
    "06_own_documents": None,
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


def missing(sections: list[list[str]], known: list[str] = ()) -> list[list[str]]:
    """For each section the names that it uses before it, or the known cells above, bind them."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select=F821",
               "--output-format=json", "--config", "builtins=['get_ipython', 'display']"]
    names: list[dict[str, None]] = [{} for _ in sections]
    with tempfile.TemporaryDirectory() as folder:
        for number, cells in enumerate(sections):
            code = "\n".join([*known, *cells])
            Path(folder, f"{number}.py").write_text(code, encoding="utf-8")
        found = subprocess.run([*command, folder], capture_output=True, text=True).stdout
    for one in json.loads(found):
        names[int(Path(one["filename"]).stem)][re.search("`(.+)`", one["message"])[1]] = None
    return [list(lacking) for lacking in names]


def bound(code: str) -> set[str]:
    """The names that code binds at its top level."""
    symbols = symtable.symtable(code, "cell", "exec").get_symbols()
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}


def test_the_finder_finds_what_is_not_bound_yet():
    cases = [
        (["x = y"], ["y"]),
        (["print(x)", "x = 1"], ["x"]),
        (["def f():\n    return g()", "g = 1"], []),
        (["[x for x in range(3)]", "x"], ["x"]),
        (["print([y := 1 for _ in range(3)])", "y"], []),
        (["with open('x') as file:\n    file"], []),
    ]
    assert missing([cells for cells, _ in cases]) == [lacking for _, lacking in cases]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_section_runs_after_the_first_cells_and_section_1_whichever_else_ran(name):
    first, others = split(name)
    lacking = missing([*others.values()], first)
    assert {title: names for title, names in zip(others, lacking, strict=True) if names} == {}
    assert missing([first]) == [[]] and taken_away(first, others) == []


def test_a_name_that_is_taken_away_is_found():
    first = ["from a import f\nx = f()\ny = 1"]
    others = {"2": ["print(x, y)"], "3": ["x = f()\nfrom a import f"], "4": ["x = 2", "y = 1"]}
    assert taken_away(first, others) == ["'2' takes x from the start, '4' binds it to another"]


def taken_away(first: list[str], others: dict[str, list[str]]) -> list[str]:
    """What one section needs from the first cells and another binds to something else."""
    ours, theirs = bindings(first), {title: bindings(cells) for title, cells in others.items()}
    return [
        f"'{user}' takes {name} from the start, '{title}' binds it to another"
        for user, lacking in zip(others, missing([*others.values()]), strict=True)
        for name in lacking
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
