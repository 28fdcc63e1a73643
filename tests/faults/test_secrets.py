"""A notebook leaves no key behind: not when it is done, nor when it fails with one in its hands.

That a whole course with its training leaves none is looked for in test_kill.py (make faults).
"""

import json
import os

import jupytext
import pytest

from tools.notebooks.kernel import NotebookFailed, execute

# Teacher and judge are asked, one is shown a key, all is sealed and told.
RUN = """
from course_utils import REPO
from course_utils.generate import generate_tasks
from course_utils.judge import Item, Judge
from course_utils.session import doctor
from course_utils.tasks import read_tasks

course = setup("offline")
work, judged = course.store.local("preprocess"), course.store.local("evaluate")
teacher = course.llm("teacher", work / "journal.jsonl")
generate_tasks(teacher, read_tasks(REPO / "data/seed_tasks.jsonl"), 20, out=work / "tasks.jsonl")
told = "The key is " + os.environ["OPENAI_API_KEY"]
Judge(course.llm("judge", judged / "journal.jsonl")).battle([Item("q", told, a="1", b=told)])
for step in ("preprocess", "evaluate"):
    course.store.seal(step, {"said": "done"})
print(doctor())
"""
KEYS = {"OPENAI_API_KEY": "sk-planted-openai-0f3b9c77d1", "HF_TOKEN": "hf_PlantedHubTokenQ7w3Lm0Z"}
CELLS = {
    "a library's error": "raise OSError(f'401 for token {os.environ[\"HF_TOKEN\"]}')",
    "an error from within another": (
        "try:\n    int(os.environ['OPENAI_API_KEY'])\n"
        "except ValueError as error:\n    raise RuntimeError('no number') from error"
    ),
    "the course's own": (
        "from course_utils import CourseError\n"
        "raise CourseError(f'refused {os.environ[\"OPENAI_API_KEY\"]}')"
    ),
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_failing_cell_saves_no_key(tmp_path, cell):
    source = "# %%\nimport os\nfrom course_utils.session import setup\nsetup('offline')\n"
    notebook = jupytext.reads(f"{source}\n# %%\n{cell}\n", fmt="py:percent")
    environment = {**KEYS, "RUNS": str(tmp_path), "DATA": "", "RECIPE": "offline"}
    with pytest.raises(NotebookFailed) as failed:
        execute(notebook, environment)
    saved = json.dumps(notebook) + str(failed.value) + failed.value.traceback
    assert "error" in [output.output_type for output in notebook.cells[-1].outputs]
    assert "[HF_TOKEN]" in saved or "[OPENAI_API_KEY]" in saved
    assert not [value for value in KEYS.values() if value in saved]
    assert not os.environ.keys() & KEYS.keys()


def test_a_finished_run_leaves_no_key(tmp_path):
    source = f"# %%\nimport os\nfrom course_utils.session import setup\n{RUN}"
    notebook = jupytext.reads(source, fmt="py:percent")
    execute(notebook, {**KEYS, "RUNS": str(tmp_path / "runs"), "DATA": "", "RECIPE": "offline"})
    (tmp_path / "notebook.json").write_text(json.dumps(notebook), encoding="utf-8")
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"MANIFEST.json", "journal.jsonl", "tasks.jsonl"} <= {path.name for path in left}
    assert any(b"The key is [OPENAI_API_KEY]" in data for data in left.values())  # it was there
    assert [(path, key) for path, data in left.items() for key in KEYS.values()
            if key.encode() in data] == []
