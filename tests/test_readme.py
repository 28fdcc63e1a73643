"""The READMEs say the same in both languages, and no number of theirs is typed by hand."""

import re

import pytest

from tests.benchmarks.readme import block, fill, kinds
from tools import REPO
from tools.notebooks.kernel import sources

NAMES = ("README.ko.md", "README.md")


def text(name):
    return (REPO / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("names", [NAMES, ("colab_guide.ko.md", "colab_guide.md")])
def test_both_languages_have_the_same_code_and_the_same_sections(names):
    blocks = [
        re.findall(r"^```\w*\n(.*?)^```$", text(name), re.DOTALL | re.MULTILINE) for name in names
    ]
    korean, english = ("".join(found).replace("내-아이디", "your-name") for found in blocks)
    assert korean == english and len(blocks[0]) > 3
    assert len({text(name).count("\n## ") for name in names}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_each_badge_opens_the_notebook_of_its_row_korean_first(name):
    rows = re.findall(r"^\| (\d\d) (.*)$", text(name), re.MULTILINE)
    assert [number for number, _ in rows] == [path.stem[:2] for path in sources()]
    for number, row in rows:
        opened = re.findall(r"/notebooks/(ko|en)/(\d\d)_", row)
        assert opened == [("ko", number), ("en", number)], f"{name}: row {number}"


def test_the_results_are_those_of_the_benchmarks():
    how = "run python -m tests.benchmarks.readme"
    assert fill("results", block, check=True) + fill("kinds", kinds, check=True) == [], how
