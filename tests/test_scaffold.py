"""The project itself: light imports, honest extras, targets that exist, a setup that explains."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import course_utils
from course_utils import REPO
from course_utils.plumbing.colab import name_of

# What begins with `inference` and `train` imports torch and transformers where it needs them.
LIGHT = (
    "session", "similarity", "llm", "generate", "judge", "stats", "inference", "plumbing.journal",
    "reports.doctor", "reports.judgments", "reports.labelling", "reports.run", "practice.checks",
    "practice.cases", "sources.batch", "sources.domain", "sources.endpoints", "sources.retrieval",
    "offline.world", "offline.start", "collator", "train",
)  # fmt: skip
HEAVY = {
    "torch", "transformers", "datasets", "openai", "trl", "peft", "numpy", "scipy", "matplotlib",
}  # fmt: skip


def python(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], cwd=REPO, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_map_names_modules_that_are_there():
    rows = re.findall(r"^    \d\d [a-z ]+?   +(.+)$", course_utils.__doc__, re.MULTILINE)
    named = " ".join(rows).split()
    assert len(rows) == 3 and len(named) == 12
    assert {path.stem for path in (REPO / "course_utils").glob("*.py")} >= set(named)


def test_what_is_light_imports_nothing_heavy():
    found = python(
        f"import importlib, sys\nfor name in {LIGHT}:\n"
        "    importlib.import_module(f'course_utils.{name}')\n"
        f"    print(name, *{HEAVY} & set(sys.modules))"
    )
    assert found.splitlines() == [*LIGHT]


@pytest.mark.parametrize(("module", "later"), [
    ("session", "llm generate judge train reports.judgments plots offline.world"),
    ("similarity", "tasks prompts llm session"),
])
def test_a_module_imports_what_it_needs_at_once(module, later):
    found = python(f"import sys, course_utils.{module}; print(*sys.modules)").split()
    assert not {f"course_utils.{name}" for name in later.split()} & set(found)


def project() -> dict:
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_torch_and_numpy_are_asked_for_in_train_only():
    extras = project()["optional-dependencies"]
    others = {"colab", "demo", "lab", "quantize", "open-models", "dev"}
    assert set(extras) == {"train", *others}
    assert "torch" in map(name_of, extras["train"])
    for group in (project()["dependencies"], *(extras[extra] for extra in others)):
        assert not {"torch", "numpy", "matplotlib", "torchvision"} & set(map(name_of, group))


@pytest.mark.parametrize(
    "names", [["constraints.txt"], ["tests/colab/image.txt", "constraints-colab.txt"]]
)
def test_each_stack_pins_every_direct_dependency(names):
    from packaging.requirements import Requirement

    lines = [line for n in names for line in (REPO / n).read_text(encoding="utf-8").splitlines()]
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    extras = project()["optional-dependencies"]
    for text in [*project()["dependencies"], *extras["train"], *extras["dev"], *extras["quantize"]]:
        wanted = Requirement(text)
        version = pins[wanted.name.replace("_", "-").lower()]
        assert wanted.specifier.contains(version), f"{names[-1]} pins {version}, but {text}"


def test_the_course_is_importable_before_anything_is_installed():
    python("from course_utils.plumbing import colab, secrets", "-S")  # without site-packages


def test_the_package_carries_its_data_files():
    tool = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    patterns = tool["setuptools"]["package-data"]["course_utils"]
    package = REPO / "course_utils"
    carried = {path for pattern in patterns for path in package.glob(pattern)}
    data = {p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert data == carried
    folders = {path.parent for path in package.rglob("*.py")}
    packages = {REPO.joinpath(*name.split(".")) for name in tool["setuptools"]["packages"]}
    assert folders == packages


def test_the_repository_stays_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True)
    files = [REPO / name for name in listed.stdout.split("\0") if name]  # none outside of git
    sizes = {path: path.stat().st_size for path in files if path.is_file()}
    real = sum(size for path, size in sizes.items() if "real" in path.parts)
    assert real < 12_000_000 and sum(sizes.values()) - real < 20_000_000


def test_the_style_is_kept():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "."],
        cwd=REPO, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


# --- make -------------------------------------------------------------------------------------


def make(*arguments: str, folder: Path = REPO, **environment: str) -> subprocess.CompletedProcess:
    # These tests may run under make themselves: nothing of that call may reach this one.
    ours = ("MAKE", "MFLAGS", "PYTHON", "STACK", "RECIPE", "DATA")
    outside = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**outside, **environment},
    )  # fmt: skip


@pytest.fixture
def bare(tmp_path):
    """A checkout with nothing in it but what setting up needs."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "constraints-colab.txt",
                 "tests/colab/image.txt", ".ci/setup"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    return tmp_path


