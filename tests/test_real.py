"""The recorded run of a real teacher says what its own journal says; no model is needed."""

import runpy

from course_utils import REPO


def test_the_funnel_and_the_tasks_are_read_out_of_the_journal_again():
    found = runpy.run_path(str(REPO / "tests" / "benchmarks" / "real.py"))["check"]()
    funnel = found["funnel"]
    assert funnel["candidates"] == funnel["kept"] + sum(funnel["rejected"].values())
