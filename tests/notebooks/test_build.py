"""build.py on small sources: pairs, stale twins, one execution for two editions, clean outputs."""

import shutil

import nbformat
import pytest

from tools import repository, tag
from tools.notebooks import build, checks, kernel

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
    assert len(build.accept(path)) == 2
    return path


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_accept_records_the_twins_and_keeps_everything_else(source):
    assert build.accept(source) == []
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


@pytest.fixture
def copied(built, tmp_path):
    """The source, and in `tmp_path` its built notebooks, free to be changed."""
    shutil.copytree(built.parent.parent, tmp_path, dirs_exist_ok=True)
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


def plant(notebook, **output):
    """Give the second code cell an output of one's own."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[1].outputs = [nbformat.v4.new_output(**output)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("in /tmp/x1/runs", "'/tmp/x1'"),
        ("in /root", "'/root'"),
        ("in '/home/kim/data'", "'/home/kim'"),
        (r"in C:\Users\kim", r"C:\\Users"),
        ("kim@box-7:~$ ls", "'kim@box-7:~'"),
        ("in C:/Users/kim", "'C:/Users'"),
        ("see file:///home/kim/a.txt", "file:///home"),
        ("the key sk-proj-0123456789abcdefghij", "a secret key"),
        ("one line\n" * 33, "33 lines"),
        ("on box-of-kim.", "'box-of-kim'"),
    ],
)
def test_what_an_output_should_not_show_is_named(copied, tmp_path, text, words):
    notebook = nbformat.read(tmp_path / "ko" / "01_first.ipynb", as_version=4)
    plant(notebook, output_type="stream", text=text)
    (problem,) = build.output_problems(notebook, "ko/01_first.ipynb", ["box-of-kim"])
    assert words in problem and problem.startswith("ko/01_first.ipynb: cell 4 ")
    if "box-of-kim" not in text:
        nbformat.write(notebook, tmp_path / "ko" / "01_first.ipynb")
        assert problem in build.built_problems(copied, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/home/kim and a/root/b, /content/drive/MyDrive/runs, n/a",
        "100% right, 12 of 50; x[00:07]", "~/runs, <python>/lib/tmp/x, 6/8 [3, 4]", "'Q:\\nA:\\n'",
        "We collect: Collected 5\nrow\n" * 16,
    ],
)  # fmt: skip
def test_what_an_output_may_show(built, text):
    notebook = nbformat.read(built.parent.parent / "ko" / "01_first.ipynb", as_version=4)
    plant(notebook, output_type="stream", text=text)
    assert build.output_problems(notebook, "here") == []


def test_a_widget_is_left_out_and_a_stray_one_is_named(copied, tmp_path):
    path = tmp_path / "en" / "01_first.ipynb"
    notebook = nbformat.read(path, as_version=4)
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    plant(notebook, output_type="display_data", data=widget)
    notebook.metadata["widgets"] = {}
    nbformat.write(notebook, path)
    problems = build.built_problems(copied, tmp_path)
    assert "cells differ" in problems[0] and "cell 4 ('x + 1') does not show" in problems[1]
    kernel.tidy_outputs(notebook, {})
    assert "widget" not in nbformat.writes(notebook)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("![그림](../../assets/no.svg)", "this figure is missing"),
        ("[next](02_second.ipynb)", "no such file"),
        ("[up](#no-such-part)", "no heading of that name"),
        ("[page](page.md#elsewhere)", "no heading of that name"),
        ("[web](htp://example.org)", "not a web address"),
        ("[web](https://localhost:8000/x)", "not a web address"),
        ("[mine](https://github.com/OURS/blob/TAG/notebooks/ko/99.ipynb)", "no such file here"),
        ("[old](https://github.com/OURS/blob/v0.0.1/README.md)", "the course is published as"),
        ("<img src='no.png'>", "this figure is missing"),
        ("[run](runs/offline/report.md)", "there is no such file"),
        ("[nowhere](#)", "it leads nowhere"),
        ("[![b](https://x.org/b.svg)](https://colab.research.google.com/github/OURS/blob/TAG/a.md)",
         "no such file here"),
    ],
)  # fmt: skip
def test_a_broken_link_is_named(copied, tmp_path, link, words):
    (tmp_path / "ko" / "page.md").write_text("# Here\n", encoding="utf-8")
    link = link.replace("OURS", repository()).replace("TAG", tag())
    edit(copied, "# 하나를 더합니다.", f"# 하나를 더합니다. {link}")
    build.refresh_text(copied, tmp_path)
    (problem,) = build.built_problems(copied, tmp_path)
    assert problem.startswith("ko/01_first.ipynb: broken link ") and words in problem


def test_links_that_live(copied, tmp_path):
    (tmp_path / "ko" / "page.md").write_text("# `Here` we are\n## 두 번째, 절\n", encoding="utf-8")
    edit(copied, "# 하나를 더합니다.", f"""# [1](page.md#here-we-are) [2](page.md#두-번째-절)