def one_sentence(done: subprocess.CompletedProcess) -> str:
    """The message of a refusal: one line beside make's own, and nothing like a traceback."""
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def fake_python(path: Path, version: str) -> Path:
    """A program that answers .ci/setup's questions like another Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = int(tuple(map(int, version.split("."))) < (3, 11))
    path.write_text(f'#!/bin/sh\ncase "$2" in *print*) echo {version} ;; *) exit {old} ;; esac\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "target",
    ["setup", "course", "test", "faults", "notebooks", "base-model", "bench", "clean", "help",
     "release", "site", "site-test"],
)  # fmt: skip
def test_every_target_is_listed_and_has_a_recipe(target):
    assert f"  {target} " in make().stdout
    done = make("--dry-run", target, "REPO=kim/course", "TAG=v1")
    assert done.returncode == 0
    if target == "release":
        assert '-m tools.notebooks.release "kim/course" "v1"' in done.stdout
    if target == "clean":
        assert ".venv" in done.stdout and "runs" not in done.stdout


def test_the_colab_stack_has_its_own_environment_and_another_is_refused():
    commands = make("--dry-run", "test", STACK="colab").stdout
    assert ".venv-colab constraints-colab.txt" in commands and ".venv-colab/bin/python" in commands
    assert "default tests/colab/image.txt" in commands and "image" not in make("-n", "test").stdout
    assert "STACK=newest or STACK=colab" in make("setup", STACK="colba").stderr


def test_a_python_that_is_not_there_or_too_old(bare):
    assert "does not run" in one_sentence(make("setup", "PYTHON=no-python-here", folder=bare))
    old = fake_python(bare / "python3.9", "3.9")
    said = one_sentence(make("setup", f"PYTHON={old}", folder=bare))
    assert "is Python 3.9 and this course needs 3.11 or newer" in said
    assert not (bare / ".venv").exists()


def test_an_environment_that_is_broken_or_of_another_python(bare):
    (bare / ".venv" / "bin").mkdir(parents=True)
    said = one_sentence(make("setup", folder=bare))
    assert ".venv is broken" in said and "rm -rf .venv" in said
    fake_python(bare / ".venv" / "bin" / "python", "3.10")
    said = one_sentence(make("setup", f"PYTHON={sys.executable}", folder=bare))
    ours = "{}.{}".format(*sys.version_info)
    assert f".venv belongs to Python 3.10 and not to {ours}" in said and "rm -rf .venv" in said


def test_without_a_network_setup_says_so(bare):
    for name in ("course_utils", "README.md"):
        (bare / name).symlink_to(REPO / name)
    nowhere = "http://127.0.0.1:9/simple"
    done = make(
        "setup", f"PYTHON={sys.executable}", "STACK=colab", folder=bare,
        PIP_INDEX_URL=nowhere, PIP_EXTRA_INDEX_URL=nowhere, PIP_FIND_LINKS="",
        PIP_CONFIG_FILE=os.devnull, PIP_NO_CACHE_DIR="1",
    )  # fmt: skip
    said = one_sentence(done)
    assert "package index cannot be reached" in said and ".venv-colab/setup.log" in said
    assert (bare / ".venv-colab/setup.log").is_file()
