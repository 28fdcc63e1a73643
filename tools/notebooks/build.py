"""Build the Korean and the English notebooks from their one source: notebooks/src/NN_name.py.

A source is jupytext's percent format. Markdown cells come in pairs, Korean first, then English:

    # %% [markdown] lang="ko"
    # %% [markdown] lang="en" of="1a2b3c4d"

`of` is a hash of the Korean cell that the English one was written for: when the Korean changes, the
tests fail until somebody has looked at the English and said so with `--accept`.

    python -m tools.notebooks.build            execute every source once, write both editions
    python -m tools.notebooks.build --text     new prose only; refused where the code has changed
    python -m tools.notebooks.build --check    say what is out of date, broken or stray
    python -m tools.notebooks.build --accept   record that each English cell matches its Korean one
"""

import argparse
import copy
import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from course_utils.tasks import write_atomic
from tools import REPO
from tools.notebooks.cards import Meter, with_card
from tools.notebooks.checks import link_problems, machine_names, output_problems, pages
from tools.notebooks.kernel import (
    SOURCES,
    NotebookFailed,
    execute,
    machine_folders,
    read_source,
    sources,
    tidy_outputs,
)

LANGUAGES = ("ko", "en")
KEPT = ("tags", "cellView", "jupyter")  # of a cell's metadata: the set-up is folded
CODE = re.compile(r"```.*?```|`[^`]*`|https?://\S+", re.DOTALL)
LEFT_OVER = {  # so many words of the other language in a row: a sentence that nobody translated
    "ko": re.compile(r"(?:\b[A-Za-z][a-z']*[\s,]+){5}[A-Za-z]+"),
    "en": re.compile(r"(?:[가-힣]+[\s,.]+){4}[가-힣]+"),
}
SHAPE = {  # what both twins have as many of
    "headings": re.compile(r"^#{1,6} ", re.MULTILINE),
    "table rows": re.compile(r"^\|", re.MULTILINE),
    "fences": re.compile(r"^ *```", re.MULTILINE),
    "links": re.compile(r"\]\(|\b(?:src|href)="),
    "text": re.compile(r"\A\s*\S"),
}
NO_NEWS = re.compile(r"^# +(?:format|jupytext)_version: .*\n", re.MULTILINE)


def digest(text: str) -> str:
    """Return eight hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:8]


def code_digest(notebook: NotebookNode) -> str:
    """Return a digest of all code cells, in order."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return digest(json.dumps(code, ensure_ascii=False))


def outputs_digests(notebook: NotebookNode) -> str:
    """Return a digest of what each code cell showed, in order, as one line."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [json.dumps([cell.execution_count, cell.outputs], sort_keys=True) for cell in code]
    return " ".join(map(digest, shown))


def edition(notebook: NotebookNode, language: str, name: str) -> NotebookNode:
    """Return one language's notebook: its markdown, every code cell with its outputs."""
    cells = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and cell.metadata.get("lang") != language:
            continue
        cell = copy.deepcopy(cell)
        if not cells:
            cell.source = with_card(cell.source, name, language)
        cell.metadata = {key: v for key, v in cell.metadata.items() if key in KEPT}
        cell.id = f"cell-{number:03d}"
        cells.append(cell)
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "course": {"source": f"notebooks/src/{name}.py", "code": code_digest(notebook),
                   "outputs": outputs_digests(notebook)},
    }
    whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    return nbformat.from_dict(whole)


def pairs(notebook: NotebookNode) -> list[tuple[NotebookNode, NotebookNode | None]]:
    """Return each Korean markdown cell with the English one directly after it, None if missing."""
    cells = [*notebook.cells, None]
    return [
        (cell, after if after is not None and after.metadata.get("lang") == "en" else None)
        for cell, after in zip(cells, cells[1:], strict=False)
        if cell.cell_type == "markdown" and cell.metadata.get("lang") == "ko"
    ]


