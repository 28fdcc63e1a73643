"""Run the whole course without a browser: the three notebooks in order, then one table.

    python -m tools.notebooks.run --recipe offline
    python -m tools.notebooks.run --recipe offline --data my_tasks.json

Everything that was finished or paid for is kept: after an interruption the same command goes on.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout
from nbformat import NotebookNode

from course_utils import CourseError, shown
from course_utils.checkpoint import CheckpointStore
from course_utils.recipe import load_recipe
from course_utils.reports.run import write_report
from course_utils.session import run_name
from course_utils.tasks import read_tasks, write_atomic
from tools.notebooks import kernel
from tools.notebooks.build import LANGUAGES, edition

SPINE = "0[123]_*.py"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", default="offline", help="a recipe's name or YAML file")
    parser.add_argument("--data", type=Path, help="your own tasks, JSON or JSONL")
    options = parser.parse_args(arguments)
    try:
        run_course(options.recipe, options.data)
    except CourseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\nThe disk does not cooperate ({error}); what was saved is kept.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def run_course(recipe_name: str, data: Path | None = None) -> None:
    """Run the notebooks, write report.md and print its table; raises CourseError."""
    start = time.monotonic()
    if recipe_name.endswith((".yaml", ".yml")):
        recipe_name = str(Path(recipe_name).absolute())
    recipe = load_recipe(recipe_name).preset(os.environ.get("PRESET") or "full")
    if data is not None:
        data = data.expanduser().absolute()
        print(f"{len(read_tasks(data)):,} tasks in {data.name}")
    store = CheckpointStore.open(run_name(recipe, data), os.environ.get("RUNS") or None)
    home = store.root / store.run
    environment = {"RECIPE": recipe_name, "DATA": str(data or ""), "RUNS": str(store.root)}
    with only_one_here(home):
        print(f"Running the course '{recipe.name}' in {shown(home)}", flush=True)
        for path in kernel.sources(SPINE):
            run_notebook(path, environment, home)
        table = write_report(store, recipe, data=data)
    print(f"\n{table}\n\nDone in {time.monotonic() - start:.0f} s; this table is in "
          f"{shown(home / 'report.md')}")  # fmt: skip


def run_notebook(path: Path, environment: dict[str, str], home: Path) -> None:
    """Execute one source with a line a section; keep both executed editions in the run's folder."""
    notebook = kernel.read_source(path)
    progress = Progress(path.stem, section_titles(notebook))
    folders = kernel.machine_folders()
    error_path = home / "notebooks" / f"{path.stem}.error.txt"
    error_path.unlink(missing_ok=True)
    try:
        kernel.execute(notebook, environment, on_cell=progress.reached)
        progress.finish()
    except kernel.NotebookFailed as failure:
        progress.finish("failed")
        write_atomic(error_path, kernel.tidy(failure.traceback, folders) + "\n")
        raise CourseError(f"{path.stem}, {progress.title!r}: {failure}\n"
                          f"(The traceback is in {shown(error_path)}.)") from None  # fmt: skip
    finally:
        kernel.tidy_outputs(notebook, folders)
        for language in LANGUAGES:
            content = nbformat.writes(edition(notebook, language, path.stem))
            write_atomic(home / "notebooks" / language / f"{path.stem}.ipynb", content + "\n")


def section_titles(notebook: NotebookNode) -> list[str]:
    """Return for each cell the English heading it stands under."""
    titles, title = [], "Start"
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.metadata.get("lang") == "en":
            for line in cell.source.split("\n"):
                if line.startswith("## "):
                    title = line.removeprefix("## ").strip()
        titles.append(title)
    return titles


class Progress:
    """One line a section, with its seconds once it is done."""

    def __init__(self, name: str, titles: list[str]):
        self.titles, self.title, self.since = titles, "", 0.0
        print(name, flush=True)

    def reached(self, index: int) -> None:
        """Note that a cell begins; print when it opens a new section."""
        if self.titles[index] != self.title:
            self.finish()
            self.title, self.since = self.titles[index], time.monotonic()
            print(f"  {self.title:<58}", end=" ", flush=True)

    def finish(self, word: str = "") -> None:
        """End the current section's line."""
        if self.title:
            print(f"{time.monotonic() - self.since:6.1f} s {word}".rstrip(), flush=True)


def only_one_here(home: Path) -> FileLock:
    """Hold the run's folder, until the `with` or this process ends; raises CourseError."""
    home.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(home / ".lock").acquire(blocking=False)
    except Timeout:
        raise CourseError(f"Another 'make course' is working in {shown(home)}: wait for it, or end "
                          "it first.") from None  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
