"""Whether what is installed can train: a package that refuses is one sentence, whatever it does."""

import shutil
import signal
import subprocess
from importlib.metadata import version

import pytest

from course_utils.plumbing import trial
from course_utils.plumbing.trial import explain, refusal


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
    plant("torch", "9.9.9", "import os; print('torch'); os.abort()")
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


@pytest.mark.parametrize("error", [
    RuntimeError("size changed, may indicate\n  binary incompatibility"),
    ImportError("numpy>=9 is required, but found numpy==2.1.3"),  # not to be uninstalled
    ImportError("Found an incompatible version of tokenizers. Found version 0.1"),
    ImportError("tokenizers>=0.22 is required. Try: `pip install transformers -U`"),
])
def test_what_training_needs_is_never_to_be_uninstalled(error):
    said = raised(error)
    message = " ".join(str(error).split())
    assert said == (
        f"peft {version('peft')} does not train here ({type(error).__name__}: {message}): "
        f"{trial.OLDER_IMAGE}."
    )
