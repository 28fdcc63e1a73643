"""Any section can be rerun alone: it needs the first cells, section 1, and nothing of the others.

Found without running anything: for each section, the names that its code uses before it binds them,
and that neither the first cells nor section 1 nor Python itself have bound.
"""

import ast
import builtins
import re

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
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)
SCOPES = (*COMPREHENSIONS, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
KNOWN = {*dir(builtins), "__name__", "get_ipython", "display"}


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


def missing(cells: list[str], known: set[str]) -> list[str]:
    """The names that cells use, in this order, before anybody has bound them."""
    known, lacking = set(known), []
    for cell in cells:
        tree, later = ast.parse(cell), set()
        for name in _walk(tree.body, known, later):
            if name not in lacking:
                lacking.append(name)
        # What a function uses must be there when it is called: at the latest after its own cell.
        lacking += sorted(later - known - set(lacking))
    return lacking


def bound(cells: list[str]) -> set[str]:
    """The names that cells bind at their top level."""
    names: set[str] = set()
    for cell in cells:
        list(_walk(ast.parse(cell).body, names, set()))
    return names


def _walk(body: list[ast.stmt], known: set[str], later: set[str]):
    """Yield names used before they are bound, statement by statement; note what gets bound."""
    for node in body:
        inner = [getattr(node, part, []) for part in ("body", "handlers", "orelse", "finalbody")]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            used = _used(node) - {node.name}
            heads = [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]
            at_once = set().union(*map(_used, filter(None, heads)))
            yield from sorted(at_once - known)
            later |= used
            known.add(node.name)
        elif any(inner) and not isinstance(node, ast.ClassDef):
            for field, value in ast.iter_fields(node):
                if field in ("body", "handlers", "orelse", "finalbody"):
                    continue
                for part in value if isinstance(value, list) else [value]:
                    if isinstance(part, ast.AST):
                        yield from sorted(_used(part) - known)
                        known |= _stored(part)
            for part in inner:
                for piece in part:
                    if isinstance(piece, ast.ExceptHandler):
                        known |= {piece.name} if piece.name else set()
                        yield from _walk(piece.body, known, later)
                    else:
                        yield from _walk([piece], known, later)
        else:
            yield from sorted(_used(node) - known)
            known |= _stored(node)


def _used(node: ast.AST, own: frozenset[str] = frozenset()) -> set[str]:
    """The global names that a piece of code reads, inside functions and comprehensions, too."""
    if isinstance(node, ast.withitem):
        return _used(node.context_expr, own)
    if isinstance(node, ast.Name):
        return {node.id} - own if isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, SCOPES):
        own |= _own(node)
    names = set().union(*(_used(child, own) for child in ast.iter_child_nodes(node)))
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        names |= {node.target.id} - own
    # What `name := value` binds is read only afterwards.
    return names - {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}


def _own(scope: ast.AST) -> set[str]:
    """The names that belong to a function, a class or a comprehension."""
    names = {n.id for n in ast.walk(scope) if isinstance(n, ast.Name) and not _is_load(n)}
    for part in ast.walk(scope):
        if isinstance(part, ast.arg):
            names.add(part.arg)
        elif isinstance(part, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in part.names}
        elif isinstance(part, ast.FunctionDef | ast.ClassDef) and part is not scope:
            names.add(part.name)
        elif isinstance(part, ast.ExceptHandler) and part.name:
            names.add(part.name)
    shared = [n for part in ast.walk(scope) if isinstance(part, ast.Global) for n in part.names]
    return names - set(shared)


def _is_load(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)


def _stored(node: ast.AST) -> set[str]:
    """The names that a statement binds at the top level."""
    if isinstance(node, ast.ClassDef):
        return {node.name}
    parts, names = [node], set()
    for part in parts:  # grows while it is gone through
        if isinstance(part, COMPREHENSIONS):  # what they bind is their own, but for :=
            names |= {n.target.id for n in ast.walk(part) if isinstance(n, ast.NamedExpr)}
        else:
            parts += ast.iter_child_nodes(part)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
        if isinstance(part, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in part.names}
    return names


@pytest.mark.parametrize(
    "cells, lacking",
    [
        (["x = y"], ["y"]),
        (["x = 1", "print(x)"], []),
        (["print(x)", "x = 1"], ["x"]),
        (["x = [x for x in range(3)]"], []),
        (["x = f(x)"], ["f", "x"]),
        (["for i in range(3):\n    print(i, j)"], ["j"]),
        (["def f():\n    return g()", "g = 1"], ["g"]),
        (["def f():\n    return g()\n\n\ng = 1"], []),
        (["def f(a, b=c):\n    return a + b"], ["c"]),
        (["import os.path as p\nfrom json import loads\np, loads"], []),
        (["with open('x') as file:\n    file"], []),
        (["try:\n    x = 1\nexcept KeyError as error:\n    print(error, z)"], ["z"]),
        (["if (found := x):\n    found"], ["x"]),
        (["class A:\n    def f(self):\n        return B"], ["B"]),
        (["x = lambda a: a + b"], ["b"]),
        (["x += 1"], ["x"]),
        (["def f():\n    n = 1\n    n += m\n    return [k for k in n]"], ["m"]),
        (["def f():\n    import json as j\n    return j, k"], ["k"]),
        (["[x for x in range(3)]", "x"], ["x"]),
        (["print([y := 1 for _ in range(3)])", "y"], []),
        (["while n:\n    n -= 1"], ["n"]),
        (["print(f'{width:>{n}}')"], ["n", "width"]),
        (["a.b = 1"], ["a"]),
        (["a[k] = 1"], ["a", "k"]),
        (["(x, y), z = p"], ["p"]),
    ],
)
def test_the_finder_finds_what_is_not_bound_yet(cells, lacking):
    assert sorted(missing(cells, KNOWN)) == lacking


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_section_runs_after_the_first_cells_and_section_1(name):
    first, others = split(name)
    problems = [
        f"{name}, '{title}': uses {', '.join(lacking)}, which only another section binds"
        for title, cells in others.items()
        if (lacking := missing(cells, KNOWN | bound(first)))
    ]
    assert missing(first, KNOWN) == []
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
        for name in missing(cells, KNOWN)
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
            for name in bound([ast.unparse(node)]):
                found.setdefault(name, set()).add(ast.unparse(node))
    return found
