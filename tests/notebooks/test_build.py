"""build.py on small sources: pairs, stale twins, one execution for two editions, clean outputs."""

import textwrap

import build
import kernel
import nbformat
import pytest

SOURCE = """
# %% [markdown] lang="ko"
# # 첫 수업
#
# 하나를 더합니다.

# %% [markdown] lang="en"
# # First lesson
#
# We add one.

# %%
x = 1
print("\\r 10%", end="")
print("\\r100%")
print("in", __import__("os").environ["RUNS"])

# %% [markdown] lang="ko" tags=["goal"]
# ## 결과
# %% [markdown] lang="en" tags=["goal"]
# ## Result

# %% tags=["check"]
x + 1
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "src" / "01_first.py"
    path.parent.mkdir()
    path.write_text(SOURCE.lstrip(), encoding="utf-8")
    assert build.accept(path) == 2
    return path


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_accept_records_the_twins_and_keeps_everything_else(source):
    assert build.accept(source) == 0
    assert build.source_problems(source) == []
    text = source.read_text(encoding="utf-8")
    assert text.count(' of="') == 2 and text.count('tags=["goal"]') == 2
    assert [line for line in text.splitlines() if 'lang="en"' not in line] == [
        line for line in SOURCE.lstrip().splitlines() if 'lang="en"' not in line
    ]


def test_a_korean_cell_that_changed_alone_is_named(source):
    edit(source, "하나를 더합니다.", "둘을 더합니다.")
    (problem,) = build.source_problems(source)
    assert "'# 첫 수업'" in problem and "'# First lesson'" in problem and "--accept" in problem
    edit(source, "We add one.", "We add two.")
    assert build.source_problems(source), "the English text changed, but nobody vouched for it"
    build.accept(source)
    assert build.source_problems(source) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('# %% [markdown] lang="en" of', '# %% [markdown] lang="fr" of', "has no English cell"),
        ('# %% [markdown] lang="ko"\n', "# %% [markdown]\n", 'neither lang="ko" nor lang="en"'),
        ("# %%\nx = 1", '# %% [markdown] lang="en"\n# More\n\n# %%\nx = 1', "no Korean cell"),
    ],
)
def test_a_missing_twin_is_named_and_not_accepted(source, old, new, words):
    edit(source, old, new)
    assert any(words in problem for problem in build.source_problems(source))
    with pytest.raises(SystemExit):
        build.accept(source)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    path = folder / "src" / "01_first.py"
    path.parent.mkdir()
    path.write_text(SOURCE.lstrip(), encoding="utf-8")
    build.accept(path)
    build.build([path], folder)
    return path


def copies(built, tmp_path):
    """The source and its built notebooks, free to be changed."""
    for file in built.parent.parent.rglob("*.*"):
        target = tmp_path / file.relative_to(built.parent.parent)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
    return tmp_path / "src" / built.name


def test_one_execution_makes_both_editions(built):
    folder = built.parent.parent
    assert build.built_problems(built, folder) == []
    korean, english = (
        nbformat.read(folder / lang / "01_first.ipynb", as_version=4) for lang in ("ko", "en")
    )
    assert [c.source for c in korean.cells if c.cell_type == "markdown"] == [
        "# 첫 수업\n\n하나를 더합니다.", "## 결과"
    ]  # fmt: skip
    assert [c.source.split("\n")[0] for c in english.cells] == [
        "# First lesson", "x = 1", "## Result", "x + 1"
    ]  # fmt: skip
    code = [[c for c in n.cells if c.cell_type == "code"] for n in (korean, english)]
    assert code[0] == code[1]
    assert [cell.execution_count for cell in code[0]] == [1, 2]
    assert code[0][0].outputs[0].text == "100%\nin runs\n"
    assert code[0][1].outputs[0].data["text/plain"] == "2"
    assert korean.metadata["language_info"] == {"name": "python"}


def test_changed_code_is_stale_and_text_alone_is_not_enough(built, tmp_path):
    source = copies(built, tmp_path)
    edit(source, "x + 1", "x + 2")
    assert all("code has changed" in p for p in build.built_problems(source, tmp_path))
    with pytest.raises(SystemExit, match="not executed yet"):
        build.refresh_text(source, tmp_path)


def test_changed_prose_is_stale_until_it_is_written_again(built, tmp_path):
    source = copies(built, tmp_path)
    edit(source, "# We add one.", "# We add 1.")
    assert build.built_problems(source, tmp_path) == [
        "en/01_first.ipynb: cells differ from the source: run build.py --text"
    ]
    before = nbformat.read(tmp_path / "ko" / "01_first.ipynb", as_version=4)
    build.refresh_text(source, tmp_path)
    assert build.built_problems(source, tmp_path) == []
    assert nbformat.read(tmp_path / "ko" / "01_first.ipynb", as_version=4) == before


def test_a_missing_notebook_and_a_hand_made_change_are_named(built, tmp_path):
    source = copies(built, tmp_path)
    (tmp_path / "en" / "01_first.ipynb").unlink()
    edit(tmp_path / "ko" / "01_first.ipynb", "x + 1", "x + 3")
    problems = build.built_problems(source, tmp_path)
    assert len(problems) == 2 and "is missing" in problems[1] and "cells differ" in problems[0]


def test_a_cell_that_raises_stops_the_build_and_writes_nothing(source, tmp_path):
    edit(source, "x + 1", "from course_utils import CourseError\nraise CourseError('Do this.')")
    with pytest.raises(kernel.NotebookFailed, match="^Do this.$") as failed:
        build.build([source], tmp_path)
    assert "CourseError" in failed.value.traceback and "\x1b" not in failed.value.traceback
    assert not (tmp_path / "ko").exists()


def test_tidy():
    shown = textwrap.dedent(
        """\
        \x1b[31mred\x1b[0m
        .../tqdm/auto.py:21: TqdmWarning: IProgress not found. Please update jupyter.
          from .autonotebook import tqdm as notebook_tqdm
          0%|    | 0/2\r 50%|##  | 1/2\r100%|####| 2/2
        /tmp/ipykernel_77/123.py:3: UserWarning: hm
        <Task at 0x7f0011223344> in /work/x/runs/offline
        """
    )
    assert kernel.tidy(shown, {"/work/x/": ""}).splitlines() == [
        "red",
        "100%|####| 2/2",
        "<cell>:3: UserWarning: hm",
        "<Task at 0x...> in runs/offline",
    ]
