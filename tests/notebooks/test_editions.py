"""The committed notebooks: two complete languages, one code, outputs of exactly this code."""

import nbformat
import pytest

from tools import REPO
from tools.notebooks import build
from tools.notebooks.checks import link_problems, pages
from tools.notebooks.kernel import sources

each = pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)


def test_every_notebook_has_a_source():
    assert build.strays() == []


@each
def test_source_has_every_cell_in_both_languages_and_no_stale_twin(path, tmp_path):
    assert build.source_problems(path) == []
    same = tmp_path / path.name
    same.write_bytes(path.read_bytes())
    assert build.accept(same) == [] and same.read_bytes() == path.read_bytes()


@each
def test_built_notebooks_are_current_clean_and_their_links_alive(path):
    assert build.built_problems(path) == []


@each
def test_both_editions_have_the_same_code_executed_from_top_to_bottom_without_an_error(path):
    editions = []
    for language in build.LANGUAGES:
        built = REPO / "notebooks" / language / f"{path.stem}.ipynb"
        notebook = nbformat.read(built, as_version=4)
        nbformat.validate(notebook)
        assert built.stat().st_size < 2_000_000  # GitHub shows no larger one
        editions.append([cell for cell in notebook.cells if cell.cell_type == "code"])
    code = editions[0]
    assert code == editions[1]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert all(output.output_type != "error" for output in cell.outputs), cell.source


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(REPO)))
def test_the_links_of_every_page_are_alive(path):
    assert link_problems(path) == []
