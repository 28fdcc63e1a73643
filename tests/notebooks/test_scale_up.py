"""Notebook 04 from its first cell to its last: its claims are asserts, and two processes run."""

import kernel
import pytest


@pytest.mark.slow
def test_scale_up_runs_without_a_gpu(tmp_path):
    source = kernel.read_source(kernel.SOURCES / "04_scale_up.py")
    kernel.execute(source, {"RUNS": str(tmp_path), "DATA": "", "RECIPE": "offline"})
