"""What keeps the project in order: hooks, the workflow, the changelog, the contributor's pages."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from course_utils import __version__
from tools.notebooks.kernel import REPO


def load(name):
    return yaml.safe_load((REPO / name).read_text(encoding="utf-8"))


def targets():
    text = (REPO / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))


def test_the_workflow_calls_ci_run_on_the_python_that_is_promised():
    workflow = load(".github/workflows/ci.yml")
    assert set(workflow[True]) >= {"push", "pull_request"}  # YAML 1.1 reads `on` as true
    test, site = workflow["jobs"]["test"], workflow["jobs"]["site"]
    assert [step["run"] for step in test["steps"] if "run" in step] == [".ci/run"]
    assert os.access(REPO / ".ci" / "run", os.X_OK)
    assert "3.11" in test["strategy"]["matrix"]["python"]
    assert "matrix.python != '3.11'" in test["continue-on-error"]
    commands = " ".join(step.get("run", "") for step in site["steps"])
    assert "make site-test" in commands
    for job in workflow["jobs"].values():
        assert all("@" in step["uses"] for step in job["steps"] if "uses" in step)


def test_every_make_command_in_workflow_and_pages_is_a_target():
    pages = [*REPO.glob("*.md"), REPO / ".github/workflows/ci.yml", REPO / ".ci/run"]
    for page in pages:
        blocks = re.findall(r"^(?:[A-Z]+=\S+ )?(?: *- run: )?make ([a-z-]+)",
                            page.read_text(encoding="utf-8"), re.MULTILINE)  # fmt: skip
        assert set(blocks) <= targets(), page.name


@pytest.fixture
def checkout(tmp_path):
    """A small checkout for the hooks: one page, no notebook, this Python in .venv's place."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPO / "tools", tmp_path / "tools", ignore=ignored)
    (tmp_path / "course_utils").symlink_to(REPO / "course_utils")
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    (tmp_path / "page.md").write_text("# Page\n\n[here](#page)\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return tmp_path


def hook(name, checkout, *files):
    (found,) = (h for h in load(".pre-commit-config.yaml")["repos"][0]["hooks"] if h["id"] == name)
    command = shlex.split(found["entry"]) + [str(file) for file in files]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=120)


def test_the_hooks_pass_what_is_right_and_stop_what_is_not(checkout):
    before = hook("notebooks", checkout)
    assert before.returncode == 0, before.stdout
    (checkout / "page.md").write_text("[gone](no-such.md)\n")
    after = hook("notebooks", checkout)
    assert after.returncode == 1 and "no-such.md" in after.stdout

    good, bad = checkout / "good.py", checkout / "bad.py"
    good.write_text("x = 1\n")
    bad.write_text("import os\n")
    assert hook("ruff", checkout, good).returncode == 0
    stopped = hook("ruff", checkout, bad)
    assert stopped.returncode == 1 and "F401" in stopped.stdout


def test_the_changelog_tells_of_this_version():
    text = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert versions[0] == "Unreleased" and __version__ in versions
    assert set(versions) == set(re.findall(r"^\[(.+?)\]: https://", text, re.MULTILINE))


def test_contributing_says_the_same_in_both_languages():
    def code(name):
        text = (REPO / name).read_text(encoding="utf-8")
        return re.findall(r"```bash\n.*?```", text, re.DOTALL), text.count("\n## ")

    assert code("CONTRIBUTING.md") == code("CONTRIBUTING.ko.md")


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CONTRIBUTING.ko.md"])
def test_every_file_that_contributing_names_is_there(name):
    text = (REPO / name).read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:notebooks|course_utils|tests|\.ci)/[\w./-]*\w", text):
        if "NN_name" not in path:
            assert (REPO / Path(path)).exists(), path
