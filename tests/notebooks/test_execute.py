"""Notebooks 04 and 05 from their first cells to their last; tests/faults runs 01 to 03."""

import pytest
from conftest import chromium

from tools.notebooks import kernel


@pytest.mark.slow
@pytest.mark.parametrize("name", ["04_scale_up", "05_demo"])
def test_it_runs_without_a_gpu(tmp_path, name):
    if name == "05_demo" and chromium():
        pytest.skip("test_jupyter.py runs it in a browser")
    source = kernel.read_source(kernel.SOURCES / f"{name}.py")
    kernel.execute(source, {"RUNS": str(tmp_path), "DATA": "", "RECIPE": "offline"})
