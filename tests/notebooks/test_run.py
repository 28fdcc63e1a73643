"""run.py on three small notebooks: progress, the table, one sentence for what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from course_utils import CourseError
from tools import REPO
from tools.notebooks import kernel, run

HEAD = """
# %% [markdown] lang="ko"
# ## 준비
# %% [markdown] lang="en"
# ## Preparation
# %%
import json, os, pathlib
from course_utils.checkpoint import CheckpointStore

(home,) = pathlib.Path(os.environ["RUNS"]).iterdir()  # the runner has made it
store = CheckpointStore.open(home.name, home.parent)

def seal(step, **files):
    for name, content in files.items():
        (store.local(step) / f"{name}.json").write_text(json.dumps(content))
    store.seal(step)

# %% [markdown] lang="ko"
# ## 일
# %% [markdown] lang="en"
# ## Work
# %%
"""
BODIES = {
    "01_preprocess": 'seal("preprocess", funnel={"candidates": 5, "kept": 4})',
    "02_train": 'seal("train", result={"first_loss": 2.0, "last_loss": 0.5})',
    "03_evaluate": 'seal("evaluate", summary={"unseen": {"n": 2, "before": 0, "after": 1}})',
    "04_scale": 'raise SystemExit("not part of the spine")',
}
WHOLE = "\n".join(list(BODIES.values())[:3])


def write(path, body):
    path.write_text((HEAD + body + "\n").lstrip(), encoding="utf-8")


@pytest.fixture
def spine(monkeypatch, tmp_path):
    """Three notebooks and a fourth that the course must not run."""
    folder = tmp_path / "src"
    folder.mkdir()
    for name, body in BODIES.items():
        write(folder / f"{name}.py", body)
    monkeypatch.setattr(kernel, "SOURCES", folder)
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    for name in ("RECIPE", "DATA", "PRESET"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_the_course_ends_with_one_table(spine, tmp_path, capsys):
    assert run.main([]) == 0
    out = capsys.readouterr().out
    for words in ("01_preprocess", "  Preparation", "  Work", " s\n", "tasks generated", "2.000"):
        assert words in out
    assert out.index("01_preprocess") < out.index("02_train") < out.index("03_evaluate")
    assert "04_scale" not in out
    home = tmp_path / "runs" / "offline"
    assert (home / "report.md").is_file()
    for language in ("ko", "en"):
        names = sorted(path.stem for path in (home / "notebooks" / language).iterdir())
        assert names == ["01_preprocess", "02_train", "03_evaluate"]


def only(spine, body):
    """One notebook in the place of the three."""
    for path in spine.iterdir():
        path.unlink()
    write(spine / "02_train.py", body)


def test_a_failing_cell_or_kernel_is_one_sentence_and_a_file(spine, tmp_path, capsys):
    only(spine, "from course_utils import CourseError\n"
         "raise CourseError('The disk is full: make room.')")  # fmt: skip
    assert run.main([]) == 1
    said = capsys.readouterr().err
    assert "02_train, 'Work': The disk is full: make room." in said
    assert "Traceback" not in said and said.count("\n") <= 3
    error = tmp_path / "runs" / "offline" / "notebooks" / "02_train.error.txt"
    assert str(error.name) in said and "CourseError" in error.read_text("utf-8")
    executed = json.loads((error.parent / "ko" / "02_train.ipynb").read_text("utf-8"))
    assert executed["cells"][-1]["outputs"][-1]["output_type"] == "error"
    only(spine, "os._exit(9)")
    assert run.main([]) == 1
    assert "02_train, 'Work': The kernel ended" in capsys.readouterr().err
    # Mended and run again, the trace of the failure is gone.
    only(spine, WHOLE)
    assert run.main([]) == 0 and not error.exists()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_runner_that_ends_leaves_no_kernel(spine, tmp_path, ending):
    only(spine, "import time\n(home / 'pid').write_text(str(os.getpid()))\ntime.sleep(120)")
    code = "import pathlib, sys; from tools.notebooks import kernel, run"
    code += "; kernel.SOURCES = pathlib.Path(sys.argv[1]); sys.exit(run.main([]))"
    runner = subprocess.Popen(
        [sys.executable, "-c", code, str(spine)], text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    try:
        noted = tmp_path / "runs" / "offline" / "pid"
        assert soon(lambda: noted.is_file() and noted.read_text(), 60)
        runner.send_signal(ending)
        said = runner.communicate(timeout=30)[1]
        if ending == signal.SIGINT:
            assert runner.returncode == 130
            assert said.strip() == "Interrupted; the same command goes on from here."
        assert soon(lambda: not psutil.pid_exists(int(noted.read_text())), 10)
    finally:
        runner.kill()
        runner.communicate()


def soon(true, seconds):
    """Whether something becomes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def refused(capsys, *arguments) -> str:
    """The one sentence with which the runner refuses before it starts any kernel."""
    start = time.monotonic()
    assert run.main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert time.monotonic() - start < 1 and "01_preprocess" not in captured.out
    (sentence,) = captured.err.strip().split("\n")
    return sentence


GOOD = '{"instruction": "답하세요.", "input": "", "output": "네"}\n'
BAD_DATA = {
    "empty": (b"", "mine.json"),
    "broken at line 17": ((GOOD * 16 + '{"instruction": \n').encode(), "mine.json:17"),
}


@pytest.mark.parametrize("content, words", BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_refused_before_anything_starts(spine, tmp_path, capsys, content, words):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    assert words in refused(capsys, "--data", path)
    assert "mine.json" in refused(capsys, "--data", path)
    assert not (tmp_path / "runs").exists()


def test_data_or_a_recipe_that_is_not_there(spine, tmp_path, capsys):
    assert "nothing.json" in refused(capsys, "--data", tmp_path / "nothing.json")
    assert "the closest is 'offline'" in refused(capsys, "--recipe", "ofline")


def test_a_preset_and_own_data_have_a_run_of_their_own(spine, tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.jsonl"
    path.write_text(GOOD, encoding="utf-8")
    monkeypatch.setenv("PRESET", "quick")
    same = "from course_utils.session import setup\nassert setup().store.run == home.name\n"
    only(spine, same + WHOLE)
    assert run.main(["--data", str(path)]) == 0
    (home,) = (tmp_path / "runs").iterdir()
    assert home.name.startswith("offline-quick-mine-") and (home / "report.md").is_file()
    assert "tasks in mine.jsonl" in capsys.readouterr().out


def test_a_second_runner_is_refused(tmp_path):
    with run.only_one_here(tmp_path):
        with pytest.raises(CourseError, match="Another 'make course' is working in"):
            run.only_one_here(tmp_path)
    with run.only_one_here(tmp_path):
        pass
