"""make release: one command renames the repository and its version everywhere, any number of times.

Everything happens in copies of this checkout.
"""

import re
import shutil
import subprocess
import sys

import pytest

from course_utils import __version__
from tools import REPO
from tools.notebooks import release

BINARY = {".png", ".safetensors", ".ico", ".woff2", ".pyc"}
ignored = shutil.ignore_patterns(
    ".git", ".venv*", "runs", "build", "dist", "models", "__pycache__", "*.egg-info", ".*_cache",
    ".hypothesis", "*.safetensors",
)  # fmt: skip


def run(copy, *arguments, tool="release"):
    return subprocess.run(
        [sys.executable, "-m", f"tools.notebooks.{tool}", *arguments],
        cwd=copy, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def texts(copy):
    """Every text of a copy but the tests, which say old names on purpose."""
    tests = copy / "tests"
    return {path: path.read_text(encoding="utf-8") for path in copy.rglob("*")
            if path.is_file() and path.suffix not in BINARY
            and tests not in path.parents}  # fmt: skip


def left_over(copy, *names):
    """Files that still hold a name; a changelog's versions are history."""
    words = "|".join(rf"(?<![\w.]){re.escape(name)}(?![\w]|\.\d)" for name in names)
    words = re.compile(words, re.ASCII | re.IGNORECASE)  # a Korean particle may follow
    return [
        f"{path.relative_to(copy)}: {found[0]}: write it so that make release finds it"
        for path, text in texts(copy).items()
        if path.name != "CHANGELOG.md" and (found := words.search(text))
    ]


FIRST, SECOND = ("first-owner/name.1", "v91.82.73"), ("Second/other_name", "v9")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy that was released once."""
    folder = tmp_path_factory.mktemp("release") / "course"
    shutil.copytree(REPO, folder, ignore=ignored)
    done = run(folder, *FIRST)
    if "Mend the notebooks first" in done.stderr:
        pytest.skip(f"test_editions says why: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return folder


def test_two_releases_leave_nothing_of_the_name_before(copy):
    before = [release.repository(), "**ORG**"]
    if __version__.count(".") == 2:  # a bare "v1" stands in many an address of an API
        before.append(f"v{__version__}")
    assert left_over(copy, *before) == [] != left_over(copy, *FIRST)
    done = run(copy, *SECOND)
    assert done.returncode == 0, done.stderr
    assert left_over(copy, *FIRST) == []
    checked = run(copy, "--check", tool="build")
    assert checked.returncode == 0, checked.stdout
    there = texts(copy)
    again = run(copy, *SECOND)
    assert again.stdout.startswith("0 files") and texts(copy) == there
    init = (copy / "course_utils" / "__init__.py").read_text(encoding="utf-8")
    assert '__version__ = "9"' in init
    history = (copy / "CHANGELOG.md").read_text(encoding="utf-8")
    published = [__version__] * (release.repository().split("/")[0] != "ORG")
    for version in (*published, "91.82.73", "9"):
        assert history.count(f"\n## [{version}]\n") == 1
        assert history.count(f"\n[{version}]: https://github.com/Second/other_name/releases/") == 1
    for language in ("ko", "en"):
        for path in (copy / "notebooks" / language).glob("*.ipynb"):
            text = path.read_text(encoding="utf-8")
            assert "https://github.com/Second/other_name" in text and "--branch v9 " in text


@pytest.mark.parametrize("path", release.files(), ids=lambda path: str(path.relative_to(REPO)))
def test_every_install_line_names_this_version(path):
    ours = re.escape(release.repository())
    named = re.findall(rf"--branch[ =](\S+)\s+(?:\{{source\}}|\S*{ours})|{ours}(?:\.git)?@([\w.]+)",
                       path.read_text(encoding="utf-8"))  # fmt: skip
    assert {"".join(tag) for tag in named} <= {f"v{__version__}"}


def test_stale_notebooks_are_not_released(copy):
    source = copy / "notebooks" / "src" / "02_train.py"
    text = source.read_text(encoding="utf-8")
    source.write_text(text + "\n# %%\nprint('new')\n", encoding="utf-8")
    there = texts(copy)
    done = run(copy, "kim/course", "v3")
    source.write_text(text, encoding="utf-8")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "02_train.ipynb: the code has changed" in done.stderr
    assert there | {source: text} == texts(copy)


@pytest.mark.parametrize(
    ("repo", "tag", "words"),
    [
        ("", "v1", "REPO=owner/name TAG=vX.Y.Z"),
        ("kim/course", "", "REPO=owner/name TAG=vX.Y.Z"),
        ("course", "v1", "REPO='course' is not"),
        ("kim/course.git", "v1", "write REPO=owner/name"),
        ("kim/강의", "v1", "write REPO=owner/name"),
        ("kim/course", "main", "TAG='main' is not a version"),
        ("kim/course", "v1; rm x", "is not a version"),
    ],
)
def test_a_bad_name_is_refused_in_one_sentence(capsys, repo, tag, words):
    assert release.main([repo, tag]) == 1
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and not said.out


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("github.com/a/b.git@v1", "github.com/kim/c.git@v2"),
        ("/github/a/b/blob/v1/n.ipynb", "/github/kim/c/blob/v2/n.ipynb"),
        ("githubusercontent.com/a/b/v1/x.svg", "githubusercontent.com/kim/c/v2/x.svg"),
        ("clone --branch v1 github.com/a/b /x", "clone --branch v2 github.com/kim/c /x"),
        ("see a/b.", "see kim/c."),
        ("a/b를 보세요, github.com/a/b@v1을", "kim/c를 보세요, github.com/kim/c@v2을"),
        ("git clone --branch v1 https://github.com/x/y", None),
        ("github.com/a/b/blob/v1/c https://x.org", "github.com/kim/c/blob/v2/c https://x.org"),
        ("--branch v1 https://github.com/a/b # https://x.org",
         "--branch v2 https://github.com/kim/c # https://x.org"),
        ("http://127.0.0.1:8000/v1 v1 a/b-c a/b.c x-a/b", None),
        ("--branch v1.1 and a/bc/blob/v1/x", None),
    ],
)  # fmt: skip
def test_only_its_own_names_are_renamed(before, after):
    assert release.rename(before, ("a/b", "v1"), ("kim/c", "v2")) == (after or before)
