"""A notebook that fails with a key in its hands saves no trace of it, whoever raised the error.

That a whole run leaves no key behind is looked for in test_kill.py, where runs are.
"""

import json
import os

import jupytext
import pytest

from tools.notebooks.kernel import NotebookFailed, execute

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
