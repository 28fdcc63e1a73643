"""tools/colab/run.py with a stand-in for Google's command: its calls, what it keeps and writes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from course_utils.judge import Judge
from course_utils.llm import LLM
from tools.notebooks import cards
from tools.notebooks.kernel import REPO

WHOLE = """new upload exec 00_setup restart-kernel exec 01_preprocess restart-kernel exec 02_train
restart-kernel exec 03_evaluate stop""".split()
AS_FAR_AS_02 = [*WHOLE[:10], "stop"]


def interruptible():
    """As a terminal starts its commands: in the background of a script SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The archive of the checkout, packed once: the second `git` in PATH only copies it."""
    folder = tmp_path_factory.mktemp("packed")
    command = f"git archive -1 -o {folder}/course.tgz HEAD".split()
    subprocess.run(command, cwd=REPO, check=True)
    git = folder / "git"
    script = f'[ "$*" = "archive -1 -o $4 HEAD" ] && cp {folder}/course.tgz "$4"'
    git.write_text(f"#!/bin/sh\n{script}\n")
    git.chmod(0o755)
    return folder


@pytest.fixture
def colab(tmp_path, packed):
    """Return a function that runs the tool; what it kept and wrote is in its folder."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "colab"
    stand_in = Path(__file__).with_name("stand_in.py")
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {stand_in} "$@"\n')
    command.chmod(0o755)
    shutil.copy(cards.MEASURED, tmp_path / "measured.json")

    def run(fake="", path=f"{command.parent}:{packed}:{os.environ['PATH']}"):
        (tmp_path / "calls").write_text("")
        done = subprocess.run(
            [sys.executable, REPO / "tools/colab/run.py", "--gpu", "T4", "--preset", "quick",
             "--folder", tmp_path / "kept", "--into", tmp_path / "measured.json"],
            env={**os.environ, "PATH": path, "FAKE": fake, "CALLS": str(tmp_path / "calls")},
            capture_output=True, text=True, timeout=60, preexec_fn=interruptible,
        )  # fmt: skip
        return SimpleNamespace(
            code=done.returncode, said=done.stderr, calls=(tmp_path / "calls").read_text().split(),
            kept={path.name for path in (tmp_path / "kept").rglob("*_output.ipynb")},
            taken=(tmp_path / "kept/T4-quick/machine.json").exists(),
            untouched=(tmp_path / "measured.json").read_text() == cards.MEASURED.read_text(),
        )  # fmt: skip

    return run


def test_a_whole_run_fills_the_cards(colab, tmp_path, monkeypatch):
    done = colab(path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")  # with the real git
    assert (done.code, done.calls, done.taken) == (0, WHOLE, False), done.said
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert measured["02_train"]["T4"].items() >= {"seconds": 600, "gpu_gib": 7.1}.items()
    assert measured["02_train"]["offline"] == cards.measured()["02_train"]["offline"]
    assert measured["machines"]["T4"] == {
        "name": "GPU 0: Tesla T4 (UUID: GPU-1)", "python": "3.13.5",
        "packages": "torch==2.11.0 trl==1.16.0",
    }  # fmt: skip
    monkeypatch.setattr(cards, "MEASURED", tmp_path / "measured.json")
    card = cards.card("01_preprocess", "en")
    assert "| Colab T4, midm-2b-t4-quick (" in card
    assert "| 10 minutes | 7.1 GiB GPU, 3.2 GiB RAM | none |" in card
    assert "not measured" not in card and "not measured" in cards.card("05_demo", "en")


@pytest.mark.parametrize(
    "fake, code, calls, words",
    [
        ("login", 1, ["new"], ["logged in", "colab sessions"]),
        ("no entitlement", 1, ["new"], ["another"]),
        ("no quota", 1, ["new"], ["colab usage"]),
        ("another GPU", 1, [*WHOLE[:4], "stop"], ["NVIDIA L4", "not the T4"]),
        ("error", 1, AS_FAR_AS_02, ["02_train, cell 5", "and its last line", "_output.ipynb"]),
        ("nobody to ask", 1, [*WHOLE[:7], "stop"], ["offline recipe", "--keys"]),
        ("no end", 1, [*WHOLE[:7], "stop"], ["01_preprocess did not reach its end"]),
        ("lost", 1, AS_FAR_AS_02, ["02_train, cell 5", "took the machine away"]),
        ("broken connection", 1, AS_FAR_AS_02, ["02_train, cell 5", "--minutes"]),
        ("stop fails once", 0, [*WHOLE, "stop"], ["network"]),
        ("Ctrl-C while it is taken", 130, ["new", "stop"], ["Interrupted"]),
        ("Ctrl-C in a cell", 130, AS_FAR_AS_02, ["Interrupted"]),
        ("SIGTERM", 130, AS_FAR_AS_02, ["Interrupted"]),
        ("SIGHUP", 130, AS_FAR_AS_02, ["Interrupted"]),
    ],
)
def test_whatever_happens_the_machine_is_given_back(colab, fake, code, calls, words):
    done = colab(fake)
    assert (done.code, done.calls, done.taken) == (code, calls, False), done.said
    assert all(word in done.said for word in words) and "Traceback" not in done.said, done.said
    assert done.untouched == bool(code)
    if calls == AS_FAR_AS_02:
        assert done.kept >= {"01_preprocess_output.ipynb", "02_train_output.ipynb"}


def test_a_machine_that_could_not_be_given_back_is_shouted_about_and_the_next_run_does_it(colab):
    done = colab("no network")
    assert done.code == 1 and "MAY STILL BE RUNNING" in done.said and done.taken
    assert done.calls == [*WHOLE, "stop", "stop"]
    done = colab()
    assert (done.code, done.calls, done.taken) == (0, ["stop", *WHOLE], False)


def test_without_the_command_it_says_how_to_get_it(colab):
    git = str(Path(shutil.which("git")).parent)
    done = colab(path=git)
    assert done.code == 1 and "uv tool install google-colab-cli" in done.said and not done.calls


def test_the_meter_measures_and_empties_what_follows_a_failure(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPO / "tools" / "colab")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 2048\n")
    smi.chmod(0o755)
    import meter
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    measure = meter.Meter(shell)
    while not measure._gpu:
        time.sleep(0.01)
    course = SimpleNamespace(recipe=SimpleNamespace(name="offline"))
    llm = LLM("m", base_url="http://127.0.0.1:9/v1", api_key="none")
    assert Judge(llm).llm is llm  # what the cell after each notebook reads
    found = json.loads(measure.result(course, llm).removeprefix("MEASURED "))
    mine = psutil.Process().memory_info().rss / 2**30
    assert found["gpu_gib"] == 2 and mine / 2 < found["memory_gib"] < 100
    assert "pytest" in found["packages"] and found["dollars"] == 0 and found["seconds"] >= 0

    shell.run_cell("seen = 1", store_history=False)
    shell.run_cell("1 / 0", store_history=False)
    shell.run_cell("seen = 2", store_history=False)
    assert shell.user_ns["seen"] == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_meter_that_could_not_look_gives_no_figure(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPO / "tools" / "colab")
    monkeypatch.setattr("meter.LOOK", ["false"])
    import meter

    measure = meter.Meter(SimpleNamespace(events=SimpleNamespace(register=lambda *_: None)))
    measure._watching.join(10)
    with pytest.raises(RuntimeError, match="not watched"):
        measure.result(None, None)