# [3](#결과) [4](../en/01_first.ipynb) [5](https://github.com/{repository()}/blob/{tag()}/README.md)
# `[6](code)` [7](https://ko.wikipedia.org/wiki/Fold_(x)) <img src="page.md">""")  # fmt: skip
    build.refresh_text(copied, tmp_path)
    assert build.built_problems(copied, tmp_path) == []
    assert len(checks.links(copied.read_text(encoding="utf-8"))) == 7


def test_a_reference_without_its_address_is_named(copied, tmp_path):
    edit(copied, "# 하나를 더합니다.", "# 하나를 더합니다. [여기][a] [저기][b]\n#\n# [b]: page.md")
    build.refresh_text(copied, tmp_path)
    problems = build.built_problems(copied, tmp_path)
    assert len(problems) == 2 and "page.md" in problems[0] and "[a]" in problems[1]


def without_record(notebook):
    del notebook.metadata.course["outputs"]


def without_cell(notebook):
    del notebook.cells[-1]


def other_code(notebook):
    notebook.cells[-1].source = "x + 3"


def other_output(notebook):
    notebook.cells[1].outputs[0].text = "in my runs\n"


@pytest.mark.parametrize("language", ["ko", "en"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_record, ["cell 2 ('x = 1') does not show", "cell 4 ('x + 1') does not show"]),
        (without_cell, ["cells differ"]),
        (other_code, ["cells differ"]),
        (other_output, ["cell 2 ('x = 1') does not show"]),
    ],
)
def test_what_was_changed_by_hand_is_named(copied, tmp_path, language, change, words):
    path = tmp_path / language / "01_first.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)
    problems = build.built_problems(copied, tmp_path)
    assert all(problem.startswith(f"{language}/01_first.ipynb: ") for problem in problems)
    assert [word in p for word, p in zip(words, problems, strict=True)] == [True] * len(words)
    if language == "ko" and "does not show" in words[0]:  # it is not passed on
        with pytest.raises(SystemExit, match="does not show what it gave"):
            build.refresh_text(copied, tmp_path)


def test_a_notebook_that_is_missing_or_that_a_merge_broke_is_named(copied, tmp_path):
    (tmp_path / "ko" / "01_first.ipynb").unlink()
    path = tmp_path / "en" / "01_first.ipynb"
    path.write_text("<<<<<<< HEAD\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert build.built_problems(copied, tmp_path) == [
        "ko/01_first.ipynb is missing: run make notebooks",
        "en/01_first.ipynb is no notebook any more: run make notebooks",
    ]


def test_a_notebook_without_a_source_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "sources", lambda: [])
    (tmp_path / "ko").mkdir()
    (tmp_path / "ko" / "06_more.ipynb").write_text("{}")
    (problem,) = build.strays(tmp_path)
    assert problem.startswith("ko/06_more.ipynb has no source")


