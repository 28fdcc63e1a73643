"""The table of faults in both READMEs is what `make faults` counted."""

import json

from tests.benchmarks.readme import fill
from tests.faults.readme import RESULTS, block


def test_the_readmes_say_what_was_counted():
    assert fill("faults", block, check=True) == [], "run python -m tests.faults.readme"


def test_what_was_counted_is_what_is_promised():
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    assert sum(row["injected"] for fault, row in rows.items() if "SIGKILL" in fault) >= 50
    for fault, row in rows.items():
        assert row["right"] == row["runs"] and row["injected"] > 0, fault
        assert not any(row.get(name) for name in ("lost", "twice", "wrong", "over")), fault
