"""The table of faults in both READMEs is what `make faults` counted."""

import json
import subprocess
import sys
from pathlib import Path

from course_utils import REPO

HERE = Path(__file__).parent


def test_the_readmes_say_what_was_counted():
    check = subprocess.run([sys.executable, HERE / "readme.py", "--check"], cwd=REPO,
                           capture_output=True, text=True)  # fmt: skip
    assert check.returncode == 0, check.stdout + check.stderr


def test_what_was_counted_is_what_is_promised():
    rows = json.loads((HERE / "results.json").read_text(encoding="utf-8"))["rows"]
    kills = [row["injected"] for fault, row in rows.items() if "SIGKILL" in fault]
    assert sum(kills) >= 50
    for fault, row in rows.items():
        assert row["right"] == row["runs"] and row["injected"] > 0, fault
        assert (row["lost"], row["twice"], row["wrong"]) == (0, 0, 0), fault
