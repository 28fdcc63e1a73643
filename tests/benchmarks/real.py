"""What a real small teacher writes: Qwen2.5-Coder 1.5B, asked as notebook 01 asks, recorded once.

    python tests/benchmarks/real.py                  check the record; needs no model
    python tests/benchmarks/real.py --hours 2        go on with it, while `make teacher` runs

assets/real holds the journal, the tasks that were kept, and funnel.json: what became of every
candidate. The check reads the same out of the journal again.
"""

import argparse
import json
import tempfile
import time
from itertools import count
from pathlib import Path

from course_utils import REPO
from course_utils.generate import GenerationReport, generate_tasks
from course_utils.llm import LLM
from course_utils.tasks import read_tasks, write_atomic

REAL = REPO / "assets" / "real"
MODEL = "qwen2.5-coder-1.5b-instruct"
BATCH = 8  # tasks asked for at a time: a small teacher loses its way in longer replies


def generate(n: int, out: Path, url: str = "http://127.0.0.1:9/v1") -> tuple[dict, int]:
    """The funnel of n tasks, written to `out`, and how many replies were asked for; at the default
    address nobody answers, so that the journal has to."""
    llm = LLM(MODEL, base_url=url, journal=REAL / "teacher.jsonl", workers=1, timeout=1800,
              max_retries=0)
    before = len(llm.journal)
    report: GenerationReport = generate_tasks(
        llm, read_tasks(REPO / "data" / "seed_tasks.jsonl"), n, out=out, batch=BATCH,
        progress=False)
    names = ("candidates", "kept", "rejected", "calls", "tokens", "note")
    return {name: getattr(report, name) for name in names}, len(llm.journal) - before


def teach(hours: float, url: str) -> None:
    """Generate ten tasks more at a time, until the teacher runs dry or the hours are over."""
    end, kept = time.monotonic() + 3600 * hours, read_funnel()["kept"]
    for n in count(kept + 10, 10):
        start = time.monotonic()
        funnel, asked = generate(n, REAL / "tasks.jsonl", url)
        seconds = read_funnel()["seconds"] + (time.monotonic() - start if asked else 0)
        text = json.dumps(funnel | {"seconds": round(seconds)}, ensure_ascii=False, indent=1)
        write_atomic(REAL / "funnel.json", text + "\n")
        print(text, flush=True)
        if funnel["note"] or time.monotonic() > end:
            return


def read_funnel() -> dict:
    path = REAL / "funnel.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {
        "kept": 0, "seconds": 0}


def check() -> dict:
    """Read the funnel and the tasks out of the journal again; raises where they are others."""
    recorded = read_funnel()
    with tempfile.TemporaryDirectory() as folder:
        funnel, _ = generate(recorded["kept"], Path(folder) / "tasks.jsonl")
        assert funnel | {"seconds": recorded["seconds"]} == recorded
        assert read_tasks(Path(folder) / "tasks.jsonl") == read_tasks(REAL / "tasks.jsonl")
    return recorded


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=0)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    options = parser.parse_args()
    if options.hours:
        teach(options.hours, options.url)
    print(check())