def source_problems(path: Path) -> list[str]:
    """Return what is wrong with a source: a missing language, twin or file, or a stale twin."""
    notebook, problems = read_source(path), []
    problems += [f"{path.name}: its code reads {file}, which is missing"
                 for file in _files_read(notebook) if not (REPO / file).exists()]  # fmt: skip
    twins = pairs(notebook)
    paired = {id(cell) for pair in twins for cell in pair if cell is not None}
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "raw":
            problems.append(f"{path.name}: cell {number} ({_first_line(cell)}) is raw: no language")
        if cell.cell_type == "markdown" and id(cell) not in paired:
            what = "has no Korean cell before it"
            if cell.metadata.get("lang") not in LANGUAGES:
                what = 'is marked neither lang="ko" nor lang="en"'
            problems.append(f"{path.name}: cell {number} ({_first_line(cell)}) {what}")
    for korean, english in twins:
        if english is None:
            problems.append(f"{path.name}: {_first_line(korean)} has no English cell after it")
        elif english.metadata.get("of") != digest(korean.source):
            problems.append(
                f"{path.name}: {_first_line(korean)} changed, its English twin did not "
                f"({_first_line(english)}): update it, then run build.py --accept"
            )
        for language, cell in zip(LANGUAGES, (korean, english), strict=True):
            prose = CODE.sub("", cell.source) if cell is not None else ""
            if found := LEFT_OVER[language].search(prose):
                problems.append(f'{path.name}: lang="{language}" still says {found[0]!r}')
        if english is not None:
            for what, seen in SHAPE.items():
                here, there = (len(seen.findall(cell.source)) for cell in (korean, english))
                if here != there:
                    problems.append(f"{path.name}: {_first_line(korean)} and its twin differ in "
                                    f"{what}: {here} and {there}")  # fmt: skip
    return problems


def built_problems(path: Path, folder: Path = REPO / "notebooks") -> list[str]:
    """Return how the built notebooks differ from their source, and what they should not show."""
    source, problems = read_source(path), []
    for language in LANGUAGES:
        built_path = folder / language / f"{path.stem}.ipynb"
        where = f"{language}/{built_path.name}"
        if not built_path.is_file():
            problems.append(f"{where} is missing: run make notebooks")
            continue
        try:
            built = nbformat.read(built_path, as_version=4)
        except (ValueError, AttributeError, nbformat.ValidationError):  # marks of a merge, say
            problems.append(f"{where} is no notebook any more: run make notebooks")
            continue
        if built.metadata.get("course", {}).get("code") != code_digest(source):
            problems.append(f"{where}: the code has changed since it was executed"
                            f"{_first_change(built, source)}: make notebooks")  # fmt: skip
            continue
        wanted = edition(source, language, path.stem)
        contents = [[(c.cell_type, c.source, c.metadata) for c in n.cells] for n in (built, wanted)]
        about = [{**n.metadata, "course": None} for n in (built, wanted)]
        if contents[0] != contents[1] or about[0] != about[1]:
            problems.append(f"{where}: cells differ from the source: run build.py --text")
        problems += output_problems(built, where) + link_problems(built_path)
        problems += _touched_outputs(built, where)
    return problems


def strays(folder: Path = REPO / "notebooks") -> list[str]:
    """Return every notebook that no source stands behind."""
    known = {folder / lang / f"{path.stem}.ipynb" for lang in LANGUAGES for path in sources()}
    return [
        f"{path.relative_to(folder)} has no source in {SOURCES.relative_to(REPO)}: delete it"
        for path in sorted(set(folder.rglob("*.ipynb")) - known)
        if ".ipynb_checkpoints" not in path.parts
    ]


def accept(path: Path) -> list[str]:
    """Write into each English cell the hash of its Korean twin; return those that changed."""
    incomplete = [problem for problem in source_problems(path) if "--accept" not in problem]
    if incomplete:
        raise SystemExit("\n".join(incomplete))
    notebook, changed = read_source(path), []
    for korean, english in pairs(notebook):
        if english.metadata.get("of") != digest(korean.source):
            english.metadata["of"] = digest(korean.source)
            changed.append(f"{_first_line(korean)} = {_first_line(english)}")
    notebook.metadata.jupytext.pop("cell_metadata_filter", None)  # a first `of` would not pass it
    text = jupytext.writes(notebook, fmt="py:percent")
    path.write_text(NO_NEWS.sub("", text), encoding="utf-8")
    return changed


