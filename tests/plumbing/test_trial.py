"""Whether what is installed can train: a package that refuses is one sentence, whatever it does."""

import shutil
import signal
import subprocess
from importlib.metadata import version

import pytest

from course_utils.plumbing import colab, trial
from course_utils.plumbing.trial import explain, refusal

asked_for = colab._asked  # the tests put another in its place


@pytest.fixture
def plant(monkeypatch, tmp_path):
    """Plant a package that other Python processes import, too: plant(name, version, code)."""

    def plant(name, number, code=""):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        about = tmp_path / f"{name}-{number}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
        return about

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return plant


def test_what_is_installed_here_trains_and_that_is_found_out_only_once(monkeypatch):
    assert refusal() is None
    monkeypatch.setattr(subprocess, "run", None)
    assert refusal() is None


def test_the_package_that_peft_refuses_is_named_with_what_to_do(plant):
    about = plant("torchao", "0.10.0", "__version__ = '0.10.0'")
    said = refusal()
    assert said.startswith(f"torchao 0.10.0 is refused by peft {version('peft')} (Found an ")
    assert said.endswith(": run `%pip uninstall -y torchao` in a cell, then this cell again.")
    for folder in (about, about.parent / "torchao"):
        shutil.rmtree(folder)
    assert refusal() is None  # as soon as it is gone


def test_a_library_that_ends_python_is_a_sentence(plant):
    plant("trl", "9.9.9", "import os; print('trl'); os.abort()")
    assert refusal() == (
        f"Python ended in the middle of one step (code {-signal.SIGABRT}): {trial.OLDER_IMAGE}."
    )


def raised(error, module="peft.tuners.lora"):
    code = compile("def fail(error): raise error", "x", "exec")
    space = {"__name__": module}
    exec(code, space)
    try:
        space["fail"](error)
    except Exception as caught:
        return explain(caught)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size changed, may indicate\n  binary incompatibility"),
        ImportError("numpy>=9 is required, but found numpy==2.1.3"),  # not to be uninstalled
        ImportError("cannot import name 'x' from 'tokenizers' (/usr/lib/pytest/tokenizers)"),
        ImportError("tokenizers>=0.22 is required. Try: `pip install transformers -U`"),
    ],
)
def test_what_training_needs_is_never_to_be_uninstalled(error):
    said = raised(error)
    message = " ".join(str(error).split())
    assert said == (
        f"peft {version('peft')} does not train here ({type(error).__name__}: {message}): "
        f"{trial.OLDER_IMAGE}."
    )


# --- installing -----------------------------------------------------------------------------------


@pytest.fixture
def pip(plant, tmp_path, monkeypatch):
    """A pip that writes down what it was asked, and fails as it is told."""

    def pip(stderr="", code=0):
        plant("pip", "1", f"import sys, os\nopen({str(tmp_path / 'asked')!r}, 'a').write("
              f"' '.join(sys.argv[1:]) + chr(10))\nsys.stderr.write({stderr!r})\n")  # fmt: skip
        (tmp_path / "pip/__main__.py").write_text(f"import sys; sys.exit({code})\n")
        return tmp_path / "asked"

    there = {"torch": "2.11.0+cu128", "numpy": "2.1.3", "datasets": "4.0.0"}
    monkeypatch.setattr(colab, "installed", lambda: dict(there))
    monkeypatch.setattr(colab, "_asked", lambda: {"datasets"})
    pip.there = there
    return pip


def test_torch_and_numpy_are_held_and_what_changed_is_one_line(pip, monkeypatch, capsys):
    asked = pip()
    run, held = subprocess.run, []

    def watched(command, **settings):
        if "-c" in command:
            held.append(open(command[command.index("-c") + 1]).read())
        done = run(command, **settings)
        pip.there |= {"datasets": "5.2.0", "trl": "1.16.0", "course_utils": colab.__version__}
        return done

    monkeypatch.setattr(subprocess, "run", watched)
    colab.install()
    assert held == ["torch==2.11.0+cu128\nnumpy==2.1.3\n"]
    assert capsys.readouterr().out == (
        f"Installed   datasets 4.0.0 -> 5.2.0; new: course_utils {colab.__version__}, trl 1.16.0\n"
    )
    colab.install()
    assert capsys.readouterr().out == "" and asked.read_text().count("\n") == 1


def test_a_checkout_that_asks_for_more_is_installed_again(pip, monkeypatch):
    assert {"openai", "python_dotenv", "scipy", "trl", "gradio"} <= asked_for()
    asked = pip()
    pip.there |= {"course_utils": colab.__version__}
    colab.install()
    assert not asked.exists()
    monkeypatch.setattr(colab, "_asked", lambda: {"datasets", "something_new"})
    colab.install()
    assert "[colab]" in asked.read_text()


@pytest.mark.parametrize(("number", "goes"), [("0.10.0", True), ("0.16.0", False), ("1.0", False)])
def test_only_a_version_that_is_refused_is_removed(pip, number, goes):
    asked = pip()
    pip.there |= {"course_utils": colab.__version__, "torchao": number}
    colab.install()
    assert ("uninstall -y torchao" in asked.read_text() if asked.exists() else False) == goes


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n"
         "  ERROR: No matching distribution found for trl\nerror: subprocess-exited-with-error\n",
         "the package index cannot be reached (pip: No matching distribution found for trl)"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device\n",
         "the disk is full (pip: Could not install packages: [Errno 28]"),
        ("ERROR: Cannot install course-utils because these package versions conflict.\n\n",
         "pip failed (pip: Cannot install course-utils because these package versions conflict)"),
        ("", "pip failed (pip: nothing)"),
    ],
    ids=["network", "disk", "conflict", "silent"],
)  # fmt: skip
def test_pips_failure_is_one_sentence(pip, stderr, words):
    pip(stderr, code=2)
    with pytest.raises(colab.CourseError) as error:
        colab.install()
    said = str(error.value)
    assert words in said and said.endswith(".") and "\n" not in said


def test_what_lies_in_the_checkout_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(colab, "REPO", tmp_path)
    about = tmp_path / "course_utils.egg-info"
    about.mkdir()
    (about / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: left-over\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "left_over" not in colab.installed() and "pytest" in colab.installed()
