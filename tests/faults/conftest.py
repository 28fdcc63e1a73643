"""Count the faults that the tests inject, for the table in the READMEs (`make faults`)."""

import datetime
import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest

RESULTS = Path(__file__).with_name("results.json")
COUNTS = ("injected", "runs", "right", "lost", "twice", "wrong", "over")
_found: dict[str, Counter] = {}
_start = time.monotonic()


@pytest.fixture
def record_fault():
    """A function that adds to a fault's row: record_fault("SIGKILL while judging", injected=20).

    `injected` is how often it really struck, `runs` how many runs it struck, of which `right` ended
    with the right result; `lost` counts replies that had arrived and were gone, `twice` replies
    that had arrived and were asked for again, `wrong` broken checkpoints that were believed,
    `over` budgets that were exceeded.
    """

    def record(fault: str, *, injected: int, runs: int = 1, right: int = 1, lost: int = 0,
               twice: int = 0, wrong: int = 0, over: int = 0) -> None:
        counts = (injected, runs, right, lost, twice, wrong, over)
        _found.setdefault(fault, Counter()).update(dict(zip(COUNTS, counts, strict=True)))

    return record


def pytest_sessionfinish(session, exitstatus):
    """Keep the counts of a full run; those of tests that did not run stay as they were."""
    if os.environ.get("FAULTS") != "all" or exitstatus != 0 or not _found:
        return
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    rows = before.get("rows", {}) | {
        fault: {name: counts[name] for name in COUNTS} for fault, counts in _found.items()
    }
    result = {
        "date": datetime.date.today().isoformat(),
        "minutes": round((time.monotonic() - _start) / 60, 1),
    }
    if not _found.keys() >= before.get("rows", {}).keys():  # only some of the tests ran
        result = {name: before[name] for name in result}
    result["rows"] = dict(sorted(rows.items()))
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