def build(paths: list[Path], folder: Path = REPO / "notebooks") -> None:
    """Execute the sources in order, in one fresh run, and write both editions of each."""
    with tempfile.TemporaryDirectory(prefix="course-") as temporary:
        runs = Path(temporary) / "runs"
        # Whatever the builder's machine has, what is published is the full course, offline.
        environment = {
            "RUNS": str(runs), "DATA": "", "PRESET": "full", "RECIPE": "auto",
            "OPENAI_API_KEY": "", "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        for path in paths:
            print(f"{path.stem} ...", end=" ", flush=True)
            notebook = read_source(path)
            meter = Meter()
            execute(notebook, environment, on_start=meter.watch)
            if folder == REPO / "notebooks":
                meter.write(path.stem)
            tidy_outputs(notebook, machine_folders(runs=runs))
            if stray := output_problems(notebook, path.name, machine_names()):
                raise SystemExit("not written\n" + "\n".join(stray))
            write(notebook, path.stem, folder)
            print("ok", flush=True)


def refresh_text(path: Path, folder: Path = REPO / "notebooks", *, executed: str = "") -> None:
    """Write both editions again with the outputs they have; the code must be the executed one.

    `executed` is the `code_digest` that was executed where a new name is all that changed in it.
    """
    source = read_source(path)
    built_path = folder / "ko" / f"{path.stem}.ipynb"
    built = nbformat.read(built_path, as_version=4) if built_path.is_file() else None
    wanted = executed or code_digest(source)
    if built is None or built.metadata.get("course", {}).get("code") != wanted:
        raise SystemExit(f"{path.name}: its code was not executed yet: run make notebooks.")
    if touched := _touched_outputs(built, f"ko/{path.stem}.ipynb"):
        raise SystemExit("\n".join(touched))
    done = iter([cell for cell in built.cells if cell.cell_type == "code"])
    for cell in source.cells:
        if cell.cell_type == "code":
            old = next(done)
            cell.outputs, cell.execution_count = old.outputs, old.execution_count
    tidy_outputs(source, machine_folders())
    write(source, path.stem, folder)


def write(notebook: NotebookNode, name: str, folder: Path) -> None:
    """Write both editions of a notebook, byte for byte the same for the same content."""
    for language in LANGUAGES:
        content = edition(notebook, language, name)
        nbformat.validate(content)
        write_atomic(folder / language / f"{name}.ipynb", nbformat.writes(content) + "\n")


def _first_line(cell: NotebookNode) -> str:
    line = cell.source.strip().split("\n")[0]
    return f"'{line[:50]}'"


def _files_read(notebook: NotebookNode) -> list[str]:
    """Return the files of the checkout that code cells name, as in `REPO / "data" / "a.txt"`."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    named = re.findall(r'\bREPO((?: / "[^"]+")+)', code)
    return ["/".join(re.findall(r'"([^"]+)"', parts)) for parts in named]


def _touched_outputs(built: NotebookNode, where: str) -> list[str]:
    """Return which code cells do not show what they showed when they were executed."""
    recorded = built.metadata.course.get("outputs", "").split()
    code = [pair for pair in enumerate(built.cells, 1) if pair[1].cell_type == "code"]
    now = outputs_digests(built).split()
    return [
        f"{where}: cell {number} ({_first_line(cell)}) does not show what it gave when executed: "
        "make notebooks"
        for place, (number, cell) in enumerate(code)
        if recorded[place : place + 1] != [now[place]]
    ]


def _first_change(built: NotebookNode, source: NotebookNode) -> str:
    """Return " (cell 'x = 1')": the first code cell of the source that was not executed at all."""
    executed = {cell.source for cell in built.cells}
    code = (cell for cell in source.cells if cell.cell_type == "code")
    new = next((cell for cell in code if cell.source not in executed), None)
    return f" (cell {_first_line(new)})" if new else ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="e.g. 01_preprocess; all if none is given")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--text", action="store_true", help="write the prose only")
    mode.add_argument("--check", action="store_true", help="say what is out of date")
    mode.add_argument("--accept", action="store_true", help="record that the twins match")
    options = parser.parse_args(arguments)
    paths = [path for path in sources() if not options.names or path.stem in options.names]
    if unknown := set(options.names) - {path.stem for path in paths}:
        print(f"No source {', '.join(sorted(unknown))} in {SOURCES.relative_to(REPO)}.")
        return 1
    if options.accept:
        for path in paths:
            changed = accept(path)
            print(f"{path.name}: {len(changed)} English cells recorded anew", *changed, sep="\n  ")
        return 0
    problems = [problem for path in paths for problem in source_problems(path)]
    if options.check:
        problems += [problem for path in paths for problem in built_problems(path)]
        problems += strays() if not options.names else []
        problems += [problem for page in pages() for problem in link_problems(page)]
    print(*problems, sep="\n", end="\n" if problems else "")
    if options.check or problems:
        return int(bool(problems))
    try:
        for path in paths if options.text else []:
            refresh_text(path)
        if not options.text:
            build(paths)
    except NotebookFailed as failure:
        print(f"failed\n{failure}\n\n{failure.traceback}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
