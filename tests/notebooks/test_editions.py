"""The committed notebooks: two complete languages, one code, outputs of exactly this code."""

import functools
import re

import nbformat
import pytest

from tools.notebooks import build
from tools.notebooks.checks import link_problems, pages
from tools.notebooks.kernel import REPO, read_source, sources

BUILT = [
    REPO / "notebooks" / language / f"{path.stem}.ipynb"
    for path in sources()
    for language in build.LANGUAGES
]
HANGUL = re.compile("[가-힣]")


@functools.cache
def read(path):
    if not path.is_file():
        pytest.fail(f"{path.relative_to(REPO)} was not built: make notebooks")
    return nbformat.read(path, as_version=4)


def label(path):
    return "/".join(path.parts[-2:])


def test_every_notebook_has_a_source():
    assert build.strays() == []


def test_the_three_notebooks_of_the_spine_are_there():
    assert [path.stem[:2] for path in sources("0[123]_*.py")] == ["01", "02", "03"]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_source_has_every_cell_in_both_languages_and_no_stale_twin(path, tmp_path):
    assert build.source_problems(path) == []
    same = tmp_path / path.name
    same.write_bytes(path.read_bytes())
    assert build.accept(same) == [] and same.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_languages_are_not_mixed_up(path):
    for korean, english in build.pairs(read_source(path)):
        prose = re.sub(r"`[^`]*`|```.*?```|https?://\S+", "", korean.source, flags=re.DOTALL)
        letters = re.findall(r"[A-Za-z가-힣]", prose)
        assert not letters or HANGUL.search(prose), f"no Korean in {korean.source[:60]!r}"
        letters = re.findall(r"[A-Za-z가-힣]", english.source)
        share = sum(bool(HANGUL.match(letter)) for letter in letters) / max(1, len(letters))
        assert share < 0.5, f"mostly Korean: {english.source[:60]!r}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_built_notebooks_are_current_clean_and_their_links_alive(path):
    assert build.built_problems(path) == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_both_editions_have_the_same_code_and_outputs(path):
    korean, english = (
        [cell for cell in read(REPO / f"notebooks/{lang}/{path.stem}.ipynb").cells
         if cell.cell_type == "code"]
        for lang in build.LANGUAGES
    )  # fmt: skip
    assert korean == english


@pytest.mark.parametrize("path", BUILT, ids=label)
def test_it_was_executed_from_top_to_bottom_without_an_error(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert all(output.output_type != "error" for output in cell.outputs), cell.source


@pytest.mark.parametrize("path", BUILT, ids=label)
def test_it_is_valid_and_shows_on_github(path):
    nbformat.validate(read(path))
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(REPO)))
def test_the_links_of_every_page_are_alive(path):
    assert link_problems(path) == []