def test_a_figure_that_code_shows_and_nobody_has_is_named(source):
    edit(source, "x + 1", 'REPO / "assets" / "no.png"; REPO / "assets" / "figures"')
    (problem,) = build.source_problems(source)
    assert "reads assets/no.png" in problem


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("# We add one.", "# 아직 영어로 옮기지 않은 한국어 문장입니다.", 'lang="en"'),
        ("# 하나를 더합니다.", "# This is a sentence that is still English.", 'lang="ko"'),
        ("# ## Result", "# ## Result\n#\n# ### Too much", "differ in headings: 1 and 2"),
        ("# We add one.", "# [We](page.md) add one.", "differ in links: 0 and 1"),
    ],
)  # fmt: skip
def test_what_only_one_language_says_is_named(source, old, new, words):
    edit(source, old, new)
    assert any(words in problem for problem in build.source_problems(source))


def test_what_shows_this_machine_is_not_written(source, tmp_path, monkeypatch):
    def executed(notebook, environment, **_):
        plant(notebook, output_type="stream", text="on box-of-kim")

    monkeypatch.setattr(build, "machine_names", lambda: ["box-of-kim"])
    monkeypatch.setattr(build, "execute", executed)
    with pytest.raises(SystemExit, match="01_first.py: cell 6 shows this machine's"):
        build.build([source], tmp_path)
    assert not (tmp_path / "ko").exists()


def test_changed_code_is_stale_and_text_alone_is_not_enough(copied, tmp_path):
    edit(copied, "x + 1", "x + 2")
    problems = build.built_problems(copied, tmp_path)
    assert len(problems) == 2
    assert all("code has changed" in p and "cell 'x + 2'" in p for p in problems)
    with pytest.raises(SystemExit, match="not executed yet"):
        build.refresh_text(copied, tmp_path)


def test_changed_prose_is_stale_until_it_is_written_again(copied, tmp_path):
    edit(copied, "# We add one.", "# We add 1.")
    assert build.built_problems(copied, tmp_path) == [
        "en/01_first.ipynb: cells differ from the source: run build.py --text"
    ]
    before = nbformat.read(tmp_path / "ko" / "01_first.ipynb", as_version=4)
    build.refresh_text(copied, tmp_path)
    assert build.built_problems(copied, tmp_path) == []
    assert nbformat.read(tmp_path / "ko" / "01_first.ipynb", as_version=4) == before


def test_a_cell_that_raises_stops_the_build_and_writes_nothing(source, tmp_path):
    edit(source, "x + 1", "from course_utils import CourseError\nraise CourseError('Do this.')")
    with pytest.raises(kernel.NotebookFailed, match="^Do this.$") as failed:
        build.build([source], tmp_path)
    assert "CourseError" in failed.value.traceback and "\x1b" not in failed.value.traceback
    assert not (tmp_path / "ko").exists()


def test_a_long_output_keeps_its_beginning_and_its_end():
    whole = "".join(f"{number}\n" for number in range(32))
    assert kernel.shorten(whole) == whole
    lines = kernel.shorten("".join(f"{number}\n" for number in range(60))).splitlines()
    assert len(lines) == kernel.MOST_LINES
    assert lines[25:28] == ["25", "... (29 more lines) ...", "55"] and lines[-1] == "59"


def test_tidy():
    shown = (
        "\x1b[31mred\x1b[0m\n  0%|    | 0/2\r 50%|##  | 1/2\r100%|####| 2/2\n"
        "/tmp/ipykernel_77/123.py:3: UserWarning: hm\n<Task at 0x7f0011223344> in /work/x/runs\n"
    )
    assert kernel.tidy(shown, {"/work/x/": ""}).splitlines() == [
        "red", "<cell>:3: UserWarning: hm", "<Task at 0x...> in runs",
    ]  # fmt: skip
